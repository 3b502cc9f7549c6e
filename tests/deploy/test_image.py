"""The Dockerfile without an engine: what it copies is let in, its health check tells the truth.

`make image-check` builds it and runs a city from it.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.system.city import free_port

ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()


def test_what_is_copied_is_let_in_and_nothing_else_is() -> None:
    copied = {
        word.rstrip("/")
        for line in LINES
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [rule for rule in rules if not rule.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize(("answer", "status"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_tells_whether_the_service_is_ready(
    answer: int | None, status: int
) -> None:
    check = next(line for line in LINES if line.startswith("HEALTHCHECK"))
    _python, *words = json.loads(check[check.index("[") :])
    with readiness(answer) as port:
        done = subprocess.run(
            [sys.executable, *words],
            env={"MOTCUA_PORT": str(port)},
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == status


@contextmanager
def readiness(answer: int | None) -> Iterator[int]:
    """Answer `readyz` with a status; None: nobody listens."""
    if answer is None:
        yield free_port()
        return
    found = answer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(found if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()

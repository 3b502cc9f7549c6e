"""Starts the city, or one service of it, as a process and calls it as a client would."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from libs.common.auth import DevelopmentIssuer
from tests.started import Process, Run, Started, as_command
from tests.support import reachable_folder

UNIT = "H29.26740"
STREAMS = (f"/v1/units/{UNIT}/queue/stream", "/v1/queue/overview/stream")
PROCEDURE = "2.000815"
APPLICANT = {
    "kind": "citizen",
    "name": "Trần Thị Bình",
    "id_number": "079190001234",
    "phone": "0903123456",
}


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: str | Path | int) -> dict[str, str]:
    """Give this process's environment with other settings and none of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOTCUA_")}
    return kept | {f"MOTCUA_{name.upper()}": str(value) for name, value in settings.items()}


def key() -> dict[str, str]:
    """Make a fresh idempotency key."""
    return {"Idempotency-Key": str(uuid4())}


@dataclass
class City:
    """A running city, or a service of it."""

    process: Process
    base: str
    data: Path
    log: Path

    def client(self) -> httpx.Client:
        """Open a client to the door."""
        return httpx.Client(base_url=self.base, timeout=20)

    def bearer(self, role: str, *units: str, subject: str | None = None) -> dict[str, str]:
        """Sign a token with the data folder's development key."""
        name = subject or "-".join((role, *units))
        token = DevelopmentIssuer(self.data).token(role, subject=name, units=units)
        return {"Authorization": f"Bearer {token}"}

    def wait_until_ready(self, within: float = 60) -> None:
        """Wait for the first 200 of `readyz`."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text("utf-8")[-4000:]
            try:
                if httpx.get(f"{self.base}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.log.read_text('utf-8')[-4000:]}")

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal and wait for the end; answer how many seconds it took."""
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(20)
        return time.monotonic() - started


@contextmanager
def embedded(data: Path, **settings: str | int | Path) -> Iterator[City]:
    """Run the whole city in one process on a data folder."""
    with _embedded(data, Started, settings) as city:
        yield city


@contextmanager
def embedded_by_command(data: Path) -> Iterator[City]:
    """Run it as a person does, importing everything anew."""
    with _embedded(data, as_command, {}) as city:
        yield city


@contextmanager
def _embedded(data: Path, run: Run, settings: dict[str, str | int | Path]) -> Iterator[City]:
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    env = environment(port=port, data_dir=data, **settings)
    with _process(["-m", "services.embedded"], data, port, env, run=run) as city:
        city.wait_until_ready()
        yield city


@contextmanager
def made_before(**settings: str | int | Path) -> Iterator[Path]:
    """Give the data folder of a city that was started once and has stopped.

    Tests that are not about a first start begin with a copy: it takes a third of the time.
    """
    with reachable_folder() as folder:
        with embedded(folder, **settings):
            pass
        yield folder


def copy_of(made: Path, folder: Path) -> None:
    """Copy a data folder, with who owns what, into an empty one."""
    subprocess.run(["cp", "-a", f"{made}/.", folder], check=True)


@contextmanager
def service(name: str, port: int, data: Path, **settings: str | int | Path) -> Iterator[City]:
    """Run one service alone."""
    told = environment(port=port, data_dir=data, **settings)
    with _process(["-m", f"services.{name}"], data, port, told, f"{name}-{port}") as running:
        yield running


@contextmanager
def _process(
    command: list[str],
    data: Path,
    port: int,
    env: dict[str, str],
    name: str = "city",
    run: Run = Started,
) -> Iterator[City]:
    log = data / f"{name}.log"
    process = run(command, env, log)
    city = City(process, f"http://127.0.0.1:{port}", data, log)
    try:
        yield city
    finally:
        if process.poll() is None:
            city.stop()


@contextmanager
def watched(city: City, *paths: str) -> Iterator[list[Iterator[str]]]:
    """Hold live streams open; give the lines of each after its first."""
    with ExitStack() as stack:
        client = stack.enter_context(city.client())
        lines = []
        for path in paths:
            answer = stack.enter_context(client.stream("GET", path))
            assert answer.status_code == 200
            lines.append(answer.iter_lines())
            next(lines[-1])
        yield lines


def visit(city: City, client: httpx.Client, unit: str = UNIT) -> dict[str, Any]:
    """Play one visit: ticket, call, start, dossier to its return, finish."""
    officer = city.bearer("officer", unit)

    def post(path: str, body: Any = None, headers: dict[str, str] = officer) -> Any:
        answer = client.post(path, json=body, headers=headers | key())
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    opened = client.put(f"/v1/units/{unit}/counters/1", json={"state": "open"}, headers=officer)
    assert opened.status_code == 200, opened.text
    wish = {"unit": unit, "channel": "web", "procedure_codes": [PROCEDURE]}
    ticket = post("/v1/tickets", wish, headers={})
    called = post(f"/v1/units/{unit}/counters/1/call-next")
    assert called["id"] == ticket["id"]
    post(f"/v1/tickets/{ticket['id']}/start")
    dossier = post(
        "/v1/dossiers",
        {
            "procedure_code": PROCEDURE,
            "receiving_unit": unit,
            "channel": "direct",
            "applicant": APPLICANT,
            "components": [],
            "ticket_id": ticket["id"],
        },
    )
    for step in ("assign", "complete", "return"):
        dossier = post(f"/v1/dossiers/{dossier['code']}/{step}")
    finished = post(f"/v1/tickets/{ticket['id']}/finish")
    return {"ticket": finished, "dossier": dossier}


def report_of(city: City, client: httpx.Client, week: str, unit: str = UNIT) -> Any:
    """Read a unit's weekly report as the city office."""
    path = f"/v1/reports/weekly/{week}"
    answer = client.get(path, params={"unit": unit}, headers=city.bearer("city"))
    assert answer.status_code == 200, answer.text
    return answer.json()["city"]


def wait_for(condition: Any, within: float, what: str) -> None:
    """Poll until a condition holds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.02)

"""The real Prometheus and Alertmanager over a running city, and who they wake.

They load the files of `deploy/monitoring`, changed in three ways: other addresses, where asked for
shorter intervals, and durations of alerts divided by the speed of the city's clock.
"""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from deploy import monitoring
from libs.common.children import dying_with_parent
from tests.monitoring import program
from tests.system.city import free_port, wait_for

FILES: Final = Path(monitoring.__file__).parent


@dataclass(frozen=True, slots=True)
class Message:
    """An alert as the webhook got it, and when, in Unix seconds."""

    at: float
    alert: dict[str, Any]

    def tells(self, name: str, status: str, unit: str) -> bool:
        """Tell whether it is of an alert of a unit that begins (`firing`) or ends (`resolved`)."""
        labels = self.alert["labels"]
        told = (labels["alertname"], self.alert["status"], labels.get("unit"))
        return told == (name, status, unit)


@dataclass
class Watch:
    """Who is woken: what came in at the webhook, in order."""

    messages: list[Message] = field(default_factory=list)

    def wait(self, name: str, status: str, unit: str, *, within: float, since: int = 0) -> Message:
        """Wait for a message that came after the first `since` ones."""

        def found() -> Message | None:
            told = self.messages[since:]
            return next((each for each in told if each.tells(name, status, unit)), None)

        wait_for(found, within, f"{name} {status} at {unit}; came: {self.messages[since:]}")
        message = found()
        assert message is not None
        return message


@contextmanager
def watching(
    target: str, folder: Path, *, speed: float = 1.0, every: str | None = None
) -> Iterator[Watch]:
    """Let Prometheus watch a city at `host:port` whose clock goes so fast.

    `every` is how often it looks, and how long Alertmanager gathers; unset, as we deploy it.
    """
    watch = Watch()
    prometheus, alertmanager = free_port(), free_port()
    with _webhook(watch) as hook:
        _write(folder, f"127.0.0.1:{alertmanager}", target, hook, speed, every)
        with (
            _running(
                "alertmanager", folder, alertmanager, "storage.path", "--cluster.listen-address="
            ),
            _running("prometheus", folder, prometheus, "storage.tsdb.path"),
        ):
            yield watch


def _write(
    folder: Path, alertmanager: str, target: str, hook: str, speed: float, every: str | None
) -> None:
    (folder / "rules").mkdir()
    for file in FILES.glob("rules/*.yaml"):
        rules = at_speed(yaml.safe_load(file.read_text("utf-8")), speed)
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules), "utf-8")
    ours = yaml.safe_load((FILES / "prometheus.yml").read_text("utf-8"))
    ours["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [alertmanager]}]
    ours["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    theirs = yaml.safe_load((FILES / "alertmanager.yml").read_text("utf-8"))
    theirs["receivers"][0]["webhook_configs"] = [{"url": hook}]
    if every is not None:
        for name in ("scrape_interval", "scrape_timeout", "evaluation_interval"):
            ours["global"][name] = every
        theirs["route"] |= {"group_wait": "0s", "group_interval": every}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(ours), "utf-8")
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(theirs), "utf-8")


def at_speed(rules: dict[str, Any], speed: float) -> dict[str, Any]:
    """Divide alerts' durations by a clock's speed: they go by the wall, waits by that clock."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            for name in rule.keys() & {"for", "keep_firing_for"}:
                minutes = int(rule[name].removesuffix("m"))
                rule[name] = f"{round(minutes * 60_000 / speed)}ms"
    return rules


@contextmanager
def _webhook(watch: Watch) -> Iterator[str]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            at = time.time()
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            watch.messages += [Message(at, alert) for alert in told["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@contextmanager
def _running(name: Any, folder: Path, port: int, storage: str, *more: str) -> Iterator[None]:
    command = [
        program(name), f"--config.file={folder / name}.yml", f"--{storage}={folder / name}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn", *more,
    ]  # fmt: skip
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=dying_with_parent(signal.SIGTERM)
        )
    try:
        wait_for(lambda: _ready(port, process), 30, f"{name} is ready")
        yield
    finally:
        process.terminate()
        process.wait(20)


def _ready(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"{process.args!r} has ended: see its log"
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/-/ready").status_code == 200
    return False


@dataclass(frozen=True, slots=True)
class Pace:
    """How a city's virtual clock relates to the wall's."""

    start: datetime
    anchor: float
    speed: float

    @classmethod
    def of(cls, client: httpx.Client) -> "Pace":
        """Ask a city for its clock."""
        clock = client.get("/version").json()["clock"]
        return cls(datetime.fromisoformat(clock["start"]), clock["anchor"], clock["speed"])

    def wall(self, at: str, seconds: float) -> float:
        """Give the Unix seconds at which so many virtual seconds have passed since an instant."""
        passed = (datetime.fromisoformat(at) - self.start).total_seconds() + seconds
        return self.anchor + passed / self.speed

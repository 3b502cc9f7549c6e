"""`make demo`: a city of its own, twelve units, a morning, in under two minutes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time as wall
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import time
from pathlib import Path
from typing import Final

from rich.console import Console

from services.simulate import show
from services.simulate.run import run
from services.simulate.settings import Refused, Settings

START: Final = "2026-11-16T07:25+07:00"
"""A Monday morning, five minutes before the doors open."""

SPEED: Final = 180
UNITS: Final = 12
UNTIL: Final = time(11, 30)
FOLDER: Final = Path(".motcua/demo")


def main() -> int:
    """Start the city, play, show the table, stop the city; answer the exit status."""
    out = show.console()
    _clear(FOLDER)
    try:
        with _city(FOLDER, out) as base:
            settings = Settings(url=base, data_dir=FOLDER, units=UNITS, until=UNTIL)
            with show.progress() as watch:
                outcome = run(settings, watch)
    except Refused as refused:
        out.print(str(refused), style="bold red", markup=False)
        return 2
    show.show(outcome, out)
    return outcome.status


def _clear(folder: Path) -> None:
    """Remove what the last demo left, also where root's PostgreSQL had to put it."""
    note = folder / "postgres" / "WHERE.txt"
    if note.exists():
        elsewhere = Path(note.read_text("utf-8").splitlines()[0])
        if elsewhere.parent == Path("/var/lib/motcua"):
            shutil.rmtree(elsewhere, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@contextmanager
def _city(folder: Path, out: Console) -> Iterator[str]:
    """Run the embedded city on a free port until the block ends; give its address.

    Raises:
        Refused: it did not become ready.
    """
    base = f"http://127.0.0.1:{(port := _free_port())}"
    ours = {
        name: value
        for name, value in os.environ.items()
        if name == "MOTCUA_POSTGRES_BIN" or not name.startswith("MOTCUA_")
    }
    ours |= {
        "MOTCUA_PORT": str(port),
        "MOTCUA_DATA_DIR": str(folder),
        "MOTCUA_CLOCK": f"{START},x{SPEED}",
        "MOTCUA_HOURS": "official",
    }
    log = folder / "city.log"
    with log.open("wb") as written:
        # Its own session: Ctrl-C is for the play, which still needs the city to end well.
        city = subprocess.Popen(
            [sys.executable, "-m", "services.embedded"], env=ours, stdout=written,
            stderr=written, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(base, city, log)
        out.print(f"The city is at {base} while it plays; its log is {log}. Look at")
        for path, what in (
            ("/", "the start page"),
            ("/docs", "the API"),
            ("/v1/queue/overview", "how loaded each unit is, the longest wait first"),
            ("/metrics", "the figures alerts stand on"),
        ):
            out.print(f"  {base}{path}  {what}")
        yield base
    finally:
        city.send_signal(signal.SIGTERM)
        city.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(base: str, city: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = wall.monotonic() + 60
    while wall.monotonic() < ends and city.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=5):  # noqa: S310  (our own)
                return
        except (urllib.error.URLError, OSError):
            wall.sleep(0.1)
    said = log.read_text("utf-8", errors="replace").splitlines()
    raise Refused("the city did not start; it said:\n" + "\n".join(said[-10:]))


if __name__ == "__main__":
    sys.exit(main())

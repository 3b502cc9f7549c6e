"""`make kafka`, `make kafka-stop`: a broker that stays; and a command with one beside it."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

from deploy.kafka.broker import Broker
from deploy.kafka.server import CannotRun

STOP_SECONDS = 20
BOOTSTRAP = "MOTCUA_KAFKA_BOOTSTRAP"


def main() -> int:
    """Start or stop the broker of a data folder; answer the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.kafka", description=__doc__, epilog="beside: -- COMMAND [ARG ...]"
    )
    parser.add_argument("what", choices=["start", "stop", "beside"])
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--data", type=Path, default=Path(".motcua"))
    ours = [*takewhile(lambda word: word != "--", sys.argv[1:])]
    command = sys.argv[len(ours) + 2 :]
    asked = parser.parse_args(ours)
    folder = asked.data / "kafka"
    try:
        if asked.what == "beside":
            return run_beside(folder, command)
        print(start(folder, asked.port) if asked.what == "start" else stop(folder))
    except CannotRun as error:
        print(f"make kafka: {error}", file=sys.stderr)
        return 1
    return 0


def start(folder: Path, port: int) -> str:
    """Start the broker of a folder unless it runs; say where it is.

    Raises:
        CannotRun: it cannot start, or runs on another port.
    """
    if running := _running(folder):
        if running["port"] != port:
            raise CannotRun(
                f"the broker of {folder} runs on port {running['port']}: `make kafka-stop` first"
            )
        return f"Kafka already runs on 127.0.0.1:{port} (process {running['pid']})"
    broker = Broker(folder, port=port)
    print("starting Kafka (the first time Maven brings it, about 45 MB)", flush=True)
    broker.start(outlives_us=True)
    _note(folder).write_text(json.dumps({"pid": broker.pid, "port": port}), "utf-8")
    return (
        f"Kafka runs on {broker.bootstrap} (process {broker.pid}, log {broker.log_file})\n"
        f"export MOTCUA_KAFKA_BOOTSTRAP={broker.bootstrap}"
    )


def stop(folder: Path) -> str:
    """Stop the broker of a folder if it runs, and wait until it is gone."""
    running = _running(folder)
    if running is None:
        _note(folder).unlink(missing_ok=True)
        return f"no broker runs on {folder}"
    pid = running["pid"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(pid, number)
        end = time.monotonic() + STOP_SECONDS
        while _running(folder) and time.monotonic() < end:
            time.sleep(0.05)
        if not _running(folder):
            break
    _note(folder).unlink(missing_ok=True)
    return f"Kafka has stopped (process {pid}); its data stays in {folder}"


def run_beside(folder: Path, command: Sequence[str]) -> int:
    """Run a command with `MOTCUA_KAFKA_BOOTSTRAP` set; answer its exit status.

    The broker is the one that is named there already, else the one that runs on the folder, else
    one that starts before the command and stops after it.

    Raises:
        CannotRun: it cannot start.
    """
    with ExitStack() as stack:
        environment = dict(os.environ)
        if not environment.get(BOOTSTRAP):
            running = _running(folder)
            environment[BOOTSTRAP] = (
                f"127.0.0.1:{running['port']}"
                if running
                else stack.enter_context(Broker(folder)).bootstrap
            )
        process = subprocess.Popen(command, env=environment)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: process.send_signal(number))
        return process.wait()


def _note(folder: Path) -> Path:
    return folder / "broker.json"


def _running(folder: Path) -> dict[str, int] | None:
    """Tell which process is the broker of a folder; a number that is another program's by now is
    not."""
    try:
        noted: dict[str, int] = json.loads(_note(folder).read_text("utf-8"))
        command = Path(f"/proc/{noted['pid']}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError):
        return None
    if str(folder.absolute() / "server.properties").encode() in command:
        return noted
    return None


if __name__ == "__main__":
    sys.exit(main())

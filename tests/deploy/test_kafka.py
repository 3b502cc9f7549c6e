"""`make kafka` and `make kafka-stop`: a real broker on loopback, with one command each."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.kafka import CannotRun, missing_tools, server
from deploy.kafka.broker import answers
from tests.kafka import require_tools
from tests.system.city import environment, free_port, wait_for

pytestmark = pytest.mark.kafka


def kafka(what: str, data: Path, port: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command that `make` runs."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.kafka", what, "--data", str(data), "--port", str(port)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@contextmanager
def stopped_afterwards(data: Path) -> Iterator[None]:
    """Leave no broker behind, whatever a test finds."""
    try:
        yield
    finally:
        kafka("stop", data)


def alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_a_broker_is_started_once_stays_and_is_stopped_by_its_number(tmp_path: Path) -> None:
    require_tools()
    port, other = free_port(), free_port()
    with stopped_afterwards(tmp_path):
        first = kafka("start", tmp_path, port)
        assert first.returncode == 0, first.stderr
        assert f"MOTCUA_KAFKA_BOOTSTRAP=127.0.0.1:{port}" in first.stdout
        assert answers(port)
        again = kafka("start", tmp_path, port)
        assert (again.returncode, "already runs" in again.stdout) == (0, True)
        elsewhere = kafka("start", tmp_path, other)
        assert elsewhere.returncode == 1
        assert f"runs on port {port}" in elsewhere.stderr
        taken = kafka("start", tmp_path / "second", port)
        assert taken.returncode == 1
        assert f"127.0.0.1:{port} is in use" in taken.stderr
        pid = int(first.stdout.split("process ")[1].split(",")[0])
        stopped = kafka("stop", tmp_path)
        assert (stopped.returncode, f"process {pid}" in stopped.stdout) == (0, True)
        assert not alive(pid)
        assert not answers(port)
    nothing = kafka("stop", tmp_path)
    assert (nothing.returncode, "no broker runs" in nothing.stdout) == (0, True)


def test_a_number_that_is_another_programs_by_now_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    note = tmp_path / "kafka" / "broker.json"
    note.write_text(f'{{"pid": {os.getpid()}, "port": 1}}', "utf-8")
    assert "no broker runs" in kafka("stop", tmp_path).stdout
    assert not note.exists()


def test_a_broker_goes_with_the_process_that_started_it_however_that_ends(tmp_path: Path) -> None:
    require_tools()
    port = free_port()
    starts = (
        "import sys, pathlib; from deploy.kafka import Broker; "
        f"b = Broker(pathlib.Path(sys.argv[1]), port={port}); b.start(); print(b.pid, flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starts, str(tmp_path / "kafka")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    wait_for(lambda: not alive(pid), 10, "the broker goes with its parent")


def test_without_java_or_maven_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Java 17" in (missing_tools() or "")
    with pytest.raises(CannotRun, match="Java 17"):
        server.java()
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019' >&2\n", "utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(CannotRun, match="is 11"):
        server.java()
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\" 2024' >&2\n", "utf-8")
    monkeypatch.setattr(server, "TARGET", tmp_path / "target")
    monkeypatch.setattr("shutil.which", lambda name, **_: str(java) if name == "java" else None)
    assert "maven" in (missing_tools() or "")

"""The server's jars: resolved by Maven once, and again when the pom changes."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE / "target"
OLDEST_JAVA = 17
"""The first Java that Kafka 4's broker runs on."""
_RESOLVE_SECONDS = 600


class CannotRun(Exception):
    """No broker can run here; the message says what to do."""


def java() -> str:
    """Give the Java that runs the broker: `JAVA_HOME`'s, else the one on the path.

    Raises:
        CannotRun: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise CannotRun(
            f"Kafka needs Java {OLDEST_JAVA} or newer: install it "
            "(Debian, Ubuntu: openjdk-17-jre-headless) or set JAVA_HOME"
        )
    said = subprocess.run(
        [found, "-version"], capture_output=True, text=True, timeout=60, check=False
    ).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise CannotRun(
            f"Kafka needs Java {OLDEST_JAVA} or newer, {found} is "
            f"{version[1] if version else 'of an unknown version'}: install a newer one or set "
            "JAVA_HOME"
        )
    return found


def missing_tools() -> str | None:
    """Say what a broker would need and this machine has not, or None."""
    try:
        java()
        if not _resolved():
            _maven()
    except CannotRun as missing:
        return str(missing)
    return None


def jars() -> Path:
    """Give the folder of the server's jars, having Maven bring them if they are not there.

    Raises:
        CannotRun: Maven is missing or could not bring them.
    """
    if _resolved():
        return TARGET / "lib"
    maven = _maven()
    with _alone():
        if not _resolved():
            _resolve(maven)
    return TARGET / "lib"


def _stamp() -> Path:
    return TARGET / hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()[:16]


def _resolved() -> bool:
    return _stamp().exists()


def _maven() -> str:
    found = shutil.which("mvn")
    if found is None:
        raise CannotRun(
            "Kafka's server is resolved by Maven: install it (Debian, Ubuntu: maven) and try again"
        )
    return found


def _resolve(maven: str) -> None:
    shutil.rmtree(TARGET / "lib", ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_RESOLVE_SECONDS, check=False
    )
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if "ERROR" in line][:3]
        raise CannotRun(f"Maven could not bring Kafka's server: {' '.join(said) or done.stderr}")
    _stamp().touch()


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time fill the folder."""
    TARGET.mkdir(exist_ok=True)
    with (TARGET / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

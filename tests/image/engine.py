"""A container engine: the machine's own where one answers, else Debian's for the time of a check.

Debian's is unpacked into a folder and never installed. It has no images and may not be able to
fetch any, so its base is a minimal Debian with Python, made here under the name that the Dockerfile
asks for: the Dockerfile takes whichever Python its base has.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BASE = "python:3.12-slim"
_PACKAGES = ("docker.io", "containerd", "runc", "debootstrap")
_START_SECONDS = 60
_STOP_SECONDS = 30


class NoEngine(Exception):
    """No engine can be had here; the message says why."""


@dataclass(frozen=True)
class Docker:
    """The command line of an engine."""

    environment: dict[str, str]

    def __call__(self, *words: str | Path, check: bool = True) -> str:
        """Run a command of it; give what it prints. Where it may fail, it does so in silence.

        Raises:
            subprocess.CalledProcessError: it fails; what it said is on standard error.
        """
        done = subprocess.run(
            ["docker", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=None if check else subprocess.DEVNULL,
            text=True,
            check=check,
        )
        return done.stdout.strip()

    def start(self, *words: str | Path, output: Path) -> subprocess.Popen[bytes]:
        """Run a command beside us."""
        with output.open("ab") as log:
            return subprocess.Popen(
                ["docker", *words],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def engine(folder: Path) -> Iterator[Docker]:
    """Give an engine; one of our own keeps all it has in a folder and is ended after.

    Raises:
        NoEngine: there is none, and none can be started.
    """
    if _answers(dict(os.environ)):
        yield Docker(os.environ | {"DOCKER_BUILDKIT": "1"})
        return
    _require_debian()
    parts = folder / "parts"
    _unpack(parts)
    path = f"{parts}/usr/sbin:{parts}/usr/bin:{os.environ['PATH']}"
    socket = f"unix://{folder}/docker.sock"
    told = os.environ | {"PATH": path, "DOCKER_HOST": socket, "DOCKER_BUILDKIT": "1"}
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd", "--host", socket, "--pidfile", folder / "docker.pid",
                "--data-root", folder / "data", "--exec-root", folder / "exec",
                # Containers share the machine's network: nothing of it is changed.
                "--bridge=none", "--iptables=false",
            ],
            env=told, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(process, told, folder / "dockerd.log")
        docker = Docker(told)
        _make_base(docker, parts, folder / "base")
        yield docker
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)
        _unmount(folder)


def _answers(environment: Mapping[str, str]) -> bool:
    if shutil.which("docker", path=environment.get("PATH")) is None:
        return False
    asked = subprocess.run(["docker", "info"], env=environment, capture_output=True, check=False)
    return asked.returncode == 0


def _require_debian() -> None:
    wanted = "no Docker engine answers, and one can be started only"
    if os.geteuid() != 0:
        raise NoEngine(f"{wanted} by root")
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise NoEngine(f"{wanted} from Debian's packages: {program} is missing")


def _unpack(parts: Path) -> None:
    packages = parts / "packages"
    packages.mkdir(parents=True)
    packages.chmod(0o777)  # apt fetches as an account of its own
    fetched = subprocess.run(
        ["apt-get", "download", *_PACKAGES],
        cwd=packages,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        raise NoEngine(f"Debian's packages cannot be fetched: {fetched.stderr.strip()[-500:]}")
    for package in packages.iterdir():
        subprocess.run(["dpkg", "-x", package, parts], check=True)


def _wait_for(process: subprocess.Popen[bytes], environment: Mapping[str, str], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not _answers(environment):
        if process.poll() is not None or time.monotonic() > end:
            raise NoEngine(f"Debian's engine does not start here: {log.read_text()[-1000:]}")
        time.sleep(0.2)


def _make_base(docker: Docker, parts: Path, base: Path) -> None:
    with Path("/etc/os-release").open() as file:
        told = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
         told["VERSION_CODENAME"], base],
        env=docker.environment | {"DEBOOTSTRAP_DIR": str(parts / "usr/share/debootstrap")},
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise NoEngine(f"no base can be made: {made.stdout[-1000:]}")
    _lead_to_packages(base)
    packed = subprocess.Popen(
        ["tar", "-C", base, "--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*",
         "--exclude=./usr/share/doc/*", "--exclude=./usr/share/locale/*", "-c", "."],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    subprocess.run(
        ["docker", "import", "-", BASE],
        env=docker.environment,
        stdin=packed.stdout,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _lead_to_packages(base: Path) -> None:
    """Give the base this machine's way to packages: whom it trusts, and how pip is set up here."""
    trusted = Path(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))
    if trusted.exists():
        shutil.copy(trusted, base / "etc/ssl/certs/ca-certificates.crt")
    (base / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")


def _unmount(folder: Path) -> None:
    """Take away what an engine that was ended left mounted, or its folder could not be removed."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)

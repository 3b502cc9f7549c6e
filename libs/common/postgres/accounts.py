"""The account PostgreSQL runs as, where its data may lie, and how a program is run as it."""

import hashlib
import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from libs.common.children import dying_with_parent
from libs.common.postgres.errors import NoAccount, PostgresError

log = structlog.get_logger()

STATE = Path("/var/lib/motcua")
"""Where root keeps what an ordinary account cannot reach in the folder that was asked for."""
NOTE = "WHERE.txt"
CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Account:
    """An ordinary account that root hands PostgreSQL to."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the data is, and the account to drop to; `None` means: run as we are."""

    folder: Path
    account: Account | None


def as_account(account: Account | None, dies_by: signal.Signals) -> dict[str, Any]:
    """Give the `subprocess` arguments that run a program as `account`, to end when we end.

    Its environment is small: `PGDATA`, `PGPORT` and the like of the caller are for other servers,
    and messages stay English because the launcher reads them.
    """
    kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    options: dict[str, Any] = {
        # The caller's folder may be one that the account cannot enter.
        "cwd": "/",
        "env": kept | {"LC_ALL": "C", "TZ": "UTC"},
        # Ctrl-C is for the application, which still needs its database while it stops.
        "start_new_session": True,
        "preexec_fn": dying_with_parent(dies_by),
    }
    if account is not None:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def run(
    command: Sequence[str | Path], account: Account | None, *, stdin: str = "", timeout: float = 10
) -> subprocess.CompletedProcess[str]:
    """Run a short-lived program as `account` for at most `timeout` seconds and keep its output.

    Raises `OSError` or `subprocess.SubprocessError` if it cannot be run or takes too long.
    """
    return subprocess.run(  # noqa: S603
        command,
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        **as_account(account, signal.SIGTERM),
    )


def hand_over(path: Path, account: Account | None) -> None:
    """Give one file or folder to the account; what is above or below it stays as it is."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def settle(asked: Path) -> Place:
    """Find the folder for the data and the account for the server, and make the folder.

    The folder is the one asked for unless we are root and the ordinary account cannot get there;
    then it is one under `STATE`, and a note in the asked folder says so and is believed later.
    Raises `PostgresError` if there is no such place.
    """
    asked = asked.resolve()
    make_open(asked)
    note = asked / NOTE
    if os.geteuid() != 0:
        if note.exists():
            raise PostgresError(
                f"The data of {asked} was put elsewhere by a run as root ({note} says where): "
                "run as root again, or choose another folder (make run DATA=/some/folder)."
            )
        return Place(asked, None)
    folder = _noted(note) or asked
    account = _account_for(folder)
    if folder == asked and not _can_enter(asked, account) and not (asked / CLUSTER).exists():
        folder = STATE / f"{asked.name.strip('.')}-{_digest(asked)}"
        make_open(STATE)
        make_open(folder)
        account = _account_for(folder)
        note.write_text(
            f"{folder}\n\nThe database of this folder is there, because PostgreSQL does not run as "
            f"root and the account {account.name}\ncannot enter this folder. Keep this note.\n"
        )
        log.info("postgres.data_elsewhere", asked=str(asked), folder=str(folder))
    if not _can_enter(folder, account):
        raise PostgresError(
            f"The account {account.name}, which PostgreSQL runs as, cannot enter {folder}: let it "
            "pass through the folders above, or choose another folder "
            "(make run DATA=/some/folder). Nothing was changed."
        )
    return Place(folder, account)


def require_passwd_entry() -> None:
    """Check what `initdb` will ask for; raises `NoAccount`."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise NoAccount(
            f"This process runs as uid {os.geteuid()}, which has no entry in /etc/passwd, and "
            "PostgreSQL refuses to make a database for it: add an entry (useradd --uid "
            f"{os.geteuid()} motcua), or set MOTCUA_DATABASE_URL to a running PostgreSQL."
        ) from None


def _account_for(folder: Path) -> Account:
    """Choose the owner of the data that is there already, else `postgres`, else `nobody`."""
    if (folder / CLUSTER).exists():
        found = (folder / CLUSTER).stat()
        if found.st_uid != 0:
            return Account(_name_of(found.st_uid), found.st_uid, found.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise NoAccount(
        "PostgreSQL does not run as root, and this machine has no account `postgres` or `nobody` "
        "to run it as: create one (useradd --system postgres), or start this as an ordinary "
        "account."
    )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"with uid {uid}"


def _noted(note: Path) -> Path | None:
    """Read where an earlier run put the data; only a folder of ours is believed."""
    try:
        folder = Path(note.read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return None
    return folder if folder.parent == STATE and folder.is_dir() else None


def make_open(folder: Path) -> None:
    """Make a folder that others may pass through, whatever the umask; an existing one is kept."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def _can_enter(folder: Path, account: Account) -> bool:
    # Modes, ACLs and mount options all count, so the account itself has to try.
    return run(["/bin/sh", "-c", 'cd -- "$1"', "sh", folder], account).returncode == 0


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:10]

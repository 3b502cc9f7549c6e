"""The running server: a direct child of this process that is started, supervised and stopped."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import structlog

from libs.common.postgres import accounts
from libs.common.postgres.binaries import Binaries, find_binaries
from libs.common.postgres.cluster import DATABASE, Cluster
from libs.common.postgres.errors import FolderInUse, PostgresError, ServerFailed

log = structlog.get_logger()

RETRY_SECONDS = 0.25
PATIENCE_SECONDS = 20.0
"""How long a server of an earlier run may take to be gone."""
RECOVERY_SECONDS = 300.0
"""How long a start may take that replays what was written before a crash."""
_SOCKET_PATH_BYTES = 107
_LOOK_SECONDS = 0.005
# What a server says that cannot start yet, and will be able to when others have let go.
_PASSING = ("lock file", "shared memory", "could not bind", "could not create any TCP/IP sockets")
# Each step is for a server that the one before has not moved; together they fit in ten seconds.
_STOPPING = ((signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0))


class EmbeddedPostgres:
    """A PostgreSQL server that lives as long as this process, with its data in `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        configured_binaries: Path | None = None,
        superuser: str = "motcua",
    ) -> None:
        """Describe the server; nothing is read or started before `start`."""
        self.folder = folder
        """Where the data really is, from `start` on: root may have had to put it elsewhere."""
        self._asked = folder
        self._configured = configured_binaries
        self._superuser = superuser
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._binaries: Binaries | None = None
        self._cluster: Cluster | None = None
        self._sockets: Path | None = None
        self._password = ""
        self._port = 0
        self._url = ""

    def start(self) -> str:
        """Start the server, made on the first call, and wait until it accepts connections.

        Returns the superuser's URL. Call it in the main thread: the kernel stops the server when
        the thread that started it ends. Raises `PostgresError`.
        """
        if self._process is not None:
            return self._url
        try:
            self._prepare()
            self._start_first()
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise PostgresError(
                f"PostgreSQL cannot be started in {self.folder}: {error}. Mend that, or choose "
                "another folder (make run DATA=/some/folder)."
            ) from error
        except BaseException:
            self.stop()
            raise
        log.info("postgres.started", folder=str(self.folder), port=self._port)
        return self._url

    def stop(self) -> None:
        """Stop the server within ten seconds and free the folder; may be called at any time."""
        process, self._process = self._process, None
        for number, seconds in _STOPPING if process is not None else ():
            assert process is not None
            process.send_signal(number)
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                log.warning("postgres.stops_slowly", signal=number.name, seconds=seconds)
        if self._sockets is not None and self._cluster and self._sockets != self._cluster.path:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def supervise(self) -> None:
        """Bring the server back, on the same port, whenever it dies; returns after `stop`.

        Run it as a task of the main thread's loop. It never gives up: what a crash left behind
        (a zombie, backends at work) goes away, and a full disk may be emptied.
        """
        while self._process is not None:
            if self._process.poll() is not None:
                await self._revive(self._process.returncode)
            await asyncio.sleep(RETRY_SECONDS)

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    @property
    def url(self) -> str:
        """The superuser's URL of the database, with the password; empty before `start`."""
        return self._url

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    def _prepare(self) -> None:
        """Find the place, lock it, and have a data folder and a password in it."""
        place = accounts.settle(self._asked)
        self.folder = place.folder
        cluster = self._cluster = Cluster(place, self._superuser)
        self._lock = cluster.lock()
        self._binaries = find_binaries(
            self._configured, major=cluster.major, account=place.account, data=cluster.data
        )
        if cluster.major is None:
            cluster.initialise(self._binaries)
        self._sockets = _socket_folder(cluster)
        cluster.drop_leftovers(self._sockets)
        self._password = cluster.password(self._binaries)
        self._keep_last_log()

    def _start_first(self) -> None:
        """Start on a free port; wait a while for a server of an earlier run to be gone."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self._port = _free_port()
            process = self._spawn()
            if self._wait(process):
                break
            said = self._last_words()
            if process.returncode > 0 and not any(words in said for words in _PASSING):
                raise ServerFailed(
                    f"PostgreSQL does not start: {said} Mend that and start again, or choose "
                    f"another folder (make run DATA=/some/folder); its log is {self._log_file}."
                )
            if time.monotonic() > deadline:
                raise self._still_in_use(said)
            time.sleep(RETRY_SECONDS)
        self._url = (
            f"postgresql://{quote(self._superuser, safe='')}:{quote(self._password, safe='')}"
            f"@127.0.0.1:{self._port}/{DATABASE}"
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded PostgreSQL is started in the main thread only")
        assert self._cluster is not None
        assert self._binaries is not None
        assert self._sockets is not None
        self._cluster.drop_leftovers(self._sockets)
        account = self._cluster.place.account
        with self._log_file.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [self._binaries.postgres, "-D", self._cluster.data, *self._settings()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **accounts.as_account(account, signal.SIGINT),
            )
        return self._process

    def _settings(self) -> list[str]:
        """Give the server's settings; durability (`fsync` and the rest) stays as PostgreSQL's."""
        sockets = str(self._sockets).replace('"', '""')
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": f'"{sockets}"',
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
            # A failed statement is the application's to log, so the file stays small.
            "log_min_messages": "log",
            "log_checkpoints": "off",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _look(self, process: subprocess.Popen[bytes]) -> bool | None:
        """Tell whether the server is ready (True), gone (False) or still starting (None)."""
        assert self._cluster is not None
        if process.poll() is not None:
            return False
        return self._cluster.ready(process.pid, self._port) or None

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + RECOVERY_SECONDS
        while (ready := self._look(process)) is None:
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"PostgreSQL was not ready after {RECOVERY_SECONDS:.0f} seconds: see its log, "
                    f"{self._log_file}, and start again."
                )
            time.sleep(_LOOK_SECONDS)
        return ready

    async def _revive(self, code: int) -> None:
        began = time.monotonic()
        log.error("postgres.died", code=code, folder=str(self.folder))
        self._keep_last_log()
        said = ""
        while self._process is not None:
            try:
                process = self._spawn()
                while (ready := self._look(process)) is None:  # noqa: ASYNC110 - a file tells it
                    await asyncio.sleep(_LOOK_SECONDS)
                reason = self._last_words()
            except (OSError, subprocess.SubprocessError) as error:
                ready, reason = False, str(error)
            if ready:
                log.info("postgres.restarted", seconds=round(time.monotonic() - began, 3))
                return
            if reason != said and self._process is not None:
                log.warning("postgres.restart_refused", reason=reason)
                said = reason
            await asyncio.sleep(RETRY_SECONDS)

    def _still_in_use(self, said: str) -> PostgresError:
        assert self._cluster is not None
        if servers := self._cluster.servers():
            # The postmaster is the parent of the others, and so the first.
            return FolderInUse(
                f"A PostgreSQL server that was started otherwise still runs on {self.folder} "
                f"(process {min(servers)}): stop it (kill -INT {min(servers)}) and start again, "
                "or choose another folder (make run DATA=/some/folder)."
            )
        return ServerFailed(
            f"PostgreSQL has refused to start for {PATIENCE_SECONDS:.0f} seconds: {said} "
            "Start again in a minute; if it goes on so and no process `postgres` is left, delete "
            f"{self._cluster.pid_file}. Its log is {self._log_file}."
        )

    def _keep_last_log(self) -> None:
        """Put the log of the run before aside: it may tell why that run ended."""
        if self._log_file.exists():
            self._log_file.replace(self._log_file.with_suffix(".log.1"))

    def _last_words(self) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()
        telling = [line for line in lines if "FATAL:" in line or "could not bind" in line]
        return " ".join(line.split(":  ", 1)[-1] for line in telling or lines[-1:]) + "."


def _free_port() -> int:
    """Choose a loopback port that nothing listens on.

    Below 32,000 the kernel never gives it to an outgoing connection, so it stays free while the
    server is being restarted and its clients already try to connect.
    """
    for _ in range(200):
        port = 16_000 + secrets.randbelow(16_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("No free port was found on 127.0.0.1 for PostgreSQL: stop what holds them.")


def _socket_folder(cluster: Cluster) -> Path:
    """Choose the folder of the socket: a passing one if the data's path is too long for one."""
    if len(os.fsencode(cluster.path / ".s.PGSQL.65535")) <= _SOCKET_PATH_BYTES:
        return cluster.path
    folder = Path(tempfile.mkdtemp(prefix="motcua-", dir="/tmp"))
    accounts.hand_over(folder, cluster.place.account)
    return folder

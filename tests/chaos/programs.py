"""Programs that are killed and started again at the same place."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import ClassVar, Self

import aiohttp

from services.cli import EMBEDDED_URL
from tests.started import Process, Run, Started
from tests.system.city import environment, free_port


@dataclass
class Program:
    """The city, or one service of it: a command with its settings, running or not."""

    name: str
    command: Sequence[str]
    settings: dict[str, str | Path | int]
    data: Path
    port: int
    process: Process | None = field(default=None, repr=False)

    run: ClassVar[Run] = Started

    @property
    def base(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it says, over all its lives."""
        return self.data / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def start(self, fault: str = "") -> None:
        """Start it, perhaps to kill itself at a fault point."""
        assert not self.alive
        settings = self.settings | ({"fault": fault} if fault else {})
        self.process = Program.run(self.command, environment(**settings), self.log)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    async def ends(self, within: float = 60) -> int:
        """Wait until it has ended by itself; answer how."""
        assert self.process is not None
        end = monotonic() + within
        while (code := self.process.poll()) is None:
            assert monotonic() < end, f"{self.name} still runs: {self.last_words()}"
            await asyncio.sleep(0.01)
        return code

    async def ready(self, within: float = 60) -> None:
        """Wait for the first 200 of `readyz`."""
        end = monotonic() + within
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while await self._asked(session, "/readyz") != 200:
                assert self.alive, f"{self.name} has ended: {self.last_words()}"
                assert monotonic() < end, f"{self.name} is not ready: {self.last_words()}"
                await asyncio.sleep(0.02)

    async def watch(self, wrong: list[str]) -> None:
        """Note every answer of `livez` that is not 200, until cancelled: tasks that have died."""
        told = False
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                status = await self._asked(session, "/livez")
                if status not in (None, 200):
                    wrong.append(f"livez of {self.name} answers {status}")
                    if not told:
                        wrong += self._deaths()
                        told = True
                await asyncio.sleep(0.1)

    async def _asked(self, session: aiohttp.ClientSession, path: str) -> int | None:
        try:
            async with session.get(self.base + path) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _deaths(self) -> list[str]:
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return [line for line in lines if '"task.died"' in line]

    def last_words(self) -> str:
        """Give the end of its log."""
        return self.log.read_text("utf-8", errors="replace")[-4000:]

    def end(self) -> None:
        """Stop it in order; kill what does not stop."""
        if self.process is None:
            return
        if self.alive:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        self.kill()


@contextmanager
def started(*programs: Program) -> Iterator[None]:
    """Start programs, and let none of them be left at the end."""
    try:
        for program in programs:
            program.start()
        yield
    finally:
        for program in programs:
            if program.alive and program.process:
                program.process.terminate()
        for program in programs:
            program.end()


def service(name: str, data: Path, **settings: str | Path | int) -> Program:
    """Describe one service; `name` may tell replicas apart: `queue-a`."""
    port = free_port()
    module = f"services.{name.partition('-')[0]}.main:app"
    command = ["-m", "uvicorn", module, "--port", str(port), "--log-level", "warning"]
    return Program(name, command, {"data_dir": data, **settings}, data, port)


@dataclass
class Apart:
    """The city as processes of their own: two doors, each before a queue and a reporting process
    of its own, and one of the rest."""

    behind: dict[str, Program]
    queues: dict[str, Program]
    doors: list[Program]

    @classmethod
    def on(cls, data: Path, **settings: str | Path | int) -> Self:
        """Describe a city on a database."""
        behind = {name: service(name, data, **settings) for name in ("registry", "intake")}
        reports = {name: service(name, data, **settings) for name in ("reporting-a", "reporting-b")}
        queues = {name: service(name, data, **settings) for name in ("queue-a", "queue-b")}
        urls = {f"{name}_url": program.base for name, program in behind.items()}
        doors = [
            service(
                f"gateway-{side}",
                data,
                **settings,
                **urls,
                queue_url=queues[f"queue-{side}"].base,
                reporting_url=reports[f"reporting-{side}"].base,
            )
            for side in "ab"
        ]
        return cls(behind | reports, queues, doors)

    @property
    def programs(self) -> dict[str, Program]:
        """All of them by name."""
        return self.behind | self.queues | {door.name: door for door in self.doors}

    @property
    def bases(self) -> list[str]:
        """Where the doors are."""
        return [door.base for door in self.doors]


class EmbeddedCity(Program):
    """The whole city in one process with its own PostgreSQL."""

    @classmethod
    def on(cls, data: Path) -> Self:
        """Describe a city on a data folder."""
        port = free_port()
        settings: dict[str, str | Path | int] = {"port": port, "data_dir": data}
        return cls("city", ["-m", "services.embedded"], settings, data, port)

    def database_url(self) -> str:
        """Give the superuser's URL while the city runs."""
        return (self.data / EMBEDDED_URL).read_text("ascii")

    def postmaster(self) -> int | None:
        """Find its PostgreSQL server."""
        return next(iter(children(self.pid)), None)

    def kill_postgres(self) -> None:
        """Kill the server; a city that has just begun may have none yet."""
        if server := self.postmaster():
            _kill(server)

    def kill_backend(self, dice: random.Random) -> None:
        """Kill one connection's process: PostgreSQL then ends all of them and recovers."""
        server = self.postmaster()
        serving = (
            [pid for pid in children(server) if b"127.0.0.1(" in _title(pid)] if server else []
        )
        if serving:
            _kill(dice.choice(serving))

    def servers_left(self) -> list[int]:
        """List what still runs in the data folder."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _works_in(entry, self.data)
        ]

    async def gone(self, within: float = 20) -> None:
        """Wait until no server of this city is left."""
        end = monotonic() + within
        while left := self.servers_left():
            assert monotonic() < end, f"servers left: {left}"
            await asyncio.sleep(0.02)


def children(pid: int) -> list[int]:
    """List the processes that a process has started and that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = (
                entry.read_text("ascii", errors="replace").rpartition(")")[2].split()[:2]
            )
            if int(parent) == pid and state not in "ZX":
                found.append(int(entry.parent.name))
    return found


def holds_port(pid: int, port: int) -> bool:
    """Tell whether a process holds the loopback connection with a local port."""
    inodes = _inodes_of(port)
    with suppress(OSError):
        return any(str(link.readlink()) in inodes for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def kill_own_server() -> None:
    """Kill the PostgreSQL server that this process has started."""
    for pid in children(os.getpid()):
        if b"/postgres\0-D" in _title(pid):
            _kill(pid)


def _inodes_of(port: int) -> set[str]:
    local = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    return {f"socket:[{line.split()[9]}]" for line in lines if line.split()[1] == local}


def _title(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _works_in(entry: Path, folder: Path) -> bool:
    try:
        return (entry / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

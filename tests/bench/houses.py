"""The city and the floor as programs that a bench calls over HTTP, and what they cost."""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from libs.common.migrate import migrate
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.cli import EMBEDDED_URL, seed_registry
from tests.bench.wire import Line
from tests.started import as_command
from tests.support import reachable_folder, settings_for
from tests.system.city import City, environment, free_port

Pids = Callable[[], list[int]]
Play = Callable[[list[Line], float], Awaitable["Played"]]
"""Makes calls on lines, a client on each, for some seconds."""

FLOORS: Final = {
    "/orm": "floor: one insert by the ORM",
    "/driver": "floor: one insert by the driver",
    "/nothing": "floor: no insert",
}


@dataclass
class Played:
    """What one round took: seconds by call, seconds of processor time by program."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)
    seconds: float = 0

    @property
    def calls(self) -> int:
        """How many calls were answered."""
        return sum(map(len, self.waits.values()))


@dataclass
class Way:
    """One way that calls take: the port of each client, and the programs that they keep busy."""

    name: str
    ports: tuple[int, ...]
    programs: Mapping[str, Pids]
    path: str | None = None
    """The bare route that is called; None where tickets are."""
    rounds: list[Played] = field(default_factory=list)


@dataclass
class House:
    """Programs that run together on one database."""

    name: str
    data: Path
    """Where the keys of development's tokens are."""
    ways: list[Way]
    url: str
    """The database's superuser."""


def processor_seconds(pids: list[int]) -> float:
    """Give the processor time that processes have had, in ticks of 10 ms."""
    ticks = 0
    for pid in pids:
        spent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(spent[11]) + int(spent[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """List a process and those it has started: a connection is a process of PostgreSQL's."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, listed)]


@contextmanager
def embedded(clients: int) -> Iterator[House]:
    """Run the whole city in one process, as `make run` does."""
    with reachable_folder() as data, ExitStack() as stack:
        city = stack.enter_context(_program("services.embedded", data))
        url = (data / EMBEDDED_URL).read_text("ascii")
        _, server = family(city.process.pid)
        programs = {"city": _of(city), "postgres": lambda: family(server)}
        through = Way("embedded, through the gateway", _ports([city], clients), programs)
        bare = stack.enter_context(_floor(url, data, server, clients))
        yield House("the whole city in one process", data, [through, *bare], url)


@contextmanager
def apart(clients: int, queues: int) -> Iterator[House]:
    """Run so many queue processes, a gateway before each; the other services are not called."""
    with ExitStack() as stack:
        data, kept = (stack.enter_context(reachable_folder()) for _ in range(2))
        postgres = stack.enter_context(EmbeddedPostgres(kept))
        _, server = family(os.getpid())
        url = postgres.url
        asyncio.run(_prepare(settings_for(url, data_dir=data)))
        start = stack.enter_context
        behind = [start(_program("services.queue", data, database_url=url)) for _ in range(queues)]
        doors = [start(_program("services.gateway", data, database_url=url, queue_url=one.base))
                 for one in behind]  # fmt: skip
        beside: dict[str, Pids] = {"queue": _of(*behind), "postgres": lambda: family(server)}
        told = "one queue process" if queues == 1 else f"{queues} queue processes"
        door = "a gateway before it" if queues == 1 else "a gateway before each"
        ways = [
            Way(f"{told}, directly", _ports(behind, clients), beside),
            Way(f"{told}, {door}", _ports(doors, clients), {"gateway": _of(*doors), **beside}),
            *start(_floor(url, data, server, clients)),
        ]
        yield House(told, data, ways, url)


@contextmanager
def _floor(url: str, data: Path, server: int, clients: int) -> Iterator[list[Way]]:
    """Run the bare routes on the same database."""
    port = free_port()
    command = ["-m", "uvicorn", "tests.bench.floor:app", "--port", str(port), "--no-access-log"]
    with _running(command, data, port, database_url=url) as bare:
        programs = {"bare": _of(bare), "postgres": lambda: family(server)}
        yield [Way(name, _ports([bare], clients), programs, path) for path, name in FLOORS.items()]


@contextmanager
def _program(module: str, data: Path, **settings: Any) -> Iterator[City]:
    with _running(["-m", module], data, free_port(), **settings) as city:
        yield city


@contextmanager
def _running(command: list[str], data: Path, port: int, **settings: Any) -> Iterator[City]:
    """Run a module as an operator does; it is ready when it is given."""
    log = data / f"{port}.log"
    env = environment(port=port, data_dir=data, log_level="WARNING", **settings)
    city = City(as_command(command, env, log), f"http://127.0.0.1:{port}", data, log)
    try:
        city.wait_until_ready()
        yield city
    finally:
        city.stop()


def _of(*programs: City) -> Pids:
    return lambda: [program.process.pid for program in programs]


def _ports(programs: list[City], clients: int) -> tuple[int, ...]:
    """Share clients out over programs."""
    ports = [int(program.base.rpartition(":")[2]) for program in programs]
    return tuple(ports[number % len(ports)] for number in range(clients))


async def _prepare(settings: Settings) -> None:
    await migrate(settings, list(all_topics()))
    await seed_registry(settings)


def pgbench(url: str, clients: int, seconds: float) -> float | None:
    """Ask PostgreSQL's own bench for transactions a second; None where this machine lacks it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    if not found:
        return None
    program = str(found[-1])
    subprocess.run([program, "-i", "-q", url], check=True, capture_output=True)
    how = ["-N", "-M", "prepared", "-c", str(clients), "-T", f"{seconds:.0f}"]
    done = subprocess.run([program, *how, url], check=True, capture_output=True, text=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("tps"))
    return float(line.split()[2])

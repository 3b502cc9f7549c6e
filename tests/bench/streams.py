"""A thousand live streams of one process: `python -m tests.bench.streams [--streams 1000]`.

Starts PostgreSQL, and as a process of its own the queue or (`--city`) the embedded city, whose
gateway then passes the streams on. Opens the streams from this process and prints what they cost:
memory and CPU of the other one, and the time from a call's request until every reader has it.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles

import httpx

from libs.common.migrate import migrate
from libs.common.postgres import EmbeddedPostgres
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from tests.support import on_database, reachable_folder, settings_for
from tests.system.city import City, embedded, free_port, service

UNIT = "H29.26740"
TICK = os.sysconf("SC_CLK_TCK")
SETTLE_SECONDS, IDLE_SECONDS = 3, 10


@contextmanager
def queue_alone(folder: Path) -> Iterator[City]:
    """Run the queue as one process on a database that holds the city."""
    port = free_port()
    with EmbeddedPostgres(folder / "postgres") as postgres:
        url = on_database(postgres.url, "postgres")
        settings = settings_for(url, data_dir=folder)
        asyncio.run(migrate(settings, list(all_topics())))
        asyncio.run(seed_registry(settings))
        with service("queue", port, folder, database_url=url) as queue:
            alone = City(queue.process, f"http://127.0.0.1:{port}", folder, queue.log)
            alone.wait_until_ready()
            yield alone


class Watcher(asyncio.Protocol):
    """A client that only notes when which change came: as little work as can be."""

    def __init__(self, path: str) -> None:
        """Prepare to open a stream."""
        self._path = path
        self._text = b""
        self.first = asyncio.get_running_loop().create_future()
        self.changes: list[float] = []
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Count the changes in it."""
        self.received += len(data)
        now = time.perf_counter()
        found = (self._text + data).count(b"event: change\n")
        self._text = data[-13:]
        self.changes += [now] * found
        if not self.first.done() and b"event: " in data:
            self.first.set_result(None)


def memory_of(pid: int) -> float:
    """Read a process's resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_of(pid: int) -> float:
    """Read the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@asynccontextmanager
async def opened(city: City, units: list[str], count: int) -> AsyncIterator[list[Watcher]]:
    """Open streams, spread over units, twenty at a time."""
    loop, port = asyncio.get_running_loop(), int(city.base.rpartition(":")[2])
    watchers: list[Watcher] = []
    for start in range(0, count, 20):
        fresh = []
        for number in range(start, min(start + 20, count)):
            path = f"/v1/units/{units[number % len(units)]}/queue/stream"
            opening = loop.create_connection(partial(Watcher, path), "127.0.0.1", port)
            _, watcher = await opening
            fresh.append(watcher)
        async with asyncio.timeout(30):
            await asyncio.gather(*(watcher.first for watcher in fresh))
        watchers += fresh
    try:
        yield watchers
    finally:
        for watcher in watchers:
            watcher.transport.abort()


async def idle(pid: int) -> float:
    """Give the share of one CPU that a process uses while nothing happens."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = cpu_of(pid)
    await asyncio.sleep(IDLE_SECONDS)
    return (cpu_of(pid) - before) / IDLE_SECONDS


async def call_repeatedly(city: City, watchers: list[Watcher], calls: int) -> list[list[float]]:
    """Call people at a unit that all watch; give the delays of each change, one per reader."""
    officer = city.bearer("officer", UNIT)
    delays = []
    async with httpx.AsyncClient(base_url=city.base, timeout=20) as client:
        await client.put(f"/v1/units/{UNIT}/counters/1", json={"state": "open"}, headers=officer)
        for _ in range(calls):
            await client.post("/v1/tickets", json={"unit": UNIT, "channel": "web"})
        await asyncio.sleep(SETTLE_SECONDS)
        for _ in range(calls):
            for watcher in watchers:
                watcher.changes.clear()
            began = time.perf_counter()
            called = await client.post(f"/v1/units/{UNIT}/counters/1/call-next", headers=officer)
            async with asyncio.timeout(20):
                while not all(watcher.changes for watcher in watchers):
                    await asyncio.sleep(0.005)
            delays.append([watcher.changes[0] - began for watcher in watchers])
            await client.post(f"/v1/tickets/{called.json()['id']}/no-show", headers=officer)
            await asyncio.sleep(0.3)
    return delays


async def measure(city: City, streams: int, calls: int) -> None:
    """Measure and print."""
    pid = city.process.pid
    quiet, before = await idle(pid), memory_of(pid)
    async with opened(city, [UNIT], streams) as watchers:
        busy, after = await idle(pid), memory_of(pid)
        print(f"{streams} streams of one unit, all open at once:")
        print(f"  memory      {before:.0f} MB -> {after:.0f} MB,"
              f" {(after - before) * 1000 / streams:.0f} kB a stream")  # fmt: skip
        print(f"  CPU, quiet  {quiet:.1%} -> {busy:.1%} of one core (heartbeats)")
        delays = await call_repeatedly(city, watchers, calls)
        first = [min(change) * 1000 for change in delays]
        every = [delay * 1000 for change in delays for delay in change]
        cuts = quantiles(every, n=100)
        print(f"  a call      first reader {sum(first) / len(first):.0f} ms after the request,"
              f" P50 {cuts[49]:.0f} ms, P99 {cuts[98]:.0f} ms, last {max(every):.0f} ms"
              f" ({calls} calls)")  # fmt: skip
        print(f"  memory then {memory_of(pid):.0f} MB")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--city", action="store_true", help="through the embedded city's gateway")
    chosen = parser.parse_args()
    with reachable_folder() as folder, (embedded if chosen.city else queue_alone)(folder) as city:
        asyncio.run(measure(city, chosen.streams, chosen.calls))


if __name__ == "__main__":
    main()

"""The same calls straight at the service and through the door, in process and over HTTP.

`python -m tests.bench.through` prints the table, in some two minutes.
"""

import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import aiohttp

from libs.common.auth import DevelopmentIssuer
from libs.common.migrate import migrate
from libs.common.observability import configure_logging
from libs.common.postgres import EmbeddedPostgres
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from services.embedded import APPS, city
from tests.serving import with_state
from tests.support import DATA_DIR, reachable_folder, settings_for
from tests.system.city import free_port, service
from tests.system.walk import HERE, ask

CLIENTS: Final = 16
CALLS: Final = 96
ROUNDS: Final = 12

Ask = Callable[..., Awaitable[int]]
"""Makes a call and answers its status: method, path, headers, body, and where to note the ticket
that is answered."""


@dataclass
class Way:
    """One way to the service, and what it took."""

    name: str
    ask: Ask
    pids: tuple[int, ...]
    """The processes whose time counts: the service's, and the door's where it is another one."""
    costs: dict[str, list[float]] = field(default_factory=dict)
    """By call: microseconds of processor time, a figure to a round."""
    rates: dict[str, list[float]] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)
    """By call: seconds, a figure to a call."""

    def processor_seconds(self) -> float:
        """Give the processor time of its processes."""
        if self.pids == (os.getpid(),):
            return time.process_time()
        ticks = 0
        for pid in self.pids:
            spent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            ticks += int(spent[11]) + int(spent[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@cache
def shown(role: str, subject: str) -> dict[str, str]:
    """Show who calls, with a token signed once."""
    token = DevelopmentIssuer(DATA_DIR).token(role, subject=subject, units=[HERE])
    return {"Authorization": f"Bearer {token}"}


async def look(ask: Ask, _: int) -> int:
    """Read what waits, which the service has in memory."""
    assert await ask("GET", f"/v1/units/{HERE}/queue", {}, None) == 200
    return 1


async def issue(ask: Ask, _: int) -> int:
    """Take a ticket."""
    wish = {"unit": HERE, "channel": "kiosk"}
    assert await ask("POST", "/v1/tickets", shown("kiosk", "kiosk-1"), wish) == 201
    return 1


async def serve(ask: Ask, client: int) -> int:
    """Call the next one, begin and finish."""
    officer = shown("officer", f"officer-{client}")
    counter = f"/v1/units/{HERE}/counters/{client + 1}"
    ticket: dict[str, str] = {}
    assert await ask("POST", f"{counter}/call-next", officer, None, ticket) == 200
    for step in ("start", "finish"):
        path = f"/v1/tickets/{ticket['id']}/{step}"
        assert await ask("POST", path, officer, None, ticket) == 200
    return 3


CALLS_MADE: Final = {
    "GET …/queue": look,
    "POST /v1/tickets": issue,
    "POST …/call-next, …/start, …/finish": serve,
}


async def play(way: Way, name: str) -> None:
    """Make one round of a call with all clients at once."""
    make = CALLS_MADE[name]
    waits: list[float] = []
    made = 0

    async def timed(*arguments: Any) -> int:
        begun = time.perf_counter()
        status = await way.ask(*arguments)
        waits.append(time.perf_counter() - begun)
        return status

    async def client(number: int) -> None:
        nonlocal made
        while made < CALLS:
            more = await make(timed, number)  # on a line of its own: others count meanwhile
            made += more

    spent, begun = way.processor_seconds(), time.perf_counter()
    await asyncio.gather(*map(client, range(CLIENTS)))
    took = time.perf_counter() - begun
    way.costs.setdefault(name, []).append((way.processor_seconds() - spent) / len(waits) * 1e6)
    way.rates.setdefault(name, []).append(len(waits) / took)
    way.waits.setdefault(name, []).extend(waits)


def _in_process(app: Any) -> Ask:
    async def call(
        method: str, path: str, headers: Mapping[str, str], body: Any, ticket: Any = None
    ) -> int:
        answer = await ask(app, method, path, dict(headers), body)
        if ticket is not None:
            ticket |= answer.json
        return answer.status

    return call


def _over_http(session: aiohttp.ClientSession, base: str) -> Ask:
    async def call(
        method: str, path: str, headers: Mapping[str, str], body: Any, ticket: Any = None
    ) -> int:
        async with session.request(method, base + path, headers=headers, json=body) as answer:
            content = await answer.read()
            if ticket is not None:
                ticket |= json.loads(content)
            return answer.status

    return call


@asynccontextmanager
async def _here(url: str) -> AsyncIterator[list[Way]]:
    """Run the city in this process."""
    async with city(settings_for(url, database_pool=8)) as whole:
        while (await ask(whole, "GET", "/readyz", {})).status != 200:
            await asyncio.sleep(0.05)
        alone = with_state(APPS["queue"], whole._states["queue"])
        pids = (os.getpid(),)
        yield [
            Way("in process, the service alone", _in_process(alone), pids),
            Way("in process, through the door", _in_process(whole), pids),
        ]


@asynccontextmanager
async def _apart(url: str) -> AsyncIterator[list[Way]]:
    """Run queue and gateway as processes of their own."""
    ports = {name: free_port() for name in ("queue", "gateway")}
    settings = {"database_url": url, "queue_url": f"http://127.0.0.1:{ports['queue']}"}
    with ExitStack() as stack:
        queue, gateway = (
            stack.enter_context(service(name, port, DATA_DIR, **settings))
            for name, port in ports.items()
        )
        for process in (queue, gateway):
            await asyncio.to_thread(process.wait_until_ready)
        pids = (queue.process.pid, gateway.process.pid)
        connector = aiohttp.TCPConnector(limit=CLIENTS)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield [
                Way("over HTTP, the service alone", _over_http(session, queue.base), pids[:1]),
                Way("over HTTP, through the door", _over_http(session, gateway.base), pids),
            ]


async def _prepare(way: Way) -> None:
    """Open a counter for each client, and let more wait than will be called."""
    manager = shown("manager", "manager-1")
    for number in range(1, CLIENTS + 1):
        body = {"state": "open", "series": ["A"]}
        path = f"/v1/units/{HERE}/counters/{number}"
        assert await way.ask("PUT", path, manager, body) == 200
    for _ in range(CALLS):  # more than a round calls, however the turns fall
        await issue(way.ask, 0)


async def _measure(ways: list[Way]) -> None:
    """Play every call by every way by turns; the first round warms up."""
    await _prepare(ways[0])
    turns = [(way, name) for way in ways for name in CALLS_MADE]
    for number in range(ROUNDS + 1):
        for way, name in random.sample(turns, len(turns)):
            await play(way, name)
        if number == 0:
            for way in ways:
                for kept in (way.costs, way.rates, way.waits):
                    kept.clear()


async def through_the_door(url: str) -> None:
    """Measure in process, then over HTTP, and print the table."""
    settings = settings_for(url)
    await migrate(settings, list(all_topics()))
    await seed_registry(settings)
    ways: list[Way] = []
    for begin in (_here, _apart):
        async with begin(url) as these:
            await _measure(these)
            ways += these
    print(f"{ROUNDS} rounds of {CALLS} calls, {CLIENTS} clients, load {os.getloadavg()[0]:.1f}:")
    print("| call | way | processor µs/call | calls/s | P50 | P99 |")
    print("|---|---|---:|---:|---:|---:|")
    for name in CALLS_MADE:
        for way in ways:
            hundredths = statistics.quantiles(way.waits[name], n=100)
            print(
                f"| `{name}` | {way.name} | {statistics.median(way.costs[name]):.0f} "
                f"| {statistics.median(way.rates[name]):,.0f} "
                f"| {hundredths[49] * 1e3:.1f} ms | {hundredths[98] * 1e3:.1f} ms |"
            )


def main() -> None:
    """Measure and print."""
    configure_logging("ERROR")
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        asyncio.run(through_the_door(server.url))


if __name__ == "__main__":
    main()

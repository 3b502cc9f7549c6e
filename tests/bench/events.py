"""`python -m tests.bench.events`: how fast events travel on each carrier, as a table.

A process writes ticket events as the queue does, one committing statement each, and carries them
with the queue's relay; another is reporting's consumer with reporting's own handlers. Measured are
the time from commit to handler at fixed rates, the rate at which both together keep up with a full
outbox, and the rate at which a group that begins anew reads the whole log again.
"""

import asyncio
import json
import os
import platform
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import quantiles
from time import perf_counter, time
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer
import uvloop
from rich.console import Console

from deploy.kafka import Broker
from libs.common.bus.base import Bus
from libs.common.bus.opening import open_bus
from libs.common.consumer import Consumer
from libs.common.db import Database, open_database, service_url
from libs.common.events import Event, EventRouter, Handler
from libs.common.migrate import migrate
from libs.common.outbox import Relay, drained
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import Settings
from libs.contracts.queue import TicketIssued
from libs.contracts.topics import all_topics
from services.reporting.handlers import router as reporting
from tests.common.helpers import admin
from tests.support import reachable_folder, settings_for

TOPIC = TicketIssued.topic
UNITS = 168
WARM_UP_SECONDS = 2.0
WRITERS = 8
JOINED_SECONDS = 2.0
"""How long a reader takes at most until it has joined its group."""

_WRITE = """
INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
VALUES ($1, $2, $3, 'TicketIssued', $4, '', $5)
"""


@dataclass
class Measured:
    """One carrier's figures."""

    carrier: str
    lags: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By events a second: median and 99th percentile of commit → handler, in milliseconds."""
    top: float = 0
    """Events a second through relay and consumer at once."""
    rebuild: float = 0
    """Events a second that a group which begins anew handles."""


def main(
    seconds: Annotated[float, typer.Option(help="How long each rate is kept up.")] = 15,
    rate: Annotated[list[int] | None, typer.Option(help="Events a second.")] = None,
    events: Annotated[int, typer.Option(help="Events of the full outbox and of the log.")] = 20_000,
    carrier: Annotated[list[str] | None, typer.Option(help="Which carriers.")] = None,
) -> None:
    """Measure, and print a table in Markdown."""
    rates = rate or [100, 500]
    rows = []
    for name in carrier or ["embedded", "kafka"]:
        with _surroundings(name) as settings:
            rows.append(uvloop.run(_measure(name, settings, rates, seconds, events)))
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[1]:.1f}, {seconds:g} s at each rate, {events:,} events\n"
    )
    for line in _table(rows, rates):
        console.print(line)


def _table(rows: list[Measured], rates: list[int]) -> Iterator[str]:
    yield "| | " + " | ".join(row.carrier for row in rows) + " |"
    yield "|---|" + "---:|" * len(rows)
    for rate in rates:
        cells = [f"{row.lags[rate][0]:.0f} / {row.lags[rate][1]:.0f} ms" for row in rows]
        yield f"| commit → handler at {rate} events/s, P50 / P99 | " + " | ".join(cells) + " |"
    yield "| top rate, events/s | " + " | ".join(f"{row.top:,.0f}" for row in rows) + " |"
    yield "| rebuild rate, events/s | " + " | ".join(f"{row.rebuild:,.0f}" for row in rows) + " |"


@contextmanager
def _surroundings(carrier: str) -> Iterator[Settings]:
    """Bring a database along, and a broker where it is Kafka's turn."""
    with reachable_folder() as folder, EmbeddedPostgres(folder / "postgres") as server:
        if carrier == "embedded":
            yield settings_for(server.url)
        else:
            with Broker(folder / "kafka") as broker:
                yield settings_for(server.url, kafka_bootstrap=broker.bootstrap)


async def _measure(
    carrier: str, settings: Settings, rates: list[int], seconds: float, events: int
) -> Measured:
    measured = Measured(carrier)
    await migrate(settings, list(all_topics()))
    async with open_bus(settings, "queue") as bus, _queue(settings) as database:
        await bus.apply_topics(all_topics())
        async with _relaying(database, bus) as relay:
            for rate in rates:
                async with _reporting(settings) as handled:
                    committed = await _write_steadily(database, relay, rate, seconds)
                    await _until_read(bus, "reporting")
                measured.lags[rate] = _percentiles(committed, await handled())
        await _fill_outbox(database, events)
        async with _reporting(settings):
            started = perf_counter()
            async with _relaying(database, bus):
                assert await drained(database, within=600)
                await _until_read(bus, "reporting")
                measured.top = events / (perf_counter() - started)
        measured.rebuild = await _rebuild(settings, bus)
    return measured


@asynccontextmanager
async def _queue(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(service_url(settings, "queue"), "queue", hot_pool=WRITERS) as database:
        yield database


@asynccontextmanager
async def _relaying(database: Database, bus: Bus) -> AsyncIterator[Relay]:
    relay = Relay("queue", database, bus)
    working = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


# The writing side ------------------------------------------------------------------------------


def _event(number: int) -> tuple[Any, ...]:
    now = datetime.now(UTC)
    event = TicketIssued(
        ticket_id=UUID(int=number),
        unit=f"H29.{26_000 + number % UNITS}",
        version=1,
        number=f"A{number:03}",
        at=now,
        series="A",
        business_day=now.date(),
        priority_class="normal",
        channel="kiosk",
        due_at=now,
        procedure_codes=("2.000815",),
    )
    return uuid4(), TOPIC, event.key, now, event.model_dump_json().encode()


async def _write_steadily(
    database: Database, relay: Relay, rate: int, seconds: float
) -> dict[int, float]:
    """Commit so many events a second, evenly; answer when each was committed, after a warm-up."""
    first = uuid4().int >> 64
    committed: dict[int, float] = {}
    writing = asyncio.Semaphore(WRITERS)

    async def write(number: int) -> None:
        async with writing:
            await database.hot.execute(_WRITE, *_event(number))
        committed[number] = time()
        relay.wake()

    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for place in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + place / rate - perf_counter()))
            group.create_task(write(first + place))
    warm = first + int(rate * WARM_UP_SECONDS)
    return {number: at for number, at in committed.items() if number >= warm}


async def _fill_outbox(database: Database, events: int) -> None:
    first = uuid4().int >> 64
    async with database.hot.acquire() as connection:
        await connection.executemany(_WRITE, [_event(first + n) for n in range(events)])


def _percentiles(committed: dict[int, float], handled: dict[int, float]) -> tuple[float, float]:
    lags = [(handled[number] - at) * 1000 for number, at in committed.items()]
    cuts = quantiles(lags, n=100)
    return cuts[49], cuts[98]


# The reading side ------------------------------------------------------------------------------


class _Timed(EventRouter):
    """Reporting's handlers, with the time at which each event reached its own."""

    def __init__(self, inner: EventRouter) -> None:
        super().__init__()
        self._inner = inner
        self.handled: dict[int, float] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        return self._inner.topics

    def find(self, topic: str, type_: str) -> tuple[type[Event], Handler] | None:
        found = self._inner.find(topic, type_)
        if found is None:
            return None
        kind, handler = found

        async def timed(event: TicketIssued, session: Any) -> None:
            self.handled[event.ticket_id.int] = time()
            await handler(event, session)

        return kind, timed


async def consume(settings: Settings) -> None:
    """Be reporting until the parent closes our input; then tell when each event was handled."""
    timed = _Timed(reporting)
    async with (
        open_database(service_url(settings, "reporting"), "reporting") as database,
        open_bus(settings, "reporting") as bus,
    ):
        consumer = Consumer("reporting", timed, database, bus)
        working = asyncio.create_task(consumer.run())
        await asyncio.sleep(JOINED_SECONDS)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    print(json.dumps(timed.handled))


@asynccontextmanager
async def _reporting(settings: Settings) -> AsyncIterator[Any]:
    """Run reporting as a process of its own; afterwards it tells when it handled each event."""
    told = {
        "MOTCUA_DATABASE_URL": settings.database_url.get_secret_value(),  # type: ignore[union-attr]
        "MOTCUA_KAFKA_BOOTSTRAP": settings.kafka_bootstrap or "",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from tests.bench.events import be_reporting; be_reporting()",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=os.environ | told,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    answer: list[bytes] = []

    async def handled() -> dict[int, float]:
        return {int(number): at for number, at in json.loads(answer[0]).items()}

    try:
        yield handled
    finally:
        answer.append((await process.communicate(b""))[0])


def be_reporting() -> None:
    """Be the reading process."""
    uvloop.run(consume(Settings.from_environment()))


async def _until_read(bus: Bus, group: str) -> None:
    while (await bus.lag(group, [TOPIC]))[TOPIC]:
        await asyncio.sleep(0.1)


async def _rebuild(settings: Settings, bus: Bus) -> float:
    """Let a group that has read nothing fill empty tables from the whole log."""
    assert settings.database_url is not None
    async with admin(settings.database_url.get_secret_value()) as operator:
        await operator.execute("TRUNCATE reporting.tickets, reporting.inbox")
    total = (await bus.lag("rebuild", [TOPIC]))[TOPIC]
    async with open_database(service_url(settings, "reporting"), "reporting") as database:
        consumer = Consumer("rebuild", reporting, database, bus)
        started = perf_counter()
        working = asyncio.create_task(consumer.run())
        await _until_read(bus, "rebuild")
        seconds = perf_counter() - started
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    async with admin(settings.database_url.get_secret_value()) as operator:
        events = int(await operator.fetchval("SELECT count(*) FROM reporting.tickets"))
    assert events <= total
    return events / seconds


if __name__ == "__main__":
    typer.run(main)

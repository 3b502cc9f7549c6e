"""Projections made anew while the service runs: nothing lost, nothing twice, and all or nothing.

The handler here adds one to a sum, so an event that is lost or applied twice shows.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import rebuild as mechanism
from libs.common.bus.base import Bus, Follower, Received, Record
from libs.common.bus.embedded import open_embedded_bus
from libs.common.consumer import Consumer
from libs.common.db import Database, connector, open_database, service_url
from libs.common.events import EventRouter, publish
from libs.common.migrate import make_twin
from libs.common.rebuild import Projections, RebuildRefused, Rebuilt, rebuild
from libs.common.writes import put
from tests.common.helpers import admin, eventually, execute_as_owner, scratch_database
from tests.common.things import AT, TOPICS, WIPE, Counted, Renamed, all_of, as_record
from tests.support import settings_for

TALLY = "(thing text PRIMARY KEY, events bigint NOT NULL, highest bigint NOT NULL)"
TABLE = Table(
    "tally",
    MetaData(),
    Column("thing", Text, primary_key=True),
    Column("events", BigInteger),
    Column("highest", BigInteger),
)
_ROW = insert(TABLE)
COUNT = _ROW.on_conflict_do_update(
    index_elements=[TABLE.c.thing],
    set_={
        "events": TABLE.c.events + 1,
        "highest": func.greatest(TABLE.c.highest, _ROW.excluded.highest),
    },
)
POISON = 13

Tally = dict[str, tuple[int, int]]


def router_of(*, announcing: bool = False) -> EventRouter:
    """Make a register whose handler counts what comes, and cannot count one number."""
    router = EventRouter()

    @router.on(Counted)
    async def count(event: Counted, session: AsyncSession) -> None:
        if event.number == POISON:
            raise ValueError("unlucky")
        put(session, COUNT, {"thing": event.thing, "events": 1, "highest": event.number})
        if announcing:
            publish(session, Renamed(thing=event.thing), at=AT)

    return router


WHAT = Projections("queue", router_of(), ("tally",))


@pytest.fixture(scope="module")
async def scratch(server_url: str, migrated: str) -> AsyncIterator[str]:
    """Give a module a database with a projection in it."""
    async with scratch_database(server_url, migrated) as url:
        await execute_as_owner(
            url,
            f"CREATE TABLE queue.tally {TALLY}",
            "CREATE TABLE queue.applied (one int)",
            "CREATE TABLE queue.things (one int)",
            "CREATE TABLE reporting.applied (one int)",
        )
        yield url


@pytest.fixture
async def url(scratch: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give it empty; its twin gets the projection that no revision knows."""

    async def make(url: str, service: str, twin: str) -> None:
        await make_twin(url, service, twin)
        await execute_as_owner(url, f"CREATE TABLE {twin}.tally {TALLY}")

    monkeypatch.setattr(mechanism, "make_twin", make)
    async with admin(scratch) as connection:
        await connection.execute(WIPE + "DELETE FROM queue.tally")
    return scratch


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Database, Bus]]:
    """Open what one process of the service has."""
    own = service_url(settings_for(url), "queue")
    async with (
        open_database(own, "queue", pool=2, hot_pool=2) as database,
        open_embedded_bus(own, connector(own, "queue")) as bus,
    ):
        await bus.apply_topics(TOPICS)
        yield database, bus


@asynccontextmanager
async def process(url: str, batch: int = 20) -> AsyncIterator[Consumer]:
    """Run a process of the service that handles events."""
    async with opened(url) as (database, bus):
        consumer = Consumer("queue", WHAT.router, database, bus)
        consumer.batch, consumer.wait_seconds = batch, 0.1
        task = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            task.cancel()
            [end] = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(end, asyncio.CancelledError), end


async def rebuilt(url: str, what: Projections = WHAT, **options: Any) -> Rebuilt:
    """Rebuild as the operator's command does."""
    async with opened(url) as (_, bus):
        return await rebuild(settings_for(url), what, bus, **options)


async def send(bus: Bus, records: Sequence[Record]) -> None:
    """Put records on the bus."""
    async with bus.producer(f"test-{uuid4()}") as producer:
        await producer.send(records)


def counted(thing: str, numbers: Sequence[int]) -> list[Record]:
    """Make events of one thing."""
    return [as_record(Counted(thing=thing, number=number)) for number in numbers]


async def tally(url: str) -> Tally:
    """Read what has been counted."""
    async with admin(url) as connection:
        rows = await connection.fetch("SELECT * FROM queue.tally")
    return {row["thing"]: (row["events"], row["highest"]) for row in rows}


async def twins(url: str) -> int:
    """Count the schemas that a rebuild has left."""
    async with admin(url) as connection:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE nspname = $1", WHAT.twin
        )
    return int(found)


async def handle_without_committing_offsets(url: str, records: Sequence[Received]) -> None:
    """Handle as a process that is killed before it commits its offsets."""
    async with opened(url) as (database, bus):
        await Consumer("queue", WHAT.router, database, bus).handle(records)


async def test_tables_are_made_anew_from_the_first_event(url: str) -> None:
    async with opened(url) as (_, bus):
        await send(bus, counted("a", range(1, 6)) + counted("b", range(1, 4)))
    async with admin(url) as connection:
        await connection.execute("INSERT INTO queue.tally VALUES ('a', 77, 77)")
    told: list[tuple[int, int]] = []
    done = await rebuilt(url, told=lambda read, all_: told.append((read, all_)))
    assert await tally(url) == {"a": (5, 5), "b": (3, 3)}
    assert (done.events, done.dead_letters, done.rows) == (8, 0, {"tally": 2})
    assert told[-1] == (8, 8)
    assert await twins(url) == 0


async def test_what_the_rebuild_has_read_first_is_not_counted_again(url: str) -> None:
    async with opened(url) as (_, bus):
        await send(bus, counted("a", range(1, 11)))
    await rebuilt(url)
    async with process(url), opened(url) as (_, bus):
        await eventually(lambda: _caught_up(bus))
    assert await tally(url) == {"a": (10, 10)}


async def _caught_up(bus: Bus) -> bool:
    return (await bus.lag("queue", [Counted.topic]))[Counted.topic] == 0


async def test_what_was_handled_and_not_committed_comes_again_without_effect(url: str) -> None:
    async with opened(url) as (_, bus):
        await send(bus, counted("a", range(1, 11)))
        records = await all_of(bus, Counted.topic)
    await handle_without_committing_offsets(url, records[:6])
    await rebuilt(url)
    await handle_without_committing_offsets(url, records)
    assert await tally(url) == {"a": (10, 10)}


async def test_events_that_come_during_the_rebuild_are_counted_once(url: str) -> None:
    """Three processes of the service, a sender that does not pause, and four rebuilds."""
    sent = 0
    stop = asyncio.Event()

    async def go_on_sending(bus: Bus) -> None:
        nonlocal sent
        async with bus.producer("sender") as producer:
            while not stop.is_set():
                numbers = range(sent + 1, sent + 11)
                await producer.send(
                    [as_record(Counted(thing=str(n % 3), number=n + 100)) for n in numbers]
                )
                sent += 10
                await asyncio.sleep(0.02)

    async with AsyncExitStack() as stack:
        _, bus = await stack.enter_async_context(opened(url))
        for _ in range(3):
            await stack.enter_async_context(process(url))
        sender = asyncio.create_task(go_on_sending(bus))
        await eventually(lambda: tally(url))
        for _ in range(4):
            done = await rebuilt(url)
            assert done.dead_letters == 0
        stop.set()
        await sender
        await eventually(lambda: _caught_up(bus))
    counts = await tally(url)
    assert sum(events for events, _ in counts.values()) == sent
    assert max(highest for _, highest in counts.values()) == sent + 100


async def test_the_swap_waits_for_a_batch_that_is_being_handled(url: str) -> None:
    """The twin has read the batch before its consumer commits: it may count on neither side."""
    async with opened(url) as (database, bus):
        await send(bus, counted("a", range(1, 11)))
        records = await all_of(bus, Counted.topic)
        claimed, go_on = asyncio.Event(), asyncio.Event()
        router = EventRouter()

        @router.on(Counted)
        async def linger(event: Counted, session: AsyncSession) -> None:
            await session.execute(
                COUNT, {"thing": event.thing, "events": 1, "highest": event.number}
            )
            if event.number == 10:
                claimed.set()
                await go_on.wait()

        slow = asyncio.create_task(Consumer("queue", router, database, bus).handle(records))
        await claimed.wait()
        rebuilding = asyncio.create_task(rebuilt(url))
        try:
            await eventually(lambda: _waits_for(url, "LOCK TABLE queue.inbox"))
            assert not rebuilding.done()
        finally:
            go_on.set()
            await asyncio.gather(slow, rebuilding)
    assert await tally(url) == {"a": (10, 10)}


async def _waits_for(url: str, statement: str) -> bool:
    async with admin(url) as connection:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE $1 || '%'",
                statement,
            )
        )


async def test_readers_see_the_old_rows_or_the_new_and_are_never_sent_away(url: str) -> None:
    """A reader that goes over both tables in one transaction, in the order we do not take them."""
    async with opened(url) as (_, bus):
        await send(bus, counted("a", range(1, 11)))
    async with admin(url) as reader:
        await reader.execute("INSERT INTO queue.tally VALUES ('a', 77, 77)")
        reading = reader.transaction()
        await reading.start()
        before = await reader.fetchval("SELECT events FROM queue.tally")
        rebuilding = asyncio.create_task(rebuilt(url))
        await eventually(lambda: _waits_for(url, "LOCK TABLE queue.tally"))
        assert await reader.fetchval("SELECT events FROM queue.tally") == before == 77
        assert await reader.fetchval("SELECT count(*) FROM queue_rebuild.tally") == 1
        await reading.commit()
        await rebuilding
        assert await reader.fetchval("SELECT events FROM queue.tally") == 10


async def test_an_event_that_cannot_be_counted_becomes_a_dead_letter_once(url: str) -> None:
    async with opened(url) as (_, bus):
        await send(bus, counted("a", [1, POISON, 2]))
    done = await rebuilt(url)
    assert done.dead_letters == 1
    assert await tally(url) == {"a": (2, 2)}
    async with admin(url) as connection:
        rows = await connection.fetch("SELECT topic, key, extra FROM queue.outbox")
    [letter] = rows
    assert letter["topic"] == "test.counted.v1.dlq"
    assert letter["key"].startswith("queue:")
    assert "unlucky" in letter["extra"]


async def test_a_letter_that_is_replayed_after_the_rebuild_counts_once(url: str) -> None:
    """It had failed before the rebuild, which could count it: the twin's inbox knows it."""
    [event] = counted("a", [1])
    async with opened(url) as (database, bus):
        await send(bus, [event])
        failing = EventRouter()

        @failing.on(Counted)
        async def fail(_event: Counted, _session: AsyncSession) -> None:
            raise ValueError("a defect that will be mended")

        [record] = await all_of(bus, Counted.topic)
        await Consumer("queue", failing, database, bus).handle([record])
        await rebuilt(url)
        await handle_without_committing_offsets(url, [record])
    assert await tally(url) == {"a": (1, 1)}


# Interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 4])
async def test_interrupted_it_leaves_the_old_tables_and_can_be_run_again(
    url: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "BATCH", 5)
    async with opened(url) as (_, bus):
        await send(bus, counted("a", range(101, 131)))
    async with admin(url) as connection:
        await connection.execute("INSERT INTO queue.tally VALUES ('a', 77, 77)")
    reached = asyncio.Event()

    def told(read: int, _all: int) -> None:
        if read >= after * 5:
            reached.set()

    rebuilding = asyncio.create_task(rebuilt(url, told=told))
    await reached.wait()
    rebuilding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rebuilding
    assert await tally(url) == {"a": (77, 77)}
    assert await twins(url) == 0
    await rebuilt(url)
    assert await tally(url) == {"a": (30, 130)}


async def test_the_twin_of_a_rebuild_that_was_killed_is_thrown_away(url: str) -> None:
    await make_twin(url, "queue", WHAT.twin)
    await execute_as_owner(url, f"CREATE TABLE {WHAT.twin}.tally (something int)")
    async with opened(url) as (_, bus):
        await send(bus, counted("a", [1, 2]))
    await rebuilt(url)
    assert await tally(url) == {"a": (2, 2)}
    assert await twins(url) == 0


# Refused --------------------------------------------------------------------------------------


async def test_two_rebuilds_at_once_are_refused(url: str) -> None:
    async with admin(url) as other:
        await other.execute("SELECT pg_advisory_lock(hashtextextended('rebuild:queue', 0))")
        with pytest.raises(RebuildRefused, match="another rebuild of queue is under way"):
            await rebuilt(url)


async def test_a_log_that_has_lost_its_beginning_is_no_ground_to_rebuild_on(url: str) -> None:
    async with opened(url) as (_, bus):
        await send(bus, counted("old", [1]) + counted("new", [2, 3]))
        await handle_without_committing_offsets(url, await all_of(bus, Counted.topic))
    async with admin(url) as connection:
        await connection.execute("DELETE FROM bus.log WHERE key = 'old'")
    before = await tally(url)
    with pytest.raises(RebuildRefused, match=r"1 rows of queue\.tally would be lost"):
        await rebuilt(url)
    assert await tally(url) == before == {"old": (1, 1), "new": (2, 3)}
    assert await twins(url) == 0
    await rebuilt(url, allow_losses=True)
    assert await tally(url) == {"new": (2, 3)}


async def test_a_program_that_knows_fewer_events_than_the_service_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would swap in tables without what a newer version of the service has counted meanwhile."""
    monkeypatch.setattr(mechanism, "SILENCE_SECONDS", 0.3)
    newer = EventRouter()

    @newer.on(Renamed)
    async def count(event: Renamed, session: AsyncSession) -> None:
        put(session, COUNT, {"thing": event.thing, "events": 1, "highest": 1})

    async with opened(url) as (database, bus):
        await send(bus, [*counted("a", [1]), as_record(Renamed(thing="b"))])
        renamed = await all_of(bus, Renamed.topic)
        follow = bus.follow

        @asynccontextmanager
        async def handle_meanwhile(topics: Sequence[str]) -> AsyncIterator[Follower]:
            async with follow(topics) as follower:
                await Consumer("queue", newer, database, bus).handle(renamed)
                yield follower

        monkeypatch.setattr(bus, "follow", handle_meanwhile)
        with pytest.raises(RebuildRefused, match="has handled 1 events meanwhile"):
            await rebuild(settings_for(url), WHAT, bus)
    assert await tally(url) == {"b": (1, 1)}


async def test_a_schema_of_another_revision_is_refused(url: str) -> None:
    async with admin(url) as connection:
        was = await connection.fetchval("SELECT version_num FROM queue.alembic_version")
        await connection.execute("UPDATE queue.alembic_version SET version_num = 'older'")
        try:
            with pytest.raises(RebuildRefused, match="queue is at revision older"):
                await rebuilt(url)
        finally:
            await connection.execute("UPDATE queue.alembic_version SET version_num = $1", was)


async def test_handlers_that_announce_are_refused(url: str) -> None:
    async with opened(url) as (_, bus):
        await send(bus, counted("a", [1]))
    what = Projections("queue", router_of(announcing=True), ("tally",))
    with pytest.raises(RebuildRefused, match=r"announces events itself, on test\.renamed\.v1"):
        await rebuilt(url, what)
    assert await tally(url) == {}


async def test_tables_that_are_never_free_are_left_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "SWAP_SECONDS", 0.0)
    monkeypatch.setattr(mechanism, "LOCK_TRIES", 1)
    async with admin(url) as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT * FROM queue.tally")
        with pytest.raises(RebuildRefused, match="no moment to swap"):
            await rebuilt(url)
        await reading.rollback()

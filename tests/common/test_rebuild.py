"""Projections made anew while the service runs: nothing lost, nothing twice, and all or nothing.

The handler here adds one to a sum, so an event that is lost or applied twice shows.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import rebuild as mechanism
from libs.common.bus.base import Bus, Follower, Received, Record
from libs.common.consumer import Consumer
from libs.common.db import Database, open_database, service_url
from libs.common.events import EventRouter, publish
from libs.common.migrate import make_twin
from libs.common.rebuild import Projections, RebuildRefused, Rebuilt, rebuild
from libs.common.writes import put
from tests.common.carriers import OpenBus, embedded_buses
from tests.common.helpers import admin, eventually, execute_as_owner
from tests.common.test_consumer import at_work, counted, send
from tests.common.things import AT, TOPICS, Counted, Renamed, all_of, as_record
from tests.support import settings_for

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


class Elsewhere(Counted):
    """A fact on a topic that nobody has made."""

    topic: ClassVar[str] = "test.elsewhere.v1"


def row_of(event: Counted) -> dict[str, Any]:
    """Give what one event adds."""
    return {"thing": event.thing, "events": 1, "highest": event.number}


def router_of(*, announcing: bool = False) -> EventRouter:
    """Make a register whose handler counts what comes, and cannot count one number."""
    router = EventRouter()

    @router.on(Counted)
    async def count(event: Counted, session: AsyncSession) -> None:
        if event.number == POISON:
            raise ValueError("unlucky")
        put(session, COUNT, row_of(event))
        if announcing:
            publish(session, Renamed(thing=event.thing), at=AT)

    return router


WHAT = Projections("queue", router_of(), ("tally",))


@dataclass(frozen=True)
class Place:
    """A service's database and the bus."""

    url: str
    open_bus: OpenBus

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Database, Bus]]:
        """Open what one process of the service has."""
        own = service_url(settings_for(self.url), "queue")
        async with (
            open_database(own, "queue", pool=2, hot_pool=2) as database,
            self.open_bus() as bus,
        ):
            yield database, bus

    @asynccontextmanager
    async def process(self) -> AsyncIterator[None]:
        """Run a process of the service that handles events."""
        async with self.opened() as (database, bus):
            consumer = Consumer("queue", WHAT.router, database, bus)
            consumer.batch, consumer.wait_seconds = 20, 0.1
            async with at_work(consumer):
                yield

    async def rebuild(self, what: Projections = WHAT, **options: Any) -> Rebuilt:
        """Rebuild as the operator's command does."""
        async with self.open_bus() as bus:
            return await rebuild(settings_for(self.url), what, bus, **options)

    async def send(self, *records: Record) -> list[Received]:
        """Put records on the bus; give all that the topic of counts holds."""
        async with self.open_bus() as bus:
            await send(bus, *records)
            return await all_of(bus, Counted.topic)

    async def handle(self, records: Sequence[Received], router: EventRouter | None = None) -> None:
        """Handle as a process that is killed before it commits its offsets."""
        async with self.opened() as (database, bus):
            await Consumer("queue", router or WHAT.router, database, bus).handle(records)

    async def caught_up(self) -> bool:
        """Tell whether the service has handled everything."""
        async with self.open_bus() as bus:
            return (await bus.lag("queue", [Counted.topic]))[Counted.topic] == 0

    async def tally(self) -> dict[str, tuple[int, int]]:
        """Read what has been counted: how many events, and the highest number."""
        async with admin(self.url) as connection:
            rows = await connection.fetch("SELECT * FROM queue.tally")
        return {row["thing"]: (row["events"], row["highest"]) for row in rows}

    async def spoil(self) -> None:
        """Put a row into the table in use that no event told."""
        async with admin(self.url) as connection:
            await connection.execute("INSERT INTO queue.tally VALUES ('a', 77, 77)")

    async def twins(self) -> int:
        """Count the schemas that a rebuild has left."""
        async with admin(self.url) as connection:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_namespace WHERE nspname = $1", WHAT.twin
                )
            )

    async def waits(self, statement: str) -> bool:
        """Tell whether somebody waits for a lock with such a statement."""
        async with admin(self.url) as connection:
            return bool(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND wait_event_type = 'Lock' AND query LIKE $1 || '%'",
                    statement,
                )
            )


async def _make_twin_with_tally(url: str, service: str, twin: str) -> None:
    await make_twin(url, service, twin)
    await execute_as_owner(
        url, f"CREATE TABLE {twin}.tally (LIKE {service}.tally INCLUDING INDEXES)"
    )


@pytest.fixture(autouse=True)
def _twins_with_the_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """No revision knows the table of these tests."""
    monkeypatch.setattr(mechanism, "make_twin", _make_twin_with_tally)


@pytest.fixture
async def place(counting_url: str, open_bus: OpenBus, bus: Bus) -> Place:
    """Give the place on each carrier in turn, empty."""
    assert not await bus.missing([topic.name for topic in TOPICS])
    return Place(counting_url, open_bus)


@pytest.fixture
async def embedded(counting_url: str) -> AsyncIterator[Place]:
    """Give it on the log table, for what is the same on both or tampers with the log."""
    async with embedded_buses(counting_url) as open_bus:
        async with open_bus() as bus:
            await bus.apply_topics(TOPICS)
        yield Place(counting_url, open_bus)


async def test_tables_are_made_anew_from_the_first_event(place: Place) -> None:
    await place.send(*counted("a", 1, 2, 3, 4, 5), *counted("b", 1, 2, 3))
    await place.spoil()
    told: list[tuple[int, int]] = []
    done = await place.rebuild(told=lambda read, all_: told.append((read, all_)))
    assert await place.tally() == {"a": (5, 5), "b": (3, 3)}
    assert (done.events, done.dead_letters, done.rows) == (8, 0, {"tally": 2})
    assert told[-1] == (8, 8)
    assert await place.twins() == 0


async def test_what_the_rebuild_has_read_first_is_not_counted_again(place: Place) -> None:
    await place.send(*counted("a", *range(1, 11)))
    await place.rebuild()
    async with place.process():
        await eventually(place.caught_up)
    assert await place.tally() == {"a": (10, 10)}


async def test_what_was_handled_and_not_committed_comes_again_without_effect(place: Place) -> None:
    records = await place.send(*counted("a", *range(1, 11)))
    await place.handle(records[:6])
    await place.rebuild()
    await place.handle(records)
    assert await place.tally() == {"a": (10, 10)}


async def test_events_that_come_during_the_rebuild_are_counted_once(place: Place) -> None:
    """Three processes of the service, a sender that does not pause, and four rebuilds."""
    sent = 0
    stop = asyncio.Event()

    async def go_on_sending() -> None:
        nonlocal sent
        async with place.open_bus() as bus, bus.producer("sender") as producer:
            while not stop.is_set():
                numbers = range(sent + 101, sent + 111)
                await producer.send([as_record(Counted(thing="a", number=n)) for n in numbers])
                sent += 10
                await asyncio.sleep(0.02)

    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(place.process())
        sender = asyncio.create_task(go_on_sending())
        await eventually(place.tally)
        for _ in range(4):
            assert (await place.rebuild()).dead_letters == 0
        stop.set()
        await sender
        await eventually(place.caught_up)
    assert await place.tally() == {"a": (sent, sent + 100)}


async def test_the_swap_waits_for_a_batch_that_is_being_handled(embedded: Place) -> None:
    """The twin has read the batch before its consumer commits: it may count on neither side."""
    records = await embedded.send(*counted("a", *range(1, 11)))
    claimed, go_on = asyncio.Event(), asyncio.Event()
    router = EventRouter()

    @router.on(Counted)
    async def linger(event: Counted, session: AsyncSession) -> None:
        put(session, COUNT, row_of(event))
        if event.number == 10:
            claimed.set()
            await go_on.wait()

    slow = asyncio.create_task(embedded.handle(records, router))
    await claimed.wait()
    rebuilding = asyncio.create_task(embedded.rebuild())
    try:
        await eventually(lambda: embedded.waits("LOCK TABLE queue.inbox"))
        assert not rebuilding.done()
    finally:
        go_on.set()
        await asyncio.gather(slow, rebuilding)
    assert await embedded.tally() == {"a": (10, 10)}


async def test_readers_see_the_old_rows_or_the_new_and_are_never_sent_away(embedded: Place) -> None:
    """One reads on in its transaction while the swap waits for it; the next one after the swap."""
    await embedded.send(*counted("a", *range(1, 11)))
    await embedded.spoil()
    async with admin(embedded.url) as reader:
        reading = reader.transaction()
        await reading.start()
        assert await reader.fetchval("SELECT events FROM queue.tally") == 77
        rebuilding = asyncio.create_task(embedded.rebuild())
        await eventually(lambda: embedded.waits("LOCK TABLE queue.tally"))
        assert await reader.fetchval("SELECT events FROM queue.tally") == 77
        # What the swap takes besides is free as long as it waits: no deadlock can come of it.
        assert await reader.fetchval("SELECT count(*) FROM queue_rebuild.tally") == 1
        await reading.commit()
        await rebuilding
        assert await reader.fetchval("SELECT events FROM queue.tally") == 10


async def test_an_event_that_cannot_be_counted_becomes_a_dead_letter_once(place: Place) -> None:
    await place.send(*counted("a", 1, POISON, 2))
    assert (await place.rebuild()).dead_letters == 1
    assert await place.tally() == {"a": (2, 2)}
    async with admin(place.url) as connection:
        [letter] = await connection.fetch("SELECT topic, key, extra FROM queue.outbox")
    assert letter["topic"] == "test.counted.v1.dlq"
    assert letter["key"].startswith("queue:")
    assert "unlucky" in letter["extra"]


async def test_a_letter_that_is_replayed_after_the_rebuild_counts_once(embedded: Place) -> None:
    """It had failed before the rebuild, which could count it: the twin's inbox knows it."""
    failing = EventRouter()

    @failing.on(Counted)
    async def fail(_event: Counted, _session: AsyncSession) -> None:
        raise ValueError("a defect that will be mended")

    records = await embedded.send(*counted("a", 1))
    await embedded.handle(records, failing)
    await embedded.rebuild()
    await embedded.handle(records)
    assert await embedded.tally() == {"a": (1, 1)}


# Interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 4])
async def test_interrupted_it_leaves_the_old_tables_and_can_be_run_again(
    embedded: Place, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "BATCH", 5)
    await embedded.send(*counted("a", *range(101, 131)))
    await embedded.spoil()
    reached = asyncio.Event()

    def told(read: int, _all: int) -> None:
        if read >= batches * 5:
            reached.set()

    rebuilding = asyncio.create_task(embedded.rebuild(told=told))
    await reached.wait()
    rebuilding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rebuilding
    assert await embedded.tally() == {"a": (77, 77)}
    assert await embedded.twins() == 0
    await embedded.rebuild()
    assert await embedded.tally() == {"a": (30, 130)}


async def test_the_twin_of_a_rebuild_that_was_killed_is_thrown_away(embedded: Place) -> None:
    await make_twin(embedded.url, "queue", WHAT.twin)
    await execute_as_owner(embedded.url, f"CREATE TABLE {WHAT.twin}.tally (something int)")
    await embedded.send(*counted("a", 1, 2))
    await embedded.rebuild()
    assert await embedded.tally() == {"a": (2, 2)}
    assert await embedded.twins() == 0


# Refused --------------------------------------------------------------------------------------


async def test_two_rebuilds_at_once_are_refused(embedded: Place) -> None:
    async with admin(embedded.url) as other:
        await other.execute("SELECT pg_advisory_lock(hashtextextended('rebuild:queue', 0))")
        with pytest.raises(RebuildRefused, match="another rebuild of queue is under way"):
            await embedded.rebuild()


async def test_a_log_that_has_lost_its_beginning_is_no_ground_to_rebuild_on(
    embedded: Place,
) -> None:
    await embedded.handle(await embedded.send(*counted("old", 1), *counted("new", 2, 3)))
    async with admin(embedded.url) as connection:
        await connection.execute("DELETE FROM bus.log WHERE key = 'old'")
    before = await embedded.tally()
    with pytest.raises(RebuildRefused, match=r"1 rows of queue\.tally would be lost"):
        await embedded.rebuild()
    assert await embedded.tally() == before == {"old": (1, 1), "new": (2, 3)}
    assert await embedded.twins() == 0
    await embedded.rebuild(allow_losses=True)
    assert await embedded.tally() == {"new": (2, 3)}


async def test_neither_is_a_log_that_lacks_part_of_what_a_row_was_made_of(
    embedded: Place,
) -> None:
    await embedded.handle(await embedded.send(*counted("a", 1, 2, 3)))
    async with admin(embedded.url) as connection:
        await connection.execute('DELETE FROM bus.log WHERE "offset" = 0')
    with pytest.raises(RebuildRefused, match="1 events that queue has handled are no longer in"):
        await embedded.rebuild()
    assert await embedded.tally() == {"a": (3, 3)}


async def test_a_topic_that_is_missing_is_no_ground_either(place: Place) -> None:
    @(router := EventRouter()).on(Elsewhere)
    async def ignore(_event: Elsewhere, _session: AsyncSession) -> None:
        return

    with pytest.raises(RebuildRefused, match=r"topics are missing: test\.elsewhere\.v1"):
        await place.rebuild(Projections("queue", router, ("tally",)), allow_losses=True)


async def test_a_program_that_knows_fewer_events_than_the_service_is_refused(
    embedded: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would swap in tables without what a newer version of the service has counted meanwhile."""
    monkeypatch.setattr(mechanism, "SILENCE_SECONDS", 0.3)
    newer = EventRouter()

    @newer.on(Renamed)
    async def count(event: Renamed, session: AsyncSession) -> None:
        put(session, COUNT, {"thing": event.thing, "events": 1, "highest": 1})

    await embedded.send(*counted("a", 1), as_record(Renamed(thing="b")))
    async with embedded.opened() as (_, bus):
        renamed = await all_of(bus, Renamed.topic)
        follow = bus.follow

        @asynccontextmanager
        async def handle_meanwhile(topics: Sequence[str]) -> AsyncIterator[Follower]:
            async with follow(topics) as follower:
                await embedded.handle(renamed, newer)
                yield follower

        monkeypatch.setattr(bus, "follow", handle_meanwhile)
        with pytest.raises(RebuildRefused, match="has handled 1 events meanwhile"):
            await rebuild(settings_for(embedded.url), WHAT, bus)
    assert await embedded.tally() == {"b": (1, 1)}


async def test_a_schema_of_another_revision_is_refused(embedded: Place) -> None:
    async with admin(embedded.url) as connection:
        was = await connection.fetchval("SELECT version_num FROM queue.alembic_version")
        await connection.execute("UPDATE queue.alembic_version SET version_num = 'older'")
        try:
            with pytest.raises(RebuildRefused, match="queue is at revision older"):
                await embedded.rebuild()
        finally:
            await connection.execute("UPDATE queue.alembic_version SET version_num = $1", was)


async def test_handlers_that_announce_are_refused(embedded: Place) -> None:
    await embedded.send(*counted("a", 1))
    what = Projections("queue", router_of(announcing=True), ("tally",))
    with pytest.raises(RebuildRefused, match=r"announces events itself, on test\.renamed\.v1"):
        await embedded.rebuild(what)
    assert await embedded.tally() == {}


async def test_tables_that_are_never_free_are_left_alone(
    embedded: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanism, "SWAP_SECONDS", 0.0)
    monkeypatch.setattr(mechanism, "LOCK_TRIES", 1)
    async with admin(embedded.url) as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT * FROM queue.tally")
        with pytest.raises(RebuildRefused, match="no moment to swap"):
            await embedded.rebuild()
        await reading.rollback()

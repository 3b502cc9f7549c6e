"""Events out: written with the transaction or not at all, carried by one relay, in order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.bus.base import Bus, BusError, Producer, Record
from libs.common.db import Database, open_database, service_url
from libs.common.events import Envelope, publish
from libs.common.observability import OUTBOX_AGE
from libs.common.outbox import OUTBOX, Relay, drained, prune, watch_outbox
from tests.common.carriers import OpenBus
from tests.common.helpers import eventually, kill, wire_to
from tests.common.things import AT, TOPICS, Counted, Renamed, WrappedBus, all_of, counts
from tests.support import settings_for

BUMP = text(
    "INSERT INTO things AS t (thing, number) VALUES (:thing, 1) "
    "ON CONFLICT (thing) DO UPDATE SET number = t.number + 1 RETURNING number"
)


@pytest.fixture
async def database_url(counting_url: str) -> str:
    """Give the database in which things are counted."""
    return counting_url


@pytest.fixture
async def database(queue_database: Database) -> Database:
    """Give the service `queue`, which stands for any."""
    return queue_database


@asynccontextmanager
async def at_work(*relays: Relay) -> AsyncIterator[None]:
    """Let relays run."""
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Watched(Relay):
    """A relay that shows the connection that holds its lock."""

    retry_seconds = 0.05
    holder: Any = None

    async def _locked(self, connection: Any) -> bool:
        locked = await super()._locked(connection)
        if locked:
            self.holder = connection
        return locked


def relay_of(database: Database, bus: Bus) -> Watched:
    """Make a relay of the service `queue`."""
    return Watched("queue", database, bus)


async def outbox(database: Database) -> list[tuple[str, int]]:
    """Read the things that still wait for the bus."""
    rows = await database.hot.fetch("SELECT body FROM outbox ORDER BY id")
    events = [Counted.model_validate_json(row["body"]) for row in rows]
    return [(event.thing, event.number) for event in events]


async def count_up(session: AsyncSession, thing: str) -> int:
    """Lock a thing's row, raise its number, announce it."""
    number = int(await session.scalar(BUMP, {"thing": thing}) or 0)
    publish(session, Counted(thing=thing, number=number), at=AT)
    return number


async def count_things(database: Database, thing: str, times: int) -> None:
    """Count a thing in transactions of its own."""
    for _ in range(times):
        async with database.sessions.begin() as session:
            await count_up(session, thing)


# Publishing -----------------------------------------------------------------------------------


async def test_what_a_transaction_publishes_is_in_the_outbox_when_it_commits(
    database: Database,
) -> None:
    async with database.sessions.begin() as session:
        publish(session, Counted(thing="a", number=1), at=AT)
        publish(session, Counted(thing="a", number=2), at=AT)
    assert await outbox(database) == [("a", 1), ("a", 2)]


async def test_the_row_carries_what_the_headers_need(database: Database) -> None:
    async with database.sessions.begin() as session:
        publish(session, Counted(thing="a", number=1), at=AT)
    async with database.sessions() as session:
        row = (await session.execute(select(OUTBOX))).one()
    assert (row.topic, row.key, row.type) == ("test.counted.v1", "a", "Counted")
    assert row.time == AT
    assert isinstance(row.event_id, UUID)
    assert len(row.traceparent) == 55


async def test_a_transaction_that_rolls_back_publishes_nothing(database: Database) -> None:
    async with database.sessions() as session:
        publish(session, Counted(thing="a", number=1), at=AT)
        await session.rollback()
        publish(session, Counted(thing="b", number=1), at=AT)
        await session.commit()
    assert await outbox(database) == [("b", 1)]


async def test_an_exception_publishes_nothing(database: Database) -> None:
    with suppress(ZeroDivisionError):
        async with database.sessions.begin() as session:
            await count_up(session, "a")
            raise ZeroDivisionError
    assert await outbox(database) == []
    assert await database.hot.fetchval("SELECT count(*) FROM things") == 0


async def test_a_commit_that_fails_publishes_nothing(database: Database) -> None:
    async with database.sessions() as session:
        await count_up(session, "a")
        await session.execute(text("INSERT INTO late VALUES (1), (1)"))
        with pytest.raises(IntegrityError):
            await session.commit()
    assert await outbox(database) == []


async def test_a_session_closed_without_a_commit_publishes_nothing_later(
    database: Database,
) -> None:
    session = database.sessions()
    publish(session, Counted(thing="a", number=1), at=AT)
    await session.execute(text("SELECT 1"))
    await session.close()
    async with session.begin():
        publish(session, Counted(thing="b", number=1), at=AT)
    await session.close()
    assert await outbox(database) == [("b", 1)]


async def test_a_savepoint_that_fails_takes_back_its_own_events_alone(database: Database) -> None:
    async with database.sessions.begin() as session:
        await count_up(session, "before")
        with suppress(ZeroDivisionError):
            async with session.begin_nested():
                await count_up(session, "within")
                raise ZeroDivisionError
        await count_up(session, "after")
    assert await outbox(database) == [("before", 1), ("after", 1)]


async def test_a_savepoint_that_holds_is_published_with_the_transaction(
    database: Database,
) -> None:
    async with database.sessions.begin() as session:
        await count_up(session, "before")
        async with session.begin_nested():
            await count_up(session, "within")
        await count_up(session, "after")
        assert await outbox(database) == [], "nothing before the commit"
    assert await outbox(database) == [("before", 1), ("within", 1), ("after", 1)]


async def test_a_savepoint_inside_one_that_fails_is_taken_back_with_it(
    database: Database,
) -> None:
    async with database.sessions.begin() as session:
        await count_up(session, "before")
        with suppress(ZeroDivisionError):
            async with session.begin_nested():
                await count_up(session, "outer")
                async with session.begin_nested():
                    await count_up(session, "inner")
                raise ZeroDivisionError
    assert await outbox(database) == [("before", 1)]


async def test_a_transaction_rolled_back_after_a_savepoint_publishes_nothing(
    database: Database,
) -> None:
    with suppress(ZeroDivisionError):
        async with database.sessions.begin() as session:
            async with session.begin_nested():
                await count_up(session, "a")
            raise ZeroDivisionError
    assert await outbox(database) == []


async def test_ids_of_one_aggregate_follow_its_commits_however_many_write(
    database: Database,
) -> None:
    await asyncio.gather(*(count_things(database, "a", 15) for _ in range(6)))
    assert await outbox(database) == [("a", number) for number in range(1, 91)]


async def test_events_published_before_the_lock_was_taken_still_follow_the_commits(
    database: Database,
) -> None:
    """Publishing first and changing the row afterwards would else reverse two writers."""
    started, release = asyncio.Event(), asyncio.Event()

    async def early() -> None:
        async with database.sessions.begin() as session:
            publish(session, Counted(thing="a", number=2), at=AT)
            started.set()
            await release.wait()
            await session.execute(BUMP, {"thing": "a"})

    writing = asyncio.create_task(early())
    await started.wait()
    async with database.sessions.begin() as session:
        publish(session, Counted(thing="a", number=1), at=AT)
        await session.execute(BUMP, {"thing": "a"})
    release.set()
    await writing
    assert await outbox(database) == [("a", 1), ("a", 2)]


async def test_a_commit_with_events_wakes_the_relay_and_one_without_does_not(
    database_url: str,
) -> None:
    woken = []
    url = service_url(settings_for(database_url), "queue")
    async with open_database(url, "queue", on_commit=lambda: woken.append(1)) as database:
        async with database.sessions.begin() as session:
            await session.execute(text("SELECT 1"))
        assert not woken
        async with database.sessions.begin() as session:
            publish(session, Counted(thing="a", number=1), at=AT)
            async with session.begin_nested():
                publish(session, Counted(thing="a", number=2), at=AT)
            assert not woken
        assert woken == [1]
        with suppress(ZeroDivisionError):
            async with database.sessions.begin() as session:
                publish(session, Counted(thing="a", number=3), at=AT)
                raise ZeroDivisionError
        assert woken == [1]


# The relay ------------------------------------------------------------------------------------


async def test_the_relay_carries_events_in_order_and_empties_the_outbox(
    database: Database, bus: Bus
) -> None:
    relay = relay_of(database, bus)
    relay.batch = 7
    async with at_work(relay):
        await asyncio.gather(*(count_things(database, thing, 12) for thing in "abc"))
        assert await drained(database, within=10)
    found = counts(await all_of(bus, Counted.topic))
    for thing in "abc":
        assert [n for name, n in found if name == thing] == list(range(1, 13))
    assert len(found) == 36
    assert relay.problem is None


async def test_a_record_on_the_bus_is_a_cloud_event(database: Database, bus: Bus) -> None:
    async with at_work(relay_of(database, bus)):
        await count_things(database, "a", 1)
        assert await drained(database, within=10)
    [record] = await all_of(bus, Counted.topic)
    envelope = Envelope.of(record.headers)
    assert record.key == "a"
    assert Counted.model_validate_json(record.value or b"") == Counted(thing="a", number=1)
    assert (envelope.type, envelope.source, envelope.time) == ("Counted", "/motcua/queue", AT)
    assert record.headers["ce_specversion"] == "1.0"
    assert record.headers["content-type"] == "application/json"
    assert len(envelope.traceparent) == 55


async def test_wake_makes_the_relay_look_at_once(database: Database, bus: Bus) -> None:
    relay = relay_of(database, bus)
    relay.poll_seconds = 60
    async with at_work(relay):
        await eventually(lambda: relay.holder)
        await count_things(database, "a", 1)
        started = monotonic()
        relay.wake()
        assert await drained(database, within=10)
    assert monotonic() - started < 5


async def test_of_two_relays_one_works_and_the_other_takes_over_when_its_connection_dies(
    database: Database, database_url: str, bus: Bus
) -> None:
    one, other = relay_of(database, bus), relay_of(database, bus)
    async with at_work(one):
        await eventually(lambda: one.holder)
        one.retry_seconds = 60  # it does not come back for the lock
        async with at_work(other):
            await count_things(database, "a", 5)
            assert await drained(database, within=10)
            assert other.holder is None
            await kill(database_url, one.holder)
            await count_things(database, "a", 5)
            assert await drained(database, within=10)
            assert other.holder is not None
    assert counts(await all_of(bus, Counted.topic)) == [("a", n) for n in range(1, 11)]


class Stuck(WrappedBus):
    """A bus whose producers wait at a gate before, or after, they send."""

    def __init__(self, bus: Bus, *, after: bool = False) -> None:
        super().__init__(bus)
        self.after = after
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self.ended: list[str] = []

    def wrap_producer(self, producer: Producer) -> Producer:
        stuck = self

        class StuckProducer:
            async def send(self, records: Sequence[Record]) -> None:
                try:
                    if stuck.after:
                        await producer.send(records)
                    stuck.reached.set()
                    await stuck.gate.wait()
                    if not stuck.after:
                        await producer.send(records)
                except Exception as error:
                    stuck.ended.append(type(error).__name__)
                    raise
                stuck.ended.append("sent")

        return StuckProducer()


async def test_a_relay_that_lost_its_lock_in_mid_send_is_fenced_and_nothing_is_lost_or_reordered(
    database: Database, database_url: str, bus: Bus
) -> None:
    stuck = Stuck(bus)
    old, new = relay_of(database, stuck), relay_of(database, bus)
    await count_things(database, "a", 10)
    async with at_work(old):
        await stuck.reached.wait()
        old.retry_seconds = 60
        await kill(database_url, old.holder)
        async with at_work(new):
            assert await drained(database, within=10)
            await count_things(database, "a", 10)
            assert await drained(database, within=10)
            stuck.gate.set()
            await eventually(lambda: stuck.ended)
    assert stuck.ended == ["Fenced"]
    assert counts(await all_of(bus, Counted.topic)) == [("a", n) for n in range(1, 21)]


async def test_a_crash_between_send_and_delete_sends_again_in_order_under_the_same_ids(
    database: Database, database_url: str, bus: Bus
) -> None:
    stuck = Stuck(bus, after=True)
    await count_things(database, "a", 5)
    async with at_work(relay_of(database, stuck)):
        await stuck.reached.wait()
    # The process is gone; what it had sent still stands in the outbox.
    assert len(await outbox(database)) == 5
    async with at_work(relay_of(database, bus)):
        assert await drained(database, within=10)
    found = await all_of(bus, Counted.topic)
    assert counts(found) == [("a", n) for n in range(1, 6)] * 2
    ids = [Envelope.of(record.headers).id for record in found]
    assert ids[:5] == ids[5:]
    assert len(set(ids)) == 5


async def test_a_relay_that_lost_its_lock_after_sending_leaves_the_deleting_to_its_successor(
    database: Database, database_url: str, bus: Bus
) -> None:
    stuck = Stuck(bus, after=True)
    old, new = relay_of(database, stuck), relay_of(database, bus)
    await count_things(database, "a", 5)
    async with at_work(old):
        await stuck.reached.wait()
        old.retry_seconds = 60
        await kill(database_url, old.holder)
        stuck.gate.set()
        await eventually(lambda: old.problem)
        assert len(await outbox(database)) == 5
        async with at_work(new):
            assert await drained(database, within=10)
    assert counts(await all_of(bus, Counted.topic)) == [("a", n) for n in range(1, 6)] * 2


async def test_an_unknown_topic_holds_only_its_own_events_back(
    database: Database, open_bus: OpenBus
) -> None:
    async with database.sessions.begin() as session:
        publish(session, Renamed(thing="a"), at=AT)
        publish(session, Counted(thing="a", number=1), at=AT)
        publish(session, Renamed(thing="b"), at=AT)
        publish(session, Counted(thing="a", number=2), at=AT)
    async with open_bus() as bus:
        await bus.apply_topics(topic for topic in TOPICS if topic.name != Renamed.topic)
        relay = relay_of(database, bus)
        await only_the_unknown_waits(database, bus, relay)


async def only_the_unknown_waits(database: Database, bus: Bus, relay: Relay) -> None:
    """Let a relay carry what it can, then give it the topic that it lacks."""
    async with at_work(relay):
        await eventually(lambda: relay.problem)
        assert relay.problem == "topics missing: test.renamed.v1"
        assert counts(await all_of(bus, Counted.topic)) == [("a", 1), ("a", 2)]
        await bus.apply_topics(TOPICS)
        assert await drained(database, within=10)
        await eventually(lambda: relay.problem is None)
    assert [record.key for record in await all_of(bus, Renamed.topic)] == ["a", "b"]


async def test_events_of_one_aggregate_stay_in_order_while_the_relay_lags_behind_its_writers(
    database: Database, bus: Bus
) -> None:
    relay = relay_of(database, bus)
    relay.batch = 7
    await asyncio.gather(*(count_things(database, "a", 10) for _ in range(4)))
    async with at_work(relay):
        await asyncio.gather(*(count_things(database, "a", 10) for _ in range(4)))
        assert await drained(database, within=10)
    assert counts(await all_of(bus, Counted.topic)) == [("a", n) for n in range(1, 81)]


class TimingOut(WrappedBus):
    """A bus whose first answers do not come in time: one that had sent, and one that had not."""

    turns = 0

    def wrap_producer(self, producer: Producer) -> Producer:
        bus = self

        class Impatient:
            async def send(self, records: Sequence[Record]) -> None:
                bus.turns += 1
                if bus.turns != 2:
                    await producer.send(records)
                if bus.turns < 3:
                    raise BusError("no answer in time")

        return Impatient()


async def test_a_send_that_times_out_is_repeated_in_order_under_the_same_ids(
    database: Database, bus: Bus
) -> None:
    await count_things(database, "a", 3)
    async with at_work(relay_of(database, TimingOut(bus))):
        assert await drained(database, within=10)
        await count_things(database, "a", 1)
        assert await drained(database, within=10)
    found = await all_of(bus, Counted.topic)
    assert counts(found) == [("a", n) for n in (1, 2, 3, 1, 2, 3, 4)]
    assert len({Envelope.of(record.headers).id for record in found}) == 4


class Away(WrappedBus):
    """A bus that can be away."""

    away = True

    @asynccontextmanager
    async def producer(self, name: str) -> AsyncIterator[Producer]:
        if self.away:
            raise BusError("the brokers do not answer")
        async with self.inner.producer(name) as producer:
            yield producer


async def test_while_the_bus_is_away_the_outbox_grows_and_later_everything_is_delivered(
    database: Database, bus: Bus
) -> None:
    away = Away(bus)
    relay = relay_of(database, away)
    async with at_work(relay):
        await eventually(lambda: relay.problem)
        assert "the brokers do not answer" in (relay.problem or "")
        await count_things(database, "a", 20)
        assert len(await outbox(database)) == 20
        away.away = False
        assert await drained(database, within=10)
        await eventually(lambda: relay.problem is None)
    assert counts(await all_of(bus, Counted.topic)) == [("a", n) for n in range(1, 21)]


async def test_the_age_of_the_oldest_event_rises_while_the_bus_is_away(
    database: Database, bus: Bus
) -> None:
    def age() -> float:
        return float(OUTBOX_AGE.labels("queue")._value.get())

    async with database.sessions.begin() as session:
        publish(session, Counted(thing="a", number=1), at=AT)
    await database.hot.execute("UPDATE outbox SET created_at = created_at - interval '10 minutes'")
    watching = asyncio.create_task(watch_outbox("queue", database, every=0.02))
    try:
        async with at_work(relay_of(database, Away(bus))):
            # The gauge is the process's: until it is measured it may show another test's outbox.
            await eventually(lambda: 600 < age() < 660)
        async with at_work(relay_of(database, bus)):
            await eventually(lambda: age() == 0)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_the_database_may_be_away_for_a_while(database_url: str, open_bus: OpenBus) -> None:
    async with (
        wire_to(service_url(settings_for(database_url), "queue")) as wire,
        open_database(wire.url, "queue") as database,
        open_bus(wire.url) as bus,
    ):
        await bus.apply_topics(TOPICS)
        relay = relay_of(database, bus)
        async with at_work(relay):
            await count_things(database, "a", 3)
            assert await drained(database, within=10)
            await wire.cut()
            await eventually(lambda: relay.problem)
            await wire.mend()
            await eventually(lambda: relay.problem is None)
            await count_things(database, "a", 3)
            assert await drained(database, within=10)
            found = await all_of(bus, Counted.topic)
    assert counts(found) == [("a", n) for n in range(1, 7)]


async def test_an_unexpected_error_of_the_bus_does_not_end_the_relay(
    database: Database, bus: Bus
) -> None:
    class Odd(WrappedBus):
        turns = 0

        def wrap_producer(self, producer: Producer) -> Producer:
            self.turns += 1
            if self.turns < 3:
                raise LookupError("odd")
            return producer

    odd = Odd(bus)
    async with at_work(relay_of(database, odd)):
        await count_things(database, "a", 2)
        assert await drained(database, within=10)
    assert counts(await all_of(bus, Counted.topic)) == [("a", 1), ("a", 2)]


async def test_a_tombstone_in_the_outbox_reaches_the_bus_as_one(
    database: Database, bus: Bus
) -> None:
    await database.hot.execute(
        "INSERT INTO outbox (event_id, topic, key, type, time, traceparent) "
        "VALUES (gen_random_uuid(), $1, 'a', 'Counted', $2, '')",
        Counted.topic,
        AT,
    )
    async with at_work(relay_of(database, bus)):
        assert await drained(database, within=10)
    [record] = await all_of(bus, Counted.topic)
    assert (record.key, record.value) == ("a", None)


async def test_drained_gives_up_when_nobody_carries(database: Database) -> None:
    await count_things(database, "a", 1)
    assert not await drained(database, within=0.05)


async def test_pruning_forgets_what_is_past_its_promise_and_nothing_else(
    database: Database,
) -> None:
    await database.hot.execute(
        "INSERT INTO inbox (event_id, received_at) VALUES "
        "(gen_random_uuid(), clock_timestamp() - interval '15 days'), "
        "(gen_random_uuid(), clock_timestamp() - interval '13 days');"
    )
    await database.hot.execute(
        "INSERT INTO idempotency_keys (digest, fingerprint, created_at) VALUES "
        "('a', 'x', clock_timestamp() - interval '25 hours'), "
        "('b', 'x', clock_timestamp() - interval '23 hours')"
    )
    await prune(database)
    assert await database.hot.fetchval("SELECT count(*) FROM inbox") == 1
    assert await database.hot.fetchval("SELECT digest FROM idempotency_keys") == b"b"


async def test_two_relays_of_different_services_do_not_hinder_each_other(
    database: Database, database_url: str, bus: Bus
) -> None:
    url = service_url(settings_for(database_url), "intake")
    async with (
        open_database(url, "intake") as intake,
        at_work(relay_of(database, bus), Relay("intake", intake, bus)),
    ):
        await count_things(database, "a", 3)
        async with intake.sessions.begin() as session:
            publish(session, Counted(thing="b", number=1), at=AT)
        assert await drained(database, within=10)
        assert await drained(intake, within=10)
    assert sorted(counts(await all_of(bus, Counted.topic))) == [
        ("a", 1), ("a", 2), ("a", 3), ("b", 1),
    ]  # fmt: skip

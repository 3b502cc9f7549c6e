"""Events in: each has its effect once, whatever breaks; what cannot be handled becomes a letter."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.app import Service, create_app
from libs.common.bus.base import Bus, BusError, Fenced, Received, Record, Subscription
from libs.common.consumer import (
    Broadcast,
    Consumer,
    watch_lag,
)
from libs.common.db import Database, open_database, service_url
from libs.common.dead_letters import Replayed, list_dead_letters, replay_dead_letters
from libs.common.events import Envelope, EventRouter, publish
from libs.common.observability import DEAD_LETTERS
from libs.common.outbox import INBOX_KEPT, Relay, drained
from libs.common.trace import current_trace_id
from tests.common.carriers import OpenBus
from tests.common.helpers import eventually, wire_to
from tests.common.things import (
    AT,
    TOPICS,
    Counted,
    Renamed,
    WrappedBus,
    all_of,
    as_record,
    counts,
)
from tests.support import running, settings_for

TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"

Before = Callable[[Counted], Awaitable[None]]


@pytest.fixture
async def database_url(counting_url: str) -> str:
    """Give the database in which things are counted."""
    return counting_url


@pytest.fixture
async def database(queue_database: Database) -> Database:
    """Give the service `queue`, which stands for any."""
    return queue_database


async def nothing_before(_: Counted) -> None:
    """Let every event through."""


def router_with(before: Before = nothing_before) -> EventRouter:
    """Make a register whose handler notes what was counted, after something else was done."""
    router = EventRouter()

    @router.on(Counted)
    async def note(event: Counted, session: AsyncSession) -> None:
        await session.execute(
            text("INSERT INTO applied (thing, number, trace) VALUES (:thing, :number, :trace)"),
            {"thing": event.thing, "number": event.number, "trace": current_trace_id()},
        )
        await before(event)

    return router


def consumer_of(database: Database, bus: Bus, before: Before = nothing_before) -> Consumer:
    """Make a consumer that does not idle long."""
    consumer = Consumer("queue", router_with(before), database, bus)
    consumer.wait_seconds = 0.1
    return consumer


@asynccontextmanager
async def at_work(*workers: Consumer | Relay) -> AsyncIterator[None]:
    """Let consumers and relays run; a defect of theirs is the test's."""
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def send(bus: Bus, *records: Record) -> None:
    """Put records on the bus."""
    async with bus.producer(f"test-{uuid4()}") as producer:
        await producer.send(records)


def counted(thing: str, *numbers: int) -> list[Record]:
    """Make events of one thing."""
    return [as_record(Counted(thing=thing, number=number)) for number in numbers]


async def applied(database: Database) -> list[tuple[str, int]]:
    """Read what has had an effect, in order."""
    rows = await database.hot.fetch("SELECT thing, number FROM applied ORDER BY place")
    return [(row["thing"], row["number"]) for row in rows]


async def caught_up(bus: Bus) -> bool:
    """Tell whether the group has committed everything."""
    return (await bus.lag("queue", [Counted.topic]))[Counted.topic] == 0


async def letters(database: Database, bus: Bus) -> list[Received]:
    """Carry the dead letters to the bus and read them."""
    async with at_work(Relay("queue", database, bus)):
        assert await drained(database, within=10)
    return await list_dead_letters(bus, [Counted.topic])


# Once -----------------------------------------------------------------------------------------


async def test_events_are_applied_in_order_and_their_offsets_committed(
    database: Database, bus: Bus
) -> None:
    await send(bus, *counted("a", 1, 2, 3), *counted("b", 1, 2))
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]


async def test_a_redelivered_event_changes_nothing(database: Database, bus: Bus) -> None:
    [event] = counted("a", 1)
    await send(bus, event)
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
        await send(bus, event, *counted("a", 2))
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 2)]


async def test_an_event_that_stands_twice_in_one_batch_is_applied_once(
    database: Database, bus: Bus
) -> None:
    one, two = counted("a", 1, 2)
    await send(bus, one, two, one, two, one)
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 2)]


class FailingCommits(WrappedBus):
    """A bus whose first commits of offsets do not happen."""

    failures = 2

    def wrap_subscription(self, subscription: Subscription) -> Subscription:
        bus = self

        class Failing:
            async def fetch(self, limit: int, wait: float) -> list[Received]:
                return await subscription.fetch(limit, wait)

            async def commit(self) -> None:
                if bus.failures:
                    bus.failures -= 1
                    raise Fenced("another member has taken over")
                await subscription.commit()

            async def rewind(self) -> None:
                await subscription.rewind()

        return Failing()


async def test_a_crash_between_the_databases_commit_and_the_offsets_repeats_no_effect(
    database: Database, bus: Bus
) -> None:
    failing = FailingCommits(bus)
    await send(bus, *counted("a", 1, 2, 3))
    async with at_work(consumer_of(database, failing)):
        await eventually(lambda: caught_up(bus))
    assert failing.failures == 0
    assert await applied(database) == [("a", 1), ("a", 2), ("a", 3)]


async def test_two_consumers_of_one_group_apply_everything_once(
    database: Database, bus: Bus, open_bus: OpenBus
) -> None:
    async with open_bus() as second:
        one, other = consumer_of(database, bus), consumer_of(database, second)
        one.batch = other.batch = 3
        async with at_work(other):
            async with at_work(one):
                await send(bus, *counted("a", *range(1, 20)))
                await eventually(lambda: applied(database))
            await send(bus, *counted("a", *range(20, 30)))
            await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", number) for number in range(1, 30)]


async def test_a_handler_that_was_cancelled_has_not_handled(database: Database, bus: Bus) -> None:
    reached = asyncio.Event()

    async def hang(event: Counted) -> None:
        if event.number == 2:
            reached.set()
            await asyncio.Event().wait()

    await send(bus, *counted("a", 1, 2, 3))
    async with at_work(consumer_of(database, bus, hang)):
        await reached.wait()
    assert await applied(database) == []
    assert not await caught_up(bus)
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 2), ("a", 3)]
    assert await letters(database, bus) == []


# What is not ours -----------------------------------------------------------------------------


async def test_types_nobody_listens_to_and_tombstones_pass_by(database: Database, bus: Bus) -> None:
    first, other, last = counted("a", 1, 2, 3)
    stranger = Record(other.topic, "a", b"{}", {**other.headers, "ce_type": "Recounted"})
    await send(bus, first, stranger, Record(Counted.topic, "a", None), last)
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 3)]
    assert await letters(database, bus) == []


async def test_fields_that_a_newer_producer_adds_are_no_hindrance(
    database: Database, bus: Bus
) -> None:
    [event] = counted("a", 1)
    body = json.loads(event.value or b"") | {"colour": "red", "nested": {"deep": [1]}}
    await send(bus, Record(event.topic, event.key, json.dumps(body).encode(), event.headers))
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1)]


async def test_events_on_other_topics_do_not_reach_a_handler_of_the_same_type_name() -> None:
    router = router_with()
    assert router.topics == (Counted.topic,)
    assert router.find(Renamed.topic, "Counted") is None
    assert list(router) == [Counted]


# Dead letters ---------------------------------------------------------------------------------


async def refuse_two(event: Counted) -> None:
    """Fail for good on number 2."""
    if event.number == 2:
        raise ValueError(f"{event.thing} cannot be counted to {event.number}")


async def test_a_handlers_error_buries_that_event_alone_and_says_why(
    database: Database, bus: Bus
) -> None:
    records = counted("a", 1, 2, 3)
    await send(bus, *records)
    async with at_work(consumer_of(database, bus, refuse_two)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 3)]
    [letter] = await letters(database, bus)
    assert letter.value == records[1].value
    assert letter.headers["ce_id"] == records[1].headers["ce_id"]
    assert letter.headers["motcua_dead_reason"] == "ValueError: a cannot be counted to 2"
    assert letter.headers["motcua_dead_group"] == "queue"
    assert letter.headers["motcua_dead_topic"] == Counted.topic
    assert letter.headers["motcua_dead_key"] == "a"


def poison(value: bytes | None = None, **headers: str | None) -> Record:
    """Make an event of its own id with another body, or with headers replaced or left out."""
    [good] = counted("a", 1)
    kept = {name: text for name, text in (dict(good.headers) | headers).items() if text is not None}
    return Record(good.topic, good.key, good.value if value is None else value, kept)


POISON = {
    "not JSON": poison(b"\xff\x00{"),
    "empty": poison(b""),
    "another shape": poison(b'{"thing": "a", "number": "many"}'),
    "a field is missing": poison(b'{"thing": "a"}'),
    "nothing but nesting": poison(b"[" * 50_000),
    "number out of range": poison(b'{"thing": "a", "number": 99999999999999999999}'),
    "text cannot be stored": poison(b'{"thing": "a\\u0000", "number": 1}'),
    "no headers": Record(Counted.topic, "a", b"{}", {}),
    "no id": poison(ce_id=None),
    "no type": poison(ce_type=None),
    "no time": poison(ce_time=None),
    "id is no UUID": poison(ce_id="7"),
    "time is none": poison(ce_time="noon"),
}


async def test_poison_is_buried_with_a_reason_and_what_stands_around_it_applied(
    database: Database, bus: Bus
) -> None:
    mixed = [pair for n, bad in enumerate(POISON.values()) for pair in (*counted("b", n), bad)]
    await send(bus, *mixed)
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("b", n) for n in range(len(POISON))]
    found = {
        letter.headers["motcua_dead_offset"]: letter for letter in await letters(database, bus)
    }
    assert len(found) == len(POISON)
    for n, (kind, bad) in enumerate(POISON.items()):
        letter = found[str(2 * n + 1)]
        assert letter.value == bad.value, kind
        assert bad.headers.items() <= letter.headers.items(), kind
        assert letter.headers["motcua_dead_reason"].partition(": ")[2], kind


async def test_a_reason_that_holds_odd_characters_can_be_kept(database: Database, bus: Bus) -> None:
    async def refuse(_: Counted) -> None:
        raise ValueError("NUL \0 and half a pair \ud800 " + "x" * 10_000)

    await send(bus, *counted("a", 1))
    async with at_work(consumer_of(database, bus, refuse)):
        await eventually(lambda: caught_up(bus))
    [letter] = await letters(database, bus)
    assert letter.headers["motcua_dead_reason"].startswith("ValueError: NUL \ufffd and half")
    assert len(letter.headers["motcua_dead_reason"]) <= 500


async def test_an_unreadable_record_delivered_twice_is_one_letter(
    database: Database, bus: Bus
) -> None:
    failing = FailingCommits(bus)
    await send(bus, POISON["no headers"])
    async with at_work(consumer_of(database, failing)):
        await eventually(lambda: caught_up(bus))
    assert failing.failures == 0
    assert len(await letters(database, bus)) == 1


async def test_a_letter_is_counted_and_its_counter_exists_before_the_first(
    database: Database, bus: Bus
) -> None:
    labels = {"service": "queue", "topic": Counted.topic}

    def buried() -> float | None:
        return REGISTRY.get_sample_value("motcua_dlq_messages_total", labels)

    DEAD_LETTERS.clear()
    async with at_work(consumer_of(database, bus, refuse_two)):
        await eventually(lambda: buried() is not None)
        assert buried() == 0
        await send(bus, *counted("a", 1, 2))
        await eventually(lambda: caught_up(bus))
    assert buried() == 1


async def test_replaying_a_letter_reaches_the_group_that_failed_and_empties_the_list(
    database: Database, bus: Bus, database_url: str
) -> None:
    await send(bus, *counted("a", 1, 2, 3))
    handled_elsewhere: list[int] = []

    async def note(event: Counted) -> None:
        handled_elsewhere.append(event.number)

    url = service_url(settings_for(database_url), "reporting")
    async with open_database(url, "reporting") as other:
        elsewhere = Consumer("reporting", router_with(note), other, bus)
        elsewhere.wait_seconds = 0.1
        async with at_work(elsewhere):
            async with at_work(consumer_of(database, bus, refuse_two)):
                await eventually(lambda: caught_up(bus))
            found = await letters(database, bus)
            assert await replay_dead_letters(bus, found) == Replayed(sent=1)
            assert await list_dead_letters(bus, [Counted.topic]) == []
            async with at_work(consumer_of(database, bus)):
                await eventually(lambda: caught_up(bus))

            async def all_read() -> bool:
                return (await bus.lag("reporting", [Counted.topic]))[Counted.topic] == 0

            await eventually(all_read)
    assert await applied(database) == [("a", 1), ("a", 3), ("a", 2)]
    assert handled_elsewhere == [1, 2, 3]
    [again] = (await all_of(bus, Counted.topic))[3:]
    assert not [name for name in again.headers if name.startswith("motcua_dead")]


async def test_an_old_state_is_not_sent_after_a_newer_one_of_its_key(
    database: Database, bus: Bus
) -> None:
    await send(bus, *counted("a", 2))
    async with at_work(consumer_of(database, bus, refuse_two)):
        await eventually(lambda: caught_up(bus))
        found = await letters(database, bus)
        await send(bus, *counted("a", 3))
    done = await replay_dead_letters(bus, found, compacted={Counted.topic})
    assert done == Replayed(superseded=1)
    assert await list_dead_letters(bus, [Counted.topic]) == []
    assert len(await all_of(bus, Counted.topic)) == 2


async def test_a_letter_older_than_the_inbox_remembers_stays_on_the_list(
    database: Database, bus: Bus
) -> None:
    await send(bus, *counted("a", 2))
    async with at_work(consumer_of(database, bus, refuse_two)):
        await eventually(lambda: caught_up(bus))
        [letter] = await letters(database, bus)
    old = {"motcua_dead_at": (datetime.now(UTC) - INBOX_KEPT * 2).isoformat()}
    aged = replace(letter, headers={**letter.headers, **old})
    assert await replay_dead_letters(bus, [aged]) == Replayed(too_old=1)
    assert len(await list_dead_letters(bus, [Counted.topic])) == 1


async def test_a_letter_that_fails_again_is_on_the_list_again(database: Database, bus: Bus) -> None:
    await send(bus, *counted("a", 2))
    async with at_work(consumer_of(database, bus, refuse_two)):
        await eventually(lambda: caught_up(bus))
        [letter] = await letters(database, bus)
        await replay_dead_letters(bus, [letter])
        assert await list_dead_letters(bus, [Counted.topic]) == []
        await eventually(lambda: caught_up(bus))
    [again] = await letters(database, bus)
    assert again.headers["ce_id"] == letter.headers["ce_id"]
    assert await applied(database) == []


# Trouble that passes --------------------------------------------------------------------------


async def test_a_transient_error_backs_off_and_nothing_is_lost_or_buried(
    database: Database, bus: Bus
) -> None:
    tries = 0

    async def away_at_first(event: Counted) -> None:
        nonlocal tries
        tries += event.number == 2
        if event.number == 2 and tries < 3:
            raise ConnectionResetError("the database is away")

    consumer = consumer_of(database, bus, away_at_first)
    await send(bus, *counted("a", 1, 2, 3))
    async with at_work(consumer):
        await eventually(lambda: consumer.problem)
        assert "the database is away" in (consumer.problem or "")
        assert await applied(database) == []
        await eventually(lambda: caught_up(bus))
        await eventually(lambda: consumer.problem is None)
    assert tries == 3
    assert await applied(database) == [("a", 1), ("a", 2), ("a", 3)]
    assert await letters(database, bus) == []


async def test_trouble_that_passes_after_a_poison_keeps_both_apart(
    database: Database, bus: Bus
) -> None:
    away = 2

    async def trouble(event: Counted) -> None:
        nonlocal away
        await refuse_two(event)
        if event.number == 3 and away:
            away -= 1
            raise TimeoutError

    await send(bus, *counted("a", 1, 2, 3, 4))
    async with at_work(consumer_of(database, bus, trouble)):
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 3), ("a", 4)]
    assert len(await letters(database, bus)) == 1


async def test_the_database_may_be_away_while_events_come(
    database: Database, bus: Bus, database_url: str, open_bus: OpenBus
) -> None:
    async with (
        wire_to(service_url(settings_for(database_url), "queue")) as wire,
        open_database(wire.url, "queue") as far,
        open_bus(wire.url) as far_bus,
    ):
        consumer = consumer_of(far, far_bus)
        async with at_work(consumer):
            await send(bus, *counted("a", 1))
            await eventually(lambda: caught_up(bus))
            await wire.cut()
            await send(bus, *counted("a", 2, 3))
            with pytest.raises(OSError, match=r"Connect call failed|Errno"):
                await far.connect()
            await wire.mend()
            await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1), ("a", 2), ("a", 3)]
    assert await letters(database, bus) == []


async def test_a_bus_that_is_away_is_waited_for(database: Database, bus: Bus) -> None:
    class Away(WrappedBus):
        turns = 2

        def wrap_subscription(self, subscription: Subscription) -> Subscription:
            if self.turns:
                self.turns -= 1
                raise BusError("no broker")
            return subscription

    consumer = consumer_of(database, Away(bus))
    await send(bus, *counted("a", 1))
    async with at_work(consumer):
        await eventually(lambda: consumer.problem)
        await eventually(lambda: caught_up(bus))
    assert await applied(database) == [("a", 1)]


# Dying loudly ---------------------------------------------------------------------------------


async def test_a_defect_ends_the_consumer_and_livez_names_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(_: Consumer, received: Sequence[Received]) -> None:
        raise LookupError("a defect of ours")

    app = create_app(Service("queue", "Counts.", handlers=router_with()))
    async with running(app, settings_for(database_url)) as client:
        assert (await client.get("/livez")).status_code == 200
        bus = client.state["bus"]  # type: ignore[attr-defined]
        await bus.apply_topics(TOPICS)
        monkeypatch.setattr(Consumer, "handle", defect)
        await send(bus, *counted("a", 1))

        async def dead() -> dict[str, object] | None:
            answer = await client.get("/livez")
            return answer.json() if answer.status_code == 503 else None

        assert await eventually(dead) == {"status": "dead", "dead_tasks": ["consumer"]}


# Traces ---------------------------------------------------------------------------------------


async def test_the_trace_goes_on_in_the_handler_and_in_the_events_published_there(
    database: Database, bus: Bus
) -> None:
    router = EventRouter()

    @router.on(Counted)
    async def rename(event: Counted, session: AsyncSession) -> None:
        publish(session, Renamed(thing=event.thing), at=AT)

    consumer = Consumer("queue", router, database, bus)
    consumer.wait_seconds = 0.1
    other = TRACE.replace("0123456789abcdef0", "fedcba98765432100", 1)
    await send(
        bus,
        as_record(Counted(thing="a", number=1), traceparent=TRACE),
        as_record(Counted(thing="b", number=1), traceparent=other),
        as_record(Counted(thing="c", number=1), traceparent="nonsense"),
    )
    async with at_work(consumer, Relay("queue", database, bus)):
        await eventually(lambda: caught_up(bus))
        assert await drained(database, within=10)
    parents = [Envelope.of(r.headers).traceparent for r in await all_of(bus, Renamed.topic)]
    assert parents[0].split("-")[1] == TRACE.split("-")[1]
    assert parents[1].split("-")[1] == other.split("-")[1]
    assert len({parent.split("-")[1] for parent in parents}) == 3
    assert parents[0] != TRACE, "the span is our own"


async def test_the_handler_sees_the_trace_of_its_event(database: Database, bus: Bus) -> None:
    await send(bus, as_record(Counted(thing="a", number=1), traceparent=TRACE))
    async with at_work(consumer_of(database, bus)):
        await eventually(lambda: caught_up(bus))
    assert await database.hot.fetchval("SELECT trace FROM applied") == TRACE.split("-")[1]


# Lag and broadcast ----------------------------------------------------------------------------


async def test_the_lag_metric_is_true_while_nobody_consumes(bus: Bus) -> None:
    def lag() -> float | None:
        labels = {"service": "intake", "topic": Counted.topic}
        return REGISTRY.get_sample_value("motcua_consumer_lag", labels)

    await send(bus, *counted("a", 1, 2, 3))
    watching = asyncio.create_task(watch_lag("intake", [Counted.topic], bus))
    try:
        assert await eventually(lag) == 3
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_broadcast_reader_is_loaded_when_it_has_read_what_was_there(bus: Bus) -> None:
    await send(bus, *counted("a", *range(1, 50)))
    seen: list[Received] = []
    reader = Broadcast("test", bus, [Counted.topic], seen.append)
    reading = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(10):
            await reader.loaded.wait()
        assert counts(seen) == [("a", number) for number in range(1, 50)]
        await send(bus, *counted("a", 50))
        await eventually(lambda: len(seen) == 50)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_one_unreadable_record_does_not_blind_a_broadcast_reader(bus: Bus) -> None:
    seen: list[tuple[str, int]] = []

    def take(record: Received) -> None:
        seen.extend(counts([record]))

    await send(bus, *counted("a", 1), POISON["not JSON"], *counted("a", 2))
    reader = Broadcast("test", bus, [Counted.topic], take)
    reading = asyncio.create_task(reader.run())
    try:
        await eventually(reader.loaded.is_set)
        assert seen == [("a", 1), ("a", 2)]
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def test_an_envelope_survives_its_headers() -> None:
    record = as_record(Counted(thing="a", number=1), UUID(int=7), TRACE)
    envelope = Envelope.of(record.headers)
    assert envelope.headers() == dict(record.headers)
    assert (envelope.id, envelope.traceparent, envelope.time) == (UUID(int=7), TRACE, AT)


def test_a_type_has_one_handler_and_a_handler_may_have_several_types() -> None:
    router = EventRouter()

    @router.on(Counted, Renamed)
    async def both(event: Counted | Renamed, session: AsyncSession) -> None: ...

    assert router.topics == (Counted.topic, Renamed.topic)
    with pytest.raises(AssertionError, match="already has a handler"):
        router.on(Counted)(both)

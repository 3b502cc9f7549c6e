"""What only Kafka does to us: brokers that die, hang, are away, lose an answer or refuse one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from deploy.kafka.broker import Broker, free_port
from libs.common.bus.base import (
    Bus,
    BusError,
    Received,
    Record,
    TooLarge,
    Topic,
    TopicRefused,
    UnknownTopic,
)
from libs.common.bus.differences import differences
from libs.common.bus.kafka import Connection, KafkaBus, open_kafka_bus
from libs.common.bus.opening import open_bus
from libs.common.consumer import Broadcast, Consumer
from libs.common.db import Database
from libs.common.events import EventRouter, publish
from libs.common.outbox import Relay, drained
from tests.common.carriers import admin_client
from tests.common.helpers import Wire, eventually, read
from tests.common.things import AT, TOPICS, Counted, all_of, counts
from tests.kafka import own_broker
from tests.support import settings_for

pytestmark = pytest.mark.kafka


class Rig:
    """A broker that is reached over a wire, to be ill-treated like it."""

    def __init__(self, broker: Broker, wire: Wire) -> None:
        """Hold both."""
        self.broker, self.wire = broker, wire


@pytest.fixture(scope="module")
async def rig() -> AsyncIterator[Rig]:
    """Give this module a broker and a wire of its own."""
    port, far_port = free_port(), free_port()
    wire = Wire("127.0.0.1", port, far_port)
    await wire.mend()
    told = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{far_port}"}
    try:
        with own_broker(port=port, settings=told) as broker:
            yield Rig(broker, wire)
    finally:
        await wire.cut()


@pytest.fixture
def broker(rig: Rig) -> Broker:
    """Give the broker."""
    return rig.broker


@asynccontextmanager
async def bus_over(bootstrap: str, **bounds: Any) -> AsyncIterator[KafkaBus]:
    """Open a bus that waits seconds where it would wait minutes."""
    connection = Connection(
        bootstrap,
        answer_seconds=2,
        send_seconds=3,
        session_seconds=2,
        heartbeat_seconds=0.1,
        look_seconds=0.1,
        poll_seconds=0.05,
    )
    async with open_kafka_bus(replace(connection, **bounds)) as bus:
        yield bus


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[KafkaBus]:
    """Open the bus over that broker."""
    async with bus_over(broker.bootstrap) as bus:
        yield bus


@pytest.fixture
async def database(counting_url: str, queue_database: Database) -> Database:
    """Give the service `queue`, which stands for any."""
    return queue_database


@pytest.fixture
async def database_url(counting_url: str) -> str:
    """Give the database in which things are counted."""
    return counting_url


async def new_topic(bus: Bus, *, partitions: int = 1) -> str:
    """Create a topic for one test."""
    topic = Topic(f"test.{uuid4().hex[:8]}", partitions=partitions)
    await bus.apply_topics([topic])
    return topic.name


def numbered(topic: str, *numbers: int) -> list[Record]:
    """Make records of one key."""
    return [Record(topic, "k", str(number).encode()) for number in numbers]


async def log_of(bus: Bus, topic: str) -> list[int]:
    """Read the numbers of a topic to its present end."""
    return [int(record.value or b"") for record in await all_of(bus, topic)]


# Brokers that die, hang or are away ------------------------------------------------------------


async def nothing_more(_: Counted) -> None:
    """Let every event through."""


def counting(after: Callable[[Counted], Awaitable[None]] = nothing_more) -> EventRouter:
    """Make a register whose handler notes what was counted, and then does something else."""
    router = EventRouter()

    @router.on(Counted)
    async def note(event: Counted, session: AsyncSession) -> None:
        await session.execute(
            text("INSERT INTO applied (thing, number) VALUES (:thing, :number)"),
            {"thing": event.thing, "number": event.number},
        )
        await after(event)

    return router


@asynccontextmanager
async def working(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let workers work; a defect of theirs is the test's."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


class City:
    """A relay, a consumer and a broadcast reader at work on one bus and one database."""

    def __init__(self, database: Database, bus: Bus) -> None:
        """Prepare them."""
        self.database, self.bus = database, bus
        self.relay = Relay("queue", database, bus)
        self.consumer = Consumer("queue", counting(), database, bus)
        self.consumer.wait_seconds = 0.2
        self.seen: list[tuple[str, int]] = []
        self.board = Broadcast(
            "board", bus, [Counted.topic], lambda r: self.seen.extend(counts([r]))
        )
        self._number = 0

    def _see(self, record: Received) -> None:
        self.seen += counts([record])

    @property
    def workers(self) -> tuple[Relay, Consumer, Broadcast]:
        """List them."""
        return self.relay, self.consumer, self.board

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Let them run."""
        async with working(self.relay.run(), self.consumer.run(), self.board.run()):
            yield

    async def count(self, times: int) -> None:
        """Count a thing in transactions of its own, which nothing but the database may hinder."""
        for _ in range(times):
            self._number += 1
            async with self.database.sessions.begin() as session:
                publish(session, Counted(thing="a", number=self._number), at=AT)

    async def everything_arrived(self, within: float = 30) -> None:
        """Wait until each event has had its effect once, in order, and the board has seen it."""
        assert await drained(self.database, within=within)
        await self.everything_applied(within)
        wanted = [("a", number) for number in range(1, self._number + 1)]
        # What was sent again is on the log again, under the same id.
        await eventually(lambda: list(dict.fromkeys(self.seen)) == wanted, within)

    async def everything_applied(self, within: float = 30) -> None:
        """Wait until each event has had its effect once, in order."""
        wanted = [("a", number) for number in range(1, self._number + 1)]

        async def applied() -> bool:
            rows = await self.database.hot.fetch("SELECT thing, number FROM applied ORDER BY place")
            return [tuple(row) for row in rows] == wanted

        await eventually(applied, within)


@pytest.fixture
async def city(database: Database, bus: KafkaBus) -> City:
    """Give a city whose topics are there and empty."""
    async with admin_client(bus._connection.bootstrap) as admin:
        await admin.delete_topics([t.name for t in TOPICS if t.name in await admin.list_topics()])
    await bus.apply_topics(TOPICS)
    return City(database, bus)


async def test_a_broker_killed_under_load_and_started_again_loses_and_doubles_nothing(
    city: City, broker: Broker
) -> None:
    async with city.at_work():
        await city.count(20)
        await eventually(city.board.loaded.is_set)
        counting = asyncio.create_task(city.count(300))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(broker.kill)
        await counting
        waiting = await city.database.hot.fetchval("SELECT count(*) FROM outbox")
        assert waiting > 0, "the outbox grows, and nobody who writes is hindered"
        await asyncio.to_thread(broker.start)
        await city.count(20)
        await city.everything_arrived()


async def test_a_city_starts_while_the_broker_is_away_and_delivers_when_it_comes(
    city: City, broker: Broker
) -> None:
    await asyncio.to_thread(broker.stop)
    async with city.at_work():
        await city.count(30)
        await eventually(lambda: all(worker.problem for worker in city.workers))
        with pytest.raises(BusError):
            await city.bus.ping()
        assert not city.board.loaded.is_set()
        await asyncio.to_thread(broker.start)
        await city.everything_arrived()
        await eventually(lambda: not any(worker.problem for worker in city.workers))
        await city.bus.ping()


async def test_a_broker_that_hangs_makes_a_send_give_up_in_bounded_time(
    bus: KafkaBus, broker: Broker
) -> None:
    topic = await new_topic(bus)
    async with bus.producer("hanging") as producer:
        await producer.send(numbered(topic, 0))
        broker.freeze()
        try:
            started = monotonic()
            with pytest.raises(BusError):
                await producer.send(numbered(topic, 1))
            with pytest.raises(BusError):
                await producer.send(numbered(topic, 2))
            with pytest.raises(BusError):
                await bus.lag("group", [topic])
        finally:
            broker.thaw()
        assert monotonic() - started < 10
    async with bus.producer("hanging") as producer:
        await producer.send(numbered(topic, 3))
    found = await log_of(bus, topic)
    # What was not acknowledged is there once or not at all; the next of the name goes on behind it.
    assert found in ([0, 3], [0, 1, 3])


async def test_a_relay_whose_send_times_out_sends_again_and_each_event_has_one_effect(
    city: City, broker: Broker
) -> None:
    async with city.at_work():
        await city.count(10)
        await city.everything_arrived()
        broker.freeze()
        try:
            await city.count(10)
            await eventually(lambda: city.relay.problem)
        finally:
            broker.thaw()
        await city.count(10)
        await city.everything_arrived()


async def test_clients_end_in_bounded_time_while_the_broker_is_away(
    bus: KafkaBus, broker: Broker
) -> None:
    topic = await new_topic(bus)
    try:
        async with (
            bus.producer("ending") as producer,
            bus.subscribe("ending", [topic]) as member,
            bus.follow([topic]) as follower,
        ):
            await producer.send(numbered(topic, 0))
            await read(member, 1)
            await read(follower, 1)
            await asyncio.to_thread(broker.kill)
            sending = asyncio.create_task(producer.send(numbered(topic, 1)))
            await asyncio.sleep(0.2)
            sending.cancel()
            started = monotonic()
        assert monotonic() - started < 10
    finally:
        await asyncio.to_thread(broker.start)
    assert not [task for task in asyncio.all_tasks() if "aiokafka" in repr(task.get_coro())]


async def test_a_batch_whose_acknowledgement_is_lost_stands_in_the_log_once(
    bus: KafkaBus, rig: Rig
) -> None:
    """The broker has the batch, its answer never comes, the client asks again: idempotence."""
    topic = await new_topic(bus)
    async with bus.producer("idempotent") as producer:
        await producer.send(numbered(topic, 0))
        lost = rig.wire.lose_answer_to(lambda request: request[4:6] == b"\0\0")  # Produce
        await producer.send(numbered(topic, 1, 2))
        assert lost.is_set()
        await producer.send(numbered(topic, 3))
    assert await log_of(bus, topic) == [0, 1, 2, 3]


async def test_a_wire_that_is_cut_for_a_while_delays_events_and_nothing_else(
    city: City, rig: Rig
) -> None:
    async with city.at_work():
        await city.count(10)
        await city.everything_arrived()
        for _ in range(3):
            await rig.wire.cut()
            await city.count(10)
            await eventually(lambda: city.relay.problem)
            await rig.wire.mend()
            await city.count(10)
        await city.everything_arrived()


async def test_a_partition_without_a_leader_makes_a_send_fail_as_a_whole_and_heals(
    bus: KafkaBus, broker: Broker
) -> None:
    """Two brokers, a topic that only the second keeps, and that one dies."""
    port = free_port()
    second = {
        "node.id": "2",
        "process.roles": "broker",
        "listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{broker.controller_port}",
    }
    near, far = await new_topic(bus), f"test.{uuid4().hex[:8]}"
    async with bus.producer("leaderless") as producer:
        # The broker keeps the state of transactions from the first one on: here, and not with the
        # second, which would take it along.
        await producer.send(numbered(near, 0))
    with own_broker(port=port, settings=second, cluster=broker.cluster) as other:
        async with admin_client(broker.bootstrap) as admin:
            await admin.create_topics([NewTopic(far, -1, -1, replica_assignments={0: [2]})])
        batch = [*numbered(near, 2), *numbered(far, 1)]
        async with bus.producer("leaderless") as producer:
            await producer.send([*numbered(near, 1), *numbered(far, 0)])
            await asyncio.to_thread(other.kill)
            with pytest.raises(BusError):
                await producer.send(batch)
        async with bus.producer("leaderless") as producer:
            await producer.send(numbered(near, 3))  # the topic that has a leader goes on
        await asyncio.to_thread(other.start)
        async with bus.producer("leaderless") as producer:
            await producer.send(batch)
        assert await log_of(bus, near) == [0, 1, 3, 2]
        assert await log_of(bus, far) == [0, 1]


# What brokers refuse ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 2000])
async def test_a_record_that_is_too_large_is_named_and_nothing_of_the_batch_is_sent(
    bus: KafkaBus, broker: Broker, limit: int | None
) -> None:
    topic = await new_topic(bus)
    if limit:
        await set_limit(broker, topic, limit)
    large = Record(topic, "k", b"x" * (limit or 1_048_588))
    async with bus.producer("large") as producer:
        with pytest.raises(TooLarge) as refused:
            await producer.send([*numbered(topic, 0), large, *numbered(topic, 1)])
        assert refused.value.record == large
        await producer.send(numbered(topic, *range(2, 102)))  # in batches that the topic takes
    assert await log_of(bus, topic) == list(range(2, 102))


async def test_a_record_that_has_become_too_large_meanwhile_is_named_too(
    bus: KafkaBus, broker: Broker
) -> None:
    topic = await new_topic(bus)
    large = Record(topic, "k", b"1" * 3000)
    async with bus.producer("large") as producer:
        await producer.send([*numbered(topic, 0)])
        await set_limit(broker, topic, 2000)
        with pytest.raises(TooLarge) as refused:
            await producer.send([*numbered(topic, 1), large])
        assert refused.value.record == large
        with pytest.raises(BusError):
            await producer.send(numbered(topic, 1))
    async with bus.producer("large") as producer:
        await producer.send(numbered(topic, 2))
    assert await log_of(bus, topic) == [0, 2]


async def set_limit(broker: Broker, topic: str, limit: int) -> None:
    """Let a topic take no batch of more bytes than this."""
    async with admin_client(broker.bootstrap) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(limit)})
        await admin.alter_configs([wanted])


async def test_an_event_that_is_too_large_waits_in_the_outbox_and_holds_no_other_up(
    city: City, broker: Broker
) -> None:
    city.relay.too_large_seconds = 0.3
    await set_limit(broker, Counted.topic, 2000)
    async with city.database.sessions.begin() as session:
        publish(session, Counted(thing="b" * 3000, number=1), at=AT)
    async with city.at_work():
        await city.count(20)
        await eventually(lambda: len(city.seen) == 20)
        await eventually(lambda: (city.relay.problem or "").startswith("too large for the bus: "))
        await eventually(lambda: only_one_waits(city))
        await set_limit(broker, Counted.topic, 1_000_000)
        assert await drained(city.database, within=10)
        await eventually(lambda: city.relay.problem is None)
        await eventually(lambda: city.seen[-1] == ("b" * 3000, 1))


async def only_one_waits(city: City) -> bool:
    """Tell whether one event is left in the outbox, and the relay names it."""
    waiting = await city.database.hot.fetch("SELECT event_id FROM outbox")
    return len(waiting) == 1 and str(waiting[0]["event_id"]) in (city.relay.problem or "")


async def test_a_topic_that_was_deleted_is_named_and_one_made_anew_is_written_to(
    bus: KafkaBus, broker: Broker
) -> None:
    topic = await new_topic(bus)
    async with bus.producer("deleted") as producer:
        await producer.send(numbered(topic, 0))
        async with admin_client(broker.bootstrap) as admin:
            await admin.delete_topics([topic])
        with pytest.raises(BusError):
            await producer.send(numbered(topic, 1))
    async with bus.producer("deleted") as producer:
        with pytest.raises(UnknownTopic) as unknown:
            await producer.send(numbered(topic, 2))
        assert unknown.value.topic == topic
        await bus.apply_topics([Topic(topic)])
        await producer.send(numbered(topic, 3))
    assert await log_of(bus, topic) == [3]


# Topics as code --------------------------------------------------------------------------------


async def test_topics_get_partitions_and_keeping_and_lose_neither_records_nor_others_settings(
    bus: KafkaBus, broker: Broker
) -> None:
    topic = Topic(f"test.{uuid4().hex[:8]}", partitions=2)
    await bus.apply_topics([topic])
    async with bus.producer("kept") as producer:
        await producer.send(numbered(topic.name, 0))
    await set_limit(broker, topic.name, 12_345)
    wanted = replace(topic, partitions=4, kept=timedelta(days=30))
    for _ in range(2):
        await bus.apply_topics([wanted])
        state = (await bus.describe_topics([topic.name]))[topic.name]
        assert (state.partitions, state.kept, state.compacted) == (4, timedelta(days=30), False)
        assert differences([wanted], {topic.name: state}) == []
    assert (await bus._admin.room([topic.name]))[topic.name].largest == 12_345
    assert await log_of(bus, topic.name) == [0]


async def test_a_topic_that_should_lose_partitions_is_refused_and_nothing_is_changed(
    bus: KafkaBus,
) -> None:
    many, other = await new_topic(bus, partitions=3), f"test.{uuid4().hex[:8]}"
    with pytest.raises(TopicRefused, match="3 partitions"):
        await bus.apply_topics([Topic(other), Topic(many, partitions=2)])
    assert await bus.missing([other, many]) == [other]


async def test_a_topic_that_the_brokers_refuse_is_named_with_their_reason(bus: KafkaBus) -> None:
    with pytest.raises(TopicRefused, match="no/slashes"):
        await bus.apply_topics([Topic("no/slashes")])


# Groups ----------------------------------------------------------------------------------------


async def test_a_share_is_given_away_only_after_what_was_fetched_is_committed(
    bus: KafkaBus,
) -> None:
    topic, group = await new_topic(bus, partitions=2), uuid4().hex
    records = [Record(topic, key, b"%d" % n) for n, key in enumerate("abcdefgh" * 5)]
    async with bus.producer("polite") as producer:
        await producer.send(records)
    async with bus.subscribe(group, [topic]) as one, bus.subscribe(group, [topic]) as other:
        first = await read(one, 25)
        joining = asyncio.create_task(other.fetch(100, 2))
        await asyncio.sleep(0.5)
        assert not joining.done(), "the group waits for the commit"
        await one.commit()
        rest = await joining
        await other.commit()
        async with asyncio.timeout(10):
            while len(first) + len(rest) < len(records):
                for member, taken in ((one, first), (other, rest)):
                    taken += await member.fetch(100, 0.2)
                    await member.commit()
    assert sorted(r.value or b"" for r in first + rest) == sorted(r.value or b"" for r in records)


async def test_a_handler_slower_than_the_group_waits_loses_its_share_and_has_its_effect_once(
    database: Database, broker: Broker, city: City
) -> None:
    release, hanging = asyncio.Event(), asyncio.Event()

    async def hang(event: Counted) -> None:
        if event.number == 2:
            hanging.set()
            await release.wait()

    async def somebody_waits_for_a_claim() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return bool(await database.hot.fetchval(waiting))

    await city.count(5)
    async with (
        bus_over(broker.bootstrap, handling_seconds=1) as here,
        bus_over(broker.bootstrap, handling_seconds=1) as there,
        working(city.relay.run()),
    ):
        slow = Consumer("queue", counting(hang), database, here)
        heir = Consumer("queue", counting(), database, there)
        slow.wait_seconds = heir.wait_seconds = 0.2
        async with working(slow.run()):
            await hanging.wait()
            async with working(heir.run()):
                # The heir has read the same events; the slow one holds their claims.
                await eventually(somebody_waits_for_a_claim, 20)
                release.set()
                await eventually(lambda: slow.problem, 20)
                assert "Fenced" in (slow.problem or "")
                await city.count(5)
                await city.everything_applied()


# Who may speak to it ---------------------------------------------------------------------------


async def test_brokers_that_ask_for_an_account_are_served_with_it_and_refuse_another(
    database_url: str,
) -> None:
    port = free_port()
    accounts = 'username="broker" password="between" user_broker="between" user_motcua="hush"'
    told = {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {accounts};"
        ),
    }
    with own_broker(port=port, settings=told, listener="SASL_PLAINTEXT") as broker:
        named: dict[str, Any] = {
            "kafka_bootstrap": broker.bootstrap,
            "kafka_security": "sasl_plaintext",
            "kafka_mechanism": "PLAIN",
            "kafka_username": "motcua",
        }
        settings = settings_for(database_url, **named, kafka_password="hush")
        async with open_bus(settings, "queue") as bus:
            topic = await new_topic(bus)
            async with bus.producer("account") as producer:
                await producer.send(numbered(topic, 0))
            async with bus.subscribe("account", [topic]) as member:
                assert len(await read(member, 1)) == 1
        wrong = settings_for(database_url, **named, kafka_password="guessed")
        async with open_bus(wrong, "queue") as bus:
            with pytest.raises(BusError) as refused:
                await bus.ping()
            assert "guessed" not in str(refused.value)

"""The bus over Kafka; it opens nothing by itself, so a city starts while the brokers are away."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.common.bus.base import Positions, Topic, TopicState
from libs.common.bus.kafka.admin import Admin
from libs.common.bus.kafka.connection import Connection, within
from libs.common.bus.kafka.ends import Ends
from libs.common.bus.kafka.follower import KafkaFollower, reader
from libs.common.bus.kafka.group import KafkaSubscription, open_subscription
from libs.common.bus.kafka.producer import KafkaProducer, open_producer

COUNTED_ONE_BY_ONE = 1_000
"""A lag of so many offsets or fewer is counted record by record."""


class KafkaBus:
    """The bus of a city that runs as several processes."""

    def __init__(self, connection: Connection) -> None:
        """Use `open_kafka_bus` instead."""
        self._connection = connection
        self._admin = Admin(connection)
        self._ends = Ends(self._admin, connection)

    async def close(self) -> None:
        """Close what questions were asked with."""
        await self._ends.close()
        await self._admin.close()

    def producer(self, name: str) -> AbstractAsyncContextManager[KafkaProducer]:
        """Open the one sender of this name, fencing any other."""
        return open_producer(name, self._admin, self._connection)

    def subscribe(
        self, group: str, topics: Sequence[str]
    ) -> AbstractAsyncContextManager[KafkaSubscription]:
        """Be a member of a consumer group, from the first fetch on."""
        return open_subscription(group, topics, self._admin, self._connection)

    @asynccontextmanager
    async def follow(
        self, topics: Sequence[str], start: Positions | None = None
    ) -> AsyncIterator[KafkaFollower]:
        """Read topics from the first record or from a place on, apart from any group."""
        async with reader(self._connection) as consumer:
            follower = KafkaFollower(consumer, topics, self._admin, self._connection, start or {})
            await follower.look_for_partitions()
            yield follower

    async def ends(self, topics: Sequence[str]) -> Positions:
        """Tell where topics end."""
        return await self._ends.ask(topics)

    async def apply_topics(self, topics: Iterable[Topic]) -> None:
        """Create the topics that are missing, and make the others what they should be."""
        await self._admin.apply(list(topics))

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Name the topics of these that do not exist."""
        known = await self._admin.topics()
        return [name for name in names if name not in known]

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Tell what the topics are like that exist."""
        return await self._admin.describe(names)

    async def ping(self) -> None:
        """Return if a broker answers."""
        await self._admin.ping()

    async def lag(self, group: str, topics: Sequence[str]) -> dict[str, int]:
        """Count, per topic, the records that the group has not committed.

        Offsets count transaction markers too, so the last of them are told apart by reading; far
        behind, the markers are counted in.
        """
        known = await self._admin.topics()
        present = [topic for topic in topics if topic in known]
        places = [TopicPartition(topic, number) for topic in present for number in known[topic]]
        behind = dict.fromkeys(present, 0)
        if not places:
            return behind
        committed = await self._admin.committed(group, places)
        async with reader(self._connection) as consumer:
            async with within(self._connection.answer_seconds, "measuring the log"):
                starts = await consumer.beginning_offsets(places)
                ends = await consumer.end_offsets(places)
            gaps = {
                place: (max(committed.get(place, 0), starts[place]), ends[place])
                for place in places
            }
            for place, (start, end) in gaps.items():
                behind[place.topic] += max(0, end - start)
            if 0 < sum(behind.values()) <= COUNTED_ONE_BY_ONE:
                async with within(self._connection.answer_seconds, "counting the log"):
                    behind = dict.fromkeys(present, 0) | await _count(consumer, gaps)
        return behind


async def _count(
    consumer: AIOKafkaConsumer, gaps: Mapping[TopicPartition, tuple[int, int]]
) -> dict[str, int]:
    """Count the records per topic that stand between two offsets of each partition."""
    open_gaps = {place: end for place, (start, end) in gaps.items() if start < end}
    counts: dict[str, int] = {}
    consumer.assign(list(open_gaps))
    for place in open_gaps:
        consumer.seek(place, gaps[place][0])
    while open_gaps:
        found = await consumer.getmany(*open_gaps, timeout_ms=100)
        for place, records in found.items():
            within_gap = sum(record.offset < open_gaps[place] for record in records)
            counts[place.topic] = counts.get(place.topic, 0) + within_gap
        for place, end in list(open_gaps.items()):
            if await consumer.position(place) >= end:
                del open_gaps[place]
    return counts


@asynccontextmanager
async def open_kafka_bus(connection: Connection) -> AsyncIterator[KafkaBus]:
    """Open the bus; whether the brokers are there shows with its first use."""
    bus = KafkaBus(connection)
    try:
        yield bus
    finally:
        await bus.close()

"""A broadcast reader."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.common.bus.base import Positions, Received
from libs.common.bus.kafka.admin import Admin
from libs.common.bus.kafka.connection import (
    Connection,
    bus_errors,
    milliseconds,
    within,
)
from libs.common.bus.kafka.ending import end_consumer
from libs.common.bus.kafka.records import received

LOOK_FOR_PARTITIONS_SECONDS = 30.0


class KafkaFollower:
    """Reads every partition of its topics from the first record, or from a place on.

    It reads ahead into a buffer: only so does it know that nothing but transaction markers
    stands behind the last record it has given out.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topics: Sequence[str],
        admin: Admin,
        connection: Connection,
        start: Positions,
    ) -> None:
        """Use `KafkaBus.follow` instead."""
        self._consumer = consumer
        self._topics = frozenset(topics)
        self._admin = admin
        self._connection = connection
        self._start = start
        self._look_at = 0.0
        self._buffer: deque[Received] = deque()
        self._positions: dict[TopicPartition, int] = {}
        """Up to where each partition was read into the buffer."""
        self._ends: dict[TopicPartition, int] = {}
        """Where the partitions ended when they began to be followed."""
        self._unread: set[TopicPartition] = set()
        """The partitions that have not been read into the buffer up to there."""
        self._due = 0
        """Records of the buffer that stood before those ends."""

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Read the next records of every topic followed."""
        if not self._buffer:
            with bus_errors("following"):
                await self._fill(wait)
        given = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._due -= sum(map(self._was_there, given))
        return given

    @property
    def caught_up(self) -> bool:
        """Whether all that was there at the beginning has been read."""
        return not self._unread and not self._due

    @property
    def positions(self) -> dict[str, list[int]]:
        """Where in each topic the next fetch goes on."""
        given = dict(self._positions)
        for record in reversed(self._buffer):  # the first of a partition is what comes next
            given[TopicPartition(record.topic, record.partition)] = record.offset
        found: dict[str, list[int]] = {}
        for place in sorted(given):
            found.setdefault(place.topic, []).append(given[place])
        return found

    @property
    def missing(self) -> frozenset[str]:
        """Name the topics that do not exist yet."""
        return self._topics - {place.topic for place in self._positions}

    def _was_there(self, record: Received) -> bool:
        place = TopicPartition(record.topic, record.partition)
        return record.offset < self._ends.get(place, 0)

    async def _fill(self, wait: float) -> None:
        await self.look_for_partitions()
        if not self._positions:
            await asyncio.sleep(min(wait, self._connection.look_seconds))
            return
        found = await self._consumer.getmany(timeout_ms=milliseconds(wait))
        for records in found.values():
            self._buffer.extend(map(received, records))
        self._due += sum(map(self._was_there, self._buffer))
        for place in self._positions:
            # Before its first answer a partition has no position, and asking would wait.
            if self._consumer.highwater(place) is not None:
                self._positions[place] = await self._consumer.position(place)
        self._unread = {p for p in self._unread if self._positions[p] < self._ends[p]}

    async def look_for_partitions(self) -> None:
        """Follow the partitions that have come, and note where their log ends."""
        if monotonic() < self._look_at:
            return
        known = await self._admin.topics()
        places = {
            TopicPartition(topic, number)
            for topic in self._topics & known.keys()
            for number in known[topic]
        }
        if fresh := places - self._positions.keys():
            await self._follow_too(fresh)
        self._look_at = monotonic() + (
            self._connection.look_seconds if self.missing else LOOK_FOR_PARTITIONS_SECONDS
        )

    async def _follow_too(self, fresh: set[TopicPartition]) -> None:
        begun = {place: self._begun_at(place) for place in fresh}
        self._consumer.assign([*fresh, *self._positions])
        for place, position in (self._positions | begun).items():
            if position:
                self._consumer.seek(place, position)
        async with within(self._connection.answer_seconds, "looking for the log's end"):
            starts = await self._consumer.beginning_offsets(list(fresh))
            ends = await self._consumer.end_offsets(list(fresh))
        for place, end in ends.items():
            if begun[place] > end:
                # Out of range: the client would begin at the first record.
                self._consumer.seek(place, end)
                begun[place] = end
        self._positions |= begun
        self._ends |= ends
        self._unread |= {
            place for place, end in ends.items() if end > max(starts[place], begun[place])
        }

    def _begun_at(self, place: TopicPartition) -> int:
        named = self._start.get(place.topic, ())
        return named[place.partition] if place.partition < len(named) else 0


@asynccontextmanager
async def reader(connection: Connection, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Open a consumer that belongs to no group."""
    consumer = AIOKafkaConsumer(**connection.reader_options() | options)
    try:
        async with within(connection.answer_seconds, "opening a reader"):
            await consumer.start()
        yield consumer
    finally:
        await end_consumer(consumer)

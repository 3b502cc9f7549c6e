"""A member of a consumer group: offsets committed by hand, a share given away with good manners."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import TopicPartition

from libs.common import faults
from libs.common.bus.base import Fenced, Received
from libs.common.bus.kafka.admin import Admin
from libs.common.bus.kafka.connection import (
    Connection,
    bus_errors,
    milliseconds,
    within,
)
from libs.common.bus.kafka.ending import end_consumer
from libs.common.bus.kafka.records import received


class KafkaSubscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """Joins its group with the first fetch, and reads the topics that exist.

    When the group shares out anew, it first lets its user commit what was fetched, so nothing is
    handled twice; who takes longer than `handling_seconds` loses the share, and the commit is
    refused.
    """

    def __init__(
        self, group: str, topics: Sequence[str], admin: Admin, connection: Connection
    ) -> None:
        """Use `KafkaBus.subscribe` instead."""
        self._group = group
        self._topics = frozenset(topics)
        self._admin = admin
        self._connection = connection
        self._consumer: AIOKafkaConsumer | None = None
        self._joined: frozenset[str] = frozenset()
        self._look_at = 0.0
        self._fetched: dict[TopicPartition, int] = {}
        """Where to go on once what was fetched and not committed yet has been handled."""
        self._settled = asyncio.Event()
        self._settled.set()
        self._lost = False

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Read the next records of the share this member has."""
        self._settled.set()  # who fetches again is not about to commit
        with bus_errors(f"group {self._group}"):
            await self._look_for_topics()
            if self._consumer is None:
                await asyncio.sleep(min(wait, self._connection.look_seconds))
                return []
            bound = wait
            if self._joined != self._topics:
                bound = min(wait, self._connection.look_seconds)
            found = await self._consumer.getmany(timeout_ms=milliseconds(bound), max_records=limit)
            for place in found:
                # Beyond markers and what compaction has removed, not just the last record's next.
                self._fetched[place] = await self._consumer.position(place)
        if self._fetched:
            self._settled.clear()
        return [received(record) for records in found.values() for record in records]

    async def commit(self) -> None:
        """Store the positions, provided that every share is still ours."""
        if self._lost:
            self._lost = False
            raise Fenced(f"group {self._group} has given the share to another member")
        if not self._fetched:
            return
        assert self._consumer is not None
        positions, self._fetched = self._fetched, {}
        try:
            async with within(self._connection.session_seconds, f"group {self._group}"):
                await self._consumer.commit(positions)
        finally:
            self._settled.set()

    async def rewind(self) -> None:
        """Read again from what is committed."""
        self._fetched = {}
        self._settled.set()
        if self._consumer is None:
            return
        async with within(self._connection.answer_seconds, f"group {self._group}"):
            places = list(self._consumer.assignment())
            committed = await self._admin.committed(self._group, places)
            if fresh := [place for place in places if place not in committed]:
                await self._consumer.seek_to_beginning(*fresh)
            for place, offset in committed.items():
                self._consumer.seek(place, offset)

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Let what was fetched be committed before the share is given away."""
        if not revoked:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._connection.handling_seconds * 0.8):
                await self._settled.wait()
        if self._fetched:
            self._fetched = {}
            self._lost = True

    async def on_partitions_assigned(self, _: Sequence[TopicPartition]) -> None:
        """Note the moment at which a test may end this process."""
        faults.reach("bus.taken")

    async def close(self) -> None:
        """Leave the group: the others take over at once."""
        self._settled.set()
        await self._stop()

    async def _look_for_topics(self) -> None:
        """Join, and join again when a topic has come; not while a commit is still due."""
        if self._joined == self._topics or self._fetched or monotonic() < self._look_at:
            return
        self._look_at = monotonic() + self._connection.look_seconds
        present = self._topics & (await self._admin.topics()).keys()
        if present == self._joined:
            return
        if self._consumer is not None:
            self._consumer.subscribe(topics=list(present), listener=self)
        else:
            await self._join(present)
        self._joined = present

    async def _join(self, topics: frozenset[str]) -> None:
        bounds = self._connection
        self._consumer = AIOKafkaConsumer(
            **bounds.reader_options(),
            group_id=self._group,
            session_timeout_ms=milliseconds(bounds.session_seconds),
            heartbeat_interval_ms=milliseconds(bounds.heartbeat_seconds),
            max_poll_interval_ms=milliseconds(bounds.handling_seconds),
            rebalance_timeout_ms=milliseconds(bounds.handling_seconds),
        )
        self._consumer.subscribe(topics=list(topics), listener=self)
        try:
            async with within(bounds.handling_seconds + 10, f"joining group {self._group}"):
                await self._consumer.start()
        except BaseException:
            await self._stop()
            raise

    async def _stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await end_consumer(consumer)


@asynccontextmanager
async def open_subscription(
    group: str, topics: Sequence[str], admin: Admin, connection: Connection
) -> AsyncIterator[KafkaSubscription]:
    """Be a member of a group."""
    member = KafkaSubscription(group, topics, admin, connection)
    try:
        yield member
    finally:
        await member.close()

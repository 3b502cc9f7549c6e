"""Where topics end: asked twice a second by whoever must know whether it is behind."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from libs.common.bus.kafka.admin import Admin
from libs.common.bus.kafka.connection import Connection, within
from libs.common.bus.kafka.follower import LOOK_FOR_PARTITIONS_SECONDS, reader


class Ends:
    """One reader for this question, opened at the first; after an error the next opens another."""

    def __init__(self, admin: Admin, connection: Connection) -> None:
        """Prepare; nothing is opened yet."""
        self._admin = admin
        self._connection = connection
        self._opened = AsyncExitStack()
        self._consumer: AIOKafkaConsumer | None = None
        self._turn = asyncio.Lock()
        self._look_at = 0.0
        self._known: dict[str, list[int]] = {}

    async def close(self) -> None:
        """Close the reader if it is open."""
        self._consumer, self._known = None, {}
        await self._opened.aclose()

    async def ask(self, topics: Sequence[str]) -> dict[str, list[int]]:
        """Tell where topics end; one that does not exist (yet) is left out."""
        async with self._turn:
            try:
                return await self._ask(topics)
            except BaseException:
                await self.close()
                raise

    async def _ask(self, topics: Sequence[str]) -> dict[str, list[int]]:
        known = await self._partitions(topics)
        places = [
            TopicPartition(topic, number) for topic in topics for number in known.get(topic, ())
        ]
        if not places:
            return {}
        if self._consumer is None:
            # What was acknowledged counts, though it be shown to readers a moment later.
            opening = reader(self._connection, isolation_level="read_uncommitted")
            self._consumer = await self._opened.enter_async_context(opening)
        consumer: Any = self._consumer
        async with within(self._connection.answer_seconds, "looking for the log's end"):
            ends = await consumer.end_offsets(places)
        return {
            topic: [ends[TopicPartition(topic, number)] for number in known[topic]]
            for topic in topics
            if topic in known
        }

    async def _partitions(self, topics: Sequence[str]) -> dict[str, list[int]]:
        """List topics' partitions, from memory for a while where they are known."""
        if monotonic() >= self._look_at or not self._known.keys() >= set(topics):
            self._known = await self._admin.topics()
            self._look_at = monotonic() + LOOK_FOR_PARTITIONS_SECONDS
        return self._known

"""The one sender of a name: a transactional producer, each batch a transaction."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner

from libs.common import faults
from libs.common.bus.base import BusError, Record, TooLarge
from libs.common.bus.kafka.admin import Admin
from libs.common.bus.kafka.connection import Connection, milliseconds, within
from libs.common.bus.kafka.ending import end_producer

LARGEST_RECORD = 1_000_000
"""Bytes of key, value and headers: below what brokers take unless told otherwise (1 MiB)."""
_BATCH_BYTES = 256 * 1024

_partition_of = DefaultPartitioner()
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Letter:
    """A record as it goes on the wire."""

    record: Record
    key: bytes
    headers: list[tuple[str, bytes]]
    size: int

    @classmethod
    def of(cls, record: Record) -> Self:
        key = record.key.encode()
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        written = sum(len(name.encode()) + len(value) for name, value in headers)
        return cls(record, key, headers, len(key) + len(record.value or b"") + written)

    def put_into(self, batch: Any) -> bool:
        """Add it to a batch unless that is full."""
        value, headers = self.record.value, self.headers
        return batch.append(key=self.key, value=value, timestamp=None, headers=headers) is not None


class KafkaProducer:
    """Sends batches, all of each or nothing, until one fails: then its user opens another.

    Its name is the transactional id. Opening another one of the name raises the id's epoch and
    aborts what the older had begun; whatever the older still sends is refused.
    """

    def __init__(self, client: AIOKafkaProducer, admin: Admin, connection: Connection) -> None:
        """Use `KafkaBus.producer` instead."""
        self._client = client
        self._admin = admin
        self._connection = connection
        self._in_doubt: BusError | None = None

    async def send(self, records: Sequence[Record]) -> None:
        """Append in order, all or nothing."""
        if self._in_doubt is not None:
            raise self._in_doubt
        if not records:
            return
        letters = [_Letter.of(record) for record in records]
        for letter in letters:
            if letter.size > LARGEST_RECORD:
                raise TooLarge(letter.record)
        partitions = await self._admin.partitions({record.topic for record in records})
        by_place: dict[Place, list[_Letter]] = defaultdict(list)
        for letter in letters:
            topic = letter.record.topic
            by_place[topic, _partition_of(letter.key, partitions[topic], [])].append(letter)
        await self._send_bounded(by_place)

    async def _send_bounded(self, by_place: dict[Place, list[_Letter]]) -> None:
        doing = "sending events"
        # Whatever happens from here on, cancellation too, leaves it open what was sent.
        self._in_doubt = BusError(f"{doing} was interrupted: this producer cannot go on")
        try:
            async with within(self._connection.send_seconds, doing):
                await self._client.begin_transaction()
                await self._append(by_place)
                faults.reach("bus.appended")
                await self._client.commit_transaction()
            faults.reach("bus.committed")
        except TooLarge:
            self._in_doubt = None  # the transaction was aborted
            raise
        except BusError as error:
            self._in_doubt = error
            self._admin.forget()  # a topic may have been deleted under us
            raise
        self._in_doubt = None

    async def _append(self, by_place: dict[Place, list[_Letter]]) -> None:
        """Send the records of a transaction and wait until they are acknowledged."""
        refused: list[_Letter] = []

        async def acknowledged(sent: Any, held: Sequence[_Letter]) -> None:
            try:
                await sent
            except MessageSizeTooLargeError:
                refused.extend(held)

        waits = []
        for (topic, partition), letters in by_place.items():
            for batch, held in self._batches(letters):
                sent = await self._client.send_batch(batch, topic, partition=partition)
                waits.append(acknowledged(sent, held))
        await asyncio.gather(*waits)
        if refused:
            await self._client.abort_transaction()
            raise TooLarge(max(refused, key=lambda letter: letter.size).record)

    def _batches(self, letters: Sequence[_Letter]) -> list[tuple[Any, list[_Letter]]]:
        """Pack the records of one partition; a batch that is full is followed by another."""
        batches: list[tuple[Any, list[_Letter]]] = []
        for letter in letters:
            if not batches or not letter.put_into(batches[-1][0]):
                batches.append((self._client.create_batch(), []))
                letter.put_into(batches[-1][0])  # the first always fits
            batches[-1][1].append(letter)
        return batches

    async def close(self) -> None:
        """Say goodbye; a transaction that was begun is aborted here or by the next of the name."""
        await end_producer(self._client, in_doubt=self._in_doubt is not None)


@asynccontextmanager
async def open_producer(
    name: str, admin: Admin, connection: Connection
) -> AsyncIterator[KafkaProducer]:
    """Open the one sender of a name, fencing any other."""
    client = AIOKafkaProducer(
        **connection.options(connection.send_seconds),
        transactional_id=name,
        # Longer than a send may take: the broker must not abort what is still under way.
        transaction_timeout_ms=milliseconds(connection.send_seconds + 5),
        max_batch_size=_BATCH_BYTES,
    )
    producer = KafkaProducer(client, admin, connection)
    try:
        async with within(connection.send_seconds, f"opening the producer {name}"):
            await client.start()
        yield producer
    finally:
        await producer.close()

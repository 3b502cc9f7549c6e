"""The one sender of a name: a transactional producer, each batch a transaction."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
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

_BATCH_BYTES = 256 * 1024
"""A batch is followed by another when it has grown so large."""
_HEAD_BYTES = 200
"""What a batch takes beside its records, and a little more."""
_RECORD_BYTES = 80
"""What a record with its headers takes beside their bytes, at most: lengths, time, place."""

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

    def put_into(self, batch: Any) -> None:
        """Add it to a batch of the client."""
        batch.append(key=self.key, value=self.record.value, timestamp=None, headers=self.headers)


def _batches(letters: Sequence[_Letter], limit: int) -> Iterator[list[_Letter]]:
    """Cut the records of one partition into batches that stay below so many bytes."""
    batch: list[_Letter] = []
    size = _HEAD_BYTES
    for letter in letters:
        needed = letter.size + _RECORD_BYTES
        if batch and size + needed > limit:
            yield batch
            batch, size = [], _HEAD_BYTES
        batch.append(letter)
        size += needed
    if batch:
        yield batch


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
        room = await self._admin.room({record.topic for record in records})
        by_place: dict[Place, list[_Letter]] = defaultdict(list)
        for letter in map(_Letter.of, records):
            topic = letter.record.topic
            if letter.size + _HEAD_BYTES + _RECORD_BYTES > room[topic].largest:
                self._admin.forget()  # the limit may be raised before it is sent again
                raise TooLarge(letter.record)
            by_place[topic, _partition_of(letter.key, room[topic].partitions, [])].append(letter)
        batches = [
            (place, batch)
            for place, letters in by_place.items()
            for batch in _batches(letters, min(_BATCH_BYTES, room[place[0]].largest))
        ]
        await self._send_bounded(batches)

    async def _send_bounded(self, batches: Sequence[tuple[Place, Sequence[_Letter]]]) -> None:
        doing = "sending events"
        # Whatever happens from here on, cancellation too, leaves it open what was sent.
        self._in_doubt = BusError(f"{doing} was interrupted: this producer cannot go on")
        try:
            async with within(self._connection.send_seconds, doing):
                await self._client.begin_transaction()
                await self._append(batches)
                faults.reach("bus.appended")
                await self._client.commit_transaction()
            faults.reach("bus.committed")
        except BusError as error:
            self._admin.forget()  # a topic may have been deleted or changed under us
            if not isinstance(error, TooLarge):
                self._in_doubt = error
            raise
        self._in_doubt = None

    async def _append(self, batches: Sequence[tuple[Place, Sequence[_Letter]]]) -> None:
        """Send the records of a transaction and wait until they are acknowledged."""
        refused: list[_Letter] = []

        async def acknowledged(sent: Any, letters: Sequence[_Letter]) -> None:
            try:
                await sent
            except MessageSizeTooLargeError:
                refused.extend(letters)

        waits = []
        for (topic, partition), letters in batches:
            batch = self._client.create_batch()
            for letter in letters:
                letter.put_into(batch)
            sent = await self._client.send_batch(batch, topic, partition=partition)
            waits.append(acknowledged(sent, letters))
        await asyncio.gather(*waits)
        if refused:
            # Only if the topic's limit was lowered since we asked; its largest is the likeliest.
            await self._client.abort_transaction()
            raise TooLarge(max(refused, key=lambda letter: letter.size).record)

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
        max_batch_size=2**31 - 1,  # ours are cut by what each topic takes
    )
    producer = KafkaProducer(client, admin, connection)
    try:
        async with within(connection.send_seconds, f"opening the producer {name}"):
            await client.start()
        yield producer
    finally:
        await producer.close()

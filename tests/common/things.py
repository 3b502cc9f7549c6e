"""A made-up aggregate for tests of mechanism: things that happen to numbered counters."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID, uuid4

from libs.common.bus.base import (
    Bus,
    Follower,
    Positions,
    Producer,
    Received,
    Record,
    Subscription,
    Topic,
    TopicState,
)
from libs.common.dead_letters import DEAD_LETTER_SUFFIX
from libs.common.events import Envelope, Event
from libs.common.outbox import source_of

AT = datetime(2026, 11, 20, 1, 2, 3, tzinfo=UTC)


class Counted(Event):
    """A thing was counted; `number` rises by one with each count of a thing."""

    topic: ClassVar[str] = "test.counted.v1"
    producer: ClassVar[str] = "queue"

    thing: str
    number: int

    @property
    def key(self) -> str:
        """Order is kept per thing."""
        return self.thing


class Renamed(Event):
    """A thing got another name; it travels on a topic of its own."""

    topic: ClassVar[str] = "test.renamed.v1"
    producer: ClassVar[str] = "queue"

    thing: str

    @property
    def key(self) -> str:
        """Order is kept per thing."""
        return self.thing


TOPICS = [
    # One partition each: these tests tell events apart by their place in one log.
    Topic(Counted.topic, partitions=1),
    Topic(Counted.topic + DEAD_LETTER_SUFFIX, partitions=1, compacted=True),
    Topic(Renamed.topic, partitions=1),
    Topic(Renamed.topic + DEAD_LETTER_SUFFIX, partitions=1, compacted=True),
]

TABLES = (
    "CREATE TABLE queue.things (thing text PRIMARY KEY, number bigint NOT NULL)",
    "CREATE TABLE queue.late (one int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    """CREATE TABLE queue.applied (
        place bigint GENERATED ALWAYS AS IDENTITY, thing text NOT NULL, number bigint NOT NULL,
        trace text)""",
    "CREATE TABLE reporting.applied (LIKE queue.applied INCLUDING IDENTITY)",
    """CREATE TABLE queue.tally (
        thing text PRIMARY KEY, events bigint NOT NULL, highest bigint NOT NULL)""",
)

WIPE = """
DELETE FROM queue.things; DELETE FROM queue.tally; DELETE FROM queue.applied;
DELETE FROM reporting.applied;
DELETE FROM queue.outbox; DELETE FROM queue.inbox; DELETE FROM queue.idempotency_keys;
DELETE FROM reporting.inbox; DELETE FROM reporting.outbox; DELETE FROM intake.outbox;
DELETE FROM bus.log; DELETE FROM bus.groups; DELETE FROM bus.topics WHERE name LIKE 'test.%';
"""


def as_record(event: Event, event_id: UUID | None = None, traceparent: str = "") -> Record:
    """Write an event as the relay does."""
    envelope = Envelope(
        event_id or uuid4(), event.type_name(), source_of(event.producer), AT, traceparent
    )
    return Record(event.topic, event.key, event.model_dump_json().encode(), envelope.headers())


def counts(records: Sequence[Record]) -> list[tuple[str, int]]:
    """Read which things were counted, in order."""
    events = [Counted.model_validate_json(record.value or b"") for record in records]
    return [(event.thing, event.number) for event in events]


class WrappedBus:
    """A bus whose parts a test can replace; the rest goes to the real one."""

    def __init__(self, bus: Bus) -> None:
        """Stand before a bus."""
        self.inner = bus

    @asynccontextmanager
    async def producer(self, name: str) -> AsyncIterator[Producer]:
        """Open the real producer and give what `wrap_producer` makes of it."""
        async with self.inner.producer(name) as producer:
            yield self.wrap_producer(producer)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator[Subscription]:
        """Open the real subscription and give what `wrap_subscription` makes of it."""
        async with self.inner.subscribe(group, topics) as subscription:
            yield self.wrap_subscription(subscription)

    def wrap_producer(self, producer: Producer) -> Producer:
        """Replace it in a subclass."""
        return producer

    def wrap_subscription(self, subscription: Subscription) -> Subscription:
        """Replace it in a subclass."""
        return subscription

    def follow(
        self, topics: Sequence[str], start: Positions | None = None
    ) -> AbstractAsyncContextManager[Follower]:
        """Follow the real one."""
        return self.inner.follow(topics, start)

    async def ends(self, topics: Sequence[str]) -> Positions:
        """Ask the real one."""
        return await self.inner.ends(topics)

    async def apply_topics(self, topics: Iterable[Topic]) -> None:
        """Create topics on the real one."""
        await self.inner.apply_topics(topics)

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Ask the real one."""
        return await self.inner.missing(names)

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Ask the real one."""
        return await self.inner.describe_topics(names)

    async def lag(self, group: str, topics: Sequence[str]) -> dict[str, int]:
        """Ask the real one."""
        return await self.inner.lag(group, topics)

    async def ping(self) -> None:
        """Ask the real one."""
        await self.inner.ping()


async def all_of(bus: Bus, topic: str) -> list[Received]:
    """Read a topic to its present end."""
    found: list[Received] = []
    async with bus.follow([topic]) as follower:
        while not follower.caught_up:
            found += await follower.fetch(1000, 0.2)
    return found

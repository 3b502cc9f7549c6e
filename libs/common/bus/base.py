"""What a bus does for its users, whatever carries it."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol


class BusError(Exception):
    """The bus did not do what was asked."""


class Fenced(BusError):
    """Somebody else has taken over; what this one still meant to do was refused."""


class UnknownTopic(BusError):
    """The topic does not exist (yet)."""

    def __init__(self, topic: str) -> None:
        """Name the topic."""
        super().__init__(f"topic {topic} does not exist")
        self.topic = topic


class TopicRefused(BusError):
    """A topic cannot be made what it should be; the message says why."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as code: `compacted` keeps only the last value of each key."""

    name: str
    partitions: int = 6
    compacted: bool = False
    kept: timedelta | None = None
    """For how long a record is kept; None is for ever. A compacted topic keeps each key's last."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the carrier has it; what the carrier does not know of is None."""

    name: str
    compacted: bool
    partitions: int | None = None
    kept: timedelta | None = None


Positions = Mapping[str, Sequence[int]]
"""A place in each topic: the offset of the record that comes next, for every partition in order."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is sent: `value` None is a tombstone of a compacted topic's key."""

    topic: str
    key: str
    value: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


class TooLarge(BusError):
    """The carrier does not take a record of this size; it names the record, and sent nothing."""

    def __init__(self, record: Record) -> None:
        """Name the record."""
        size = len(record.value or b"")
        super().__init__(f"a record of {size:,} bytes is too large for topic {record.topic}")
        self.record = record


@dataclass(frozen=True, slots=True)
class Received(Record):
    """What is read, with its place in the log."""

    partition: int = 0
    offset: int = 0


class Producer(Protocol):
    """The one sender of a name: opening another with the same name fences this one."""

    async def send(self, records: Sequence[Record]) -> None:
        """Append in order; on return every record is durable.

        Raises:
            UnknownTopic: a topic is missing; nothing was sent.
            TooLarge: a record is too large for its topic; nothing was sent.
            Fenced: another producer of this name was opened.
            BusError: the bus did not acknowledge, the records may have been sent or not, and this
                producer sends no more; open another.
        """
        ...


class Subscription(Protocol):
    """A member of a consumer group: each record goes to one member, offsets are committed."""

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Read up to `limit` next records, waiting at most `wait` seconds for the first."""
        ...

    async def commit(self) -> None:
        """Remember that everything fetched has been handled.

        Raises:
            Fenced: the group gave our share to another member meanwhile.
        """
        ...

    async def rewind(self) -> None:
        """Go back to what was last committed: the next fetch gives the same records again."""
        ...


class Follower(Protocol):
    """A broadcast reader: sees every record from where it began, commits nothing."""

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Read up to `limit` next records, waiting at most `wait` seconds for the first."""
        ...

    @property
    def caught_up(self) -> bool:
        """Whether everything that was in the log when following began has been read."""
        ...

    @property
    def positions(self) -> Positions:
        """Where in each topic the next fetch goes on; another follower may start there."""
        ...

    @property
    def missing(self) -> frozenset[str]:
        """Name the topics that do not exist yet; they are read from when they do."""
        ...


class Bus(Protocol):
    """Carries records between services."""

    def producer(self, name: str) -> AbstractAsyncContextManager[Producer]:
        """Open the one sender of this name."""
        ...

    def subscribe(
        self, group: str, topics: Sequence[str]
    ) -> AbstractAsyncContextManager[Subscription]:
        """Join a consumer group."""
        ...

    def follow(
        self, topics: Sequence[str], start: Positions | None = None
    ) -> AbstractAsyncContextManager[Follower]:
        """Read topics apart from any group, from their beginning or from a place on.

        A topic or partition that `start` does not name is read from its beginning. Where the
        records after a place are gone, reading goes on with the first that is there; a place
        beyond the end is the end.
        """
        ...

    async def ends(self, topics: Sequence[str]) -> Positions:
        """Tell where topics end; one that does not exist (yet) is left out."""
        ...

    async def apply_topics(self, topics: Iterable[Topic]) -> None:
        """Create the topics that are missing, and make the others what they should be.

        Raises:
            TopicRefused: one would have to lose partitions; nothing was changed.
        """
        ...

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Name the topics of these that do not exist."""
        ...

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Tell what the topics are like that exist."""
        ...

    async def lag(self, group: str, topics: Sequence[str]) -> dict[str, int]:
        """Count, per topic, the records that the group has not committed."""
        ...

    async def ping(self) -> None:
        """Return if the bus answers; raise if it does not."""
        ...

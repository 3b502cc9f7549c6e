"""A bus whose names are one test's own, on a broker that tests share."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from libs.common.bus.base import (
    Bus,
    Follower,
    Positions,
    Producer,
    Received,
    Record,
    Subscription,
    TooLarge,
    Topic,
    TopicState,
    UnknownTopic,
)


class Namespaced:
    """Puts a prefix before the names of topics, groups and producers, and takes it off again."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        """Stand before a bus."""
        self.inner = bus
        self._prefix = prefix

    @asynccontextmanager
    async def producer(self, name: str) -> AsyncIterator[Producer]:
        """Open the one sender of this name in this namespace."""
        async with self.inner.producer(self._prefix + name) as producer:
            yield _Producer(producer, self._prefix)

    @asynccontextmanager
    async def subscribe(self, group: str, topics: Sequence[str]) -> AsyncIterator[Subscription]:
        """Join a group of this namespace."""
        async with self.inner.subscribe(self._prefix + group, self._all(topics)) as member:
            yield _Subscription(member, self._prefix)

    @asynccontextmanager
    async def follow(
        self, topics: Sequence[str], start: Positions | None = None
    ) -> AsyncIterator[Follower]:
        """Follow topics of this namespace."""
        begun = {self._prefix + name: places for name, places in (start or {}).items()}
        async with self.inner.follow(self._all(topics), begun) as follower:
            yield _Follower(follower, self._prefix)

    async def ends(self, topics: Sequence[str]) -> Positions:
        """Tell where topics of this namespace end."""
        found = await self.inner.ends(self._all(topics))
        return {name.removeprefix(self._prefix): places for name, places in found.items()}

    async def apply_topics(self, topics: Iterable[Topic]) -> None:
        """Create topics in this namespace."""
        await self.inner.apply_topics(
            replace(topic, name=self._prefix + topic.name) for topic in topics
        )

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Name the topics that this namespace lacks."""
        found = await self.inner.missing(self._all(names))
        return [name.removeprefix(self._prefix) for name in found]

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Tell what topics of this namespace are like."""
        found = await self.inner.describe_topics(self._all(names))
        names = {name: name.removeprefix(self._prefix) for name in found}
        return {names[name]: replace(state, name=names[name]) for name, state in found.items()}

    async def lag(self, group: str, topics: Sequence[str]) -> dict[str, int]:
        """Count what a group of this namespace has not committed."""
        found = await self.inner.lag(self._prefix + group, self._all(topics))
        return {name.removeprefix(self._prefix): behind for name, behind in found.items()}

    async def ping(self) -> None:
        """Ask the real one."""
        await self.inner.ping()

    def _all(self, names: Iterable[str]) -> list[str]:
        return [self._prefix + name for name in names]


class _Producer:
    def __init__(self, inner: Producer, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix

    async def send(self, records: Sequence[Record]) -> None:
        sent = [replace(record, topic=self._prefix + record.topic) for record in records]
        try:
            await self._inner.send(sent)
        except UnknownTopic as missing:
            raise UnknownTopic(missing.topic.removeprefix(self._prefix)) from missing
        except TooLarge as refused:
            raise TooLarge(records[sent.index(refused.record)]) from refused


class _Reader:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def _named(self, records: list[Received]) -> list[Received]:
        return [replace(r, topic=r.topic.removeprefix(self._prefix)) for r in records]


class _Subscription(_Reader):
    def __init__(self, inner: Subscription, prefix: str) -> None:
        super().__init__(prefix)
        self._inner = inner

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        return self._named(await self._inner.fetch(limit, wait))

    async def commit(self) -> None:
        await self._inner.commit()

    async def rewind(self) -> None:
        await self._inner.rewind()


class _Follower(_Reader):
    def __init__(self, inner: Follower, prefix: str) -> None:
        super().__init__(prefix)
        self._inner = inner

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        return self._named(await self._inner.fetch(limit, wait))

    @property
    def caught_up(self) -> bool:
        return self._inner.caught_up

    @property
    def positions(self) -> Positions:
        found = self._inner.positions
        return {name.removeprefix(self._prefix): places for name, places in found.items()}

    @property
    def missing(self) -> frozenset[str]:
        return frozenset(name.removeprefix(self._prefix) for name in self._inner.missing)

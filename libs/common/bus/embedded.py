"""The embedded carrier: a log table in PostgreSQL, read as Kafka is read.

Each topic is one log with one partition. Offsets are given under the lock of the topic's row, so
they become visible in their order and a reader that goes on from the last one misses nothing. A
member of a consumer group owns a topic while it holds an advisory lock; taking it raises the
group's generation for that topic, and a commit of an older generation is refused.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
import structlog

from libs.common import faults
from libs.common.bus.base import (
    Fenced,
    Positions,
    Received,
    Record,
    Topic,
    TopicState,
    UnknownTopic,
)  # fmt: skip

log = structlog.get_logger()

Connect = Callable[[], Any]
# The driver's internal error: a connection that heard of the server's end while it was idle, and
# is used before it is closed. Nothing has been sent then.
AWAY = (
    OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)  # fmt: skip
BROKEN = (
    OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)  # fmt: skip

_APPEND = """
WITH allowed AS (
    SELECT FROM bus.producers WHERE name = $1 AND epoch = $2 FOR SHARE
), place AS (
    UPDATE bus.topics SET next_offset = next_offset + $4
    WHERE name = $3 AND EXISTS (SELECT FROM allowed)
    RETURNING next_offset - $4 AS first
)
INSERT INTO bus.log (topic, "offset", key, value, headers)
SELECT $3, place.first + record.ordinality - 1, record.key, record.value, record.headers::jsonb
FROM place, unnest($5::text[], $6::bytea[], $7::text[])
    WITH ORDINALITY AS record (key, value, headers, ordinality)
RETURNING "offset"
"""

_READ = """
SELECT "offset", key, value, headers FROM bus.log
WHERE topic = $1 AND "offset" >= $2 ORDER BY "offset" LIMIT $3
"""

_COMPACT = """
DELETE FROM bus.log AS old
USING bus.topics AS topic
WHERE topic.compacted AND topic.name = old.topic AND EXISTS (
    SELECT FROM bus.log AS newer
    WHERE newer.topic = old.topic AND newer.key = old.key AND newer."offset" > old."offset")
"""


class EmbeddedBus:
    """The bus of a city without Kafka; any number of processes may share it."""

    poll_seconds = 0.05
    compact_seconds = 60
    look_seconds = 5.0

    def __init__(self, connect: Connect, pool: asyncpg.Pool) -> None:
        """Use `open_embedded_bus` instead."""
        self._connect = connect
        self._pool = pool
        self._ends: dict[str, int] = {}
        self._moved = asyncio.Condition()

    async def watch(self) -> None:
        """Learn where each topic ends, for all readers of this process, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self.look_seconds):
                    await self.look()
            except Exception as error:  # whatever it was: without this look every reader is blind
                log.warning("bus.away", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(0.5)
            await asyncio.sleep(self.poll_seconds)

    async def look(self) -> None:
        """Read the topics' ends once and wake the readers of those that moved."""
        rows = await self._pool.fetch("SELECT name, next_offset FROM bus.topics")
        await self.moved({row["name"]: row["next_offset"] for row in rows})

    async def moved(self, ends: dict[str, int]) -> None:
        """Note new ends; a reader in this process need not wait for the next poll."""
        changed = {name: end for name, end in ends.items() if end > self._ends.get(name, -1)}
        if changed:
            async with self._moved:
                self._ends |= changed
                self._moved.notify_all()

    def knows(self, topic: str) -> bool:
        """Tell whether a topic exists, as far as is known here."""
        return topic in self._ends

    def end(self, topic: str) -> int:
        """Give the offset that the topic's next record will have, as far as is known here."""
        return self._ends.get(topic, 0)

    async def wait_beyond(self, positions: dict[str, int], wait: float) -> list[str]:
        """Wait until some topic reaches beyond its position; name those that do."""

        def beyond() -> list[str]:
            return [name for name, at in positions.items() if self.end(name) > at]

        if found := beyond():
            return found
        try:
            async with asyncio.timeout(wait), self._moved:
                await self._moved.wait_for(beyond)
        except TimeoutError:
            pass
        return beyond()

    @asynccontextmanager
    async def producer(self, name: str) -> AsyncIterator["EmbeddedProducer"]:
        """Open the one sender of this name, fencing any other."""
        epoch = await self._pool.fetchval(
            "INSERT INTO bus.producers AS p (name, epoch) VALUES ($1, 1) "
            "ON CONFLICT (name) DO UPDATE SET epoch = p.epoch + 1 RETURNING epoch",
            name,
        )
        yield EmbeddedProducer(self, self._pool, name, epoch)

    @asynccontextmanager
    async def subscribe(
        self, group: str, topics: Sequence[str]
    ) -> AsyncIterator["EmbeddedSubscription"]:
        """Join a consumer group; leaving frees the topics for the other members."""
        connection = await self._connect()
        try:
            yield EmbeddedSubscription(self, connection, group, topics)
        finally:
            connection.terminate()

    @asynccontextmanager
    async def follow(
        self, topics: Sequence[str], start: Positions | None = None
    ) -> AsyncIterator["EmbeddedFollower"]:
        """Read topics from the first record or from a place on, apart from any group."""
        await self.look()  # a topic that is not known after it does not exist
        ends = {topic: end for topic, (end,) in (await self.ends(topics)).items()}
        begun = {topic: places[0] for topic, places in (start or {}).items() if places}
        positions = {topic: min(begun.get(topic, 0), ends.get(topic, 0)) for topic in topics}
        yield EmbeddedFollower(self, self._pool, positions, ends)

    async def ends(self, topics: Sequence[str]) -> dict[str, tuple[int]]:
        """Tell where topics end."""
        rows = await self._pool.fetch(
            "SELECT name, next_offset FROM bus.topics WHERE name = ANY($1::text[])", topics
        )
        return {row["name"]: (row["next_offset"],) for row in rows}

    async def apply_topics(self, topics: Iterable[Topic]) -> None:
        """Create the topics that are missing and set whether they are compacted."""
        await self._pool.executemany(
            "INSERT INTO bus.topics (name, compacted) VALUES ($1, $2) "
            "ON CONFLICT (name) DO UPDATE SET compacted = excluded.compacted",
            [(topic.name, topic.compacted) for topic in topics],
        )

    async def missing(self, names: Iterable[str]) -> list[str]:
        """Name the topics of these that do not exist."""
        wanted = list(names)
        found = await self.describe_topics(wanted)
        return [name for name in wanted if name not in found]

    async def describe_topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Tell what the topics are like that exist; they have no partitions and keep everything."""
        rows = await self._pool.fetch(
            "SELECT name, compacted FROM bus.topics WHERE name = ANY($1::text[])", list(names)
        )
        return {row["name"]: TopicState(row["name"], compacted=row["compacted"]) for row in rows}

    async def compact(self) -> int:
        """Delete what a newer record of the same key has replaced; answer how many rows."""
        status = await self._pool.execute(_COMPACT)
        return int(status.rpartition(" ")[2])

    async def compact_for_ever(self) -> None:
        """Compact now and then, until cancelled."""
        while True:
            await asyncio.sleep(self.compact_seconds)
            try:
                await self.compact()
            except AWAY as error:
                log.warning("bus.away", error=type(error).__name__)

    async def lag(self, group: str, topics: Sequence[str]) -> dict[str, int]:
        """Count, per topic, the records that the group has not committed."""
        rows = await self._pool.fetch(
            "SELECT t.name, t.next_offset - coalesce(g.next_offset, 0) AS behind FROM bus.topics t "
            "LEFT JOIN bus.groups g ON g.topic = t.name AND g.name = $1 "
            "WHERE t.name = ANY($2::text[])",
            group,
            list(topics),
        )
        return {row["name"]: row["behind"] for row in rows}

    async def ping(self) -> None:
        """Return if the log answers."""
        await self._pool.fetchval("SELECT 1")


class EmbeddedProducer:
    """The sender of one name at one epoch."""

    def __init__(self, bus: EmbeddedBus, pool: asyncpg.Pool, name: str, epoch: int) -> None:
        """Use `EmbeddedBus.producer` instead."""
        self._bus = bus
        self._pool = pool
        self._name = name
        self._epoch = epoch

    async def send(self, records: Sequence[Record]) -> None:
        """Append in order, all or nothing."""
        by_topic: dict[str, list[Record]] = {}
        for record in records:
            by_topic.setdefault(record.topic, []).append(record)
        ends = {}
        async with self._pool.acquire() as connection, connection.transaction():
            # Topics are locked in the order of their names, or two senders could block each other.
            for topic, batch in sorted(by_topic.items()):
                ends[topic] = await self._append(connection, topic, batch)
            faults.reach("bus.appended")
        faults.reach("bus.committed")
        await self._bus.moved(ends)

    async def _append(self, connection: Any, topic: str, batch: Sequence[Record]) -> int:
        rows = await connection.fetch(
            _APPEND,
            self._name,
            self._epoch,
            topic,
            len(batch),
            [record.key for record in batch],
            [record.value for record in batch],
            [json.dumps(dict(record.headers)) for record in batch],
        )
        if rows:
            return int(rows[-1]["offset"]) + 1
        if await connection.fetchval("SELECT count(*) FROM bus.topics WHERE name = $1", topic):
            raise Fenced(f"another producer named {self._name} has been opened")
        raise UnknownTopic(topic)


class EmbeddedSubscription:
    """A member of a group: owns the topics whose lock it holds."""

    claim_seconds = 0.5

    def __init__(
        self, bus: EmbeddedBus, connection: Any, group: str, topics: Sequence[str]
    ) -> None:
        """Use `EmbeddedBus.subscribe` instead."""
        self._bus = bus
        self._connection = connection
        self._group = group
        self._unowned = set(topics)
        self._generations: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._claim_at = 0.0

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Read the next records of the topics this member owns."""
        await self._claim_free_topics()
        if not self._positions:
            await asyncio.sleep(min(wait, self.claim_seconds))
            return []
        received: list[Received] = []
        bound = min(wait, self.claim_seconds) if self._unowned else wait
        for topic in await self._bus.wait_beyond(self._positions, bound):
            if len(received) >= limit:
                break
            end = self._bus.end(topic)
            rows = await self._connection.fetch(
                _READ, topic, self._positions[topic], limit - len(received)
            )
            received += [_received(topic, row) for row in rows]
            # No row before the end that was known: compaction has removed them all.
            self._positions[topic] = rows[-1]["offset"] + 1 if rows else end
        return received

    async def commit(self) -> None:
        """Store the positions, provided that every topic is still ours."""
        names = list(self._positions)
        try:
            stored = await self._connection.fetch(
                "UPDATE bus.groups AS g SET next_offset = mine.position "
                "FROM unnest($2::text[], $3::bigint[], $4::bigint[]) "
                "AS mine (topic, position, generation) "
                "WHERE g.name = $1 AND g.topic = mine.topic AND g.generation = mine.generation "
                "RETURNING g.topic",
                self._group,
                names,
                [self._positions[name] for name in names],
                [self._generations[name] for name in names],
            )
        except BROKEN as error:
            # The locks went with the connection: the topics are anybody's by now.
            raise Fenced(f"group {self._group}: the member's connection is gone") from error
        if len(stored) < len(names):
            raise Fenced(f"group {self._group} gave a topic to another member")

    async def rewind(self) -> None:
        """Read again from what is committed."""
        rows = await self._connection.fetch(
            "SELECT topic, next_offset FROM bus.groups WHERE name = $1 AND topic = ANY($2::text[])",
            self._group,
            list(self._positions),
        )
        self._positions = {row["topic"]: row["next_offset"] for row in rows}

    async def _claim_free_topics(self) -> None:
        if not self._unowned or monotonic() < self._claim_at:
            return
        self._claim_at = monotonic() + self.claim_seconds
        rows = await self._connection.fetch(
            # Materialised, so that no other topic's lock is taken while the filter is evaluated.
            "WITH wanted AS MATERIALIZED "
            "(SELECT name FROM bus.topics WHERE name = ANY($2::text[])) "
            "SELECT name FROM wanted "
            "WHERE pg_try_advisory_lock(hashtextextended('group:' || $1 || ':' || name, 0))",
            self._group,
            list(self._unowned),
        )
        for row in rows:
            await self._take(row["name"])

    async def _take(self, topic: str) -> None:
        place = await self._connection.fetchrow(
            "INSERT INTO bus.groups AS g (name, topic, generation, next_offset) "
            "VALUES ($1, $2, 1, 0) ON CONFLICT (name, topic) "
            "DO UPDATE SET generation = g.generation + 1 RETURNING generation, next_offset",
            self._group,
            topic,
        )
        faults.reach("bus.taken")
        self._unowned.discard(topic)
        self._generations[topic] = place["generation"]
        self._positions[topic] = place["next_offset"]


class EmbeddedFollower:
    """A broadcast reader."""

    def __init__(
        self, bus: EmbeddedBus, pool: asyncpg.Pool, positions: dict[str, int], ends: dict[str, int]
    ) -> None:
        """Use `EmbeddedBus.follow` instead."""
        self._bus = bus
        self._pool = pool
        self._positions = positions
        self._ends = ends

    async def fetch(self, limit: int, wait: float) -> list[Received]:
        """Read the next records of every topic followed."""
        received: list[Received] = []
        for topic in await self._bus.wait_beyond(self._positions, wait):
            if len(received) >= limit:
                break
            end = self._bus.end(topic)
            rows = await self._pool.fetch(
                _READ, topic, self._positions[topic], limit - len(received)
            )
            received += [_received(topic, row) for row in rows]
            # No row before the end that was known: compaction has removed them all.
            self._positions[topic] = rows[-1]["offset"] + 1 if rows else end
        return received

    @property
    def caught_up(self) -> bool:
        """Whether all that was there at the beginning has been read."""
        return all(self._positions[topic] >= end for topic, end in self._ends.items())

    @property
    def positions(self) -> dict[str, tuple[int]]:
        """Where in each topic the next fetch goes on."""
        return {topic: (at,) for topic, at in self._positions.items()}

    @property
    def missing(self) -> frozenset[str]:
        """Name the topics that do not exist yet."""
        return frozenset(topic for topic in self._positions if not self._bus.knows(topic))


def _received(topic: str, row: asyncpg.Record) -> Received:
    return Received(
        topic, row["key"], row["value"], json.loads(row["headers"]), 0, int(row["offset"])
    )


@asynccontextmanager
async def open_embedded_bus(url: str, connect: Connect) -> AsyncIterator[EmbeddedBus]:
    """Open the bus with a small pool of its own and one watcher for the process.

    It opens also while the log cannot be reached: readers and senders come back by themselves.
    """
    async with asyncpg.create_pool(
        url, min_size=0, max_size=4, timeout=10, command_timeout=35
    ) as pool:
        bus = EmbeddedBus(connect, pool)
        watcher = asyncio.create_task(bus.watch(), name="bus-watch")
        try:
            yield bus
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

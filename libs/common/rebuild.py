"""Projections made anew from the log, beside the ones in use, and put in their place at once.

A *twin* of the service's schema is filled by the service's own handlers from the first record of
their topics, with an inbox of its own, while the service goes on with its tables. Then, in one
transaction: the service's consumers wait at their inbox; the twin takes in the last events that
they had handled; its tables and its inbox replace the old ones.

Nothing is lost: what the consumers had handled is in the twin by then, wherever their offsets are.
Nothing counts twice: what the twin has handled is in the inbox that they find afterwards. A rebuild
that dies leaves the old tables in use, and a twin that the next one throws away.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg

from libs.common.bus.base import Bus, Follower
from libs.common.consumer import Consumer
from libs.common.db import open_database, service_url
from libs.common.dead_letters import DEAD_LETTER_SUFFIX
from libs.common.events import EventRouter
from libs.common.migrate import MIGRATE_LOCK, OWNER, admin_url, head, make_twin
from libs.common.settings import Settings

BATCH = 1000
CATCH_UP_SECONDS = 20.0
"""For how long consumers are kept waiting at most; their own statements give up after 30."""
SWAP_SECONDS = 120.0
"""For how long a moment to swap is looked for."""
LOCK_TRIES = 5
SILENCE_SECONDS = 5.0
"""A log that gives nothing for so long has been read to its end."""


class RebuildRefused(Exception):
    """The tables in use stay; the message says why."""


class _NotNow(Exception):
    """The swap was given up and nothing has changed; a later try may succeed."""


@dataclass(frozen=True, slots=True)
class Projections:
    """What of a service is made from events alone: its handlers and the tables they fill."""

    service: str
    router: EventRouter
    tables: Sequence[str]

    @property
    def twin(self) -> str:
        """Name the schema beside the service's own."""
        return f"{self.service}_rebuild"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did."""

    events: int
    """Records read, also those that no handler wants."""
    dead_letters: int
    """Events that no handler could apply."""
    seconds: float
    waited_seconds: float
    """For how long the service's consumers stood still; its readers did not."""
    rows: dict[str, int]


Told = Callable[[int, int], None]
"""Is told how many records have been read, and how many the log holds."""


async def rebuild(
    settings: Settings,
    what: Projections,
    bus: Bus,
    *,
    told: Told = lambda _read, _all: None,
    allow_losses: bool = False,
) -> Rebuilt:
    """Rebuild a service's projections while it runs, in however many processes.

    Tables are made and dropped with the account that `migrate` uses; the handlers run under the
    service's own login.

    Raises:
        RebuildRefused: another rebuild runs, the schema is not the code's, rows would be lost, or
            the tables were never free. Nothing has changed then.
    """
    started = monotonic()
    async with _owner(settings, what) as owner:
        await _assert_migrated(owner, what)
        await _drop_twin(owner, what)
        try:
            await make_twin(admin_url(settings), what.service, what.twin)
            url = service_url(settings, what.service)
            # By the clock that dates the inbox's rows. What was claimed before this moment is in
            # the log before the follower opens, so it has been read once that has caught up.
            began = await owner.fetchval("SELECT clock_timestamp()")
            async with (
                open_database(url, what.service, schema=what.twin, pool=1, hot_pool=1) as database,
                bus.follow(what.router.topics) as follower,
            ):
                if follower.missing:
                    raise RebuildRefused(
                        f"topics are missing: {', '.join(sorted(follower.missing))}"
                    )
                consumer = Consumer(what.service, what.router, database, bus)
                reading = _Reading(what, bus, follower, consumer, told)
                dead_letters, waited = await _fill_and_swap(
                    owner, what, reading, began, allow_losses=allow_losses
                )
        finally:
            # Nothing is left of it after the swap. Otherwise this frees the space, and where not
            # even that can be done, the next rebuild does it.
            with suppress(Exception):
                await _drop_twin(owner, what)
        rows = {
            table: await owner.fetchval(f"SELECT count(*) FROM {what.service}.{table}")
            for table in what.tables
        }
    return Rebuilt(reading.read, dead_letters, monotonic() - started, waited, rows)


@asynccontextmanager
async def _owner(settings: Settings, what: Projections) -> AsyncIterator[Any]:
    """Connect as the tables' owner, with the lock that makes it the only rebuild."""
    owner = await asyncpg.connect(admin_url(settings), timeout=10)
    try:
        await owner.execute(f"SET ROLE {OWNER}")
        if not await owner.fetchval(
            "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", f"rebuild:{what.service}"
        ):
            raise RebuildRefused(f"another rebuild of {what.service} is under way")
        yield owner
    finally:
        owner.terminate()


async def _assert_migrated(owner: Any, what: Projections) -> None:
    at = await owner.fetchval(f"SELECT version_num FROM {what.service}.alembic_version")
    if at != head(what.service):
        raise RebuildRefused(
            f"{what.service} is at revision {at}, this program knows {head(what.service)}: use the "
            "version of motcua that the service runs"
        )


async def _drop_twin(owner: Any, what: Projections) -> None:
    await owner.execute(f"DROP SCHEMA IF EXISTS {what.twin} CASCADE")


@dataclass(slots=True)
class _Reading:
    """The log on its way into the twin."""

    what: Projections
    bus: Bus
    follower: Follower
    consumer: Consumer
    told: Told
    read: int = 0
    _in_log: int = 0
    _counted_at: float = field(default=float("-inf"))

    async def step(self) -> bool:
        """Handle the next batch; answer whether there was one.

        It must not be cancelled: what was fetched and not handled does not come again.
        """
        received = await self.follower.fetch(BATCH, SILENCE_SECONDS)
        await self.consumer.handle(received)
        self.read += len(received)
        await self._tell()
        return bool(received)

    async def _tell(self) -> None:
        if monotonic() - self._counted_at > 10:
            # A group that never commits lags behind by the whole log. Asking takes Kafka a moment.
            behind = await self.bus.lag(self.what.twin, self.what.router.topics)
            self._in_log = sum(behind.values())
            self._counted_at = monotonic()
        self.told(self.read, max(self.read, self._in_log))


async def _fill_and_swap(
    owner: Any, what: Projections, reading: _Reading, began: datetime, *, allow_losses: bool
) -> tuple[int, float]:
    """Read the log and swap; answer how many letters died and how many seconds consumers waited."""
    while not reading.follower.caught_up:
        await reading.step()
    for table in (*what.tables, "inbox"):
        await owner.execute(f"ANALYZE {what.twin}.{table}")
    until = monotonic() + SWAP_SECONDS
    while True:
        await _catch_up(owner, what, reading, began, left=BATCH, within=float("inf"))
        try:
            return await _swap(owner, what, reading, began, allow_losses=allow_losses)
        except _NotNow as reason:
            if monotonic() > until:
                raise RebuildRefused(f"no moment to swap was found: {reason}") from None


async def _swap(
    owner: Any, what: Projections, reading: _Reading, began: datetime, *, allow_losses: bool
) -> tuple[int, float]:
    service, twin = what.service, what.twin
    async with owner.transaction():
        await _lock(owner, "SELECT pg_advisory_xact_lock($1)", MIGRATE_LOCK)
        await _assert_migrated(owner, what)
        # A consumer claims an event before it does anything else: from here on they all wait.
        await _lock(owner, f"LOCK TABLE {service}.inbox IN ACCESS EXCLUSIVE MODE")
        since = monotonic()
        await _catch_up(owner, what, reading, began, left=0, within=CATCH_UP_SECONDS)
        await _refuse_announcements(owner, what)
        if not allow_losses:
            await _refuse_losses(owner, what)
        tables = (*what.tables, "inbox")
        await _lock_all(
            owner,
            [f"{service}.{table}" for table in what.tables]
            + [f"{twin}.{table}" for table in tables],
        )
        for table in tables:
            await owner.execute(f"DROP TABLE {service}.{table}")
            await owner.execute(f"ALTER TABLE {twin}.{table} SET SCHEMA {service}")
        letters = await owner.execute(
            f"INSERT INTO {service}.outbox "
            "(event_id, topic, key, type, time, traceparent, body, extra) "
            "SELECT event_id, topic, key, type, time, traceparent, body, extra "
            f"FROM {twin}.outbox ORDER BY id"
        )
        await _drop_twin(owner, what)
    return int(letters.rpartition(" ")[2]), monotonic() - since


async def _lock(owner: Any, statement: str, *values: object) -> None:
    try:
        await owner.execute("SET LOCAL lock_timeout = '5s'")
        await owner.execute(statement, *values)
    except asyncpg.LockNotAvailableError:
        raise _NotNow("somebody migrates, or handles a batch for more than 5 seconds") from None


async def _catch_up(
    owner: Any,
    what: Projections,
    reading: _Reading,
    began: datetime,
    *,
    left: int,
    within: float,
) -> None:
    """Read on until the twin lacks at most `left` of the events that the service has handled."""
    lacking = await _lacking(owner, what, began)
    until = monotonic() + within
    while len(lacking) > left:
        if monotonic() > until:
            raise _NotNow(f"{len(lacking)} events are still to be read")
        # They stand in the log about where the twin has come to.
        for _ in range(0, len(lacking), BATCH):
            if not await reading.step():
                raise RebuildRefused(
                    f"{what.service} has handled {len(lacking)} events meanwhile that the log does "
                    "not hold or this program does not know: use the version of motcua that it runs"
                )
        lacking = await _lacking(owner, what, began, among=lacking)


async def _lacking(
    owner: Any, what: Projections, began: datetime | None, *, among: Sequence[UUID] | None = None
) -> list[UUID]:
    """List the events, all or of some, that the service has handled since and the twin has not.

    Without `began` since as long ago as the service remembers.
    """
    rows = await owner.fetch(
        f"SELECT event_id FROM {what.service}.inbox AS live "
        "WHERE ($1::timestamptz IS NULL OR received_at >= $1) "
        "AND ($2::uuid[] IS NULL OR event_id = ANY($2)) AND NOT EXISTS "
        f"(SELECT FROM {what.twin}.inbox AS fresh WHERE fresh.event_id = live.event_id) AND NOT "
        f"EXISTS (SELECT FROM {what.twin}.outbox AS dead WHERE dead.event_id = live.event_id)",
        began,
        among,
    )
    return [row["event_id"] for row in rows]


async def _refuse_announcements(owner: Any, what: Projections) -> None:
    """Refuse handlers that publish: the fact was announced when the event came first."""
    topic = await owner.fetchval(
        f"SELECT topic FROM {what.twin}.outbox WHERE topic NOT LIKE '%' || $1 LIMIT 1",
        DEAD_LETTER_SUFFIX,
    )
    if topic is not None:
        raise RebuildRefused(f"a handler of {what.service} announces events itself, on {topic}")


async def _refuse_losses(owner: Any, what: Projections) -> None:
    """Refuse to forget what the log no longer tells: a shortened topic would shorten history.

    Rows that would go are found however old they are; what one event added to a row that stays, as
    long as the inbox remembers the event. Of a compacted topic's states only the last is expected.
    """
    for table in what.tables:
        key = await owner.fetchval(
            "SELECT string_agg(quote_ident(attname), ', ') FROM pg_index JOIN pg_attribute "
            "ON attrelid = indrelid AND attnum = ANY(indkey) "
            f"WHERE indisprimary AND indrelid = '{what.service}.{table}'::regclass"
        )
        lost = await owner.fetchval(
            f"SELECT count(*) FROM (SELECT {key} FROM {what.service}.{table} "
            f"EXCEPT SELECT {key} FROM {what.twin}.{table}) AS lost"
        )
        if lost:
            raise RebuildRefused(
                f"{lost} rows of {what.service}.{table} would be lost: the log no longer holds "
                "their events"
            )
    if any(kind.compacted for kind in what.router):
        return
    if gone := await _lacking(owner, what, None):
        raise RebuildRefused(
            f"{len(gone)} events that {what.service} has handled are no longer in the log"
        )


async def _lock_all(owner: Any, tables: Collection[str]) -> None:
    """Take all tables or, for the moment, none.

    Waiting for one while another is held could be a deadlock with a reader of both, who would pay
    for it. So only the first is waited for, and the one that was not free is the first next time.
    """
    order = deque(tables)
    for _ in range(LOCK_TRIES):
        taken = 0
        try:
            async with owner.transaction():
                # Longer than `deadlock_timeout`, when a vacuum that is in the way gives up; and
                # for so long readers may have to wait behind us.
                await owner.execute("SET LOCAL lock_timeout = '1500ms'")
                for table in order:
                    nowait = "NOWAIT" if taken else ""
                    await owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE {nowait}")
                    taken += 1
        except asyncpg.LockNotAvailableError:
            order.rotate(-taken)
        else:
            return
    raise _NotNow("the tables in use are being read all the time")

"""Outbox and inbox: at least once out, effectively once in."""

import asyncio
import json
from collections.abc import Collection, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session as SyncSession

from libs.common import faults
from libs.common.bus.base import Bus, Fenced, Record, TooLarge, UnknownTopic
from libs.common.db import NAMING, Database, transient
from libs.common.events import Envelope, Pending
from libs.common.observability import OUTBOX_AGE

log = structlog.get_logger()

mechanism = MetaData(naming_convention=NAMING)
"""The tables that every service's schema has: events out, events in, answers kept."""

OUTBOX = Table(
    "outbox",
    mechanism,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("traceparent", Text, nullable=False),
    # The event's data as JSON in UTF-8. No body is a tombstone: the key leaves a compacted topic.
    Column("body", LargeBinary),
    # Headers beside the CloudEvents ones, or instead of them: a dead letter keeps its own.
    Column("extra", JSONB(none_as_null=True)),
    # By the wall clock: the age of an unsent event is an operator's figure, not a business fact.
    Column("created_at", DateTime(timezone=True), nullable=False,
           server_default=func.clock_timestamp()),
)  # fmt: skip

INBOX = Table(
    "inbox",
    mechanism,
    Column("event_id", Uuid, primary_key=True),
    Column("received_at", DateTime(timezone=True), nullable=False, index=True,
           server_default=func.clock_timestamp()),
)  # fmt: skip

IDEMPOTENCY = Table(
    "idempotency_keys",
    mechanism,
    # SHA-256 over principal, method, path and key: see `idempotency`.
    Column("digest", LargeBinary, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("answer", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, index=True,
           server_default=func.clock_timestamp()),
)  # fmt: skip


def source_of(producer: str) -> str:
    """Name the CloudEvents source of a service's events."""
    return f"/motcua/{producer}"


def write(session: SyncSession, published: Sequence[Pending]) -> None:
    """Insert the outbox rows of a transaction, in the order of publishing."""
    faults.reach("outbox.flushed")
    session.execute(
        insert(OUTBOX),
        [
            {
                "event_id": item.event_id,
                "topic": item.event.topic,
                "key": item.event.key,
                "type": item.event.type_name(),
                "time": item.time,
                "traceparent": item.traceparent,
                "body": item.event.model_dump_json().encode(),
            }
            for item in published
        ],
    )
    faults.reach("outbox.written")


# One statement whatever the number of events: with a VALUES list of their length, building it took
# longer than running it.
_CLAIM = (
    upsert(INBOX)
    .from_select(["event_id"], select(func.unnest(bindparam("event_ids", type_=ARRAY(Uuid)))))
    .on_conflict_do_nothing()
    .returning(INBOX.c.event_id)
)


async def claim(session: AsyncSession, event_ids: Collection[UUID]) -> set[UUID]:
    """Take the events that were never handled before; the claim commits with their effect."""
    return set(await session.scalars(_CLAIM, {"event_ids": sorted(event_ids)}))


class Relay:
    """Carries one service's outbox to the bus, alone and in order.

    An advisory lock makes it the only one; the bus fences a predecessor that lost the lock and
    does not know it yet. Rows go in the order of their ids and are deleted after the bus has
    acknowledged them: a crash between the two sends again, which the inbox of readers forgives.
    """

    batch = 500
    poll_seconds = 0.05
    retry_seconds = 0.5
    too_large_seconds = 60.0

    def __init__(self, service: str, database: Database, bus: Bus) -> None:
        """Prepare the relay of a service; `run` does the work."""
        self._service = service
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()
        self._held: dict[str, float] = {}
        """Topics that were missing, and when to try them again."""
        self._too_large: dict[int, tuple[str, float]] = {}
        """Rows that the bus does not take: which event, and when to try it again."""
        self.problem: str | None = None
        """What keeps events from leaving, for `readyz`."""

    def wake(self) -> None:
        """Say that a transaction wrote events: the relay looks now instead of at the next poll."""
        faults.reach("outbox.committed")
        self._wake.set()

    async def run(self) -> None:
        """Carry until cancelled, coming back after every outage."""
        while True:
            try:
                await self._carry_with_lock()
            except Fenced:
                log.warning("relay.fenced", service=self._service)
            except Exception as error:  # whatever it was, events must flow again
                words = f"{type(error).__name__}: {error}"[:200]
                if words != self.problem:  # an outage is told once, not twice a second
                    log.warning("relay.interrupted", service=self._service, error=words)
                self.problem = words
            await asyncio.sleep(self.retry_seconds)

    async def _carry_with_lock(self) -> None:
        connection = await self._database.connect()
        try:
            while not await self._locked(connection):
                self.problem = None
                await asyncio.sleep(self.retry_seconds)
            faults.reach("relay.locked")
            async with self._bus.producer(f"relay-{self._service}") as producer:
                faults.reach("relay.opened")
                while True:
                    self._wake.clear()
                    if not await self._carry(connection, producer):
                        await self._idle()
        finally:
            connection.terminate()

    async def _locked(self, connection: Any) -> bool:
        # The lock is the session's: it goes when the connection goes, however that ends.
        return bool(
            await connection.fetchval(
                "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", f"relay:{self._service}"
            )
        )

    async def _carry(self, connection: Any, producer: Any) -> bool:
        """Send one batch; answer whether there may be more at once."""
        now = monotonic()
        self._held = {topic: until for topic, until in self._held.items() if until > now}
        self._too_large = {id_: kept for id_, kept in self._too_large.items() if kept[1] > now}
        rows = await connection.fetch(
            "SELECT id, event_id, topic, key, type, time, traceparent, body, extra FROM outbox "
            "WHERE topic <> ALL($1::text[]) AND id <> ALL($2::bigint[]) ORDER BY id LIMIT $3",
            list(self._held),
            list(self._too_large),
            self.batch,
        )
        if not rows:
            self.problem = self._withheld()
            return False
        faults.reach("relay.read")
        records = [_record(self._service, row) for row in rows]
        try:
            await producer.send(records)
        except UnknownTopic as missing:
            # The events of a topic that is not there wait; the others must not wait for it.
            self._held[missing.topic] = now + 1
            return True
        except TooLarge as refused:
            self._set_aside(rows[records.index(refused.record)], refused)
            return True
        faults.reach("relay.sent")
        await connection.execute(
            "DELETE FROM outbox WHERE id = ANY($1::bigint[])", [row["id"] for row in rows]
        )
        faults.reach("relay.deleted")
        self.problem = self._withheld()
        return len(rows) == self.batch

    def _set_aside(self, row: asyncpg.Record, refused: TooLarge) -> None:
        """Leave an event in the outbox that the bus does not take, and say so.

        Everything behind it would wait for ever; so would an operator, if it were thrown away.
        """
        event = f"{row['type']} {row['event_id']}"
        log.error("relay.too_large", service=self._service, event_id=event, error=str(refused))
        self._too_large[row["id"]] = (event, monotonic() + self.too_large_seconds)

    def _withheld(self) -> str | None:
        said = []
        if self._held:
            said.append(f"topics missing: {', '.join(sorted(self._held))}")
        if self._too_large:
            events = sorted(event for event, _ in self._too_large.values())
            said.append(f"too large for the bus: {', '.join(events[:5])}")
        return "; ".join(said) or None

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(self.poll_seconds):
                await self._wake.wait()
        except TimeoutError:
            return


def _record(service: str, row: asyncpg.Record) -> Record:
    envelope = Envelope(
        row["event_id"], row["type"], source_of(service), row["time"], row["traceparent"]
    )
    extra = json.loads(row["extra"]) if row["extra"] else {}
    return Record(
        topic=row["topic"],
        key=row["key"],
        value=row["body"],
        headers=envelope.headers() | extra,
    )


async def drained(database: Database, *, within: float) -> bool:
    """Wait until every event of a service is on the bus; `within` is in seconds."""
    end = monotonic() + within
    while await database.hot.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
        if monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


async def watch_outbox(service: str, database: Database, *, every: float = 5) -> None:
    """Keep the age metric true, also while the relay waits for the bus, until cancelled."""
    while True:
        try:
            age = await database.hot.fetchval(
                "SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 "
                "FROM outbox ORDER BY id LIMIT 1"
            )
            OUTBOX_AGE.labels(service).set(age or 0)
        except Exception as error:
            if not transient(error):
                raise
        await asyncio.sleep(every)


INBOX_KEPT = timedelta(days=14)
"""For how long a claim is remembered: longer than any redelivery can take."""
ANSWERS_KEPT = timedelta(hours=24)
"""For how long a repeated request finds its answer (contract)."""


async def prune(
    database: Database, *, inbox: timedelta = INBOX_KEPT, answers: timedelta = ANSWERS_KEPT
) -> None:
    """Forget claims that no redelivery can reach any more, and answers past their promise."""
    await database.hot.execute(
        "DELETE FROM inbox WHERE received_at < clock_timestamp() - $1::interval", inbox
    )
    await database.hot.execute(
        "DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - $1::interval", answers
    )

"""Consumers: a group member that handles events with its database, and a broadcast reader."""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import insert

from libs.common import faults
from libs.common.bus.base import Bus, BusError, Received, Subscription
from libs.common.db import Database, transient
from libs.common.dead_letters import dead_letter
from libs.common.events import Envelope, EventRouter
from libs.common.observability import CONSUMER_LAG, DEAD_LETTERS
from libs.common.outbox import OUTBOX, claim
from libs.common.trace import continue_trace

log = structlog.get_logger()


class Consumer:
    """Handles the events of one service: one message is one transaction, with its inbox claim.

    A batch is tried as one transaction, which is fast; when it fails for a reason that will not
    pass, its halves are tried, and so on until the bad message alone becomes a dead letter.
    """

    batch = 200
    wait_seconds = 1.0
    longest_pause = 5.0

    def __init__(self, service: str, router: EventRouter, database: Database, bus: Bus) -> None:
        """Prepare the consumer of a service; `run` does the work."""
        self._service = service
        self._router = router
        self._database = database
        self._bus = bus
        self.problem: str | None = None
        """What keeps events from being handled, for `readyz`."""

    async def run(self) -> None:
        """Handle until cancelled; a handler cancelled half-way has not been handled."""
        for topic in self._router.topics:
            CONSUMER_LAG.labels(self._service, topic).set(0)
            DEAD_LETTERS.labels(self._service, topic)
        pause = 0.25
        while True:
            try:
                async with self._bus.subscribe(self._service, self._router.topics) as subscription:
                    while True:
                        await self._step(subscription)
                        self.problem = None
                        pause = 0.25
            except Exception as error:
                if not (transient(error) or isinstance(error, BusError)):
                    raise  # a defect of ours: the task ends and `livez` says so
                words = f"{type(error).__name__}: {error}"[:200]
                if words != self.problem:  # an outage is told once, not at every try
                    log.warning("consumer.interrupted", service=self._service, error=words)
                self.problem = words
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.longest_pause)

    async def _step(self, subscription: Subscription) -> None:
        received = await subscription.fetch(self.batch, self.wait_seconds)
        if received:
            faults.reach("consumer.fetched")
            await self.handle(received)
            await subscription.commit()
            faults.reach("consumer.committed")

    async def handle(self, received: Sequence[Received]) -> None:
        """Apply messages in order, each exactly once; bury the ones that cannot be applied.

        Raises:
            Exception: a transient one; nothing after the last committed message has an effect.
        """
        try:
            await self._apply(received)
        except Exception as error:
            if transient(error):
                raise
            if len(received) == 1:
                await self._bury(received[0], error)
                return
            middle = len(received) // 2
            await self.handle(received[:middle])
            await self.handle(received[middle:])

    async def _bury(self, message: Received, error: Exception) -> None:
        log.error("event.buried", topic=message.topic, offset=message.offset, exc_info=error)
        DEAD_LETTERS.labels(self._service, message.topic).inc()
        async with self._database.sessions.begin() as session:
            await session.execute(insert(OUTBOX), [dead_letter(self._service, message, error)])
            session.sync_session.info["wrote"] = True

    async def _apply(self, messages: Sequence[Received]) -> None:
        """Handle messages in one transaction, skipping what is not ours or was seen before."""
        wanted = []
        for message in messages:
            if message.value is None:
                continue
            envelope = Envelope.of(message.headers)
            if found := self._router.find(message.topic, envelope.type):
                wanted.append((message, envelope, *found))
        if not wanted:
            return
        async with self._database.sessions.begin() as session:
            fresh = await claim(session, {envelope.id for _, envelope, _, _ in wanted})
            faults.reach("inbox.claimed")
            for message, envelope, kind, handler in wanted:
                if envelope.id in fresh:
                    fresh.discard(envelope.id)  # the same event may stand twice in one batch
                    continue_trace(envelope.traceparent)
                    await handler(kind.read(message.value or b""), session)
            faults.reach("inbox.handled")
        faults.reach("inbox.committed")


async def watch_lag(service: str, topics: Sequence[str], bus: Bus) -> None:
    """Keep the lag metric true, also while nothing is consumed, until cancelled."""
    while True:
        try:
            for topic, behind in (await bus.lag(service, topics)).items():
                CONSUMER_LAG.labels(service, topic).set(behind)
        except Exception as error:
            if not (transient(error) or isinstance(error, BusError)):
                raise
        await asyncio.sleep(5)


class Broadcast:
    """Reads topics from their first record into memory, in every process, for ever."""

    def __init__(
        self, name: str, bus: Bus, topics: Sequence[str], apply: Callable[[Received], None]
    ) -> None:
        """Prepare a reader; `apply` takes a record and must not block."""
        self._name = name
        self._bus = bus
        self._topics = topics
        self._apply = apply
        self.loaded = asyncio.Event()
        """Set once all topics are there and what was in them at the start has been applied."""
        self.missing: frozenset[str] = frozenset()
        """The topics that do not exist yet."""
        self.problem: str | None = None

    async def run(self) -> None:
        """Read until cancelled; after an outage from the first record again."""
        while True:
            try:
                async with self._bus.follow(self._topics) as follower:
                    while True:
                        self.missing = follower.missing
                        if follower.caught_up and not self.missing:
                            self.loaded.set()
                        for record in await follower.fetch(1000, 1.0):
                            self._take(record)
                        self.problem = None
            except Exception as error:
                if not (transient(error) or isinstance(error, BusError)):
                    raise
                words = f"{type(error).__name__}: {error}"[:200]
                if words != self.problem:
                    log.warning("broadcast.interrupted", reader=self._name, error=words)
                self.problem = words
            await asyncio.sleep(0.5)

    def _take(self, record: Received) -> None:
        try:
            self._apply(record)
        except (ValueError, KeyError) as error:
            # One unreadable record must not blind the reader to those after it.
            log.warning(
                "broadcast.unreadable", reader=self._name, topic=record.topic,
                offset=record.offset, error=str(error)[:500],
            )  # fmt: skip

"""Events: their base class, how a transaction publishes them, and the router of handlers."""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Self, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from libs.common.trace import current_traceparent


class Event(BaseModel):
    """A fact that a service announces: a past participle, immutable, never personal.

    A subclass names its `topic` and gives the `key` by which the bus keeps order. Readers ignore
    fields they do not know (`read`), so a producer may add some. A string after a field explains
    it, also in the published schema.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    topic: ClassVar[str]
    producer: ClassVar[str]
    compacted: ClassVar[bool] = False
    """Whether the topic keeps only the last event of each key: then it carries the whole state."""

    @property
    def key(self) -> str:
        """Name the aggregate whose events must stay in order."""
        raise NotImplementedError

    @classmethod
    def type_name(cls) -> str:
        """Give the CloudEvents type."""
        return cls.__name__

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read an event as the bus brings it.

        Fields that this version does not know are ignored, also in parts that are strict where
        people send them in: a newer producer may have added them.

        Raises:
            ValueError: it is not this event.
        """
        return cls.model_validate_json(data, extra="ignore")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The CloudEvents attributes that travel in headers beside an event's data."""

    id: UUID
    type: str
    source: str
    time: datetime
    traceparent: str

    def headers(self) -> dict[str, str]:
        """Write the Kafka binary binding's headers (CloudEvents 1.0)."""
        return {
            "ce_specversion": "1.0",
            "ce_id": str(self.id),
            "ce_type": self.type,
            "ce_source": self.source,
            "ce_time": self.time.astimezone(UTC).isoformat(),
            "traceparent": self.traceparent,
            "content-type": "application/json",
        }

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers of a record.

        Raises:
            ValueError: an attribute is missing or malformed.
        """
        try:
            return cls(
                id=UUID(headers["ce_id"]),
                type=headers["ce_type"],
                source=headers["ce_source"],
                time=datetime.fromisoformat(headers["ce_time"]),
                traceparent=headers.get("traceparent", ""),
            )
        except KeyError as missing:
            raise ValueError(f"the record carries no {missing.args[0]} header") from None


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that a transaction has published and not yet committed."""

    event: Event
    time: datetime
    event_id: UUID
    traceparent: str


def publish(session: AsyncSession, event: Event, *, at: datetime) -> None:
    """Announce a fact with the transaction: it is on the bus if, and only if, that commits.

    `at` is the business instant (aware). The outbox row is written when the transaction commits,
    after everything else was flushed: the aggregate's row is locked by then, so the ids of one
    aggregate's events follow its commits.
    """
    sync = session.sync_session
    if not sync.in_transaction():
        sync.begin()  # or a rollback would have nothing to take back
    pending = Pending(event, at, uuid4(), current_traceparent())
    sync.info.setdefault("published", []).append(pending)


class EdgeSession(SyncSession):
    """A session that writes what was published as the last act of its transaction."""


@sqlalchemy_event.listens_for(EdgeSession, "before_commit")
def _write_published(session: SyncSession) -> None:
    published: list[Pending] = session.info.get("published", [])
    if not published or session.in_nested_transaction():
        return  # a savepoint's events wait for the whole transaction
    from libs.common.outbox import write

    session.flush()
    write(session, published)
    session.info["published"] = []
    session.info["wrote"] = True


@sqlalchemy_event.listens_for(EdgeSession, "after_commit")
def _wake_relay(session: SyncSession) -> None:
    if session.info.pop("wrote", False) and (on_commit := session.info.get("on_commit")):
        on_commit()


@sqlalchemy_event.listens_for(EdgeSession, "after_transaction_create")
def _mark_savepoint(session: SyncSession, transaction: SessionTransaction) -> None:
    if transaction.nested:
        marks = session.info.setdefault("marks", {})
        marks[transaction] = len(session.info.get("published", []))


@sqlalchemy_event.listens_for(EdgeSession, "after_soft_rollback")
def _forget_back_to_savepoint(session: SyncSession, ended: SessionTransaction) -> None:
    if ended.nested:
        del session.info.get("published", [])[session.info.get("marks", {}).get(ended, 0) :]


@sqlalchemy_event.listens_for(EdgeSession, "after_transaction_end")
def _forget_published(session: SyncSession, ended: SessionTransaction) -> None:
    if ended.parent is None:
        for name in ("published", "marks", "wrote"):
            session.info.pop(name, None)


E = TypeVar("E", bound=Event)
Handler = Callable[..., Awaitable[None]]


class EventRouter:
    """The visible register of a service's reactions: `@router.on(TicketIssued)`.

    A handler is a plain function `(event, session)` that a test can call.
    """

    def __init__(self) -> None:
        """Start with no handler."""
        self._handlers: dict[tuple[str, str], tuple[type[Event], Handler]] = {}

    def on(self, *kinds: type[E]) -> Callable[[Handler], Handler]:
        """Register a coroutine function for one or more kinds of event."""

        def register(handler: Handler) -> Handler:
            assert inspect.iscoroutinefunction(handler), f"{handler} must be async"
            for kind in kinds:
                name = (kind.topic, kind.type_name())
                assert name not in self._handlers, f"{name} already has a handler"
                self._handlers[name] = (kind, handler)
            return handler

        return register

    @property
    def topics(self) -> tuple[str, ...]:
        """Name the topics that some handler listens to."""
        return tuple(sorted({topic for topic, _ in self._handlers}))

    def find(self, topic: str, type_: str) -> tuple[type[Event], Handler] | None:
        """Give the class and handler of an event, or nothing: unknown types are not ours."""
        return self._handlers.get((topic, type_))

    def __iter__(self) -> Iterator[type[Event]]:
        """List the kinds that are handled."""
        return (kind for kind, _ in self._handlers.values())

"""What the queue announces: each step of a ticket's life, and how loaded each unit is."""

from datetime import date, datetime
from typing import ClassVar
from uuid import UUID

from libs.common.events import Event


class TicketEvent(Event):
    """What all steps of a ticket tell; `version` counts the ticket's changes from 1."""

    topic: ClassVar[str] = "queue.tickets.v1"
    producer: ClassVar[str] = "queue"

    ticket_id: UUID
    unit: str
    version: int
    number: str
    at: datetime

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class TicketIssued(TicketEvent):
    """A number was given to somebody who waits from now on."""

    series: str
    business_day: date
    priority_class: str
    channel: str
    due_at: datetime
    procedure_codes: tuple[str, ...] = ()


class TicketCalled(TicketEvent):
    """A ticket was called to a counter; the first call ends the wait that the promise is about."""

    counter: int
    wait_seconds: float
    first_call: bool


class TicketStarted(TicketEvent):
    """The person stands at the counter."""

    counter: int


class TicketFinished(TicketEvent):
    """The visit is over."""

    counter: int
    service_seconds: float


class TicketNoShow(TicketEvent):
    """Nobody came when called."""

    counter: int


class TicketCancelled(TicketEvent):
    """The person gave up the place; `wait_seconds` until then."""

    wait_seconds: float


class QueueLoad(Event):
    """How loaded a unit's queue is; at most once a second and unit."""

    topic: ClassVar[str] = "queue.load.v1"
    producer: ClassVar[str] = "queue"
    compacted: ClassVar[bool] = True

    unit: str
    version: int
    """Milliseconds of the wall clock at which it was measured: later ones replace earlier ones."""
    as_of: datetime
    waiting: int
    oldest_wait_seconds: int
    forecast_wait_seconds: int | None
    open_counters: int

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit

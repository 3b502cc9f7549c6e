"""What the queue announces: each step of a ticket's life, and how loaded each unit is."""

from datetime import date, datetime
from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from libs.common.events import Event


class Shown(BaseModel):
    """A ticket after a step, as boards show it: whoever reads one step knows what it led to."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: str
    counter: int | None
    issued_at: datetime
    due_at: datetime
    called_at: datetime | None


class TicketEvent(Event):
    """What all steps of a ticket tell; `version` counts the ticket's changes from 1."""

    topic: ClassVar[str] = "queue.tickets.v1"
    producer: ClassVar[str] = "queue"

    ticket_id: UUID
    unit: str
    version: int
    number: str
    at: datetime
    shown: Shown | None = None
    """None in events of the time before boards were fed by them."""

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


class CounterChanged(Event):
    """A counter was made, opened, paused, closed or given other series; the whole state.

    `version` counts the counter's changes. A topic of its own: whoever reads tickets expects a
    ticket in every event.
    """

    topic: ClassVar[str] = "queue.counters.v1"
    producer: ClassVar[str] = "queue"

    unit: str
    number: int
    version: int
    at: datetime
    state: str
    series: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


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

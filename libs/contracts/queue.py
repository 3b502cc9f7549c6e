"""What the queue announces: each step of a ticket's and an appointment's life, and the loads."""

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


class AppointmentEvent(Event):
    """What all steps of an appointment tell; `version` counts its changes from 1."""

    topic: ClassVar[str] = "queue.appointments.v1"
    producer: ClassVar[str] = "queue"

    appointment_id: UUID
    unit: str
    version: int
    starts_at: datetime
    at: datetime

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class AppointmentBooked(AppointmentEvent):
    """Somebody is expected at a time."""

    channel: str
    procedure_codes: tuple[str, ...] = ()


class AppointmentCheckedIn(AppointmentEvent):
    """Whoever was expected came and has a ticket."""

    ticket_id: UUID


class AppointmentCancelled(AppointmentEvent):
    """Somebody gave an appointment up; its place is free again."""


class AppointmentMissed(AppointmentEvent):
    """Nobody came within the time for checking in."""


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

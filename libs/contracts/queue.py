"""What the queue announces: tickets, visits, appointments, loads, and promises kept or broken."""

from datetime import date, datetime
from typing import ClassVar, Literal
from uuid import UUID

from libs.common.events import Event

CancelCause = Literal["asked", "print_failed", "day_over", "unit_closed"]
"""Why a ticket ended uncalled: somebody asked, no slip came out, its day ended, its unit closed."""

ReturnCause = Literal["parked", "no_show", "handed_back"]
"""What a ticket that waits again was before: put aside, missed, or held by a counter that died."""


class TicketEvent(Event):
    """What all steps of a ticket tell; `version` counts the ticket's changes from 1."""

    topic: ClassVar[str] = "queue.tickets.v1"
    producer: ClassVar[str] = "queue"

    ticket_id: UUID
    unit: str
    version: int
    number: str
    at: datetime
    series: str | None = None
    """The queue it waits in; a number keeps the series it was given from."""
    issued_at: datetime | None = None
    due_at: datetime | None = None
    """With these three a reader can show a ticket whose earlier events it has not seen; events
    from before they were told have none."""

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class TicketIssued(TicketEvent):
    """A number was given to somebody who waits from now on; `at` is the arrival."""

    series: str
    business_day: date
    priority_class: str
    channel: str
    due_at: datetime
    procedure_codes: tuple[str, ...] = ()
    transferred_from: UUID | None = None
    """The ticket of another unit that this one continues: it keeps that one's arrival, so `at` is
    earlier than the transfer."""


class TicketCalled(TicketEvent):
    """A ticket was called to a counter; the first call ends the wait that the promise is about."""

    counter: int
    wait_seconds: float
    first_call: bool
    recall: bool = False
    """The same call again, also after a no-show."""
    reason: str | None = None
    """Why it was called out of order, in the words of who did so."""


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


class TicketParked(TicketEvent):
    """A person was put aside, to go on later; `service_seconds` at the counter until then."""

    counter: int
    service_seconds: float


class TicketReturned(TicketEvent):
    """Somebody who had been called waits again, in the place that the arrival gives."""

    cause: ReturnCause


class TicketTransferred(TicketEvent):
    """A person was sent on: inside the unit to wait again, or to another unit, where it ends here.

    `series` is where the ticket waits now.
    """

    counter: int | None = None
    """Where it was held; None: it was waiting or put aside."""
    service_seconds: float = 0.0
    for_counter: int | None = None
    """The only counter that may call it now."""
    to_unit: str | None = None
    linked_ticket: UUID | None = None
    """The ticket that goes on in the other unit."""


class TicketReissued(TicketEvent):
    """A slip was printed again: the person waits in the same place, also after a failed print."""

    reissues: int


class TicketCancelled(TicketEvent):
    """Nobody waits any more; `wait_seconds` until then."""

    wait_seconds: float
    cause: CancelCause = "asked"


class VisitEvent(Event):
    """What came of a visit; it says nothing of its ticket's state."""

    topic: ClassVar[str] = "queue.visits.v1"
    producer: ClassVar[str] = "queue"

    ticket_id: UUID
    unit: str
    number: str
    at: datetime

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class ReceiptPrinted(VisitEvent):
    """The receipt of the visit's first dossier was printed: what the person came to do is done."""

    receipt_seconds: float
    """From the ticket's issue until then."""


class VisitRated(VisitEvent):
    """Somebody said how the visit was; the words, which may be personal, stay in the queue."""

    score: int
    """From 1 (bad) to 5 (good)."""


class CounterChanged(Event):
    """The state of a counter (quầy)."""

    topic: ClassVar[str] = "queue.counters.v1"
    producer: ClassVar[str] = "queue"
    compacted: ClassVar[bool] = True

    unit: str
    number: int
    version: int
    state: Literal["open", "paused", "closed"]
    series: tuple[str, ...] = ()
    """The series it calls; empty means all."""
    at: datetime

    @property
    def key(self) -> str:
        """Order is kept per counter."""
        return f"{self.unit}/{self.number}"


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
    """Milliseconds of the database server's clock, and always more than the one before."""
    as_of: datetime
    waiting: int
    oldest_wait_seconds: int
    """The longest wait of those who wait for their first call."""
    forecast_wait_seconds: int | None
    open_counters: int

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class WaitEvent(Event):
    """What the clock of the promise tells of a unit; an episode begins at risk and ends recovered.

    Every episode is told as `WaitAtRisk`, then `WaitBreached` if it came to that, then
    `WaitRecovered`: each once.
    """

    topic: ClassVar[str] = "queue.sla.v1"
    producer: ClassVar[str] = "queue"

    unit: str
    version: int
    """Rises with every event of the unit."""
    episode: int
    """Counts the unit's episodes from 1."""
    since: datetime
    """When the episode began."""
    at: datetime
    waiting: int
    oldest_wait_seconds: int
    """The longest wait of those who wait for their first call."""
    forecast_wait_seconds: int | None
    open_counters: int

    @property
    def key(self) -> str:
        """Order is kept per unit."""
        return self.unit


class WaitAtRisk(WaitEvent):
    """A centre is about to break the promise: a wait, or its forecast, has become long."""

    cause: Literal["age", "forecast"]


class WaitBreached(WaitEvent):
    """Somebody has been waiting for longer than was promised."""

    promise_seconds: int


class WaitRecovered(WaitEvent):
    """Waits have been short again for a while."""

    breached: bool
    """Whether the promise was broken meanwhile."""
    lasted_seconds: float


class CounterAdvised(WaitEvent):
    """Open more counters by an instant, or a newcomer will wait longer than promised.

    Told once per episode, which begins with the advice and ends when none has been needed for a
    while; `version` and `episode` count apart from those of the waits.
    """

    open_more: int
    by: datetime
    """The latest instant at which it is early enough, on the clock's five minutes; or at once."""
    otherwise_at: datetime
    """When somebody who comes would first wait too long."""
    otherwise_wait_seconds: int
    """The longest wait that is expected within the hour if nothing is done."""

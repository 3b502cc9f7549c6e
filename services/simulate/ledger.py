"""What was asked and what was answered: the simulator's own books, plain data.

A figure of the server's (a report, a board, a day's sum) never enters here. Tickets and dossiers
are kept as their own answers showed them, the newest version of each.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

_MICROSECOND = timedelta(microseconds=1)


def seconds(span: timedelta) -> float:
    """Give a length of time as the float nearest to it, exact to the microsecond."""
    return span // _MICROSECOND / 1_000_000


_AFTER = {
    "issue": ("", "waiting"),
    "call-next": ("waiting", "called"),
    "recall": ("called no_show", "called"),
    "start": ("called", "serving"),
    "finish": ("serving", "finished"),
    "no-show": ("called", "no_show"),
    "park": ("called serving", "parked"),
    "return": ("parked no_show", "waiting"),
    "transfer": ("waiting called serving parked", "waiting transferred"),
    "cancel": ("waiting parked", "cancelled"),
    "print-failed": ("waiting", "cancelled"),
    "reissue": ("waiting cancelled", "waiting"),
}
"""Each step of a ticket: from which states it is allowed, and what the ticket is afterwards."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an answer said that a step has made of a ticket."""

    step: str
    status: str
    for_counter: int | None
    """Whether it waits for one counter alone: when that closes, it waits for any, and nobody is
    answered."""


@dataclass(slots=True)
class Ticket:
    """A ticket as its newest answer showed it, and its first call."""

    id: str
    unit: str
    number: str
    version: int
    status: str
    issued_at: datetime
    business_day: date
    asked_for: bool = False
    """Whether it was issued to somebody of this play."""
    transferred_from: str | None = None
    first_called_at: datetime | None = None
    ended_at: datetime | None = None
    calls: int = 0
    changes: dict[int, Change] = field(default_factory=dict)
    """By version."""
    waits: set[float] = field(default_factory=set)
    """What answers said of the wait until the first call (seconds): one figure."""

    @property
    def wait(self) -> timedelta | None:
        """From issue to the first call."""
        return None if self.first_called_at is None else self.first_called_at - self.issued_at


@dataclass(slots=True)
class Dossier:
    """A dossier as its newest answer showed it."""

    code: str
    version: int
    status: int
    field: str
    receiving_unit: str
    competent_unit: str
    channel: str
    boundary_independent: bool
    received_at: datetime | None
    appointment_at: datetime | None
    ended_at: datetime | None
    returned_at: datetime | None
    supplement_requests: int
    components: int
    digitised: int
    reused: int


@dataclass(slots=True)
class Ledger:
    """The books of one play."""

    tickets: dict[str, Ticket] = field(default_factory=dict)
    dossiers: dict[str, Dossier] = field(default_factory=dict)
    turned_away: int = 0
    """People whom a closed centre gave no ticket."""
    unsettled: list[str] = field(default_factory=list)
    """Requests that nobody answered for as long as patience lasted: what they did is unknown."""
    violations: list[str] = field(default_factory=list)
    """Answers that break a promise of the contract; each one fails the play."""

    def note_ticket(self, told: dict[str, Any], step: str) -> Ticket:
        """Enter the answer to a step of a ticket's life, or to `issue`."""
        version = told["version"]
        ticket = self.tickets.get(told["id"])
        if ticket is None:
            ticket = self.tickets[told["id"]] = Ticket(
                id=told["id"], unit=told["unit"], number=told["number"], version=version,
                status=told["status"], issued_at=_instant(told["issued_at"]),
                business_day=date.fromisoformat(told["business_day"]),
                transferred_from=told["transferred_from"],
            )  # fmt: skip
        ticket.asked_for = ticket.asked_for or step == "issue"
        if version in ticket.changes:
            self.violations.append(
                f"{ticket.unit} answered {step} of {ticket.number} with version {version}, as it "
                f"had answered {ticket.changes[version].step}"
            )
        ticket.changes[version] = Change(step, told["status"], told["for_counter"])
        if told["status"] == "called":
            self._note_call(ticket, told)
        if told["wait_seconds"] is not None:
            ticket.waits.add(told["wait_seconds"])
        if version >= ticket.version:
            ticket.version, ticket.status = version, told["status"]
            ticket.ended_at = _maybe(told["ended_at"])
        return ticket

    @staticmethod
    def _note_call(ticket: Ticket, told: dict[str, Any]) -> None:
        called_at = _instant(told["called_at"])
        ticket.calls += 1
        if ticket.first_called_at is None or called_at < ticket.first_called_at:
            ticket.first_called_at = called_at

    def note_dossier(self, told: dict[str, Any]) -> Dossier:
        """Enter an answer that shows a dossier."""
        known = self.dossiers.get(told["code"])
        if known is None or told["version"] > known.version:
            known = self.dossiers[told["code"]] = _dossier(told)
        return known

    def check(self) -> None:
        """Note what cannot be in the books of a queue that keeps its promises.

        A ticket nobody asked for, numbers with gaps or twins, a wait that its own instants
        contradict, a life whose steps do not follow from one another: nobody is called twice.
        """
        by_day: dict[tuple[str, str, Any], list[int]] = {}
        for ticket in self.tickets.values():
            if not ticket.asked_for:
                self.violations.append(f"{ticket.unit} called {ticket.number}, issued to nobody")
            place = (ticket.unit, ticket.number[0], ticket.business_day)
            by_day.setdefault(place, []).append(int(ticket.number[1:]))
            self._check_wait(ticket)
            self._check_life(ticket)
        for (unit, series, day), numbers in by_day.items():
            if not self.unsettled and sorted(numbers) != list(range(1, len(numbers) + 1)):
                self.violations.append(f"{unit} gave {series}-numbers with gaps or twice on {day}")

    def _check_wait(self, ticket: Ticket) -> None:
        wait = None if ticket.wait is None else seconds(ticket.wait)
        for told in ticket.waits - {wait}:
            self.violations.append(
                f"{ticket.unit} answers {told} s for {ticket.number}, whose issue and first call "
                f"are {wait} s apart"
            )

    def _check_life(self, ticket: Ticket) -> None:
        """See that every change follows from the one before; what nobody answered is passed over.

        A counter that closes changes those who wait for it alone without an answer.
        """
        if self.unsettled:
            return
        before, version = Change("", "", None), 0
        for at, change in sorted(ticket.changes.items()):
            allowed, after = _AFTER[change.step]
            gap = at - version - 1
            follows = before.status in allowed.split() if before.step else not allowed
            released = gap == 1 and before.for_counter is not None
            if not follows or change.status not in after.split() or (gap and not released):
                self.violations.append(
                    f"{ticket.unit} took {ticket.number} from {before.status or 'nothing'} "
                    f"(version {version}) to {change.status} (version {at}) by {change.step}"
                )
            before, version = change, at


def _instant(written: str) -> datetime:
    return datetime.fromisoformat(written)


def _maybe(written: str | None) -> datetime | None:
    return None if written is None else datetime.fromisoformat(written)


def _dossier(told: dict[str, Any]) -> Dossier:
    return Dossier(
        code=told["code"],
        version=told["version"],
        status=told["status"],
        field=told["field"],
        receiving_unit=told["receiving_unit"],
        competent_unit=told["competent_unit"],
        channel=told["channel"],
        boundary_independent=told["boundary_independent"],
        received_at=_maybe(told["received_at"]),
        appointment_at=_maybe(told["appointment_at"]),
        ended_at=_maybe(told["ended_at"]),
        returned_at=_maybe(told["returned_at"]),
        supplement_requests=told["supplement_requests"],
        components=told["components_handed_in"],
        digitised=told["components_digitised"],
        reused=told["components_reused"],
    )

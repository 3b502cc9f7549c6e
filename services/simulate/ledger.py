"""What was asked and what was answered: the simulator's own books, plain data.

A figure of the server's (a report, a board, a day's sum) never enters here. Tickets and dossiers
are kept as their own answers showed them, the newest version of each.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from libs.common.worktime import business_day

_MICROSECOND = timedelta(microseconds=1)


def seconds(span: timedelta) -> float:
    """Give a length of time as the float nearest to it, exact to the microsecond."""
    return span // _MICROSECOND / 1_000_000


@dataclass(slots=True)
class Ticket:
    """A ticket as its newest answer showed it, and its first call."""

    id: str
    unit: str
    number: str
    version: int
    status: str
    issued_at: datetime
    asked_for: bool = False
    """Whether it was issued to somebody of this play."""
    first_called_at: datetime | None = None
    ended_at: datetime | None = None
    calls: int = 0

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

    def note_ticket(self, told: dict[str, Any], *, issued: bool = False) -> Ticket:
        """Enter an answer that shows a ticket; `issued` when it was asked for here."""
        version = told["version"]
        ticket = self.tickets.get(told["id"])
        if ticket is None:
            ticket = self.tickets[told["id"]] = Ticket(
                id=told["id"], unit=told["unit"], number=told["number"], version=version,
                status=told["status"], issued_at=_instant(told["issued_at"]),
            )  # fmt: skip
        ticket.asked_for = ticket.asked_for or issued
        if told["status"] == "called":
            self._note_call(ticket, told)
        if version >= ticket.version:
            ticket.version, ticket.status = version, told["status"]
            ticket.ended_at = _maybe(told["ended_at"])
        return ticket

    def _note_call(self, ticket: Ticket, told: dict[str, Any]) -> None:
        called_at = _instant(told["called_at"])
        ticket.calls += 1
        # No route of today calls a ticket twice; one that does will have to be told apart here.
        if ticket.calls > 1:
            self.violations.append(f"{ticket.unit} called {ticket.number} more than once")
        if ticket.first_called_at is None or called_at < ticket.first_called_at:
            ticket.first_called_at = called_at
        wait = seconds(ticket.first_called_at - ticket.issued_at)
        if told["wait_seconds"] != wait:
            self.violations.append(
                f"{ticket.unit} answers {told['wait_seconds']} s for {ticket.number}, whose issue "
                f"and call are {wait} s apart"
            )

    def note_dossier(self, told: dict[str, Any]) -> Dossier:
        """Enter an answer that shows a dossier."""
        known = self.dossiers.get(told["code"])
        if known is None or told["version"] > known.version:
            known = self.dossiers[told["code"]] = _dossier(told)
        return known

    def check_numbers(self) -> None:
        """Note every ticket nobody asked for, and every series whose numbers have gaps or twins."""
        by_day: dict[tuple[str, str, Any], list[int]] = {}
        for ticket in self.tickets.values():
            if not ticket.asked_for:
                self.violations.append(f"{ticket.unit} called {ticket.number}, issued to nobody")
            place = (ticket.unit, ticket.number[0], business_day(ticket.issued_at))
            by_day.setdefault(place, []).append(int(ticket.number[1:]))
        for (unit, series, day), numbers in by_day.items():
            if not self.unsettled and sorted(numbers) != list(range(1, len(numbers) + 1)):
                self.violations.append(f"{unit} gave {series}-numbers with gaps or twice on {day}")


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

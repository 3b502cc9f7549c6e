"""What the queue refuses: each class is a problem, its docstring the problem's title."""

from typing import Final

from libs.common.auth import Principal
from libs.common.problems import Conflict, Forbidden, NotFound


class CentreClosed(Conflict):
    """The centre takes nobody now.

    Come back at `next_opening`, or ask `/v1/route` for a centre that is open.
    """


class NoTimeLeft(Conflict):
    """The counters cannot serve more people before closing.

    Come back at `next_opening`, or ask `/v1/route` for another centre.
    """


class ProcedureNotOffered(Conflict):
    """The centre does not receive dossiers of this procedure.

    Ask `/v1/route` where the procedure is received.
    """


class UnknownTicket(NotFound):
    """There is no such ticket.

    Check the id; a ticket is shown by its id alone, never by its number.
    """


class UnknownCounter(NotFound):
    """The centre has no counter of this number.

    Take one that `GET /v1/units/{unit}/counters` lists; a manager makes new ones.
    """


class CounterNotOpen(Conflict):
    """The counter is not open.

    Open the counter first; `allowed` lists the states in which this goes.
    """


class StillHolding(Conflict):
    """This counter or officer still holds a ticket.

    Finish, park or return the ticket that is `held`; `allowed` lists its next steps.
    """


class NotAllowedNow(Conflict):
    """The ticket's state does not allow this.

    Take one of the steps that `allowed` lists; `ticket_status` is where the ticket stands.
    """


class CalledTooRecently(Conflict):
    """The ticket was called a moment ago.

    Call again at `not_before`.
    """


class DayOver(Conflict):
    """The ticket belongs to a day that is over.

    Take a new ticket.
    """


class SeriesNotServed(Conflict):
    """No counter of the centre calls this series.

    Name a series that a counter calls, or let a counter call this one.
    """


class NothingHeld(Conflict):
    """The counter holds nobody.

    Nothing is to be done: the counter is free.
    """


class HeldElsewhere(Conflict):
    """Another counter or officer holds this ticket.

    Leave it to who called it; a manager may act for them.
    """


class NotYourUnit(Forbidden):
    """The unit exists but is not yours."""


def check_unit(unit: str, principal: Principal) -> None:
    """Let only who holds a unit act for it.

    Raises:
        NotYourUnit.
    """
    if unit not in principal.units:
        raise NotYourUnit(f"{unit} is not among your units")


OF_A_TICKET: Final = (UnknownTicket, NotYourUnit, NotAllowedNow, HeldElsewhere)
"""By what any step of a ticket may be refused."""

OF_A_COUNTER: Final = (UnknownCounter, CounterNotOpen, StillHolding)
"""By what any call to a counter may be refused."""

"""What the queue refuses: each class is a problem, its docstring the problem's title."""

from typing import Final

from libs.common.auth import Principal
from libs.common.problems import Conflict, Forbidden, NotFound


class CentreClosed(Conflict):
    """The centre takes nobody now."""


class NoTimeLeft(Conflict):
    """The counters cannot serve more people before closing."""


class ProcedureNotOffered(Conflict):
    """The centre does not receive dossiers of this procedure."""


class UnknownTicket(NotFound):
    """There is no such ticket."""


class UnknownCounter(NotFound):
    """The centre has no counter of this number."""


class CounterNotOpen(Conflict):
    """The counter is not open."""


class StillHolding(Conflict):
    """This counter or officer still holds a ticket."""


class NotAllowedNow(Conflict):
    """The ticket's state does not allow this."""


class CalledTooRecently(Conflict):
    """The ticket was called a moment ago."""


class DayOver(Conflict):
    """The ticket belongs to a day that is over."""


class SeriesNotServed(Conflict):
    """No counter of the centre calls this series."""


class NothingHeld(Conflict):
    """The counter holds nobody."""


class HeldElsewhere(Conflict):
    """Another counter or officer holds this ticket."""


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

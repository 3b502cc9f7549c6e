"""What the queue refuses: each class is a problem, its docstring the problem's title."""

from collections.abc import Sequence
from datetime import date, datetime

from libs.common import fast_json
from libs.common.auth import Principal
from libs.common.problems import Conflict, Forbidden, NotFound
from services.queue.words import say


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


def closed_until(opens: datetime | None, unit: str, day: date | None = None) -> CentreClosed:
    """Refuse while a centre is closed, now or on a day to come, and tell when it opens."""
    if opens is None:
        return CentreClosed(say("{unit} does not open", unit=unit), next_opening=None)
    if day is None:
        sentence = say("{unit} is closed; it opens at {opens}", unit=unit, opens=opens)
    else:
        sentence = say(
            "{unit} is closed on {day}; it opens at {opens}", unit=unit, day=day, opens=opens
        )
    return CentreClosed(sentence, next_opening=fast_json.instant(opens))


def place_of(held: Sequence[str]) -> str:
    """Tell which ticket an officer holds and where: its number, counter and unit."""
    number, counter, unit = held
    return say("{number} at counter {counter} of {unit}", number=number, counter=counter, unit=unit)


def check_unit(unit: str, principal: Principal) -> None:
    """Let only who holds a unit act for it.

    Raises:
        NotYourUnit.
    """
    if unit not in principal.units:
        raise NotYourUnit(say("{unit} is not among your units", unit=unit))

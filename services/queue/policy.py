"""Who is called first: earliest due first, where priority is a head start and never starvation."""

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Final, Literal, get_args

from libs.common.worktime import ZONE, business_day

PriorityClass = Literal[
    "normal", "elderly", "disabled", "pregnant", "infant_carer", "merit", "seriously_ill",
    "appointment",
]  # fmt: skip

PRIORITY_CLASSES: Final = get_args(PriorityClass)

HEAD_START: Final[Mapping[str, timedelta]] = {
    "normal": timedelta(0),
    **dict.fromkeys(
        ("elderly", "disabled", "pregnant", "infant_carer", "merit", "seriously_ill"),
        timedelta(minutes=10),
    ),
    "appointment": timedelta(minutes=15),
}
"""How much earlier a class is due than its arrival says. No decree that was read fixes an order:
the defaults are ours. A head start is shorter than the promise, so nobody is due before arriving
and everybody who waits long enough comes before every newcomer."""

YESTERDAYS: Final = timedelta(hours=12)
"""A ticket that nobody called is not called on a later day; across midnight it is."""


def due_at(issued_at: datetime, priority_class: str, promise: timedelta) -> datetime:
    """Give the instant by which a ticket is to be called, as far as the order of calling goes."""
    return issued_at + max(timedelta(0), promise - HEAD_START[priority_class])


def oldest_callable(now: datetime, day_start: datetime) -> datetime:
    """Give the arrival before which a waiting ticket belongs to a day that is over."""
    return min(day_start, now - YESTERDAYS)


def day_start(now: datetime) -> datetime:
    """Give the first instant of the business day."""
    return datetime.combine(business_day(now), time.min, tzinfo=ZONE)


def oldest_now(now: datetime) -> datetime:
    """Give the arrival before which, seen from an instant, tickets belong to a day that is over."""
    return oldest_callable(now, day_start(now))

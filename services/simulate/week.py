"""The reporting week, worked out apart from the service that is checked. Pure functions."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from libs.common.worktime import ZONE, local

_FRIDAY = 4


@dataclass(frozen=True, slots=True)
class Week:
    """A reporting week: [begins, ends), from Friday 00:00 to Friday 00:00, local."""

    name: str
    begins: datetime
    ends: datetime


def week_of(at: datetime) -> Week:
    """Give the week an instant lies in, named by the ISO week of the Friday that ends it."""
    day = local(at).date()
    closes = day + timedelta(days=(_FRIDAY - day.weekday()) % 7 or 7)
    year, number, _ = closes.isocalendar()
    return Week(
        f"{year}-W{number:02d}",
        begins=datetime.combine(closes - timedelta(days=7), time.min, ZONE),
        ends=datetime.combine(closes, time.min, ZONE),
    )

"""Reporting weeks: which stretch of time a report covers and when it is due. Pure functions."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from libs.common.worktime import ZONE, local
from services.reporting.words import say

CLOSING_WEEKDAY: Final = 5
"""ISO weekday (5 = Friday) on which a week begins and ends and its report is due.

Design choice: the order of 13 June 2025 (item 9) only says "weekly, before 16:00 on Friday". It
stands here in one place so that it can become a setting.
"""

CLOSING_TIME: Final = time(0, 0)
"""Local time at which one week ends and the next begins. Design choice: sixteen hours before the
deadline, so that units can review their figures."""

DUE_TIME: Final = time(16, 0)
"""Local time on the closing day before which the report is due (order of 13 June 2025, item 9)."""

_NAME = re.compile(r"(?P<year>2[0-9]{3})-W(?P<number>[0-9]{2})\Z")


@dataclass(frozen=True, slots=True)
class Week:
    """A reporting week: [begins, ends), local instants; due later on the day it ends."""

    name: str
    begins: datetime
    ends: datetime
    due_at: datetime


def week_named(name: str) -> Week:
    """Give the week whose report is due on the Friday of an ISO week: 2026-W47 ends 2026-11-20.

    Raises:
        ValueError: it is not written like 2026-W47 (years 2000 to 2999), or that year has no such
            week (2026 has 53, most years 52).
    """
    match = _NAME.match(name)
    if match is None:
        raise ValueError(say("write a week like 2026-W47"))
    year, number = int(match["year"]), int(match["number"])
    try:
        closes = date.fromisocalendar(year, number, CLOSING_WEEKDAY)
    except ValueError:
        raise ValueError(say("{year} has no week {number}", year=year, number=number)) from None
    return Week(
        name,
        begins=datetime.combine(closes - timedelta(days=7), CLOSING_TIME, ZONE),
        ends=datetime.combine(closes, CLOSING_TIME, ZONE),
        due_at=datetime.combine(closes, DUE_TIME, ZONE),
    )


def week_containing(at: datetime) -> Week:
    """Give the week in which an instant lies; ValueError for a naive one."""
    ends = local(at).date()
    while ends.isoweekday() != CLOSING_WEEKDAY or datetime.combine(ends, CLOSING_TIME, ZONE) <= at:
        ends += timedelta(days=1)
    year, number, _ = ends.isocalendar()
    return week_named(f"{year}-W{number:02d}")

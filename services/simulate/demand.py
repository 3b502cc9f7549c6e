"""How many come to each unit and when: a seeded day of arrivals. Pure functions.

The figures are the published loads (80 tickets a day on average, 210 at a busy unit, 300 to 500 at
a heavy one, a third of them between 8:00 and 10:00, Mondays heavier). One seed gives one day,
whichever units and hours of it are played.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Final

from libs.common.worktime import ZONE, Period

PROFILE: Final[tuple[tuple[time, time, float], ...]] = (
    (time(7, 30), time(8), 0.07),
    (time(8), time(9), 0.17),
    (time(9), time(10), 0.49 / 3),
    (time(10), time(11), 0.14),
    (time(11), time(11, 30), 0.05),
    (time(13), time(14), 0.12),
    (time(14), time(15), 0.12),
    (time(15), time(16), 0.10),
    (time(16), time(17), 0.2 / 3),
)
"""Which share of a day's people comes in which stretch (local): a third from 8:00 to 10:00."""

MONDAY, OTHER_DAY = 1.2, 0.95
"""How a weekday compares with the mean of Monday to Friday."""


@dataclass(frozen=True, slots=True)
class Rate:
    """People per second in [begins, ends)."""

    begins: datetime
    ends: datetime
    per_second: float


def draws(seed: int, *what: str) -> Random:
    """Make the source of chance for one purpose, so that no draw shifts those of another."""
    return Random("/".join((str(seed), *what)))  # noqa: S311  (a play, no secret)


def in_order(units: Iterable[str], seed: int) -> list[str]:
    """Give the units in the order in which a seed chooses them."""
    codes = sorted(units)
    draws(seed, "units").shuffle(codes)
    return codes


def daily_tickets(units: Iterable[str], seed: int) -> dict[str, float]:
    """Give each unit's expected tickets on a mean day.

    Of a city of 168 three are heavy, seventeen busy and the others average; any choice of a few
    (`in_order`) has all three kinds, and a unit is the same whichever others are played.
    """
    found = {}
    for place, unit in enumerate(in_order(units, seed)):
        chance = draws(seed, unit, "load")
        if place % 60 == 3:
            found[unit] = chance.uniform(300, 500)
        elif place % 10 == 1:
            found[unit] = 210 * chance.uniform(0.9, 1.1)
        else:
            found[unit] = 80 * chance.uniform(0.8, 1.2)
    return found


def rates(tickets_a_day: float, periods: Sequence[Period], day: date) -> list[Rate]:
    """Spread a mean day's tickets over a date's opening periods; nobody comes at other times."""
    factor = MONDAY if day.weekday() == 0 else OTHER_DAY
    found = []
    for begins, ends, share in PROFILE:
        stretch = Period(begins, ends).on(day)
        per_second = tickets_a_day * factor * share / (stretch[1] - stretch[0]).total_seconds()
        for opens, closes in (period.on(day) for period in periods):
            since, until = max(stretch[0], opens), min(stretch[1], closes)
            if since < until:
                found.append(Rate(since, until, per_second))
    return found


def arrivals(chance: Random, at_rates: Iterable[Rate]) -> Iterator[datetime]:
    """Draw a Poisson process whose rate changes: exponential gaps, measured in people expected."""
    gap = chance.expovariate(1)
    for rate in at_rates:
        at = rate.begins
        while gap <= (expected := (rate.ends - at).total_seconds() * rate.per_second):
            at += timedelta(seconds=gap / rate.per_second)
            yield at
            gap = chance.expovariate(1)
        gap -= expected


def moment(day: date, at: time) -> datetime:
    """Give the instant of a local time."""
    return datetime.combine(day, at, ZONE)

"""How long visits take: learnt from those that have ended, per procedure and per centre.

What is expected of a visit is the city's mean for its procedure, times how the centre compares
with the city lately. Few visits say little: every mean is drawn towards what is usual. A visit
that somebody forgot to end says nothing: what is far above the median counts as far, not as long
as it lasted.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log, sqrt
from statistics import fmean, median
from typing import Final

from services.queue.forecast import Pace

USUAL: Final = Pace()
"""What is taken for true before anything was seen."""

TODAY: Final = timedelta(hours=2)
"""How far back a centre's present pace is looked for."""

_FAR: Final = 4.0
"""Times the median beyond which a value counts as so much."""

_ODD: Final = 1.5
"""Logarithm of a ratio beyond which a visit is odd, and counts as so far off."""

_SHORTEST: Final = 10.0
"""Seconds under which a visit was none: somebody pressed the wrong button."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit that has ended."""

    unit: str
    counter: int
    procedures: tuple[str, ...]
    issued_at: datetime
    called_at: datetime
    started_at: datetime
    ended_at: datetime


class Recent:
    """The last values of a thing, and their mean, drawn towards a prior and blind to outliers."""

    __slots__ = ("_known", "_news", "_values")

    def __init__(self, most: int) -> None:
        """Remember so many."""
        self._values: deque[float] = deque(maxlen=most)
        self._known: tuple[float, int, float] | None = None
        self._news = 0

    def note(self, value: float) -> None:
        """See one more."""
        self._values.append(value)
        self._news += 1

    def mean(self, prior: float, weight: int) -> float:
        """Give the mean as if `weight` more values had been seen that were equal to the prior.

        It is worked out anew when one value in sixteen is new, or the prior is another.
        """
        known = self._known
        if known is None or known[:2] != (prior, weight) or self._news * 16 > len(self._values):
            known = (prior, weight, robust_mean(self._values, prior, weight))
            self._known, self._news = known, 0
        return known[2]


def robust_mean(values: Sequence[float] | deque[float], prior: float, weight: int) -> float:
    """Give the mean of values and of `weight` times a prior, none above four times the median."""
    if not values:
        return prior
    known = [*values, *([prior] * weight)]
    most = _FAR * median(known)
    return fmean(min(value, most) for value in known)


class ServiceTimes:
    """What this process has learnt of visits."""

    def __init__(self) -> None:
        """Know only what is usual."""
        self._procedures: dict[str, Recent] = defaultdict(lambda: Recent(400))
        self._ratios: dict[str, Recent] = defaultdict(lambda: Recent(100))
        self._today: dict[str, deque[tuple[datetime, float]]] = defaultdict(
            lambda: deque(maxlen=40)
        )
        self._mix: dict[str, Recent] = defaultdict(lambda: Recent(100))
        self._ways: dict[str, Recent] = defaultdict(lambda: Recent(40))
        self._turnarounds: dict[str, Recent] = defaultdict(lambda: Recent(40))
        self._ended: dict[tuple[str, int], datetime] = {}
        self._logs: deque[float] = deque(maxlen=500)
        self._spread: float | None = USUAL.spread

    def note(self, visit: Visit) -> None:
        """Learn from a visit; visits come in the order in which they ended."""
        seconds = (visit.ended_at - visit.started_at).total_seconds()
        if seconds < _SHORTEST:
            return
        expected = self._of_procedures(visit.procedures)
        ratio = seconds / expected
        self._mix[visit.unit].note(expected)
        self._ratios[visit.unit].note(ratio)
        self._today[visit.unit].append((visit.ended_at, ratio))
        self._logs.append(max(-_ODD, min(_ODD, log(ratio))))
        self._spread = None
        if len(visit.procedures) <= 1:
            self._procedures[_name(visit.procedures)].note(seconds)
        way = (visit.started_at - visit.called_at).total_seconds()
        self._ways[visit.unit].note(max(0.0, way))
        self._note_turnaround(visit)

    def _note_turnaround(self, visit: Visit) -> None:
        """Learn how long the officer took between two visits, if the next person was there."""
        desk = (visit.unit, visit.counter)
        before = self._ended.get(desk)
        self._ended[desk] = visit.ended_at
        if before is not None and visit.issued_at <= before <= visit.called_at:
            self._turnarounds[visit.unit].note((visit.called_at - before).total_seconds())

    def _of_procedures(self, procedures: tuple[str, ...]) -> float:
        """Give the city's mean of a visit for procedures: what each takes, one after the other."""
        if len(procedures) <= 1:
            return self._procedures[_name(procedures)].mean(USUAL.service, 20)
        return sum(self._procedures[code].mean(USUAL.service, 20) for code in procedures)

    def usual_factor(self, unit: str) -> float:
        """Tell how a centre compares with the city over its last hundred visits."""
        return self._ratios[unit].mean(1.0, 10)

    def factor(self, unit: str, now: datetime) -> float:
        """Tell how a centre compares with the city, as it has gone in the last hours."""
        usual = self.usual_factor(unit)
        lately = [ratio for at, ratio in self._today[unit] if at >= now - TODAY]
        return robust_mean(lately, usual, 15)

    def service(self, procedures: tuple[str, ...], factor: float) -> float:
        """Give how long a visit for procedures will last at a centre, in seconds."""
        return factor * self._of_procedures(procedures)

    def usual(self, unit: str, factor: float) -> float:
        """Give how long a visit will last of which nothing is known, in seconds."""
        return factor * self._mix[unit].mean(USUAL.service, 10)

    def way(self, unit: str) -> float:
        """Give the time from call to counter at a centre, in seconds."""
        return self._ways[unit].mean(USUAL.way, 5)

    def turnaround(self, unit: str) -> float:
        """Give the time between two visits at a centre, in seconds."""
        return self._turnarounds[unit].mean(USUAL.turnaround, 5)

    @property
    def spread(self) -> float:
        """Give the deviation of the logarithm of a visit's length from what was expected."""
        if self._spread is None:
            middle = fmean(self._logs)
            squares = sum((value - middle) ** 2 for value in self._logs)
            self._spread = sqrt((squares + 50 * USUAL.spread**2) / (len(self._logs) + 50))
        return self._spread


def _name(procedures: tuple[str, ...]) -> str:
    return procedures[0] if procedures else ""

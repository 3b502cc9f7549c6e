"""How many counters are open when: the policy the managers of the play follow. Pure functions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import ceil, sqrt
from typing import Final

from services.simulate.demand import Rate

VISIT_SECONDS: Final = 540.0
"""What a visit takes of a counter: 8 minutes of service, and the way there."""

MOST_COUNTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Opening:
    """From an instant on so many counters are to be open."""

    at: datetime
    counters: int


def counters_wanted(people_per_second: float, visit_seconds: float = VISIT_SECONDS) -> int:
    """Give the counters that keep nearly everybody's wait below 20 minutes.

    As many as are busy on average, and nearly half the square root of that on top. At 65 people an
    hour and 8 minutes each that is 10, with which 2 % wait longer, not 9, with which 38 % do.
    """
    busy = people_per_second * visit_seconds
    return min(MOST_COUNTERS, ceil(busy + 0.45 * sqrt(busy)))


def plan(rates: Iterable[Rate]) -> Iterator[Opening]:
    """Give a unit's openings in order: new ones as the rate changes, none in a break."""
    stretches = sorted(rates, key=lambda rate: rate.begins)
    for rate, following in pairwise([*stretches, None]):
        assert rate is not None
        yield Opening(rate.begins, counters_wanted(rate.per_second))
        if following is None or following.begins > rate.ends:
            yield Opening(rate.ends, 0)

"""How a centre works lately, from what was counted and learnt: what a forecast rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Final

from services.queue.forecast import Overtaking, Pace
from services.queue.service_times import USUAL, ServiceTimes

_CALLS: Final = 50
_LEAVERS: Final = 5
"""How many calls, and how many who gave up, what is usual weighs as much as."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What happened at a centre in the last `seconds`."""

    seconds: float = 3600.0
    came: Mapping[tuple[str, float], int] = field(default_factory=dict)
    """How many came, by series and the head start of their priority class in seconds."""
    lately: float = 0.0
    """People who came per second in the last half hour."""
    called: int = 0
    no_shows: int = 0
    no_show_seconds: float = 0.0
    """What the calls that nobody answered took together."""
    gave_up: int = 0
    waited_squared: float = 0.0
    """The squares of what everybody waited, in seconds squared, together."""


def pace_of(
    times: ServiceTimes,
    unit: str,
    traffic: Traffic,
    factor: float,
    pause: tuple[float, float] | None = None,
) -> Pace:
    """Put together how a centre works; each figure is drawn to what is usual while few are seen."""
    prior = _LEAVERS * USUAL.patience**2
    return Pace(
        service=times.usual(unit, factor),
        spread=times.spread,
        way=times.way(unit),
        turnaround=times.turnaround(unit),
        no_shows=(traffic.no_shows + _CALLS * USUAL.no_shows) / (traffic.called + _CALLS),
        no_show=(traffic.no_show_seconds + 5 * USUAL.no_show) / (traffic.no_shows + 5),
        patience=sqrt((traffic.waited_squared + prior) / (traffic.gave_up + _LEAVERS)),
        overtaking=tuple(
            Overtaking(series, head_start, count / traffic.seconds)
            for (series, head_start), count in sorted(traffic.came.items())
            if head_start > 0
        ),
        pause=pause,
    )


def service_on_a_day(times: ServiceTimes, unit: str) -> float:
    """Give how long a ticket takes a counter on a day like those before, in seconds.

    To the nearest five, so that a plan does not change with every visit.
    """
    usual = pace_of(times, unit, Traffic(), times.usual_factor(unit))
    return 5.0 * round(usual.cycle / 5)

"""How many counters to open when: on a day to come, and within the hour. Pure functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from libs.common.worktime import local
from services.queue.arrivals import Expected
from services.queue.erlang import (
    MOST_COUNTERS,
    Stretch,
    counters_wanted,
    share_over,
    shares_over,
    steady_counters,
)

# A day to come -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be kept: no larger `share` of people waits for longer than `promise` seconds."""

    promise: float = 1200.0
    share: float = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """A half hour's advice."""

    begins: datetime
    ends: datetime
    arrivals: float
    at_door: float
    """How many of them stand there when the door opens."""
    counters: int
    steady_counters: int
    """What the steady state alone asks for; more are for those who wait when the part begins."""
    share_over: float
    """The share that waits longer than promised, in the steady state of these arrivals."""
    share_with_one_less: float | None
    """The same with one counter less; None where there is but one."""
    share_on_the_day: float
    """The same as the day goes: from an empty hall, with the counters advised before and after."""


def plan(expected: Expected, service: float, target: Target) -> list[Part]:
    """Give for each half hour the fewest counters that keep the target.

    `service` is how long a ticket takes a counter, in seconds.
    """
    wanted, on_the_day = _planned(expected.stretches, service, target)

    def share(counters: int, stretch: Stretch) -> float:
        return share_over(counters, stretch.per_hour, service, target.promise)

    return [
        Part(
            begins=begins,
            ends=ends,
            arrivals=stretch.people + stretch.at_door,
            at_door=stretch.at_door,
            counters=counters,
            steady_counters=steady_counters(stretch, service, target.promise, target.share),
            share_over=share(counters, stretch),
            share_with_one_less=share(counters - 1, stretch) if counters > 1 else None,
            share_on_the_day=day,
        )
        for (begins, ends), stretch, counters, day in zip(
            expected.parts, expected.stretches, wanted, on_the_day, strict=True
        )
    ]


@lru_cache(maxsize=512)
def _planned(
    stretches: tuple[Stretch, ...], service: float, target: Target
) -> tuple[list[int], list[float]]:
    """Plan a day; kept, as a heavy centre's takes a good part of a second."""
    wanted = counters_wanted(stretches, service, target.promise, target.share)
    return wanted, shares_over(stretches, wanted, service, target.promise)


def reasons(part: Part, service: float, target: Target) -> tuple[str, str]:
    """Say in a sentence why so many counters, in Vietnamese and in English."""
    if part.arrivals < 0.5:
        return (
            "Hầu như không có người đến: một quầy là đủ.",
            "Hardly anybody is expected: one counter is enough.",
        )
    people, minutes = _number(part.arrivals), _number(service / 60)
    limit, share = _number(target.promise / 60), _percent(part.share_over)
    vi = f"{people} người, mỗi lượt {minutes} phút: {part.counters} quầy thì {share} "
    vi += f"chờ quá {limit} phút"
    en = f"{people} people at {minutes} minutes each: with {part.counters} open, {share} "
    en += f"wait longer than {limit} minutes"
    if part.share_with_one_less is not None:
        less = _percent(part.share_with_one_less)
        vi += f", {part.counters - 1} quầy thì {less}"
        en += f"; with {part.counters - 1}, {less}"
    if more := part.counters - part.steady_counters:
        vi += f"; {more} quầy trong số đó vì đầu giờ đã có người chờ"
        en += f"; {more} of them because people wait already when the half hour begins"
    return vi.replace(".", ",") + ".", en + "."


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _percent(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%").replace("%", " %")


# Within the hour -----------------------------------------------------------------------------

HORIZON: Final = 3600
"""How far ahead advice looks, in seconds."""

RECOVERY: Final = 900
"""Within how many seconds a promise that is broken already is to be kept again."""

_MINUTE: Final = 60
_MARK: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Now:
    """What advice for the next hour rests on; times in seconds."""

    at: datetime
    wait: float
    """Expected of somebody who comes now."""
    counters: int
    """Open."""
    cycle: float
    """How long a ticket takes a counter."""
    coming: Sequence[tuple[float, float]]
    """When each rate ends (seconds from now), and the rate: people per second."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Open more counters, or the promise will be broken."""

    more: int
    by: datetime
    """The latest instant, on the clock's five minutes, at which it is early enough."""
    otherwise_at: datetime
    """When somebody who comes would first wait longer than promised."""
    otherwise_seconds: int
    """The longest wait that is expected within the hour if nothing is done."""


def advise(now: Now, promise: float) -> Advice | None:
    """Tell how many counters more are needed by when; None while the promise will be kept.

    People are taken to come and go evenly, as the forecast has them: no more than what is needed
    is advised, no earlier than needed. A promise that is broken already cannot be kept by any
    counter: then it is as many as mend that soon, at once.
    """
    if now.counters < 1 or _safe(now, promise):
        return None
    course = list(_course(now, 0, 0))
    broken = next((at for at, wait in course if wait > promise), None)
    if broken is None:
        return None
    for more in range(1, MOST_COUNTERS - now.counters + 1):
        by = _latest(now, more, broken, promise)
        if by is not None:
            break
    else:
        return None
    return Advice(
        more=more,
        by=by,
        otherwise_at=now.at + timedelta(seconds=broken),
        otherwise_seconds=round(max(wait for _, wait in course)),
    )


def _safe(now: Now, promise: float) -> bool:
    """Tell at a glance that waits cannot become too long: they are not, and will only shrink."""
    most = max((rate for _, rate in now.coming), default=0.0)
    return now.wait <= promise and most * now.cycle <= now.counters


def _latest(now: Now, more: int, broken: int, promise: float) -> datetime | None:
    """Give the latest instant at which so many more counters suffice; None if none does."""
    grace = RECOVERY if broken == 0 else 0
    if not _kept(now, more, 0, promise, grace):
        return None
    mark = local(now.at + timedelta(seconds=broken))
    mark = mark.replace(minute=mark.minute - mark.minute % 5, second=0, microsecond=0)
    while mark > now.at:
        if _kept(now, more, (mark - now.at).total_seconds(), promise, grace):
            return mark
        mark -= _MARK
    return now.at


def _kept(now: Now, more: int, by: float, promise: float, grace: float) -> bool:
    return all(wait <= promise for at, wait in _course(now, more, by) if at >= grace)


def _course(now: Now, more: int, by: float) -> Iterator[tuple[int, float]]:
    """Give, minute by minute, how long somebody who comes then will wait.

    From `by` seconds on there are so many more counters.
    """
    ahead = now.wait * now.counters / now.cycle
    for at in range(0, HORIZON + 1, _MINUTE):
        counters = now.counters + (more if at >= by else 0)
        yield at, ahead * now.cycle / counters
        rate = next((rate for until, rate in now.coming if at < until), 0.0)
        ahead = max(0.0, ahead + (rate - counters / now.cycle) * _MINUTE)

"""How long somebody will wait, foretold from what is going on at a centre. Pure functions.

The next hours are played `DRAWS` times: those at the counters finish, those ahead are called in
the order of calling, each to the counter that is free first; some do not come, some have left,
some with a head start come meanwhile. What is told is the middle of the plays, and the bounds
between which four in five lie. The draws are the same numbers every time, so a forecast does not
flicker and is the same whoever makes it: one more person ahead never shortens it, one more counter
never makes it longer. `docs/queue.md` tells how well it does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heapreplace
from math import exp, log, sqrt
from random import Random
from statistics import NormalDist
from typing import Final, NamedTuple

DRAWS: Final = 32
"""How often the next hours are played: few are enough, as every draw is stratified over them."""

BEYOND: Final = 4
"""How many places behind the last who waits are foretold: who comes within the same second."""

MOST_AHEAD: Final = 250
"""Beyond so many people ahead everybody is told the same."""

UNFORESEEN: Final = 0.25
"""How much the pace of the next hour differs from the one that was measured, as a deviation."""

AWAY: Final = 900.0
"""How long a counter that has just been paused stays so on average, in seconds; one that has been
paused for longer is taken to stay so for as long again."""

_LOW, _MIDDLE, _HIGH = 2, 15, 29
"""The places, among the plays sorted, of the bounds and of the first of the two in the middle."""

_FORGOTTEN: Final = 3.5
"""Deviations beyond which a visit is not believed to last: nobody pressed the button."""

USUAL_SERVICE_SECONDS: Final = 480.0
"""What a visit is taken to last before there are figures: 8 minutes."""

_NORMAL: Final = NormalDist()
_BOUND: Final = "#"


class Wait(NamedTuple):
    """An expected wait, and the bounds between which four in five will lie; whole seconds."""

    seconds: int
    low: int
    high: int


_AT_ONCE: Final = Wait(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Overtaking:
    """People of a priority class who come to a series."""

    series: str
    head_start: float
    """Seconds."""
    rate: float
    """People per second."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a centre works lately; times in seconds."""

    service: float = USUAL_SERVICE_SECONDS
    """How long a visit lasts at the counter."""
    spread: float = 0.55
    """Deviation of its logarithm: visits are taken to be log-normal, as service times often are."""
    way: float = 45.0
    """From the call until the person stands at the counter."""
    turnaround: float = 15.0
    """From the end of a visit until the officer calls again."""
    no_shows: float = 0.04
    """Share of those called who do not come."""
    no_show: float = 75.0
    """What a call takes that nobody answers."""
    patience: float = 5300.0
    """Scale of the time after which who waits gives up, Rayleigh-distributed: the longer somebody
    has waited, the likelier. One in twenty leaves within 20 minutes."""
    overtaking: tuple[Overtaking, ...] = ()
    pause: tuple[float, float] | None = None
    """The next break in which nobody is called: begins and ends so many seconds from now."""

    @property
    def cycle(self) -> float:
        """How long a ticket takes a counter on average, from call to call."""
        served = (1 - self.no_shows) * (self.way + self.service)
        return served + self.no_shows * self.no_show + self.turnaround


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A counter: what it has in hand, and which series it calls; times in seconds."""

    series: frozenset[str] = frozenset()
    """Empty means all."""
    number: int = 0
    service: float = 0.0
    """How long the visit in hand will last altogether; 0 when nobody is there."""
    serving_since: float | None = None
    """How long the person in hand has been at the counter; None for one still on the way."""
    called_since: float = 0.0
    away: float = 0.0
    """How long until a counter where nobody is will call; a mean."""

    def calls(self, line: str) -> bool:
        """Tell whether it calls a line."""
        if line.startswith(_BOUND):
            return line == f"{_BOUND}{self.number}"
        return not self.series or line in self.series


def line_of(series: str, counter: int | None) -> str:
    """Name the line somebody waits in: a series, or those who wait for one counter alone."""
    return series if counter is None else f"{_BOUND}{counter}"


@dataclass(frozen=True, slots=True)
class Ahead:
    """Somebody who waits; times in seconds."""

    line: str
    """See `line_of`."""
    service: float
    """How long the visit will last at the counter."""
    due_in: float
    """Negative when late."""
    waited: float = 0.0

    @property
    def bound(self) -> bool:
        """Whether one counter alone may call."""
        return self.line.startswith(_BOUND)


def waits(
    desks: Sequence[Desk], ahead: Sequence[Ahead], line: str, pace: Pace, promise: float
) -> list[Wait]:
    """Foretell the wait of a line by the number of people ahead: item n is for n of them.

    Ahead is who is due earlier and may be called by a counter that may call the line, as a ticket's
    position counts. `ahead` is everybody who waits, in the order of calling; `promise` is when a
    newcomer of the lowest priority is due, in seconds. The last `BEYOND` items are for newcomers.
    Empty when no counter calls the line.
    """
    calling = [desk for desk in desks if desk.calls(line)]
    if not calling:
        return []
    if not ahead and sum(not desk.service and not desk.away for desk in calling) >= BEYOND:
        return [_AT_ONCE] * BEYOND
    newcomer = Ahead(line, pace.service, promise)
    people = [*ahead[: MOST_AHEAD - BEYOND], *([newcomer] * BEYOND)]
    hall = _hall(desks, people, line, pace, promise)
    plays = [_play(hall, draw) for draw in range(DRAWS)]
    return [_told(calls, pace.pause) for calls in zip(*plays, strict=True)]


@dataclass(frozen=True, slots=True)
class _Overtaker:
    due_in: float
    comes_in: float


@dataclass(frozen=True, slots=True)
class _Hall:
    """What all plays share: counters that call the same lines together, and what is drawn."""

    groups: Sequence[Sequence[Sequence[float]]]
    """By group, counter and play: when the counter can call first."""
    called_by: Mapping[str, Sequence[int]]
    """For each line the groups that call it."""
    line: str
    rivals: frozenset[str]
    """The lines that such counters call as call this one."""
    people: Sequence[Ahead]
    visits: Sequence[Sequence[float]]
    """By place and play, how long a counter is taken."""
    leaves: Sequence[Sequence[float]]
    """By place and play, after how long who waits is gone."""
    overtakers: Sequence[Sequence[_Overtaker]]
    """By play, in the order of calling."""
    overtaker: float
    """How long one of them takes a counter."""


def _hall(
    desks: Sequence[Desk], people: Sequence[Ahead], line: str, pace: Pace, promise: float
) -> _Hall:
    lines = {line, *(each.line for each in people), *(each.series for each in pace.overtaking)}
    groups: dict[tuple[str, ...], list[list[float]]] = {}
    for place, desk in enumerate(desks):
        called = tuple(sorted(each for each in lines if desk.calls(each)))
        groups.setdefault(called, []).append(list(_in_hand(desk, place, pace)))
    # Counters of few lines come first: they take somebody whom the others need not.
    kinds = sorted(groups, key=lambda called: (len(called), called))
    called_by = {
        each: tuple(n for n, called in enumerate(kinds) if each in called) for each in lines
    }
    rivals = frozenset(each for each in lines if {*called_by[each]} & {*called_by[line]})
    overtaking = [each for each in pace.overtaking if each.series in rivals]
    return _Hall(
        groups=[groups[called] for called in kinds],
        called_by=called_by,
        line=line,
        rivals=rivals,
        people=people,
        visits=[_visits(each.service, place, pace) for place, each in enumerate(people)],
        leaves=[_leaves(each.waited, place, pace) for place, each in enumerate(people)],
        overtakers=[_overtakers(overtaking, draw, promise) for draw in range(DRAWS)],
        overtaker=pace.way + pace.service + pace.turnaround,
    )


def _play(hall: _Hall, draw: int) -> list[float]:
    """Play the next hours once; give when somebody of the line would be called, by who is ahead."""
    free = [[desk[draw] for desk in group] for group in hall.groups]
    for group in free:
        heapify(group)
    called_by = {line: [free[n] for n in groups] for line, groups in hall.called_by.items()}
    own, overtakers = called_by[hall.line], iter(hall.overtakers[draw])
    next_over = next(overtakers, None)
    calls: list[float] = []
    for place, somebody in enumerate(hall.people):
        group = _first(own)
        while (
            next_over is not None
            and next_over.due_in < somebody.due_in
            and next_over.comes_in <= group[0]
        ):
            heapreplace(group, group[0] + hall.overtaker)
            group, next_over = _first(own), next(overtakers, None)
        if somebody.line in hall.rivals:
            calls.append(group[0])
        if somebody.line != hall.line:
            if not called_by[somebody.line]:
                continue
            group = _first(called_by[somebody.line])
        if hall.leaves[place][draw] > group[0]:
            heapreplace(group, group[0] + hall.visits[place][draw])
    return calls


def _first(groups: Sequence[list[float]]) -> list[float]:
    """Give the counters of which one is free first."""
    return groups[0] if len(groups) == 1 else min(groups, key=lambda group: group[0])


def _told(calls: Sequence[float], pause: tuple[float, float] | None) -> Wait:
    """Give the middle of the plays and the bounds of four in five."""
    if pause is not None:
        calls = [_across(at, *pause) for at in calls]
    calls = sorted(calls)
    middle = (calls[_MIDDLE] + calls[_MIDDLE + 1]) / 2
    return Wait(round(middle), round(calls[_LOW]), round(calls[_HIGH]))


def _across(seconds: float, begins: float, ends: float) -> float:
    """Carry what would fall into a break, or behind its beginning, over it."""
    return seconds if seconds < begins else seconds + ends - max(0.0, begins)


# Draws ----------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _shares(kind: str, place: int) -> tuple[float, ...]:
    """Give one number between 0 and 1 for each play, spread evenly, in an order of its own."""
    order = list(range(DRAWS))
    Random(f"{kind}/{place}").shuffle(order)  # noqa: S311  (no secret)
    return tuple((number + 0.5) / DRAWS for number in order)


@lru_cache(maxsize=8192)
def _lengths(spread: float, place: int) -> tuple[float, ...]:
    """Give for each play by how much a visit differs from its mean; all of a play by the same."""
    return tuple(
        exp(spread * _NORMAL.inv_cdf(own) - spread**2 / 2 + UNFORESEEN * _NORMAL.inv_cdf(common))
        for own, common in zip(_shares("length", place), _shares("pace", 0), strict=True)
    )


def _visits(service: float, place: int, pace: Pace) -> list[float]:
    """Draw how long a counter is taken: by a visit, or by a call that nobody answers."""
    fixed, in_vain = pace.way + pace.turnaround, pace.no_show + pace.turnaround
    lengths, comes = _lengths(round(pace.spread, 2), place), _shares("comes", place)
    return [
        fixed + service * length if share >= pace.no_shows else in_vain
        for length, share in zip(lengths, comes, strict=True)
    ]


@lru_cache(maxsize=8192)
def _hazards(place: int) -> tuple[float, ...]:
    return tuple(-log(share) for share in _shares("patience", place))


def _leaves(waited: float, place: int, pace: Pace) -> list[float]:
    """Draw after how long somebody who has waited already gives up."""
    scale, past = pace.patience**2, waited**2
    return [sqrt(past + scale * hazard) - waited for hazard in _hazards(place)]


def _overtakers(rivals: Sequence[Overtaking], draw: int, promise: float) -> list[_Overtaker]:
    """Draw who comes with a head start before a newcomer would be due, in the order of calling."""
    found: list[_Overtaker] = []
    for number, rival in enumerate(rivals):
        comes_in = 0.0
        for place in range(MOST_AHEAD):
            comes_in += _hazards_of(number, place)[draw] / rival.rate
            if comes_in >= rival.head_start:
                break
            found.append(_Overtaker(comes_in + promise - rival.head_start, comes_in))
    return sorted(found, key=lambda each: each.due_in)


@lru_cache(maxsize=8192)
def _hazards_of(rival: int, place: int) -> tuple[float, ...]:
    return tuple(-log(share) for share in _shares(f"rival {rival}", place))


def _in_hand(desk: Desk, place: int, pace: Pace) -> Iterator[float]:
    """Draw when a counter can call again."""
    shares = _shares("in hand", place)
    if not desk.service:
        return (-desk.away * log(share) for share in shares)
    if desk.serving_since is None:
        fixed = max(0.0, pace.way - desk.called_since) + pace.turnaround
        visits = _left(desk.service, pace.spread, 0.0, shares)
    else:
        fixed = pace.turnaround
        visits = _left(desk.service, pace.spread, desk.serving_since, shares)
    return (fixed + visit for visit in visits)


def _left(service: float, spread: float, since: float, shares: Sequence[float]) -> Iterator[float]:
    """Draw what is left of a visit that has lasted for a while: the longer, the longer.

    One that has lasted for hours is a long one that nobody has ended; it is not taken to go on for
    hours more.
    """
    middle = log(service) - spread**2 / 2
    below = 0.0
    if since > 0:
        since = min(since, exp(middle + _FORGOTTEN * spread))
        below = _NORMAL.cdf((log(since) - middle) / spread)
    for share in shares:
        yield exp(middle + spread * _NORMAL.inv_cdf(below + share * (1 - below))) - since

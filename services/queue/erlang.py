"""Waiting lines in the steady state, and on their way there. Pure functions.

People come at random (Poisson) and visits last exponentially: Erlang's model. Real visits vary
less than that, so real waits are a little shorter: who plans by these figures errs on the side of
one counter more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, exp, lgamma, log, sqrt
from typing import Final

MOST_COUNTERS: Final = 99

_MOST_PEOPLE: Final = 600
"""More people than this in one hall are counted as this many."""

_STEP: Final = 0.3
"""Events expected in a step of the chain, at the most."""

_LOOKS: Final = 6
"""How often in a stretch it is seen how long whoever comes then will wait."""

_NEGLIGIBLE: Final = 1e-10


def share_who_wait(counters: int, load: float) -> float:
    """Give Erlang's C: the share of people who find every counter busy, in the steady state.

    `load` is how many counters are busy on average, in Erlangs. The recursion over Erlang's B has
    no factorial and no power: it neither overflows nor loses digits, whatever the load.
    """
    if load <= 0:
        return 0.0
    if counters <= load:
        return 1.0
    blocked = 1.0
    for number in range(1, counters + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / counters * (1 - blocked))


def share_over(counters: int, per_hour: float, service: float, promise: float) -> float:
    """Give the share of people who wait for longer than promised, in the steady state.

    `service` and `promise` in seconds. More people than the counters can serve have no steady
    state: in the end all wait longer.
    """
    load = per_hour * service / 3600
    if load <= 0:
        return 0.0
    if counters <= load:
        return 1.0
    return share_who_wait(counters, load) * exp((load - counters) * promise / service)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a day in which people come at one rate; times in seconds from any beginning."""

    begins: float
    ends: float
    people: float
    """Who comes meanwhile, on average; spread evenly."""
    at_door: float = 0.0
    """Who stands there when it begins, besides."""

    @property
    def rate(self) -> float:
        """People per second, without those at the door."""
        return self.people / (self.ends - self.begins)

    @property
    def per_hour(self) -> float:
        """People per hour, those at the door as if they came later."""
        return (self.people + self.at_door) / (self.ends - self.begins) * 3600


def shares_over(
    stretches: Sequence[Stretch], counters: Sequence[int], service: float, promise: float
) -> list[float]:
    """Give for each stretch of a day the share of those coming then who wait longer than promised.

    The day begins with nobody in the hall, and so does every stretch that follows on a break: who
    waits when a break begins is served in it. Beyond that the number of people is followed as a
    Markov chain, whatever the rate and the counters do.
    """
    day = _Day(stretches, counters, service, promise)
    found: list[float] = []
    people = [1.0]
    for number in range(len(stretches)):
        share, people = day.pass_by(number, people)
        found.append(share)
    return found


@dataclass(frozen=True, slots=True)
class _Day:
    stretches: Sequence[Stretch]
    counters: Sequence[int]
    service: float
    promise: float

    def pass_by(self, number: int, people: list[float]) -> tuple[float, list[float]]:
        """Give the share that waits too long in a stretch, and how many are there at its end.

        `people` are the probabilities of 0, 1, 2, ... people at its beginning.
        """
        stretch = self.stretches[number]
        if not self._goes_on(number - 1):
            people = [1.0]
        too_long = 0.0
        if stretch.at_door > 0:
            people = _poisson(stretch.at_door, _widest(stretch.at_door))
            # Of a crowd, one finds nobody, the next one person, and so on.
            finds = [1 - below for below in accumulate(people)]
            too_long += self._over(finds, number, stretch.begins)
        span = (stretch.ends - stretch.begins) / _LOOKS
        for look in range(_LOOKS):
            people = self._go_on(people, number, span / 2)
            over = self._over(people, number, stretch.begins + (look + 0.5) * span)
            too_long += over * stretch.people / _LOOKS
            people = self._go_on(people, number, span / 2)
        came = stretch.at_door + stretch.people
        return (min(1.0, too_long / came) if came > 0 else 0.0), people

    def _goes_on(self, number: int) -> bool:
        """Tell whether a stretch is followed by another without a break."""
        if not 0 <= number < len(self.stretches) - 1:
            return False
        return self.stretches[number + 1].begins <= self.stretches[number].ends

    def _go_on(self, people: list[float], number: int, seconds: float) -> list[float]:
        """Let people come and be served for a while."""
        counters, rate = self.counters[number], self.stretches[number].rate
        steps = ceil(seconds * (rate + counters / self.service) / _STEP)
        comes, ends = rate * seconds / steps, seconds / steps / self.service
        for _ in range(steps):
            if people[-1] > _NEGLIGIBLE and len(people) < _MOST_PEOPLE:
                people = [*people, 0.0]
            leaving = [p * min(n, counters) * ends for n, p in enumerate(people)]
            coming = [p * comes for p in people]
            coming[-1] = 0.0  # nobody comes any more to a hall that is as full as can be told
            people = [
                p - leaves - comes + arrives + left
                for p, leaves, comes, arrives, left in zip(
                    people, leaving, coming, (0.0, *coming), (*leaving[1:], 0.0), strict=False
                )
            ]
        return people

    def _over(self, people: Sequence[float], number: int, at: float) -> float:
        """Give the probability that who comes at an instant waits longer than promised.

        That is when no more visits end within the promise than people stand before one, less those
        whom the counters have in hand that are open at its end.
        """
        visits, at_the_end = self._capacity(number, at)
        no_more = list(accumulate(_poisson(visits, len(people))))
        return sum(p * no_more[n] for n, p in enumerate(people[at_the_end:]))

    def _capacity(self, number: int, at: float) -> tuple[float, int]:
        """Give the visits that end within the promise if nobody is idle, and the counters then.

        The counters at the end of a stretch stay until nobody waits if a break follows.
        """
        until, work = at + self.promise, 0.0
        while self._goes_on(number) and until > self.stretches[number].ends:
            work += self.counters[number] * (self.stretches[number].ends - at)
            at, number = self.stretches[number].ends, number + 1
        work += self.counters[number] * (until - at)
        return work / self.service, self.counters[number]


def _poisson(mean: float, most: int) -> list[float]:
    """Give the probabilities of 0, 1, ... below `most` for a Poisson number."""
    if mean <= 0:
        return [1.0, *([0.0] * (most - 1))]
    return [exp(n * log(mean) - mean - lgamma(n + 1)) for n in range(most)]


def _widest(mean: float) -> int:
    """Give a number that a Poisson number of this mean is below, for all practical purposes."""
    return min(_MOST_PEOPLE, ceil(mean + 10 * sqrt(mean) + 20))


def counters_wanted(
    stretches: Sequence[Stretch], service: float, promise: float, target: float
) -> list[int]:
    """Give for each stretch the fewest counters with which no larger share waits too long.

    That is what the steady state of the stretch's rate asks for, and as many more as the way there
    does: for a crowd at the door, or for those who wait when the stretch begins. At least one, and
    never more than a centre may have, even where those are too few.
    """
    counters = [steady_counters(each, service, promise, target) for each in stretches]
    people = [1.0]
    for number in range(len(stretches)):
        share, after = _Day(stretches, counters, service, promise).pass_by(number, people)
        while share > target and counters[number] < MOST_COUNTERS:
            counters[number] += 1
            share, after = _Day(stretches, counters, service, promise).pass_by(number, people)
        people = after
    return counters


def steady_counters(stretch: Stretch, service: float, promise: float, target: float) -> int:
    """Give the fewest counters of which the steady state keeps the target, at least one."""
    enough = (
        counters
        for counters in range(1, MOST_COUNTERS)
        if share_over(counters, stretch.per_hour, service, promise) <= target
    )
    return next(enough, MOST_COUNTERS)

"""Advice on counters held against a simulation: `python -m tests.bench.staffing`.

The simulation knows nothing of Erlang: people come, wait for the first free counter in the order
they came, and are served, one by one. Visits are exponential, as the formula has them, or
log-normal, as they are.
"""

import argparse
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from math import log
from random import Random
from typing import Any, Final

import simpy

from services.queue.erlang import Stretch, counters_wanted, share_over, shares_over, steady_counters
from services.simulate.people import SERVICE_SPREAD

PROMISE, SERVICE, TARGET = 1200.0, 480.0, 0.02

KNOWN: Final = (
    (65, 9, 0.3807), (65, 10, 0.0205), (65, 11, 0.0011),
    (100, 14, 0.1517), (100, 15, 0.0088), (100, 16, 0.0005),
)  # fmt: skip
"""People an hour, counters, and the known share that waits over 20 minutes at 8 minutes each."""

MORNING: Final = tuple(
    Stretch(1800.0 * n, 1800.0 * (n + 1), people, at_door)
    for n, (people, at_door) in enumerate(
        [(17, 45), (50, 0), (50, 0), (46, 0), (46, 0), (38, 0), (38, 0), (28, 0)]
    )
)
"""A heavy Monday from 7:30 to 11:30, where 45 people stand at the door."""

Visit = Callable[[Random], float]


def exponential(chance: Random) -> float:
    """Draw a visit as Erlang has them."""
    return chance.expovariate(1 / SERVICE)


def log_normal(chance: Random) -> float:
    """Draw a visit as they are."""
    return chance.lognormvariate(log(SERVICE) - SERVICE_SPREAD**2 / 2, SERVICE_SPREAD)


@dataclass(slots=True)
class Morning:
    """A hall in which counters open and close as planned."""

    stretches: Sequence[Stretch]
    counters: Sequence[int]
    visit: Visit
    chance: Random
    waits: list[list[float]] = field(default_factory=list)
    """By stretch, of those who came in it; seconds."""
    _clock: simpy.Environment = field(default_factory=simpy.Environment)
    _free: simpy.Store = field(init=False)
    _to_close: int = 0

    def run(self) -> None:
        """Play it until everybody has been served."""
        self._free = simpy.Store(self._clock)
        self.waits = [[] for _ in self.stretches]
        self._clock.process(self._manager())
        self._clock.process(self._door())
        self._clock.run()

    def _manager(self) -> Generator[simpy.Event, Any, None]:
        there = 0
        for stretch, counters in zip(self.stretches, self.counters, strict=True):
            yield self._clock.timeout(stretch.begins - self._clock.now)
            for _ in range(there, counters):
                yield self._free.put(None)
            self._to_close += max(0, there - counters)
            while self._to_close and self._free.items:
                yield self._free.get()
                self._to_close -= 1
            there = counters

    def _door(self) -> Generator[simpy.Event, Any, None]:
        for number, stretch in enumerate(self.stretches):
            yield self._clock.timeout(stretch.begins - self._clock.now)
            for _ in range(_poisson(self.chance, stretch.at_door)):
                self._clock.process(self._person(number))
            gap = self.chance.expovariate(stretch.rate)
            while self._clock.now + gap < stretch.ends:
                yield self._clock.timeout(gap)
                self._clock.process(self._person(number))
                gap = self.chance.expovariate(stretch.rate)

    def _person(self, number: int) -> Generator[simpy.Event, Any, None]:
        came = self._clock.now
        yield self._free.get()
        self.waits[number].append(self._clock.now - came)
        yield self._clock.timeout(self.visit(self.chance))
        if self._to_close:
            self._to_close -= 1
        else:
            yield self._free.put(None)


def _poisson(chance: Random, mean: float) -> int:
    at, number = chance.expovariate(1), 0
    while at < mean:
        at, number = at + chance.expovariate(1), number + 1
    return number


def simulated(
    stretches: Sequence[Stretch], counters: Sequence[int], visit: Visit, days: int, seed: int
) -> list[float]:
    """Give the share that waits longer than promised in each stretch, over many days."""
    over, came = [0] * len(stretches), [0] * len(stretches)
    for day in range(days):
        morning = Morning(stretches, counters, visit, Random(f"{seed}/{day}"))  # noqa: S311
        morning.run()
        for number, waits in enumerate(morning.waits):
            came[number] += len(waits)
            over[number] += sum(wait > PROMISE for wait in waits)
    return [many / all_ if all_ else 0.0 for many, all_ in zip(over, came, strict=True)]


def steady(per_hour: float, counters: int, visit: Visit, hours: int, seed: int = 1) -> float:
    """Give the share that waits longer than promised in a long run, after a while to settle."""
    settling = Stretch(0, 100 * 3600.0, 100 * per_hour)
    long = Stretch(settling.ends, settling.ends + 3600.0 * hours, per_hour * hours)
    return simulated((settling, long), (counters, counters), visit, 1, seed)[1]


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=5000, help="of each steady state")
    parser.add_argument("--days", type=int, default=400, help="mornings that are simulated")
    options = parser.parse_args()
    print("| people an hour | counters | known | Erlang C | simulated | log-normal |")
    print("|---:|" + "---:|" * 5)
    for per_hour, counters, known in KNOWN:
        found = [steady(per_hour, counters, v, options.hours) for v in (exponential, log_normal)]
        erlang = share_over(counters, per_hour, SERVICE, PROMISE)
        shares = " | ".join(f"{share:.2%}" for share in (known, erlang, *found))
        print(f"| {per_hour} | {counters} | {shares} |", flush=True)
    alone = [steady_counters(each, SERVICE, PROMISE, TARGET) for each in MORNING]
    advised = counters_wanted(MORNING, SERVICE, PROMISE, TARGET)
    print("\n| half hour | people | at the door | counters: steady, advised "
          "| steady alone: chain, simulated | advised: chain, simulated, log-normal |")  # fmt: skip
    print("|---:|" + "---:|" * 5)
    columns = [
        shares_over(MORNING, alone, SERVICE, PROMISE),
        simulated(MORNING, alone, exponential, options.days, 1),
        shares_over(MORNING, advised, SERVICE, PROMISE),
        simulated(MORNING, advised, exponential, options.days, 2),
        simulated(MORNING, advised, log_normal, options.days, 3),
    ]
    for n, stretch in enumerate(MORNING):
        minutes = 7 * 60 + 30 + int(stretch.begins // 60)
        a, b, c, d, e = (f"{column[n]:.1%}" for column in columns)
        print(
            f"| {minutes // 60}:{minutes % 60:02} | {stretch.people + stretch.at_door:.0f} "
            f"| {stretch.at_door:.0f} | {alone[n]}, {advised[n]} | {a}, {b} | {c}, {d}, {e} |"
        )


if __name__ == "__main__":
    main()

"""How well waits are foretold: `python -m tests.bench.forecast`.

Days of several kinds of centre are simulated (`hall.py`). Whoever takes a number is told a wait, by
the forecaster and by two simple rules: the mean visit times the people ahead over the counters
open, and the wait of whoever was called last. The table holds what was told against what came.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from random import Random
from statistics import fmean
from time import process_time
from typing import Final

from services.queue.forecast import Wait, waits
from services.queue.service_times import USUAL, ServiceTimes
from tests.bench.hall import PROMISE, Hall, Kind, Person

MONDAY, TUESDAY, WEDNESDAY = date(2026, 11, 16), date(2026, 11, 17), date(2026, 11, 18)

QUIET: Final = Kind("quiet: 80 a day", 80)
BUSY: Final = Kind("busy: 210", 210)
HEAVY: Final = Kind("heavy: 400", 400)
SURGE: Final = Kind("surge: 700, counters for 560", 700, planned_for=560)
LUNCH: Final = Kind("busy, stops for lunch", 210, planned_for=190, serves_through=False)
SERIES: Final = Kind("heavy, two series", 400, series=(("A", 0.7), ("B", 0.3)))

KINDS: Final = (
    QUIET,
    BUSY,
    HEAVY,
    replace(HEAVY, name="heavy, a new centre", known=False),
    SURGE,
    LUNCH,
    replace(BUSY, name="busy, slow from 9:00", slow_from=time(9)),
    replace(HEAVY, name="heavy, officers leave", absences=1 / 12),
    SERIES,
)


@dataclass(slots=True)
class Told:
    """What somebody was told on arrival by each rule; seconds."""

    person: Person
    wait: Wait
    mean_times_ahead: float
    last_wait: float
    cost: float
    """CPU seconds that the forecast took."""

    @property
    def came(self) -> float:
        """The wait that came of it; only of who was called."""
        assert self.person.called_at is not None
        return self.person.called_at - self.person.at


Rule = Callable[[Told], float]

RULES: Final[dict[str, Rule]] = {
    "forecast": lambda told: float(told.wait.seconds),
    "mean times ahead": lambda told: told.mean_times_ahead,
    "last wait": lambda told: told.last_wait,
}


@dataclass(slots=True)
class Row:
    """How the rules did on one kind of day; only those who were called in the end can tell."""

    name: str
    told: list[Told]

    def __post_init__(self) -> None:
        """Leave out who gave up."""
        self.told = [one for one in self.told if one.person.called_at is not None]

    @property
    def mean_wait(self) -> float:
        """Seconds."""
        return fmean(one.came for one in self.told)

    def mae(self, rule: str) -> float:
        """Mean absolute error, seconds."""
        return fmean(abs(RULES[rule](one) - one.came) for one in self.told)

    def bias(self, rule: str) -> float:
        """Mean of what was told less what came, seconds."""
        return fmean(RULES[rule](one) - one.came for one in self.told)

    @property
    def within(self) -> float:
        """Share within the bounds, of those who were not told that they would be called at once."""
        waited = [one for one in self.told if one.wait.high > 0]
        return fmean(one.wait.low - 1 <= one.came <= one.wait.high + 1 for one in waited)


def a_day(kind: Kind, day: date, chance: Random, times: ServiceTimes, factor: float) -> list[Told]:
    """Simulate one day and give what everybody was told."""
    told: list[Told] = []

    def tell(hall: Hall, person: Person) -> None:
        place, begun = hall.place(person), process_time()
        lately = times.factor(hall.unit, hall.instant)
        pace, desks, ahead = hall.pace(lately), hall.desks(lately), hall.ahead(lately)
        found = waits(desks, ahead, person.series, pace, PROMISE)
        cost = process_time() - begun
        if not found:
            return
        mean = fmean(hall.served) if hall.served else USUAL.service
        calling = hall.calling(person.series)
        naive = 0.0 if place < calling.count(None) else place * mean / len(calling)
        told.append(Told(person, found[min(place, len(found) - 1)], naive, hall.last_wait, cost))

    Hall(kind, day, chance, times, factor, tell).run()
    return told


def play(kind: Kind, seed: int) -> list[Told]:
    """Simulate two days of a centre; one that is known has two ordinary days behind it."""
    chance = Random(f"{kind.name}/{seed}")  # noqa: S311  (a play, no secret)
    times, factor = ServiceTimes(), chance.uniform(0.8, 1.25)
    told: list[Told] = []
    if kind.known:
        for day in (TUESDAY, WEDNESDAY):
            a_day(Kind("ordinary", kind.tickets_a_day), day, chance, times, factor)
    for day in (MONDAY, TUESDAY):
        told += a_day(kind, day, chance, times if kind.known else ServiceTimes(), factor)
    return told


def rows(kinds: Sequence[Kind], seeds: Sequence[int]) -> Iterator[Row]:
    """Give the lines of the table, and one for all together."""
    every: list[Told] = []
    for kind in kinds:
        told = [one for seed in seeds for one in play(kind, seed)]
        every += told
        yield Row(kind.name, told)
    yield Row("all", every)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="days of each kind, twice as many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    options = parser.parse_args()
    print(
        "| minutes | people | mean wait | MAE | bias | within the bounds "
        "| mean x ahead: MAE | bias | last wait: MAE | bias |\n|---|" + "---:|" * 9
    )
    for row in rows(KINDS, range(options.first, options.first + options.seeds)):
        forecast, ahead, last = (
            f"{row.mae(rule) / 60:.2f} | {row.bias(rule) / 60:+.2f}" for rule in RULES
        )
        print(
            f"| {row.name} | {len(row.told):,} | {row.mean_wait / 60:.1f} | {forecast} "
            f"| {row.within:.0%} | {ahead} | {last} |",
            flush=True,
        )
    costs = sorted(one.cost for one in row.told)
    print(
        f"\nA forecast takes {1e3 * fmean(costs):.2f} ms of CPU on average,"
        f" {1e3 * costs[len(costs) * 99 // 100]:.2f} at the 99th percentile."
    )


if __name__ == "__main__":
    main()

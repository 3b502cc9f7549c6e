"""A hall on paper: who is called when, by the queue's order and by others. Seconds throughout.

`python -m tests.queue.order` prints what the head starts do to everybody's wait, for
docs/queue.md.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from services.queue.policy import HEAD_START, Promise

MONDAY = datetime(2026, 11, 16, 1, tzinfo=UTC)
PROMISE = Promise(timedelta(seconds=1200))
LONGEST = max(HEAD_START.values()).total_seconds()

SHARES = {
    "normal": 0.86, "elderly": 0.05, "infant_carer": 0.03, "pregnant": 0.02, "appointment": 0.02,
    "disabled": 0.01, "merit": 0.005, "seriously_ill": 0.005,
}  # fmt: skip
"""The classes that the simulated city has; see `services/simulate/people.py`."""


@dataclass(frozen=True, order=True, slots=True)
class Person:
    """Somebody who comes."""

    arrival: float
    priority_class: str = "normal"

    @property
    def head_start(self) -> float:
        """How much earlier than the arrival says it is this person's turn."""
        return HEAD_START[self.priority_class].total_seconds()

    @property
    def due(self) -> float:
        """When it is this person's turn, as the queue reckons."""
        came = MONDAY + timedelta(seconds=self.arrival)
        return (PROMISE.due_at(came, self.priority_class) - MONDAY).total_seconds()


Order = Callable[[Person], Any]


def by_turn(person: Person) -> Any:
    """The queue's order: earliest due first."""
    return person.due, person.arrival


def by_arrival(person: Person) -> Any:
    """First come, first served."""
    return person.arrival


def by_class(person: Person) -> Any:
    """Absolute priority: the longest head start first, whoever waits."""
    return -person.head_start, person.arrival


def called(people: Iterable[Person], calls: Sequence[float], order: Order) -> dict[int, float]:
    """Give when each person (by place) is called, if counters call at these instants."""
    coming = sorted(enumerate(people), key=lambda item: item[1].arrival)
    waiting: list[tuple[Any, int]] = []
    found: dict[int, float] = {}
    next_one = 0
    for at in sorted(calls):
        while next_one < len(coming) and coming[next_one][1].arrival <= at:
            place, person = coming[next_one]
            heapq.heappush(waiting, (order(person), place))
            next_one += 1
        if waiting:
            found[heapq.heappop(waiting)[1]] = at
    return found


def served(
    people: Sequence[Person], services: Sequence[float], counters: int, order: Order
) -> list[float]:
    """Give everybody's wait where so many counters serve one after the other."""
    free = [0.0] * counters
    waiting: list[tuple[Any, int]] = []
    waits = [0.0] * len(people)
    next_one = 0
    while next_one < len(people) or waiting:
        at = heapq.heappop(free)
        if not waiting:
            at = max(at, people[next_one].arrival)
        while next_one < len(people) and people[next_one].arrival <= at:
            heapq.heappush(waiting, (order(people[next_one]), next_one))
            next_one += 1
        _, place = heapq.heappop(waiting)
        waits[place] = at - people[place].arrival
        heapq.heappush(free, at + services[place])
    return waits


def a_day(seed: int, count: int) -> tuple[list[Person], list[float]]:
    """Draw people, 65 an hour, and how long each is served, 8 minutes; both exponential."""
    dice = Random(seed)  # noqa: S311  (the same people each time)
    arrival, people = 0.0, []
    classes, weights = list(SHARES), list(SHARES.values())
    for _ in range(count):
        arrival += dice.expovariate(65 / 3600)
        people.append(Person(arrival, dice.choices(classes, weights)[0]))
    return people, [dice.expovariate(1 / 480) for _ in people]


def main() -> None:
    """Print the table of a long steady day."""
    people, services = a_day(20261116, 400_000)
    print("| counters | order | over 20 min: everybody | normal | with a head start | longest |")
    print("|---:|---|---:|---:|---:|---:|")
    for counters in (9, 10, 11):
        for name, order in (("first come", by_arrival), ("due", by_turn), ("class", by_class)):
            waits = served(people, services, counters, order)
            normal = [w for w, p in zip(waits, people, strict=True) if not p.head_start]
            first = [w for w, p in zip(waits, people, strict=True) if p.head_start]
            shares = [sum(w > 1200 for w in part) / len(part) for part in (waits, normal, first)]
            told = " | ".join(f"{share:.2%}" for share in shares)
            print(f"| {counters} | {name} | {told} | {max(waits) / 60:.0f} min |")


if __name__ == "__main__":
    main()

"""A centre's day as a discrete-event simulation: who comes, who is called when, and who leaves.

It knows the truth (how long everybody will take) and shows the forecaster only what the queue's
tables would show. The order of calling is the queue's own: earliest due first, with head starts.
"""

from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from math import log
from random import Random
from typing import Any, Final

import simpy

from libs.common.worktime import OFFICIAL_HOURS
from services.queue.forecast import AWAY, Ahead, Desk, Pace
from services.queue.pace import Traffic, pace_of
from services.queue.policy import HEAD_START
from services.queue.service_times import ServiceTimes, Visit
from services.simulate.demand import arrivals, moment, rates
from services.simulate.people import CLASSES, NO_SHOW, PATIENCE_SECONDS, PATIENCE_SPREAD, pick
from services.simulate.staffing import plan

PROMISE: Final = 1200.0

PROCEDURES: Final = (
    ("2.000815", 0.60, 0.80), ("1.001612", 0.19, 1.40), ("1.001193", 0.13, 1.10),
    ("1.000798", 0.08, 1.60),
)  # fmt: skip
"""Codes, shares, and how long a visit for it lasts compared with others: made up, mean about 1."""

WITHIN: Final = 0.5
"""Spread of the logarithm of visits for one procedure."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of unit and day."""

    name: str
    tickets_a_day: float
    planned_for: float | None = None
    """What the counters were planned for, when that is not what comes."""
    serves_through: bool = True
    """Whether who waits when a break begins is served before it."""
    slow_from: time | None = None
    """From when every visit takes half as long again (a database that crawls)."""
    absences: float = 0.0
    """How often an officer pauses the counter after a visit, for 10 to 40 minutes; a share."""
    series: tuple[tuple[str, float], ...] = (("A", 1.0),)
    known: bool = True
    """Whether the unit has days behind it from which its pace was learnt."""


@dataclass(slots=True)
class Person:
    """Somebody who comes: what the queue knows, and what only the simulation does."""

    number: int
    at: float
    due: float
    series: str
    procedures: tuple[str, ...]
    head_start: float
    patience: float
    comes: bool
    way: float
    service: float
    called_at: float | None = None
    started_at: float | None = None

    @property
    def order(self) -> tuple[float, float, int]:
        """The order of calling."""
        return self.due, self.at, self.number


@dataclass(slots=True)
class Hall:
    """A centre on one day; `on_arrival` is called when somebody has taken a number."""

    kind: Kind
    day: date
    chance: Random
    times: ServiceTimes
    factor: float
    """How this centre's officers compare with the city's."""
    on_arrival: Callable[["Hall", Person], None]
    unit: str = "H29.26740"
    clock: simpy.Environment = field(default_factory=simpy.Environment)
    waiting: list[tuple[tuple[float, float, int], Person]] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    open: dict[int, Person | None] = field(default_factory=dict)
    """Counters that are open, and whom they hold."""
    paused: dict[int, float] = field(default_factory=dict)
    """Counters whose officer is away, and since when."""
    wanted: int = 0
    last_wait: float = 0.0
    served: deque[float] = field(default_factory=lambda: deque(maxlen=30))
    ended: list[tuple[float, Person]] = field(default_factory=list)
    _news: simpy.Event = field(init=False)

    def run(self) -> None:
        """Play the day."""
        self._news = self.clock.event()
        day_rates = rates(self.kind.tickets_a_day, OFFICIAL_HOURS.on(0), self.day)
        opens = day_rates[0].begins
        at = [(moment - opens).total_seconds() for moment in arrivals(self.chance, day_rates)]
        planned_for = self.kind.planned_for or self.kind.tickets_a_day
        openings = list(plan(rates(planned_for, OFFICIAL_HOURS.on(0), self.day)))
        most = max(opening.counters for opening in openings)
        self.clock.process(self._people(at))
        self.clock.process(
            self._manager([((o.at - opens).total_seconds(), o.counters) for o in openings])
        )
        for number in range(1, most + 1):
            self.clock.process(self._officer(number))
        self.clock.run(until=11 * 3600)

    # The city's side ---------------------------------------------------------------------------

    def _people(self, at: list[float]) -> Generator[simpy.Event, Any, None]:
        for number, instant in enumerate(at):
            yield self.clock.timeout(instant - self.clock.now)
            person = self._person(number)
            self.people.append(person)
            self.on_arrival(self, person)
            insort(self.waiting, (person.order, person))
            self.clock.process(self._patience(person))
            self._tell()

    def _person(self, number: int) -> Person:
        chance, now = self.chance, self.clock.now
        code, _, length = chance.choices(PROCEDURES, [share for _, share, _ in PROCEDURES])[0]
        head_start = HEAD_START[pick(chance, CLASSES)].total_seconds()
        mean = 480.0 * length * self.factor * self._slow()
        return Person(
            number=number,
            at=now,
            due=now + PROMISE - head_start,
            series=pick(chance, self.kind.series),
            procedures=(code,),
            head_start=head_start,
            patience=chance.lognormvariate(log(PATIENCE_SECONDS), PATIENCE_SPREAD),
            comes=chance.random() >= NO_SHOW,
            way=chance.uniform(15, 75),
            service=min(
                3600.0, max(60.0, chance.lognormvariate(log(mean) - WITHIN**2 / 2, WITHIN))
            ),
        )

    def _slow(self) -> float:
        since = self.kind.slow_from
        return 1.5 if since and self.instant >= moment(self.day, since) else 1.0

    def _patience(self, person: Person) -> Generator[simpy.Event, Any, None]:
        left = person.patience
        while True:
            since = self.clock.now
            yield self.clock.timeout(left)
            # Nobody gives up for a break that was announced.
            spent = left - _overlap(since, self.clock.now, self._break_seconds())
            left -= spent
            if person.called_at is not None:
                return
            if left <= 1:
                break
        self.waiting.remove((person.order, person))
        self.ended.append((self.clock.now, person))

    def _break_seconds(self) -> tuple[float, float]:
        return 4 * 3600.0, 5.5 * 3600.0

    # The centre's side -------------------------------------------------------------------------

    @property
    def instant(self) -> datetime:
        """The instant it is."""
        return moment(self.day, time(7, 30)) + timedelta(seconds=self.clock.now)

    def _tell(self) -> None:
        news, self._news = self._news, self.clock.event()
        news.succeed()

    def _manager(self, openings: list[tuple[float, int]]) -> Generator[simpy.Event, Any, None]:
        for at, counters in openings:
            yield self.clock.timeout(max(0.0, at - self.clock.now))
            if counters == 0 and self.kind.serves_through:
                while self.waiting:
                    yield self._news
            # Whoever stops at a break stops calling; the queue stays.
            self.wanted = counters
            self._tell()

    def _officer(self, number: int) -> Generator[simpy.Event, Any, None]:
        series = self._series_of(number)
        while True:
            if number > self.wanted:
                self.open.pop(number, None)
                yield self._news
                continue
            self.open.setdefault(number, None)
            if self.chance.random() < self.kind.absences:
                self.open.pop(number, None)
                self.paused[number] = self.clock.now
                yield self.clock.timeout(self.chance.uniform(600, 2400))
                del self.paused[number]
                continue
            person = self._next(series)
            if person is None:
                yield self._news
                continue
            yield from self._serve(number, person)

    def _series_of(self, number: int) -> frozenset[str]:
        """Of two series the first two counters in three call the first alone, the rest all."""
        names = [name for name, _ in self.kind.series]
        return frozenset() if len(names) == 1 or number % 3 == 0 else frozenset({names[0]})

    def _next(self, series: frozenset[str]) -> Person | None:
        for n, (_, person) in enumerate(self.waiting):
            if not series or person.series in series:
                del self.waiting[n]
                return person
        return None

    def _serve(self, number: int, person: Person) -> Generator[simpy.Event, Any, None]:
        person.called_at = self.clock.now
        self.last_wait = person.called_at - person.at
        self.open[number] = person
        yield self.clock.timeout(person.way if person.comes else 60 + person.way)
        if person.comes:
            person.started_at = self.clock.now
            yield self.clock.timeout(person.service)
            self.served.append(person.service)
            self._learn(number, person)
        self.ended.append((self.clock.now, person))
        self.open[number] = None
        self._tell()
        yield self.clock.timeout(self.chance.uniform(2, 30))

    def _learn(self, number: int, person: Person) -> None:
        opens = moment(self.day, time(7, 30))
        issued, called, started, ended = (
            opens + timedelta(seconds=at)
            for at in (person.at, person.called_at or 0, person.started_at or 0, self.clock.now)
        )
        self.times.note(Visit(self.unit, number, person.procedures, issued, called, started, ended))

    # What the queue's tables show --------------------------------------------------------------

    def pace(self, factor: float) -> Pace:
        """Give how the centre works, as the queue would have counted it."""
        return pace_of(self.times, self.unit, self._traffic(), factor, self._pause())

    def _pause(self) -> tuple[float, float] | None:
        begins, ends = self._break_seconds()
        now = self.clock.now
        if self.kind.serves_through or now >= begins:
            return None
        return begins - now, ends - now

    def _traffic(self) -> Traffic:
        now = self.clock.now
        window = max(300.0, min(3600.0, now))
        since = now - window
        came: Counter[tuple[str, float]] = Counter()
        for person in reversed(self.people):
            if person.at < since:
                break
            came[person.series, person.head_start] += 1
        lately = [(at, person) for at, person in self.ended[-80:] if at >= now - 7200]
        called = [(at, person) for at, person in lately if person.called_at is not None]
        missed = [at - (p.called_at or 0) for at, p in called if not p.comes]
        return Traffic(
            seconds=window,
            came=came,
            called=len(called),
            no_shows=len(missed),
            no_show_seconds=sum(missed),
            gave_up=len(lately) - len(called),
            waited_squared=sum(((p.called_at or at) - p.at) ** 2 for at, p in lately),
        )

    def desks(self, factor: float) -> list[Desk]:
        """Give the open counters as the tables show them."""
        now, found = self.clock.now, []
        for number, person in self.open.items():
            desk = Desk(series=self._series_of(number), number=number)
            if person is not None:
                desk = replace(
                    desk,
                    service=self.times.service(person.procedures, factor),
                    called_since=now - (person.called_at or 0),
                    serving_since=None if person.started_at is None else now - person.started_at,
                )
            found.append(desk)
        if found:
            found += [
                Desk(series=self._series_of(number), number=number, away=max(AWAY, now - since))
                for number, since in self.paused.items()
            ]
        return found

    def calling(self, series: str) -> list[Person | None]:
        """Give whom the open counters hold that call a series."""
        return [
            held
            for number, held in self.open.items()
            if not (own := self._series_of(number)) or series in own
        ]

    def place(self, person: Person) -> int:
        """Give how many wait who are due earlier and may be called by a counter of this series."""
        desks = [self._series_of(number) for number in self.open]
        own = [series for series in desks if not series or person.series in series]
        return sum(
            order < person.order and any(not d or other.series in d for d in own)
            for order, other in self.waiting
        )

    def ahead(self, factor: float) -> list[Ahead]:
        """Give who waits, in the order of calling."""
        return [
            Ahead(
                p.series,
                self.times.service(p.procedures, factor),
                p.due - self.clock.now,
                self.clock.now - p.at,
            )
            for _, p in self.waiting
        ]


def _overlap(since: float, until: float, stretch: tuple[float, float]) -> float:
    return max(0.0, min(until, stretch[1]) - max(since, stretch[0]))

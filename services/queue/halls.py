"""What goes on at every centre, read once a second, and the waits foretold from it."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

import asyncpg

from libs.common.app import Core
from libs.common.worktime import business_day, periods
from libs.contracts.directory import Directory
from services.queue import past
from services.queue.arrivals import coming
from services.queue.forecast import (
    AWAY,
    BEYOND,
    Ahead,
    Desk,
    Pace,
    Wait,
    line_of,
    waits,
)
from services.queue.pace import Traffic, pace_of
from services.queue.policy import oldest_now
from services.queue.service_times import ServiceTimes
from services.queue.staffing import Now

_PEOPLE = """
SELECT unit, series, for_counter, procedure_codes, issued_at, due_at,
    NULL::int AS counter, NULL::timestamptz AS called_at, NULL::timestamptz AS started_at
FROM tickets WHERE status = 'waiting' AND due_at >= $1
UNION ALL
SELECT unit, series, NULL, procedure_codes, issued_at, due_at,
    counter, called_at, CASE WHEN status = 'serving' THEN started_at END
FROM tickets WHERE status IN ('called', 'serving')
ORDER BY unit, due_at, issued_at
"""

_DESKS = "SELECT unit, number, state, series, changed_at FROM counters WHERE state <> 'closed'"

USUAL_SERIES: Final = "A"
"""What a ticket is of unless another series is asked for."""

_ANY: Final = ""
"""The line of a series that no counter names: those call it that call all."""


@dataclass(frozen=True, slots=True)
class Line:
    """The waits of a series, or of those who wait for one counter alone."""

    counters: int
    """Open ones that call it."""
    waits: Sequence[Wait]
    """By the number of people ahead: see `forecast.waits`."""

    @property
    def newcomer(self) -> Wait | None:
        """The wait of somebody who comes now; None while no counter calls the line."""
        return self.waits[-BEYOND] if self.waits else None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is foretold of a centre where a counter is open."""

    as_of: datetime
    open_counters: int
    lines: Mapping[str, Line]
    waiting: Mapping[str, int]
    """People by series."""
    pace: Pace
    lately: float
    """People who came per second in the last half hour."""
    open_for: float
    """Seconds until the door closes, be it for a break; 0 when it is closed."""
    idle: float = 0.0
    """The longest that an open counter has been free while somebody waits whom it may call."""
    held: float = 0.0
    """The longest that a counter has had the same person, in seconds from the call on."""

    def line(self, name: str) -> Line:
        """Give a line by its name: see `forecast.line_of`."""
        return self.lines.get(name) or self.lines[_ANY]

    @property
    def series(self) -> list[str]:
        """Name the series that somebody waits in or a counter names, and the usual one."""
        return sorted({USUAL_SERIES, *self.waiting, *filter(str.isalpha, self.lines)})

    @property
    def newcomer(self) -> Wait | None:
        """The wait of somebody who comes now, whichever series: where they differ, the longest."""
        found = [wait for name in self.series if (wait := self.line(name).newcomer)]
        return max(found, default=None)

    @property
    def forecast(self) -> int | None:
        """The wait of somebody who comes now, in whole seconds."""
        newcomer = self.newcomer
        return newcomer.seconds if newcomer else None

    def now(self) -> Now | None:
        """Give what advice for the next hour rests on."""
        newcomer = self.newcomer
        if newcomer is None:
            return None
        wait, pause = float(newcomer.seconds), self.pace.pause
        if pause is not None and wait >= pause[0]:
            wait -= pause[1] - pause[0]  # no counter shortens a break
        return Now(
            at=self.as_of,
            wait=wait,
            counters=self.open_counters,
            cycle=self.pace.cycle,
            coming=coming(self.as_of, self.lately, self.open_for),
        )


class Halls:
    """Every centre where a counter is open; each process looks for itself."""

    traffic_every: Final = 30
    """In looks, which are made once a second."""

    def __init__(self, core: Core, directory: Directory) -> None:
        """Prepare; `look` reads."""
        self._core = core
        self._directory = directory
        self.times = ServiceTimes()
        self._by_unit: dict[str, Outlook] = {}
        self._traffic: dict[str, Traffic] = {}
        self._through: set[str] = set()
        self._through_on: date | None = None
        """The day on which it was last seen who serves through a break."""
        self._idle: dict[tuple[str, int], datetime] = {}
        """Since when a counter has been free while somebody waits whom it may call."""
        self._looks = 0
        self._ended_until: datetime | None = None
        self._ended: Mapping[Any, Any] = {}

    def outlook(self, unit: str) -> Outlook | None:
        """Give what was foretold of a centre at the last look; None while no counter is open."""
        return self._by_unit.get(unit)

    async def look(self, now: datetime) -> None:
        """Read the tables and foretell every centre's waits."""
        pool = self._core.db.hot
        desks: dict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in await pool.fetch(_DESKS):
            desks[row["unit"]].append(row)
        open_units = [
            unit for unit, rows in desks.items() if any(row["state"] == "open" for row in rows)
        ]
        await self._learn(now, open_units)
        people: dict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in await pool.fetch(_PEOPLE, oldest_now(now)):
            people[row["unit"]].append(row)
        idle, found = self._idle, {}
        self._idle = {}
        for unit in open_units:
            found[unit] = self._foretell(unit, desks[unit], people[unit], idle, now)
            await asyncio.sleep(0)  # others have waited while this one was worked out
        self._by_unit = found
        self._looks += 1

    async def _learn(self, now: datetime, open_units: Sequence[str]) -> None:
        """Take note of visits that have ended, and now and then of what else the past tells."""
        pool = self._core.db.hot
        last = [] if self._ended_until else await past.last_visits(pool, now)
        since = min(self._ended_until or now, now) - past.OVERLAP
        ended = await past.ended_since(pool, since)
        news = [visit for key, visit in ended.items() if key not in self._ended]
        for number, visit in enumerate(news if self._ended_until else last):
            self.times.note(visit)
            if number % 500 == 499:
                await asyncio.sleep(0)
        self._ended = ended
        self._ended_until = max((visit.ended_at for visit in ended.values()), default=now)
        if self._looks % self.traffic_every == 0:
            promise = float(self._core.settings.sla_seconds)
            self._traffic = await past.traffic(pool, open_units, now, promise)
        if self._through_on != business_day(now) and self._directory.centres:
            self._through = await past.serving_through(pool, self._directory, now)
            self._through_on = business_day(now)

    def _foretell(
        self,
        unit: str,
        desks: Sequence[asyncpg.Record],
        people: Sequence[asyncpg.Record],
        idle: Mapping[tuple[str, int], datetime],
        now: datetime,
    ) -> Outlook:
        traffic, factor = self._traffic.get(unit, Traffic()), self.times.factor(unit, now)
        open_for, pause = self._door(unit, now)
        pace = pace_of(self.times, unit, traffic, factor, pause)
        waiting = [row for row in people if row["counter"] is None]
        held = {row["counter"]: row for row in people if row["counter"] is not None}
        ahead = [
            Ahead(
                line=line_of(row["series"], row["for_counter"]),
                service=self.times.service(tuple(row["procedure_codes"]), factor),
                due_in=(row["due_at"] - now).total_seconds(),
                waited=max(0.0, (now - row["issued_at"]).total_seconds()),
            )
            for row in waiting
        ]
        found = [self._desk(row, held.get(row["number"]), factor, now) for row in desks]
        calling = [
            self._called_for(unit, desk, ahead, idle, now) if row["state"] == "open" else desk
            for row, desk in zip(desks, found, strict=True)
        ]
        lines = {
            name: self._foretold(name, desks, calling, ahead, pace)
            for name in _lines(calling, ahead)
        }
        series = Counter(row["series"] for row in waiting)
        count = sum(row["state"] == "open" for row in desks)
        return Outlook(
            now, count, lines, series, pace, traffic.lately, open_for,
            idle=max(desk.away for row, desk in zip(desks, calling, strict=True)
                     if row["state"] == "open"),
            held=max(desk.called_since for desk in found),
        )  # fmt: skip

    def _foretold(
        self,
        name: str,
        rows: Sequence[asyncpg.Record],
        desks: Sequence[Desk],
        ahead: Sequence[Ahead],
        pace: Pace,
    ) -> Line:
        counters = sum(
            row["state"] == "open" and desk.calls(name)
            for row, desk in zip(rows, desks, strict=True)
        )
        promise = float(self._core.settings.sla_seconds)
        # A paused counter will call again some time; where it is the only one nobody knows when.
        return Line(counters, waits(desks, ahead, name, pace, promise) if counters else [])

    def _desk(
        self, row: asyncpg.Record, held: asyncpg.Record | None, factor: float, now: datetime
    ) -> Desk:
        desk = Desk(number=row["number"], series=frozenset(row["series"]))
        if row["state"] == "paused":
            paused_for = _seconds(row["changed_at"], now) if row["changed_at"] else 0.0
            return replace(desk, away=max(AWAY, paused_for))
        if held is None:
            return desk
        return replace(
            desk,
            service=self.times.service(tuple(held["procedure_codes"]), factor),
            called_since=_seconds(held["called_at"], now),
            serving_since=_seconds(held["started_at"], now) if held["started_at"] else None,
        )

    def _called_for(
        self,
        unit: str,
        desk: Desk,
        ahead: Sequence[Ahead],
        idle: Mapping[tuple[str, int], datetime],
        now: datetime,
    ) -> Desk:
        """See whether a free counter leaves people waiting: the longer it has, the longer it will.

        An officer who opened a counter and went away must not count as one who is about to call.
        """
        if desk.service or not any(desk.calls(each.line) for each in ahead):
            return desk
        key = (unit, desk.number)
        since = self._idle[key] = min(now, idle.get(key, now))
        return replace(desk, away=_seconds(since, now))

    def _door(self, unit: str, now: datetime) -> tuple[float, tuple[float, float] | None]:
        """Give for how long the door stays open, and the break then, if nobody is called in it."""
        spans = periods(business_day(now), self._directory.hours(unit), self._directory.calendar)
        for place, (begins, closes) in enumerate(spans):
            if begins <= now < closes:
                open_for = (closes - now).total_seconds()
                if unit in self._through or place + 1 == len(spans):
                    return open_for, None
                return open_for, (open_for, (spans[place + 1][0] - now).total_seconds())
        return 0.0, None


def _lines(desks: Sequence[Desk], ahead: Sequence[Ahead]) -> set[str]:
    """Name the lines whose waits may differ; where all counters call all series, all are one."""
    bound = {each.line for each in ahead if each.bound}
    if not any(desk.series for desk in desks):
        return {_ANY, *bound}
    named = {series for desk in desks for series in desk.series}
    return {_ANY, USUAL_SERIES, *named, *(each.line for each in ahead)}


def _seconds(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())

"""What the tables tell of the past: visits, traffic, practice at breaks, and who came when."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import asyncpg

from libs.common.worktime import business_day, periods
from libs.contracts.directory import Directory
from services.queue.arrivals import WEEKS, PastDay
from services.queue.pace import Traffic
from services.queue.service_times import Visit

OVERLAP: Final = timedelta(seconds=10)
"""A visit is read this long after it ended at the latest; statements commit sooner than that."""

_LATELY: Final = timedelta(hours=2)
_HOUR, _HALF_HOUR = timedelta(hours=1), timedelta(minutes=30)

_VISIT = "id, unit, counter, procedure_codes, issued_at, called_at, started_at, ended_at"

_LAST_VISITS = f"""
SELECT visit.* FROM (SELECT DISTINCT unit FROM counters) AS centre CROSS JOIN LATERAL (
    SELECT {_VISIT} FROM tickets
    WHERE unit = centre.unit AND business_day >= $1 AND status = 'finished'
        AND started_at IS NOT NULL AND ended_at <= $2
    ORDER BY business_day DESC, issued_at DESC LIMIT 100
) AS visit ORDER BY ended_at
"""

_ENDED = f"""
SELECT {_VISIT} FROM tickets
WHERE status = 'finished' AND ended_at >= $1 AND started_at IS NOT NULL ORDER BY ended_at
"""

_TRAFFIC = """
SELECT unit, series, (round(extract(epoch FROM due_at - issued_at) / 60) * 60)::float8 AS due_after,
    min(issued_at) AS first,
    count(*) FILTER (WHERE issued_at >= $4) AS in_the_hour,
    count(*) FILTER (WHERE issued_at >= $5) AS in_the_half_hour,
    count(first_called_at) AS called,
    count(*) FILTER (WHERE status = 'no_show') AS no_shows,
    coalesce(sum(least(600, extract(epoch FROM ended_at - called_at)))
        FILTER (WHERE status = 'no_show'), 0)::float8 AS no_show_seconds,
    count(*) FILTER (WHERE cancel_cause = 'asked' AND first_called_at IS NULL) AS gave_up,
    sum(power(extract(epoch FROM coalesce(first_called_at, ended_at, $6) - issued_at), 2))::float8
        AS waited_squared
FROM tickets
WHERE unit = ANY ($1::text[]) AND business_day = ANY ($2::date[]) AND issued_at >= $3
    AND issued_at <= $6
GROUP BY 1, 2, 3
"""

_BREAKS = """
SELECT pause.unit,
    count(*) FILTER (WHERE first_called_at < pause.ends) AS in_it,
    count(*) FILTER (WHERE first_called_at >= pause.ends) AS after_it
FROM unnest($1::text[], $2::date[], $3::timestamptz[], $4::timestamptz[])
        AS pause (unit, day, begins, ends)
    JOIN tickets ON tickets.unit = pause.unit AND business_day = pause.day
        AND issued_at < pause.begins AND first_called_at >= pause.begins + interval '1 minute'
GROUP BY 1
"""

# Who is sent on from another centre has been counted where he came in.
_CAME = """
SELECT unit, business_day,
    floor(extract(epoch FROM (issued_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::time) / 300)::int AS slot,
    count(*)::int AS people
FROM tickets WHERE unit = ANY ($1::text[]) AND business_day = ANY ($2::date[])
GROUP BY 1, 2, 3
"""


async def last_visits(pool: asyncpg.Pool, now: datetime) -> list[Visit]:
    """Give the last hundred visits of every centre, within a month, in the order they ended."""
    since = business_day(now) - timedelta(days=30)
    return [_visit(row) for row in await pool.fetch(_LAST_VISITS, since, now)]


async def ended_since(pool: asyncpg.Pool, since: datetime) -> dict[Any, Visit]:
    """Give the visits that ended since an instant, by ticket, in the order they ended."""
    return {row["id"]: _visit(row) for row in await pool.fetch(_ENDED, since)}


def _visit(row: asyncpg.Record) -> Visit:
    return Visit(
        unit=row["unit"],
        counter=row["counter"],
        procedures=tuple(row["procedure_codes"]),
        issued_at=row["issued_at"],
        called_at=row["called_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


async def traffic(
    pool: asyncpg.Pool, units: Sequence[str], now: datetime, promise: float
) -> dict[str, Traffic]:
    """Count what happened at centres in the last two hours."""
    days = [business_day(now), business_day(now - _LATELY)]
    rows = await pool.fetch(
        _TRAFFIC, units, days, now - _LATELY, now - _HOUR, now - _HALF_HOUR, now
    )
    by_unit: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], []).append(row)
    return {unit: _counted(rows, now, promise) for unit, rows in by_unit.items()}


def _counted(rows: Sequence[asyncpg.Record], now: datetime, promise: float) -> Traffic:
    # An hour that began before the doors opened is as long as they have been open.
    open_for = (now - min(row["first"] for row in rows)).total_seconds()
    came: dict[tuple[str, float], int] = {}
    for row in rows:
        name = (row["series"], max(0.0, promise - row["due_after"]))
        came[name] = came.get(name, 0) + row["in_the_hour"]
    return Traffic(
        seconds=min(3600.0, max(600.0, open_for)),
        came=came,
        lately=sum(row["in_the_half_hour"] for row in rows) / min(1800.0, max(600.0, open_for)),
        called=sum(row["called"] for row in rows),
        no_shows=sum(row["no_shows"] for row in rows),
        no_show_seconds=sum(row["no_show_seconds"] for row in rows),
        gave_up=sum(row["gave_up"] for row in rows),
        waited_squared=sum(row["waited_squared"] for row in rows),
    )


async def serving_through(pool: asyncpg.Pool, directory: Directory, now: datetime) -> set[str]:
    """Name the centres that serve who waits when a break begins, instead of letting them wait on.

    It is told by the last ten days: who was called first in the break, who only after it.
    """
    if directory.round_the_clock:
        return set()
    today = business_day(now)
    days = [today - timedelta(days=back) for back in range(1, 11)]
    pauses = [
        (unit, day, closes, opens)
        for unit in sorted(directory.centres)
        for day in days
        for (_, closes), (opens, _) in pairwise(
            periods(day, directory.hours(unit), directory.calendar)
        )
    ]
    columns = [list(column) for column in zip(*pauses, strict=True)] or [[], [], [], []]
    rows = await pool.fetch(_BREAKS, *columns)
    return {row["unit"] for row in rows if row["in_it"] > row["after_it"]}


async def days_of(
    pool: asyncpg.Pool, unit: str, units: Sequence[str], today: date, day: date
) -> tuple[list[PastDay], Mapping[int, float]]:
    """Give who came to a centre on the days before today, and by slot who came to the whole city.

    The latter on the last four days of `day`'s weekday.
    """
    before = [today - timedelta(days=back) for back in range(1, 7 * WEEKS + 1)]
    own: dict[date, dict[int, float]] = {}
    for row in await pool.fetch(_CAME, [unit], before):
        own.setdefault(row["business_day"], {})[row["slot"]] = row["people"]
    alike = [each for each in before[: 7 * 4] if each.weekday() == day.weekday()]
    city: dict[int, float] = {}
    for row in await pool.fetch(_CAME, units, alike):
        city[row["slot"]] = city.get(row["slot"], 0.0) + row["people"]
    return [PastDay(each, slots) for each, slots in sorted(own.items())], city

"""The weekly report: what is counted in the database and put together into rows.

What each figure means stands in `forms`; here is how it is counted: one statement per table.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, time, timedelta
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.fast_json import instant
from libs.common.problems import NotFound
from libs.common.worktime import ZONE, business_day
from libs.contracts.directory import Directory
from libs.contracts.registry import COMMUNE_TYPES
from services.reporting.forms import (
    NO_DOSSIERS,
    NO_TICKETS,
    DossierCounts,
    QueueCounts,
    figures,
)
from services.reporting.periods import Week

log = structlog.get_logger()


class WeekNotBegun(NotFound):
    """A week that has not begun has no report.

    Ask for the running week or an earlier one.
    """


# Each dossier is seen from the competent unit's side and, in the week it came in, also from the
# side of another unit that received it. Counting goes in two steps: per unit and field over
# the dossiers, then over those few thousand sums the units, the fields and the whole.
_COUNT_DOSSIERS = text("""
WITH facts AS (
    SELECT competent_unit, receiving_unit, field, channel, returned_at, boundary_independent,
        components, components_digitised, components_reused,
        received_at >= :begins AND received_at < :ends AS came,
        received_at < :begins AND (ended_at IS NULL OR ended_at >= :begins) AS carried,
        ended_at IS NOT NULL AND ended_at >= :begins AND ended_at < :ends AS ended,
        received_at < :ends AND (ended_at IS NULL OR ended_at >= :ends) AS open,
        supplement_requests > 1 OR coalesce(appointment_at < :today, false) AS overdue,
        CASE WHEN supplement_requests > 1 THEN 1
            ELSE coalesce((ended_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date
                - (appointment_at AT TIME ZONE 'Asia/Ho_Chi_Minh')::date, 0) END AS days_late
    FROM dossiers
    WHERE span && tstzrange(:begins, :ends) AND (CAST(:unit AS text) IS NULL
        OR competent_unit = CAST(:unit AS text) OR receiving_unit = CAST(:unit AS text))
), counted AS (
    SELECT competent_unit AS unit, field,
        count(*) FILTER (WHERE came AND channel = 'online') AS online,
        count(*) FILTER (WHERE came AND channel <> 'online') AS direct,
        count(*) FILTER (WHERE carried) AS carried_over,
        count(*) FILTER (WHERE ended AND days_late < 0) AS early,
        count(*) FILTER (WHERE ended AND days_late = 0) AS on_time,
        count(*) FILTER (WHERE ended AND days_late > 0) AS late,
        count(*) FILTER (WHERE open AND NOT overdue) AS in_time,
        count(*) FILTER (WHERE open AND overdue) AS overdue,
        count(*) FILTER (WHERE returned_at >= :begins AND returned_at < :ends) AS returned,
        0 AS received_for_others,
        count(*) FILTER (WHERE came AND receiving_unit <> competent_unit) AS received_elsewhere,
        count(*) FILTER (WHERE came AND boundary_independent) AS boundary_independent,
        sum(components) FILTER (WHERE came) AS components,
        sum(components_digitised) FILTER (WHERE came) AS components_digitised,
        sum(components_reused) FILTER (WHERE came) AS components_reused
    FROM facts GROUP BY competent_unit, field
    UNION ALL
    SELECT receiving_unit, field, 0, 0, 0, 0, 0, 0, 0, 0, 0, count(*), 0, 0, 0, 0, 0
    FROM facts WHERE came AND receiving_unit <> competent_unit GROUP BY receiving_unit, field
)
SELECT CASE WHEN GROUPING(unit) = 0 THEN 'unit' WHEN GROUPING(field) = 0 THEN 'field'
        ELSE 'city' END AS row, coalesce(unit, field, '') AS name,
    sum(online), sum(direct), sum(carried_over), sum(early), sum(on_time), sum(late),
    sum(in_time), sum(overdue), sum(returned), sum(received_for_others), sum(received_elsewhere),
    sum(boundary_independent), sum(components), sum(components_digitised), sum(components_reused)
FROM counted WHERE CAST(:unit AS text) IS NULL OR unit = CAST(:unit AS text)
GROUP BY GROUPING SETS ((unit), (field), ())
""")

_COUNT_TICKETS = text("""
SELECT CASE WHEN GROUPING(unit) = 0 THEN 'unit' ELSE 'city' END AS row, coalesce(unit, '') AS name,
    count(*) FILTER (WHERE transferred_from IS NULL) AS tickets,
    count(*) FILTER (WHERE transferred_from IS NOT NULL) AS transferred_in,
    count(first_wait_seconds) AS called,
    count(*) FILTER (WHERE status = 'finished') AS finished,
    count(*) FILTER (WHERE status = 'no_show') AS no_show,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE first_wait_seconds <= :sla_seconds) AS within_sla,
    count(*) FILTER (WHERE first_wait_seconds IS NULL
        AND coalesce(ended_at, :at) - issued_at > :sla) AS uncalled_beyond_sla,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY first_wait_seconds) AS wait_p50_seconds,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY first_wait_seconds) AS wait_p95_seconds,
    max(first_wait_seconds) AS wait_max_seconds,
    count(receipt_seconds) AS receipts,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY receipt_seconds) AS receipt_p50_seconds,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY receipt_seconds) AS receipt_p95_seconds,
    max(receipt_seconds) AS receipt_max_seconds,
    count(score) AS rated,
    avg(score)::float8 AS score_mean
FROM tickets
WHERE issued_at >= :begins AND issued_at < :ends
    AND (CAST(:unit AS text) IS NULL OR unit = CAST(:unit AS text))
GROUP BY GROUPING SETS ((unit), ())
""")


async def weekly(
    session: AsyncSession,
    week: Week,
    *,
    unit: str | None,
    at: datetime,
    sla_seconds: int,
    directory: Directory,
) -> dict[str, Any]:
    """Compute a week's report as it stands at `at`, for the city or for one unit (current code).

    A running week is told as far as it has come; a past one with what is known today. Rows whose
    columns contradict each other (3 = 7 + 11) are marked, listed under `identity` and logged.

    Raises:
        WeekNotBegun: nothing of the week has happened.
    """
    if week.begins > at:
        raise WeekNotBegun(f"{week.name} begins at {instant(week.begins)}")
    dossiers = await count_dossiers(session, week.begins, week.ends, unit=unit, at=at)
    tickets = await count_tickets(
        session, week.begins, week.ends, unit=unit, at=at, sla_seconds=sla_seconds
    )
    units = [
        {"unit": code, "name": _name(directory, code)}
        | figures(
            dossiers.get(("unit", code), NO_DOSSIERS), tickets.get(("unit", code), NO_TICKETS)
        )
        for code in ([unit] if unit else _codes(directory, [*dossiers, *tickets]))
    ]
    fields = [
        {"field": name} | figures(counts, None)
        for (row, name), counts in sorted(dossiers.items())
        if row == "field"
    ]
    city = figures(dossiers.get(("city", ""), NO_DOSSIERS), tickets.get(("city", ""), NO_TICKETS))
    return {
        "week": week.name,
        "from": instant(week.begins),
        "to": instant(week.ends),
        "due_at": instant(week.due_at),
        "as_of": instant(at),
        "sealed": False,
        "revision": 0,
        "sla_seconds": sla_seconds,
        "identity": _identity(week, city, units, fields),
        "city": city,
        "units": units,
        "fields": fields,
    }


async def count_dossiers(
    session: AsyncSession, begins: datetime, ends: datetime, *, unit: str | None, at: datetime
) -> dict[tuple[str, str], DossierCounts]:
    """Count by (`unit`, code), (`field`, name) and (`city`, ""); `unit` leaves only its share."""
    as_of = min(at, ends)
    rows = await session.execute(
        _COUNT_DOSSIERS,
        {
            "begins": begins,
            "ends": ends,
            "unit": unit,
            "today": datetime.combine(business_day(as_of), time.min, ZONE),
        },
    )
    return {
        (kind, name): DossierCounts(*(int(count or 0) for count in counts))
        for kind, name, *counts in rows
    }


async def count_tickets(
    session: AsyncSession,
    begins: datetime,
    ends: datetime,
    *,
    unit: str | None,
    at: datetime,
    sla_seconds: int,
) -> dict[tuple[str, str], QueueCounts]:
    """Count the cohort issued in [begins, ends) by (`unit`, code) and (`city`, "")."""
    rows = await session.execute(
        _COUNT_TICKETS,
        {
            "begins": begins,
            "ends": ends,
            "unit": unit,
            "at": at,
            "sla": timedelta(seconds=sla_seconds),
            "sla_seconds": float(sla_seconds),
        },
    )
    return {(kind, name): QueueCounts(*counts) for kind, name, *counts in rows}


def _codes(directory: Directory, counted: Iterable[tuple[str, str]]) -> list[str]:
    """Name the units with a row: all active ones of commune level, and whoever has a figure."""
    always = {
        code for code, unit in directory.units.items() if unit.active and unit.type in COMMUNE_TYPES
    }
    return sorted(always | {name for row, name in counted if row == "unit"})


def _name(directory: Directory, code: str) -> str:
    """Give a unit's name; one outside the city, or the national system, is known by its code."""
    unit = directory.units.get(code)
    return unit.name if unit else code


def _identity(week: Week, city: Mapping[str, Any], *tables: Iterable[Mapping[str, Any]]) -> Any:
    """Tell whether 3 = 7 + 11 holds in every row, and log each one where it does not."""
    violated = []
    for row in (city, *(row for table in tables for row in table)):
        if row["identity_holds"]:
            continue
        kind = next((name for name in ("unit", "field") if name in row), "city")
        totals = {name: row[name]["total"] for name in ("received", "resolved", "pending")}
        violated.append({"row": kind, "name": row.get(kind), **totals})
        log.error("report.identity_violated", week=week.name, **violated[-1])
    return {"holds": not violated, "violated": violated}

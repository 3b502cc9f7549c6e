"""A unit's day in figures: what became of its tickets, for the centre and for each counter.

The day's tickets are those of its business day, so that the figures add up: every ticket stands in
one of the states. What is said of waits is said as in the weekly report
(`services/reporting/forms.py`); a counter's figures are of the visits that ended at it. Everything
can be counted again from `queue.tickets.v1` and `queue.visits.v1`, and a test does.
"""

from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_COUNT = text("""
WITH tickets_of_day AS (
    SELECT ticket.status, ticket.transferred_from, ticket.first_called_at, rating.score,
        CASE WHEN ticket.status IN ('finished', 'no_show') THEN ticket.counter END AS counter,
        coalesce(ticket.first_called_at, ticket.ended_at, :at) - ticket.issued_at AS wait,
        extract(epoch FROM ticket.first_called_at - ticket.issued_at)::float8 AS waited,
        extract(epoch FROM receipt.printed_at - ticket.issued_at)::float8 AS receipt,
        CASE WHEN ticket.status = 'finished' THEN
            extract(epoch FROM ticket.ended_at - ticket.started_at)::float8 END AS service
    FROM tickets AS ticket
        LEFT JOIN receipts AS receipt ON receipt.ticket_id = ticket.id
        LEFT JOIN ratings AS rating ON rating.ticket_id = ticket.id
    WHERE ticket.unit = :unit AND ticket.business_day = :day
)
SELECT counter,
    count(*) FILTER (WHERE transferred_from IS NULL) AS tickets,
    count(transferred_from) AS transferred_in,
    count(first_called_at) AS called,
    count(*) FILTER (WHERE status = 'finished') AS finished,
    count(*) FILTER (WHERE status = 'no_show') AS no_show,
    count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE status = 'transferred') AS transferred,
    count(*) FILTER (WHERE status = 'waiting') AS waiting,
    count(*) FILTER (WHERE status = 'parked') AS parked,
    count(*) FILTER (WHERE status IN ('called', 'serving')) AS at_counters,
    count(*) FILTER (WHERE first_called_at IS NOT NULL AND wait <= :promise) AS within_sla,
    count(*) FILTER (WHERE first_called_at IS NULL AND wait > :promise) AS uncalled_beyond_sla,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY waited) AS wait_p50_seconds,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY waited) AS wait_p95_seconds,
    max(waited) AS wait_max_seconds,
    coalesce(sum(service), 0) AS service_seconds,
    avg(service) AS service_mean_seconds,
    count(receipt) AS receipts,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY receipt) AS receipt_p50_seconds,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY receipt) AS receipt_p95_seconds,
    max(receipt) AS receipt_max_seconds,
    count(score) AS rated,
    avg(score)::float8 AS score_mean
FROM tickets_of_day GROUP BY GROUPING SETS ((), (counter))
ORDER BY grouping(counter) DESC, counter
""")

_OF_A_COUNTER = (
    "finished", "no_show", "service_seconds", "service_mean_seconds", "rated", "score_mean",
)  # fmt: skip


async def figures(
    session: AsyncSession, unit: str, day: date, *, promise: timedelta, at: datetime
) -> dict[str, Any]:
    """Count a unit's day as it stands at an instant; a ticket that waits has waited until then."""
    rows = await session.execute(_COUNT, {"unit": unit, "day": day, "promise": promise, "at": at})
    whole, *groups = (dict(row) for row in rows.mappings())
    decided = whole["called"] + whole["uncalled_beyond_sla"]
    return {
        "unit": unit,
        "date": day,
        "as_of": at,
        "sla_seconds": int(promise.total_seconds()),
        "centre": whole | {"share_within_sla": whole["within_sla"] / decided if decided else None},
        "counters": [
            {"number": row["counter"]} | {name: row[name] for name in _OF_A_COUNTER}
            for row in groups
            if row["counter"] is not None
        ],
    }

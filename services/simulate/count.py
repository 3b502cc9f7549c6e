"""From the ledger to the figures of the weekly report. Pure functions.

Each figure is counted by the words of `services/reporting/forms.py` and shares no line with it, so
that one mistake cannot be on both sides. Rows have the shape of the report's JSON.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta
from typing import Any

from libs.common.worktime import business_day
from services.simulate.ledger import Dossier, Ledger, Ticket, seconds
from services.simulate.week import Week

Row = dict[str, Any]

SUBMITTED, REFUSED = 1, 3


def report(ledger: Ledger, week: Week, *, as_of: datetime, sla_seconds: int) -> Row:
    """Give the week as the report would show it at `as_of`: `city`, `units` and `fields` by name.

    Only units and fields with something to tell have a row; the others' would be `EMPTY`.
    """
    tickets = [t for t in ledger.tickets.values() if week.begins <= t.issued_at < week.ends]
    dossiers = [d for d in ledger.dossiers.values() if validly_received(d)]
    waits: dict[str, list[Ticket]] = defaultdict(list)
    for ticket in tickets:
        waits[ticket.unit].append(ticket)
    own, passed_on, of_field = _sorted_out(dossiers)

    def row(mine: Collection[Dossier], others: Collection[Dossier], came: Any) -> Row:
        queue = queue_figures(came, as_of, sla_seconds)
        return dossier_figures(mine, others, week, as_of) | {"queue": queue}

    elsewhere = [d for d in dossiers if d.receiving_unit != d.competent_unit]
    return {
        "city": row(dossiers, elsewhere, tickets),
        "units": {
            unit: row(own[unit], passed_on[unit], waits[unit])
            for unit in sorted({*own, *passed_on, *waits})
        },
        "fields": {
            name: row(found, [d for d in found if d.receiving_unit != d.competent_unit], None)
            for name, found in sorted(of_field.items())
        },
    }


def _sorted_out(
    dossiers: Iterable[Dossier],
) -> tuple[dict[str, list[Dossier]], dict[str, list[Dossier]], dict[str, list[Dossier]]]:
    """Sort dossiers by who decides them, by who received them for another, and by field."""
    own: dict[str, list[Dossier]] = defaultdict(list)
    passed_on: dict[str, list[Dossier]] = defaultdict(list)
    of_field: dict[str, list[Dossier]] = defaultdict(list)
    for dossier in dossiers:
        own[dossier.competent_unit].append(dossier)
        of_field[dossier.field].append(dossier)
        if dossier.receiving_unit != dossier.competent_unit:
            passed_on[dossier.receiving_unit].append(dossier)
    return own, passed_on, of_field


# Dossiers -------------------------------------------------------------------------------------


def validly_received(dossier: Dossier) -> bool:
    """Tell whether a dossier counts anywhere."""
    return dossier.received_at is not None and dossier.status not in (SUBMITTED, REFUSED)


def days_late(dossier: Dossier, on: date) -> int:
    """Give the days after the appointment's day; negative before it, 0 without appointment."""
    if dossier.supplement_requests > 1:
        return 1
    if dossier.appointment_at is None:
        return 0
    return (on - business_day(dossier.appointment_at)).days


def dossier_figures(
    own: Collection[Dossier], passed_on: Collection[Dossier], week: Week, as_of: datetime
) -> Row:
    """Count the dossiers a row is competent for, and those it received for another."""

    def within(at: datetime | None) -> bool:
        return at is not None and week.begins <= at < week.ends

    def before(at: datetime | None, limit: datetime) -> bool:
        return at is not None and at < limit

    came = [d for d in own if within(d.received_at)]
    carried = [
        d for d in own
        if before(d.received_at, week.begins) and not before(d.ended_at, week.begins)
    ]  # fmt: skip
    ended = [
        days_late(d, business_day(d.ended_at)) for d in own if within(d.ended_at) and d.ended_at
    ]
    today = business_day(min(as_of, week.ends))
    pending = [
        days_late(d, today) for d in own
        if before(d.received_at, week.ends) and not before(d.ended_at, week.ends)
    ]  # fmt: skip
    online = sum(d.channel == "online" for d in came)
    received = len(came) + len(carried)
    return {
        "received": {
            "total": received,
            "online": online,
            "direct": len(came) - online,
            "carried_over": len(carried),
        },
        "resolved": {
            "total": len(ended),
            "early": sum(days < 0 for days in ended),
            "on_time": sum(days == 0 for days in ended),
            "late": sum(days > 0 for days in ended),
        },
        "pending": {
            "total": len(pending),
            "in_time": sum(days <= 0 for days in pending),
            "overdue": sum(days > 0 for days in pending),
        },
        "returned": sum(within(d.returned_at) for d in own),
        "received_for_others": sum(within(d.received_at) for d in passed_on),
        "received_elsewhere": sum(d.receiving_unit != d.competent_unit for d in came),
        "boundary_independent": sum(d.boundary_independent for d in came),
        "digitisation": {
            "components": sum(d.components for d in came),
            "digitised": sum(d.digitised for d in came),
            "reused": sum(d.reused for d in came),
        },
        "identity_holds": received == len(ended) + len(pending),
    }


# Tickets --------------------------------------------------------------------------------------


def nearest_rank(ascending: list[float], percent: int) -> float | None:
    """Give the ceil(percent/100 x n)-th of n values; None of none. Whole numbers: no rounding."""
    if not ascending:
        return None
    return ascending[-(-percent * len(ascending) // 100) - 1]


def queue_figures(tickets: Collection[Ticket] | None, as_of: datetime, sla_seconds: int) -> Row:
    """Count the tickets of a row; None where a queue has no meaning."""
    if tickets is None:
        return dict.fromkeys(queue_figures((), as_of, sla_seconds))
    promise = timedelta(seconds=sla_seconds)
    called = [wait for ticket in tickets if (wait := ticket.wait) is not None]
    uncalled = [
        (ticket.ended_at or as_of) - ticket.issued_at for ticket in tickets if ticket.wait is None
    ]
    within = sum(wait <= promise for wait in called)
    beyond = sum(wait > promise for wait in uncalled)
    waits = sorted(map(seconds, called))
    return {
        "tickets": sum(ticket.transferred_from is None for ticket in tickets),
        "transferred_in": sum(ticket.transferred_from is not None for ticket in tickets),
        "called": len(called),
        "finished": sum(ticket.status == "finished" for ticket in tickets),
        "no_show": sum(ticket.status == "no_show" for ticket in tickets),
        "cancelled": sum(ticket.status == "cancelled" for ticket in tickets),
        "within_sla": within,
        "uncalled_beyond_sla": beyond,
        "wait_p50_seconds": nearest_rank(waits, 50),
        "wait_p95_seconds": nearest_rank(waits, 95),
        "wait_max_seconds": waits[-1] if waits else None,
        "share_within_sla": within / (len(called) + beyond) if called or beyond else None,
    }


def empty(week: Week, as_of: datetime) -> Row:
    """Give the row of a unit with nothing to tell."""
    return dossier_figures((), (), week, as_of) | {"queue": queue_figures((), as_of, 0)}

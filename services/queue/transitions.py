"""The steps of one ticket as single SQL statements, all of one shape.

The ticket's row is locked while its state is looked at, changed, announced and answered; what a
step needs beside (a counter that must not close meanwhile) is locked before it. See `statements`.
"""

from typing import Final

from services.queue.statements import ANSWER, ISSUED, NUMBER, TICKET, announce, keep

HELD: Final = "ticket.status IN ('called', 'serving')"

_MAY_MOVE: Final = f"""($2::text[] IS NULL OR ticket.unit = ANY ($2))
        AND ($4::int IS NULL OR ticket.counter = $4)
        AND ($10::bool OR NOT ({HELD}) OR ticket.officer IS NULL OR ticket.officer = $3::text)"""
"""Who is at a counter is moved by who called, by anybody where a manager called, or by a manager;
everybody else by anybody of the unit."""

AT: Final = "greatest($5::timestamptz, t.issued_at, t.called_at, t.started_at, t.ended_at)"
"""No step is told before an instant of the ticket's own, also where a clock was set back."""

SITTING: Final = (
    "'counter', t.held_at, 'service_seconds', coalesce(extract(epoch FROM "
    "greatest($5::timestamptz, t.sat_since) - t.sat_since), 0)"
)
"""At which counter the person was, and how long since `start`; nowhere: null and 0."""

_THE_TICKET: Final = "ticket.id = $1"

_WAS: Final = f"""SELECT ticket.id, ticket.status AS was_status,
        CASE WHEN ticket.status = 'serving' THEN ticket.started_at END AS sat_since,
        CASE WHEN {HELD} THEN ticket.counter END AS held_at,
        ticket.first_called_at IS NULL AS first_call
    FROM tickets AS ticket"""


def transition(
    event: str,
    *,
    when: str,
    changes: str,
    body: str,
    desk: str = "",
    which: str = _THE_TICKET,
    at: str = AT,
) -> str:
    """Write the statement that moves one ticket.

    `when` says from which state, of `ticket` (and `desk`, the counter that is locked first);
    `changes` what it becomes. `body`, of the changed row `t`, may use what the ticket was before:
    `was_status`, `held_at` (its counter, if at one), `sat_since` and `first_call`.

    Parameters: id, units of the caller (null: any), subject of the caller, counter (null: any),
    now, event id, traceparent, key digest, key fingerprint, whether the caller may move what
    others hold; then those of the step.
    """
    lock_desk = f"desk AS ({desk} FOR SHARE\n), " if desk else ""
    announced = announce(event, "moved", body, at=at, event_id="$6::uuid", trace="$7")
    return f"""
WITH {lock_desk}was AS (
    {_WAS}{", desk" if desk else ""}
    WHERE {which} AND ({when}) AND {_MAY_MOVE}
    FOR UPDATE OF ticket
), moved AS (
    UPDATE tickets AS ticket SET {changes}, version = ticket.version + 1
    FROM was WHERE ticket.id = was.id
    RETURNING ticket.*, was.was_status, was.sat_since, was.held_at, was.first_call
), announced AS ({announced}
), answer AS (SELECT {TICKET} AS body FROM moved AS t
), kept AS ({keep("$8::bytea", "$9::bytea", 200)}
)
SELECT body::text, unit, extract(epoch FROM called_at - issued_at)::float8 AS wait, first_call
FROM answer, moved
"""


def desk_of_ticket(number: str, state: str) -> str:
    """Write the look at a counter of the ticket's unit; a ticket's unit never changes."""
    return f"""
    SELECT number, state FROM counters WHERE number = {number} AND state {state}
        AND unit = (SELECT unit FROM tickets WHERE id = $1)"""


SEND_AWAY: Final = f"""
WITH was AS (
    {_WAS}
    WHERE {_THE_TICKET} AND ticket.status IN ('waiting', 'called', 'serving', 'parked')
        AND ticket.unit <> $12 AND {_MAY_MOVE}
    FOR UPDATE OF ticket
), moved AS (
    UPDATE tickets AS ticket
    SET status = 'transferred', transferred_to = $11, for_counter = NULL,
        ended_at = greatest($5::timestamptz, issued_at, called_at, started_at),
        version = ticket.version + 1
    FROM was WHERE ticket.id = was.id RETURNING ticket.*, was.sat_since, was.held_at
), numbered AS (
    INSERT INTO ticket_numbers AS n (unit, series, business_day, last)
    SELECT $12, coalesce($13, series), $14::date, 1 FROM moved
    ON CONFLICT (unit, series, business_day) DO UPDATE SET last = n.last + 1
    RETURNING n.series, n.last
), issued AS (
    INSERT INTO tickets (id, version, unit, series, business_day, sequence, number, status,
        priority_class, channel, procedure_codes, dossier_code, issued_at, due_at,
        transferred_from)
    SELECT $11, 1, $12, n.series, $14::date, n.last,
        {NUMBER.format(series="n.series", sequence="n.last")}, 'waiting',
        priority_class, channel, procedure_codes, dossier_code, issued_at, due_at, id
    FROM moved, numbered AS n RETURNING *
), sent AS ({
    announce(
        "TicketTransferred",
        "moved",
        f"{SITTING}, 'to_unit', $12, 'linked_ticket', t.transferred_to",
        at=AT,
        event_id="$6::uuid",
        trace="$7",
    )
}
), received AS ({
    announce(
        "TicketIssued",
        "issued",
        ISSUED,
        at="t.issued_at",
        time="greatest($5::timestamptz, t.issued_at)",
        event_id="$15::uuid",
        trace="$7",
    )
}
), answer AS (
    SELECT {
    ANSWER.format(more=f", 'linked_ticket', (SELECT {TICKET} FROM issued AS t)")
} AS body FROM moved AS t
), kept AS ({keep("$8::bytea", "$9::bytea", 200)}
)
SELECT body::text FROM answer
"""
"""Ends a ticket and issues the one that continues it in another unit, with the same arrival and
turn. Parameters: those of a transition, then the new ticket's id, unit, series (null: the same),
business day, and the id of its event."""

PRINTED: Final = f"""
WITH printed AS (
    UPDATE tickets SET printed_at = coalesce(printed_at, $3::timestamptz)
    WHERE id = $1 AND unit = ANY ($2::text[]) AND status <> 'cancelled' RETURNING *
), answer AS (SELECT {TICKET} AS body FROM printed AS t
), kept AS ({keep("$4::bytea", "$5::bytea", 200)}
)
SELECT body::text FROM answer
"""
"""Notes that a slip came out: nothing of the ticket's life changes, so nothing is announced.
Parameters: id, units of the caller, now, key digest, key fingerprint."""

_ELSEWHERE = """(SELECT ARRAY[number, counter::text, unit]
        FROM tickets AS held WHERE held.officer = {officer} AND held.id <> ticket.id
            AND held.status IN ('called', 'serving'))"""

WHY_NOT: Final = f"""
SELECT ticket.unit, ticket.number, ticket.status, ticket.counter, ticket.officer,
    ticket.called_at, ticket.ended_at, ticket.due_at, ticket.cancel_cause,
    desk.number AS desk, desk.state AS desk_state,
    here.number AS held_here, here.status AS held_status,
    {_ELSEWHERE.format(officer="$3::text")} AS held_by_caller,
    {_ELSEWHERE.format(officer="ticket.officer")} AS held_by_officer,
    $4::text IS NULL OR EXISTS (SELECT FROM counters AS calling WHERE calling.unit = ticket.unit
        AND (calling.series = '{{}}' OR $4 = ANY (calling.series))) AS series_served
FROM tickets AS ticket
    LEFT JOIN counters AS desk ON desk.unit = ticket.unit
        AND desk.number = coalesce($2::int, ticket.counter)
    LEFT JOIN tickets AS here ON here.unit = desk.unit AND here.counter = desk.number
        AND here.status IN ('called', 'serving') AND here.id <> ticket.id
WHERE ticket.id = $1
"""
"""Asked when a ticket did not move. Parameters: id, counter it was to go to (null: its own),
subject of the caller, series it was to go to (null: none)."""

"""Appointments as single SQL statements, written by the rules of `statements`.

A place in a slot is taken by raising its row's count while that is below the capacity: the row is
locked by then and read anew, so of two that want the last place one finds it gone.
"""

from services.queue.statements import keep

APPOINTMENT = """json_build_object(
    'id', a.id, 'code', a.code, 'unit', a.unit, 'status', a.status, 'starts_at', a.starts_at,
    'ends_at', a.ends_at, 'check_in_from', a.check_in_from, 'check_in_until', a.check_in_until,
    'series', a.series, 'channel', a.channel, 'procedure_codes', a.procedure_codes,
    'booked_at', a.booked_at, 'ended_at', a.ended_at, 'ticket_id', a.ticket_id,
    'version', a.version)"""
"""An appointment as its holder and its centre are answered."""


def _announce(type_: str, source: str, at: str, event_id: str, trace: str, more: str = "") -> str:
    """Write the CTE that puts one event per row of `source` into the outbox."""
    return f"""
INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
SELECT {event_id}, 'queue.appointments.v1', a.unit, '{type_}', {at}, {trace},
    convert_to(json_build_object('appointment_id', a.id, 'unit', a.unit, 'version', a.version,
        'starts_at', a.starts_at, 'at', {at}{more})::text, 'UTF8')
FROM {source} AS a"""


_BOOKED = _announce(
    "AppointmentBooked",
    "booked",
    "a.booked_at",
    "$14::uuid",
    "$15",
    ", 'channel', a.channel, 'procedure_codes', a.procedure_codes",
)

BOOK = f"""
WITH beside AS (
    SELECT coalesce(sum(booked), 0) AS people FROM appointment_slots
    WHERE unit = $2 AND starts_at <> $3 AND starts_at < $4 AND ends_at > $3
), place AS (
    INSERT INTO appointment_slots AS slot (unit, starts_at, ends_at, capacity, booked)
    SELECT $2, $3, $4, $5, 1 FROM beside WHERE people < $6
    ON CONFLICT (unit, starts_at) DO UPDATE
        SET booked = slot.booked + 1, capacity = excluded.capacity,
            ends_at = greatest(slot.ends_at, excluded.ends_at)
        WHERE slot.booked + (SELECT people FROM beside) < $6
    RETURNING unit
), booked AS (
    INSERT INTO appointments (id, version, unit, code, status, starts_at, ends_at, check_in_from,
        check_in_until, series, channel, procedure_codes, booked_at)
    SELECT $1, 1, unit, $7, 'booked', $3, $4, $8, $9, $10, $11, $12::text[], $13
    FROM place RETURNING *
), announced AS ({_BOOKED}
), answer AS (SELECT {APPOINTMENT} AS body FROM booked AS a
), kept AS ({keep("$16::bytea", "$17::bytea", 201)}
)
SELECT body::text FROM answer
"""
"""Parameters: id, unit, start, end, capacity, how many of it this caller may fill, code, check-in
from and until, series, channel, procedures, now, event id, traceparent, key digest, key
fingerprint. Nothing comes back when the slot is full.

`beside` counts those whom the centre promised a time that overlaps this one, while its slots had
other lengths or its hours were others. Nobody books these any more, so a look without locks
counts enough."""

CANCEL = f"""
WITH cancelled AS (
    UPDATE appointments AS a SET status = 'cancelled', ended_at = $3, version = version + 1
    WHERE id = $1 AND status = 'booked' AND check_in_until >= $3
        AND ($2::text[] IS NULL OR unit = ANY ($2))
    RETURNING a.*
), freed AS (
    UPDATE appointment_slots AS slot SET booked = booked - 1
    FROM cancelled AS a WHERE slot.unit = a.unit AND slot.starts_at = a.starts_at
), announced AS ({_announce("AppointmentCancelled", "cancelled", "a.ended_at", "$4::uuid", "$5")}
), answer AS (SELECT {APPOINTMENT} AS body FROM cancelled AS a
), kept AS ({keep("$6::bytea", "$7::bytea", 200)}
)
SELECT body::text FROM answer
"""
"""Parameters: id, units of the caller (null: any), now, event id, traceparent, key digest, key
fingerprint."""

CHECKED_IN = f"""
WITH checked_in AS (
    UPDATE appointments AS a
    SET status = 'checked_in', ticket_id = $2, ended_at = $3, version = version + 1
    WHERE id = $1 RETURNING a.*
)
{
    _announce(
        "AppointmentCheckedIn",
        "checked_in",
        "a.ended_at",
        "$4::uuid",
        "$5",
        ", 'ticket_id', a.ticket_id",
    )
}
"""
"""Parameters: id (its row is locked), id of the ticket, now, event id, traceparent."""

MISS = f"""
WITH alone AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(hashtextextended('missed-appointments', 0)) AS mine
), over AS (
    SELECT open.id FROM appointments AS open, alone
    WHERE alone.mine AND open.status = 'booked' AND open.check_in_until < $1
    ORDER BY open.check_in_until LIMIT 500 FOR UPDATE OF open SKIP LOCKED
), missed AS (
    UPDATE appointments AS a SET status = 'missed', ended_at = check_in_until, version = version + 1
    FROM over WHERE a.id = over.id RETURNING a.*
), freed AS (
    UPDATE appointment_slots AS slot SET booked = slot.booked - gone.people
    FROM (SELECT unit, starts_at, count(*) AS people FROM missed GROUP BY unit, starts_at) AS gone
    WHERE slot.unit = gone.unit AND slot.starts_at = gone.starts_at
), announced AS ({_announce("AppointmentMissed", "missed", "a.ended_at", "gen_random_uuid()", "$2")}
)
SELECT count(*) FROM missed
"""
"""Parameters: now, traceparent. One replica does it at a time: two would lock the same slots in
different orders."""

SHOW = """
SELECT a.id, a.code, a.unit, a.starts_at, a.ends_at, a.check_in_from, a.check_in_until, a.series,
    a.channel, a.procedure_codes, a.booked_at, a.ended_at, a.ticket_id, a.version,
    CASE WHEN a.status = 'booked' AND a.check_in_until < $1 THEN 'missed' ELSE a.status END
        AS status, t.number AS ticket_number, t.status AS ticket_status
FROM appointments AS a LEFT JOIN tickets AS t ON t.id = a.ticket_id
"""
"""Parameters: now, and those of the WHERE that follows.

Whoever is late is late at once, also before somebody has written that down."""

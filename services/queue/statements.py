"""The hot paths as single SQL statements.

Each numbers or moves a ticket, writes the event to the outbox and keeps the answer for the
idempotency key, in one autocommit round trip. The key's row goes in last: if it is there already
the violation undoes the whole statement, so no number is spent and nobody is called. An empty
result never says why; `domain` asks with a second statement.

Times come in as parameters. `json_build_object` writes instants with the session's offset.
"""

ANSWER = """json_build_object(
    'id', t.id, 'number', t.number, 'unit', t.unit, 'series', t.series, 'status', t.status,
    'priority_class', t.priority_class, 'channel', t.channel,
    'procedure_codes', t.procedure_codes, 'dossier_code', t.dossier_code,
    'business_day', t.business_day, 'issued_at', t.issued_at, 'due_at', t.due_at,
    'counter', t.counter, 'called_at', t.called_at,
    'wait_seconds', extract(epoch FROM t.first_called_at - t.issued_at),
    'started_at', t.started_at, 'ended_at', t.ended_at, 'version', t.version{more})"""
"""A ticket as its holder, kiosk or counter is answered; nothing personal and no officer in it."""

TICKET = ANSWER.format(more="")

_EVENT_HEAD = """'ticket_id', t.id, 'unit', t.unit, 'version', t.version, 'number', t.number,
    'shown', json_build_object('status', t.status, 'counter', t.counter,
        'issued_at', t.issued_at, 'due_at', t.due_at, 'called_at', t.called_at)"""


def _announce(type_: str, source: str, body: str, at: str, event_id: str, trace: str) -> str:
    """Write the CTE that puts one event per row of `source` into the outbox."""
    return f"""
INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
SELECT {event_id}, 'queue.tickets.v1', t.unit, '{type_}', {at}, {trace},
    convert_to(json_build_object({_EVENT_HEAD}, 'at', {at}, {body})::text, 'UTF8')
FROM {source} AS t"""


_KEEP = """
INSERT INTO idempotency_keys (digest, fingerprint, status, answer)
SELECT {digest}, {fingerprint}, {status}, body::text FROM answer WHERE {digest} IS NOT NULL"""

_ISSUED = _announce(
    "TicketIssued",
    "issued",
    "'series', t.series, 'business_day', t.business_day, 'priority_class', t.priority_class, "
    "'channel', t.channel, 'due_at', t.due_at, 'procedure_codes', t.procedure_codes",
    "t.issued_at",
    "$12::uuid",
    "$13",
)

ISSUE = f"""
WITH numbered AS (
    INSERT INTO ticket_numbers AS n (unit, series, business_day, last) VALUES ($2, $3, $4, 1)
    ON CONFLICT (unit, series, business_day) DO UPDATE SET last = n.last + 1 RETURNING last
), issued AS (
    INSERT INTO tickets (id, version, unit, series, business_day, sequence, number, status,
        priority_class, channel, procedure_codes, dossier_code, issued_at, due_at)
    SELECT $1, 1, $2, $3, $4, last, $3 || lpad(last::text, greatest(3, length(last::text)), '0'),
        'waiting', $5, $6, $7::text[], $8, $9::timestamptz, $10::timestamptz
    FROM numbered RETURNING *
), ahead AS (
    SELECT count(*) AS people FROM (
        SELECT FROM tickets WHERE unit = $2 AND status = 'waiting'
            AND due_at >= $16 AND due_at <= $10 LIMIT 1000) AS counted
), announced AS ({_ISSUED}
), answer AS (
    SELECT {
    ANSWER.format(
        more='''
        , 'position', CASE WHEN ahead.people < 999 THEN ahead.people + 1 END,
        'forecast_wait_seconds', $11::int'''
    )
} AS body
    FROM issued AS t, ahead
), kept AS ({_KEEP.format(digest="$14::bytea", fingerprint="$15::bytea", status=201)}
)
SELECT body::text FROM answer
"""
"""Parameters: id, unit, series, business day, class, channel, procedures, dossier, issued at,
due at, forecast, event id, traceparent, key digest, key fingerprint, oldest callable arrival."""

_CALLED = _announce(
    "TicketCalled",
    "called",
    "'counter', t.counter, 'wait_seconds', extract(epoch FROM t.called_at - t.issued_at), "
    "'first_call', t.first_called_at = t.called_at",
    "t.called_at",
    "$5::uuid",
    "$6",
)

CALL_NEXT = f"""
WITH desk AS (
    SELECT series FROM counters WHERE unit = $1 AND number = $2 AND state = 'open' FOR SHARE
), next AS (
    SELECT waiting.id FROM tickets AS waiting, desk
    WHERE waiting.unit = $1 AND waiting.status = 'waiting' AND waiting.due_at >= $9
        AND (desk.series = '{{}}' OR waiting.series = ANY (desk.series))
    ORDER BY waiting.due_at, waiting.issued_at, waiting.id
    LIMIT 1 FOR UPDATE OF waiting SKIP LOCKED
), called AS (
    UPDATE tickets AS ticket
    SET status = 'called', counter = $2, officer = $3, called_at = greatest($4, issued_at),
        first_called_at = coalesce(first_called_at, greatest($4, issued_at)),
        version = version + 1
    FROM next WHERE ticket.id = next.id RETURNING ticket.*
), announced AS ({_CALLED}
), answer AS (SELECT {TICKET} AS body FROM called AS t
), kept AS ({_KEEP.format(digest="$7::bytea", fingerprint="$8::bytea", status=200)}
)
SELECT body::text, extract(epoch FROM called_at - issued_at)::float8 AS wait,
    called_at = first_called_at AS first_call
FROM answer, called
"""
"""Parameters: unit, counter, officer, now, event id, traceparent, key digest, key fingerprint,
oldest callable arrival.

The counter's row is held so that it is not closed between the look at its state and the call. A
caller may have looked at its clock before the ticket that it takes was issued: nobody is called
before arriving."""

WHY_NOBODY = """
SELECT desk.state, held.number AS held_here, held.status AS held_status,
    (SELECT number || ' at counter ' || counter || ' of ' || unit FROM tickets WHERE officer = $3
        AND status IN ('called', 'serving')) AS held_by_officer,
    EXISTS (SELECT FROM tickets WHERE unit = $1 AND status = 'waiting' AND due_at >= $4
        AND (desk.series = '{}' OR series = ANY (desk.series))) AS somebody_waits
FROM counters AS desk
    LEFT JOIN tickets AS held ON held.unit = desk.unit AND held.counter = desk.number
        AND held.status IN ('called', 'serving')
WHERE desk.unit = $1 AND desk.number = $2
"""
"""Asked when nobody was called. Parameters: unit, counter, officer, oldest callable arrival."""


def transition(type_: str, *, changes: str, allowed: tuple[str, ...], body: str) -> str:
    """Write the statement that moves one ticket.

    Parameters: id, units of the caller (null: any), officer (null: any), counter (null: any), now,
    event id, traceparent, key digest, key fingerprint.
    """
    states = ", ".join(f"'{state}'" for state in allowed)
    announce = _announce(type_, "moved", body, "$5::timestamptz", "$6::uuid", "$7")
    return f"""
WITH moved AS (
    UPDATE tickets AS ticket SET {changes}, version = version + 1
    WHERE id = $1 AND status IN ({states})
        AND ($2::text[] IS NULL OR unit = ANY ($2)) AND ($3::text IS NULL OR officer = $3)
        AND ($4::int IS NULL OR counter = $4)
    RETURNING ticket.*
), announced AS ({announce}
), answer AS (SELECT {TICKET} AS body FROM moved AS t
), kept AS ({_KEEP.format(digest="$8::bytea", fingerprint="$9::bytea", status=200)}
)
SELECT body::text FROM answer
"""


SHOW = f"""
SELECT {
    ANSWER.format(
        more='''
        , 'position', CASE WHEN t.status = 'waiting' AND t.due_at >= $2 THEN (
            SELECT CASE WHEN count(*) < 999 THEN count(*) + 1 END FROM (
                SELECT FROM tickets AS other WHERE other.unit = t.unit
                    AND other.status = 'waiting' AND other.due_at >= $2
                    AND (other.due_at, other.issued_at, other.id) < (t.due_at, t.issued_at, t.id)
                LIMIT 999) AS counted) END,
        'forecast_wait_seconds',
            CASE WHEN t.status = 'waiting' AND t.due_at >= $2 THEN $3::int END'''
    )
}::text AS body
FROM tickets AS t WHERE t.id = $1
"""
"""Parameters: id, oldest callable arrival, forecast."""

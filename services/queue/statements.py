"""The hot paths as single SQL statements: a ticket issued, the next one called, one shown.

Each numbers or moves a ticket, writes the event to the outbox and keeps the answer for the
idempotency key, in one autocommit round trip. The key's row goes in last: if it is there already
the violation undoes the whole statement, so no number is spent and nobody is called. An empty
result never says why; `domain` asks with a second statement.

Locks are taken in one order, here and in `transitions`: a counter, a ticket, a series' number, the
key. Times come in as parameters. `json_build_object` writes instants with the session's offset.
"""

ANSWER = """json_build_object(
    'id', t.id, 'number', t.number, 'unit', t.unit, 'series', t.series, 'status', t.status,
    'priority_class', t.priority_class, 'channel', t.channel,
    'procedure_codes', t.procedure_codes, 'dossier_code', t.dossier_code,
    'business_day', t.business_day, 'issued_at', t.issued_at, 'due_at', t.due_at,
    'counter', t.counter, 'called_at', t.called_at,
    'wait_seconds', extract(epoch FROM t.first_called_at - t.issued_at),
    'started_at', t.started_at, 'ended_at', t.ended_at,
    'for_counter', t.for_counter, 'printed_at', t.printed_at, 'reissues', t.reissues,
    'cancel_cause', t.cancel_cause,
    'transferred_from', t.transferred_from, 'transferred_to', t.transferred_to,
    'version', t.version{more})"""
"""A ticket as its holder, kiosk or counter is answered; nothing personal and no officer in it."""

TICKET = ANSWER.format(more="")

_EVENT_HEAD = """'ticket_id', t.id, 'unit', t.unit, 'version', t.version, 'number', t.number,
        'series', t.series, 'issued_at', t.issued_at, 'due_at', t.due_at"""


def announce(
    type_: str, source: str, body: str, *, at: str, event_id: str, trace: str, time: str = ""
) -> str:
    """Write the CTE that puts one event per row of `source` into the outbox.

    `at` is the business instant in the body, `time` that of the announcement where it is later.
    """
    return f"""
INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
SELECT {event_id}, 'queue.tickets.v1', t.unit, '{type_}', {time or at}, {trace},
    convert_to(json_build_object({_EVENT_HEAD}, 'at', {at}, {body})::text, 'UTF8')
FROM {source} AS t"""


def keep(digest: str, fingerprint: str, status: int) -> str:
    """Write the CTE that keeps the answer for the key, if there is one."""
    return f"""
INSERT INTO idempotency_keys (digest, fingerprint, status, answer)
SELECT {digest}, {fingerprint}, {status}, body::text FROM answer WHERE {digest} IS NOT NULL"""


ISSUED = (
    "'business_day', t.business_day, 'priority_class', t.priority_class, "
    "'channel', t.channel, 'procedure_codes', t.procedure_codes, "
    "'transferred_from', t.transferred_from"
)
"""What a `TicketIssued` tells beside the head."""

NUMBER = "{series} || lpad({sequence}::text, greatest(3, length({sequence}::text)), '0')"
"""A042, and A1000 after A999."""

_RIVALS = """
    SELECT number, series FROM counters WHERE unit = {unit} AND state <> 'closed'
        AND CASE WHEN {for_counter} IS NULL THEN series = '{{}}' OR {series} = ANY (series)
            ELSE number = {for_counter} END"""
_IS_A_RIVAL = """(NOT EXISTS (SELECT FROM rivals) OR EXISTS (
            SELECT FROM rivals AS desk WHERE CASE WHEN other.for_counter IS NULL
                THEN desk.series = '{}' OR other.series = ANY (desk.series)
                ELSE desk.number = other.for_counter END))"""
"""Ahead of a ticket is who is due earlier and may be called by a counter that may call it; where
no counter does so now, everybody who is due earlier."""

_FORETOLD = """'forecast_wait_seconds', foretold.wait[1],
        'forecast_low_seconds', foretold.wait[2], 'forecast_high_seconds', foretold.wait[3]"""

_WAIT = """SELECT ARRAY[waits[place][1], waits[place][2], waits[place][3]] AS wait
    FROM (SELECT {waits}::int[] AS waits) AS told, ahead, LATERAL (
        SELECT least(ahead.people + 1, array_length(waits, 1)) AS place) AS here
    WHERE ahead.people IS NOT NULL"""
"""The wait foretold for a place in the line and its bounds, from the waits by people ahead."""

ISSUE = f"""
WITH numbered AS (
    INSERT INTO ticket_numbers AS n (unit, series, business_day, last) VALUES ($2, $3, $4, 1)
    ON CONFLICT (unit, series, business_day) DO UPDATE SET last = n.last + 1 RETURNING last
), issued AS (
    INSERT INTO tickets (id, version, unit, series, business_day, sequence, number, status,
        priority_class, channel, procedure_codes, dossier_code, issued_at, due_at)
    SELECT $1, 1, $2, $3, $4, last, {NUMBER.format(series="$3", sequence="last")},
        'waiting', $5, $6, $7::text[], $8, $9::timestamptz, $10::timestamptz
    FROM numbered RETURNING *
), rivals AS MATERIALIZED ({_RIVALS.format(unit="$2", series="$3", for_counter="NULL::int")}
), ahead AS (
    SELECT count(*) AS people FROM (
        SELECT FROM tickets AS other WHERE unit = $2 AND status = 'waiting'
            AND due_at >= $16 AND due_at <= $10 AND {_IS_A_RIVAL} LIMIT 1000) AS counted
), foretold AS ({_WAIT.format(waits="$11")}
), announced AS ({
    announce("TicketIssued", "issued", ISSUED, at="t.issued_at", event_id="$12::uuid", trace="$13")
}
), answer AS (
    SELECT {
    ANSWER.format(
        more=f'''
        , 'position', CASE WHEN ahead.people < 999 THEN ahead.people + 1 END,
        {_FORETOLD}'''
    )
} AS body
    FROM issued AS t, ahead, foretold
), kept AS ({keep("$14::bytea", "$15::bytea", 201)}
)
SELECT body::text FROM answer
"""
"""Parameters: id, unit, series, business day, class, channel, procedures, dossier, issued at,
due at, waits by people ahead (seconds, low, high; null), event id, traceparent, key digest, key
fingerprint, oldest callable arrival."""

CALL = (
    "'counter', t.counter, 'wait_seconds', extract(epoch FROM t.called_at - t.issued_at), "
    "'first_call', t.first_call"
)
"""What a `TicketCalled` tells beside the head."""

CALLED_AT = "greatest({now}::timestamptz, ticket.issued_at, ticket.called_at)"
"""A caller may have looked at its clock before the ticket that it takes was issued, and a clock may
be set back: nobody is called before arriving, nor again before the last time."""

IN_THE_LINE = """status = 'waiting' AND due_at >= {oldest} AND CASE WHEN for_counter IS NULL
        THEN desk.series = '{{}}' OR waiting.series = ANY (desk.series)
        ELSE for_counter = {counter} END"""
"""Whom a counter may call."""

CALL_NEXT = f"""
WITH desk AS (
    SELECT series FROM counters WHERE unit = $1 AND number = $2 AND state = 'open' FOR SHARE
), next AS (
    SELECT waiting.id, waiting.first_called_at IS NULL AS first_call
    FROM tickets AS waiting, desk
    WHERE waiting.unit = $1 AND {IN_THE_LINE.format(oldest="$9", counter="$2")}
    ORDER BY waiting.due_at, waiting.issued_at, waiting.id
    LIMIT 1 FOR UPDATE OF waiting SKIP LOCKED
), called AS (
    UPDATE tickets AS ticket
    SET status = 'called', counter = $2, officer = $3, for_counter = NULL, started_at = NULL,
        called_at = {CALLED_AT.format(now="$4")},
        first_called_at = coalesce(first_called_at, {CALLED_AT.format(now="$4")}),
        version = version + 1
    FROM next WHERE ticket.id = next.id RETURNING ticket.*, next.first_call
), announced AS ({
    announce("TicketCalled", "called", CALL, at="t.called_at", event_id="$5::uuid", trace="$6")
}
), answer AS (SELECT {TICKET} AS body FROM called AS t
), kept AS ({keep("$7::bytea", "$8::bytea", 200)}
)
SELECT body::text, extract(epoch FROM called_at - issued_at)::float8 AS wait, first_call
FROM answer, called
"""
"""Parameters: unit, counter, officer, now, event id, traceparent, key digest, key fingerprint,
oldest callable arrival.

The counter's row is held so that it is not closed between the look at its state and the call.
"""

WHY_NOBODY = f"""
SELECT desk.state, held.number AS held_here, held.status AS held_status,
    (SELECT ARRAY[number, counter::text, unit] FROM tickets WHERE officer = $3
        AND status IN ('called', 'serving')) AS held_by_officer,
    EXISTS (SELECT FROM tickets AS waiting
        WHERE unit = $1 AND {IN_THE_LINE.format(oldest="$4", counter="$2")}) AS somebody_waits
FROM counters AS desk
    LEFT JOIN tickets AS held ON held.unit = desk.unit AND held.counter = desk.number
        AND held.status IN ('called', 'serving')
WHERE desk.unit = $1 AND desk.number = $2
"""
"""Asked when nobody was called. Parameters: unit, counter, officer, oldest callable arrival."""

SHOW = f"""
WITH t AS (SELECT * FROM tickets WHERE id = $1
), rivals AS MATERIALIZED (SELECT desk.* FROM t, LATERAL ({
    _RIVALS.format(unit="t.unit", series="t.series", for_counter="t.for_counter")
}) AS desk
), ahead AS (
    SELECT (SELECT count(*) FROM (
        SELECT FROM tickets AS other WHERE other.unit = t.unit
            AND other.status = 'waiting' AND other.due_at >= $2
            AND (other.due_at, other.issued_at, other.id) < (t.due_at, t.issued_at, t.id)
            AND {_IS_A_RIVAL} LIMIT 999) AS counted) AS people
    FROM t WHERE t.status = 'waiting' AND t.due_at >= $2
), foretold AS ({_WAIT.format(waits="$3")}
)
SELECT {
    ANSWER.format(
        more=f'''
        , 'position', CASE WHEN ahead.people < 999 THEN ahead.people + 1 END,
        {_FORETOLD},
        'receipt_seconds', (SELECT extract(epoch FROM printed_at - t.issued_at)
            FROM receipts WHERE ticket_id = t.id),
        'score', (SELECT score FROM ratings WHERE ticket_id = t.id)'''
    )
}::text AS body
FROM t LEFT JOIN ahead ON true LEFT JOIN foretold ON true
"""
"""Parameters: id, oldest callable arrival, waits by people ahead (seconds, low, high; null)."""

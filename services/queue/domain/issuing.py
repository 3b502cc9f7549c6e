"""Issuing tickets: the next number of a series, where somebody will be served."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid4

import asyncpg

from libs.common import fast_json
from libs.common.idempotency import Key, replay_if_answered
from libs.common.problems import Unavailable, malformed_field
from libs.common.trace import current_traceparent
from libs.common.worktime import business_day, is_open, next_opening, periods
from libs.contracts.directory import Directory, UnknownProcedure
from services.queue import policy, statements, transitions
from services.queue.domain import moves
from services.queue.domain.moves import Asked
from services.queue.domain.refusals import NoTimeLeft, ProcedureNotOffered, closed_until
from services.queue.words import say


class Wish(Protocol):
    """What somebody asks for when taking a ticket; see `api.tickets.TicketIn`."""

    @property
    def series(self) -> str: ...
    @property
    def priority_class(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def procedure_codes(self) -> list[str]: ...
    @property
    def dossier_code(self) -> str | None: ...


async def issue(
    pool: asyncpg.Pool,
    unit: str,
    wish: Wish,
    *,
    now: datetime,
    promise: policy.Promise,
    waits: list[list[int]] | None,
    key: Key | None,
) -> str:
    """Give the next number of the unit's series for today; answer the ticket as JSON.

    Raises:
        Replay: the key was answered before. Malformed: it came before with another body.
    """
    try:
        row = await pool.fetchrow(
            statements.ISSUE,
            uuid4(),
            unit,
            wish.series,
            business_day(now),
            wish.priority_class,
            wish.channel,
            wish.procedure_codes,
            wish.dossier_code,
            now,
            promise.due_at(now, wish.priority_class),
            waits,
            uuid4(),
            current_traceparent(),
            key.digest if key else None,
            key.fingerprint if key else None,
            policy.oldest_now(now),
        )
    except asyncpg.UniqueViolationError:
        await replay_if_answered(pool, key)
        raise
    return str(row["body"])


async def note_print(pool: asyncpg.Pool, ticket_id: UUID, asked: Asked) -> str:
    """Note that a slip came out, the first time; answer the ticket as JSON.

    Raises:
        Replay, UnknownTicket, NotYourUnit. NotAllowedNow: the ticket was cancelled.
    """
    row = None
    with suppress(asyncpg.UniqueViolationError):
        row = await pool.fetchrow(
            transitions.PRINTED,
            ticket_id,
            asked.units,
            asked.now,
            asked.key.digest if asked.key else None,
            asked.key.fingerprint if asked.key else None,
        )
    if row is not None:
        return str(row["body"])
    await moves.refuse(pool, ticket_id, moves.PRINT_FAILED, asked)
    raise Unavailable(say("the ticket is changed by others; try again"))


def check_issue(
    directory: Directory, unit: str, procedure_codes: Sequence[str], now: datetime
) -> None:
    """Refuse a ticket where nobody would be served.

    Raises:
        UnitNotActive: the unit keeps no centre. Malformed: a procedure is unknown.
        ProcedureNotOffered. CentreClosed: with the next opening.
    """
    directory.centre(unit)
    for place, code in enumerate(procedure_codes):
        try:
            offered = directory.offers(unit, code, now)
        except UnknownProcedure as unknown:
            raise malformed_field(f"procedure_codes.{place}", unknown.detail) from None
        if not offered:
            raise ProcedureNotOffered(
                say("{unit} does not receive dossiers of {code}", unit=unit, code=code)
            )
    hours = directory.hours(unit)
    if not is_open(now, hours, directory.calendar):
        opens = next_opening(now, hours, directory.calendar)
        raise closed_until(opens, unit)


def check_time_left(
    directory: Directory,
    unit: str,
    now: datetime,
    *,
    forecast: int | None,
    margin: timedelta | None,
) -> None:
    """Refuse a ticket whose turn is not expected before the centre closes for the day.

    A ticket survives a break, which the forecast has in it. Without a margin, or while nobody can
    tell how long the wait is, everybody gets one.

    Raises:
        NoTimeLeft: with the next opening.
    """
    if margin is None or forecast is None:
        return
    hours, calendar = directory.hours(unit), directory.calendar
    today = periods(business_day(now), hours, calendar)
    closes = today[-1][1] if today else now
    turn = now + timedelta(seconds=forecast)
    if is_open(closes, hours, calendar) or turn + margin <= closes:
        return
    opens = next_opening(closes, hours, calendar)
    full = say("{unit} closes at {closes} and has people for that long", unit=unit, closes=closes)
    if opens is None:
        raise NoTimeLeft(full, next_opening=None)
    raise NoTimeLeft(
        say("{full}: come again at {opens}", full=full, opens=opens),
        next_opening=fast_json.instant(opens),
    )

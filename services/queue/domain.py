"""What may happen to tickets and counters, and what is refused and why."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import fast_json
from libs.common.auth import Principal
from libs.common.idempotency import Key, Replay, check_same_request
from libs.common.problems import Conflict, Forbidden, NotFound, Unavailable, malformed_field
from libs.common.trace import current_traceparent
from libs.common.worktime import ZONE, business_day, is_open, next_opening
from libs.contracts.directory import Directory, UnknownProcedure
from libs.contracts.roles import Role
from services.queue import policy, statements
from services.queue.models import Counter, Ticket

if TYPE_CHECKING:
    from services.queue.api import TicketIn


class CentreClosed(Conflict):
    """The centre takes nobody now."""


class ProcedureNotOffered(Conflict):
    """The centre does not receive dossiers of this procedure."""


class UnknownTicket(NotFound):
    """There is no such ticket."""


class UnknownCounter(NotFound):
    """The centre has no counter of this number."""


class CounterNotOpen(Conflict):
    """The counter is not open."""


class StillHolding(Conflict):
    """This counter or officer still holds a ticket."""


class NotAllowedNow(Conflict):
    """The ticket's state does not allow this."""


class HeldElsewhere(Conflict):
    """Another counter or officer holds this ticket."""


class NotYourUnit(Forbidden):
    """The unit exists but is not yours."""


@dataclass(frozen=True, slots=True)
class Move:
    """A step of a ticket's life: from which states it is allowed, and what it does."""

    event: str
    allowed: tuple[str, ...]
    changes: str
    body: str
    by_holder: bool = True
    """Whether only who called the ticket may take the step."""

    def statement(self) -> str:
        """Write its SQL."""
        return statements.transition(
            self.event, changes=self.changes, allowed=self.allowed, body=self.body
        )


MOVES: Final = {
    "start": Move(
        "TicketStarted",
        ("called",),
        "status = 'serving', started_at = greatest($5, called_at)",
        "'counter', t.counter",
    ),
    "finish": Move(
        "TicketFinished",
        ("serving",),
        "status = 'finished', ended_at = greatest($5, started_at)",
        "'counter', t.counter, 'service_seconds', extract(epoch FROM t.ended_at - t.started_at)",
    ),
    "no-show": Move(
        "TicketNoShow",
        ("called",),
        "status = 'no_show', ended_at = greatest($5, called_at)",
        "'counter', t.counter",
    ),
    "cancel": Move(
        "TicketCancelled",
        ("waiting",),
        "status = 'cancelled', ended_at = greatest($5, issued_at)",
        "'wait_seconds', extract(epoch FROM t.ended_at - t.issued_at)",
        by_holder=False,
    ),
}
"""The ticket's life: waiting → called (`call_next`) → serving → finished, and the ways out."""

_STATEMENTS: Final = {name: move.statement() for name, move in MOVES.items()}

_ATTEMPTS: Final = 200


def steps_from(status: str) -> list[str]:
    """Name the steps that a ticket of a status allows."""
    steps = [name for name, move in MOVES.items() if status in move.allowed]
    return ["call-next", *steps] if status == "waiting" else steps


def day_start(now: datetime) -> datetime:
    """Give the first instant of the business day."""
    return datetime.combine(business_day(now), time.min, tzinfo=ZONE)


def oldest(now: datetime) -> datetime:
    """Give the arrival before which tickets belong to a day that is over."""
    return policy.oldest_callable(now, day_start(now))


def check_unit(unit: str, principal: Principal) -> None:
    """Let only who holds a unit act for it.

    Raises:
        NotYourUnit.
    """
    if unit not in principal.units:
        raise NotYourUnit(f"{unit} is not among your units")


# Issuing --------------------------------------------------------------------------------------


async def issue(
    pool: asyncpg.Pool,
    unit: str,
    wish: "TicketIn",
    *,
    now: datetime,
    promise: timedelta,
    forecast: int | None,
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
            policy.due_at(now, wish.priority_class, promise),
            forecast,
            uuid4(),
            current_traceparent(),
            key.digest if key else None,
            key.fingerprint if key else None,
            oldest(now),
        )
    except asyncpg.UniqueViolationError:
        await replay_if_answered(pool, key)
        raise
    return str(row["body"])


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
            raise ProcedureNotOffered(f"{unit} does not receive dossiers of {code}")
    hours = directory.hours(unit)
    if not is_open(now, hours, directory.calendar):
        opens = next_opening(now, hours, directory.calendar)
        written = fast_json.instant(opens) if opens else None
        raise CentreClosed(
            f"{unit} is closed; it opens at {written}" if written else f"{unit} does not open",
            next_opening=written,
        )


async def replay_if_answered(pool: asyncpg.Pool, key: Key | None) -> None:
    """Give the answer that a key was given before, if there is one.

    Raises:
        Replay: the stored answer. Malformed: the key came before with another body.
    """
    if key is None:
        return
    row = await pool.fetchrow(statements.STORED, key.digest)
    if row is not None:
        check_same_request(key, row["fingerprint"])
        raise Replay(row["status"], row["answer"])


# Calling --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Called:
    """Who was called, as JSON, and how long that person had waited (seconds)."""

    body: str
    wait: float
    first_call: bool


async def call_next(
    pool: asyncpg.Pool, unit: str, counter: int, *, officer: str, now: datetime, key: Key | None
) -> Called | None:
    """Call whoever is due first to a counter; None only when nobody waits for it.

    A statement whose snapshot holds only tickets that others take meanwhile finds nothing although
    newer ones wait; so an empty answer is tried again until a look without locks sees nobody.

    Raises:
        Replay, UnknownCounter, CounterNotOpen, StillHolding.
    """
    for attempt in range(_ATTEMPTS):
        row = None
        # A violation means that the key, the counter or the officer is taken; the look below says
        # which.
        with suppress(asyncpg.UniqueViolationError):
            row = await pool.fetchrow(
                statements.CALL_NEXT,
                unit,
                counter,
                officer,
                now,
                uuid4(),
                current_traceparent(),
                key.digest if key else None,
                key.fingerprint if key else None,
                oldest(now),
            )
        if row is not None:
            return Called(row["body"], row["wait"], row["first_call"])
        if not await _somebody_waits(pool, unit, counter, officer, now, key):
            return None
        if attempt > 2:
            await asyncio.sleep(random.uniform(0, 0.005))  # noqa: S311  (spreads callers, no secret)
    raise Unavailable("too many counters are calling at once; call again")


async def _somebody_waits(
    pool: asyncpg.Pool, unit: str, counter: int, officer: str, now: datetime, key: Key | None
) -> bool:
    """Look, without locks, why nobody was called.

    The key comes second: what a twin in flight has changed at the desk, it has answered by then.
    """
    desk = await pool.fetchrow(statements.WHY_NOBODY, unit, counter, officer, oldest(now))
    await replay_if_answered(pool, key)
    if desk is None:
        raise UnknownCounter(f"{unit} has no counter {counter}")
    if desk["held_here"]:
        raise StillHolding(
            f"counter {counter} still holds {desk['held_here']}",
            held=desk["held_here"],
            allowed=steps_from(desk["held_status"]),
        )
    if desk["held_by_officer"]:
        raise StillHolding(f"you still hold {desk['held_by_officer']}")
    if desk["state"] != "open":
        raise CounterNotOpen(f"counter {counter} is {desk['state']}", allowed=["open"])
    return bool(desk["somebody_waits"])


# Moving ---------------------------------------------------------------------------------------


async def move(
    pool: asyncpg.Pool,
    ticket_id: UUID,
    name: str,
    *,
    principal: Principal,
    counter: int | None,
    now: datetime,
    key: Key | None,
) -> str:
    """Take one step of a ticket's life; answer the ticket as JSON.

    Raises:
        Replay, UnknownTicket, NotYourUnit, HeldElsewhere, NotAllowedNow.
    """
    step = MOVES[name]
    # A citizen's claim to a ticket is its id; everybody else acts for units. A manager may do
    # what the officer at the counter may.
    units = None if principal.anonymous else sorted(principal.units)
    holder = principal.subject if step.by_holder and principal.role == Role.officer else None
    try:
        row = await pool.fetchrow(
            _STATEMENTS[name],
            ticket_id,
            units,
            holder,
            counter,
            now,
            uuid4(),
            current_traceparent(),
            key.digest if key else None,
            key.fingerprint if key else None,
        )
    except asyncpg.UniqueViolationError:
        row = None
    if row is not None:
        return str(row["body"])
    ticket = await pool.fetchrow(
        "SELECT unit, number, status, counter, officer FROM tickets WHERE id = $1", ticket_id
    )
    await replay_if_answered(pool, key)  # second, as in `_somebody_waits`
    if ticket is None:
        raise UnknownTicket(f"no ticket has the id {ticket_id}")
    _refuse_move(ticket, name, units, holder, counter)
    raise Unavailable("the ticket was changed by somebody else at the same time; try again")


def _refuse_move(
    ticket: asyncpg.Record,
    name: str,
    units: list[str] | None,
    holder: str | None,
    counter: int | None,
) -> None:
    if units is not None and ticket["unit"] not in units:
        raise NotYourUnit(f"{ticket['number']} is a ticket of {ticket['unit']}")
    if ticket["status"] not in MOVES[name].allowed:
        raise NotAllowedNow(
            f"{ticket['number']} is {ticket['status']}",
            ticket_status=ticket["status"],
            allowed=steps_from(ticket["status"]),
        )
    if (holder is not None and ticket["officer"] != holder) or (
        counter is not None and ticket["counter"] != counter
    ):
        raise HeldElsewhere(f"{ticket['number']} was called by counter {ticket['counter']}")


# Counters -------------------------------------------------------------------------------------


async def set_counter(
    session: AsyncSession, unit: str, number: int, values: dict[str, Any], *, may_create: bool
) -> Counter:
    """Open, pause or close a counter; a manager's word also makes one.

    Raises:
        UnknownCounter: there is none and the caller may not make one. StillHolding: it is to be
        closed while somebody stands at it.
    """
    if may_create:
        new = insert(Counter).values(unit=unit, number=number, state="closed")
        await session.execute(new.on_conflict_do_nothing())
    counter = await session.get(Counter, (unit, number), with_for_update=True)
    if counter is None:
        raise UnknownCounter(f"{unit} has no counter {number}; its manager makes one")
    if values["state"] == "closed":
        await _check_nobody_at(session, unit, number)
    for name, value in values.items():
        setattr(counter, name, value)
    return counter


async def _check_nobody_at(session: AsyncSession, unit: str, number: int) -> None:
    held = await session.scalar(
        select(Ticket.number).where(
            Ticket.unit == unit,
            Ticket.counter == number,
            Ticket.status.in_(("called", "serving")),
        )
    )
    if held:
        raise StillHolding(f"counter {number} still holds {held}: finish it, or pause the counter")

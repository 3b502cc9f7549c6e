"""The ticket's life: which step is allowed from which state, and what it does."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from libs.common.auth import Principal
from libs.common.idempotency import Key, replay_if_answered
from libs.common.problems import Unavailable
from libs.common.trace import current_traceparent
from libs.contracts.roles import Role
from services.queue import statements
from services.queue.domain.refusals import HeldElsewhere, NotAllowedNow, NotYourUnit, UnknownTicket


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


def steps_from(status: str) -> list[str]:
    """Name the steps that a ticket of a status allows."""
    steps = [name for name, move in MOVES.items() if status in move.allowed]
    return ["call-next", *steps] if status == "waiting" else steps


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

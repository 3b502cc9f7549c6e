"""Counters: opened, paused and closed, and made by their manager."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import publish
from libs.contracts.queue import TicketTransferred
from services.queue.domain.endings import announce_counter, head
from services.queue.domain.refusals import StillHolding, UnknownCounter
from services.queue.models import Counter, Ticket
from services.queue.words import say


async def set_counter(
    session: AsyncSession,
    unit: str,
    number: int,
    values: dict[str, Any],
    *,
    at: datetime,
    may_create: bool,
) -> Counter:
    """Open, pause or close a counter; a manager's word also makes one.

    Who waits for a counter that closes waits for any of their series from then on.

    Raises:
        UnknownCounter: there is none and the caller may not make one. StillHolding: it is to be
        closed while somebody stands at it.
    """
    if may_create:
        new = insert(Counter).values(unit=unit, number=number, state="closed")
        await session.execute(new.on_conflict_do_nothing())
    counter = await session.get(Counter, (unit, number), with_for_update=True)
    if counter is None:
        raise UnknownCounter(
            say("{unit} has no counter {number}; its manager makes one", unit=unit, number=number)
        )
    if values["state"] == "closed":
        await _check_nobody_at(session, unit, number)
        await _release_who_waits_for(session, unit, number, at)
    for name, value in values.items():
        setattr(counter, name, value)
    counter.changed_at = at
    announce_counter(session, counter, at=at)
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
        raise StillHolding(
            say(
                "counter {number} still holds {held}: finish it, or pause the counter",
                number=number,
                held=held,
            )
        )


async def _release_who_waits_for(
    session: AsyncSession, unit: str, number: int, at: datetime
) -> None:
    # The counter's row is held: nobody is sent to it meanwhile.
    bound = await session.scalars(
        select(Ticket)
        .where(Ticket.unit == unit, Ticket.status == "waiting", Ticket.for_counter == number)
        .order_by(Ticket.due_at, Ticket.id)
        .with_for_update()
    )
    for ticket in bound:
        ticket.for_counter = None
        ticket.version += 1
        when = max(at, ticket.issued_at)
        publish(session, TicketTransferred(**head(ticket, at=when)), at=when)

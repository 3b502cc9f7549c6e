"""Ends for tickets that nobody will call: their day is over, or their unit has closed."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, select, union
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.app import Core
from libs.common.db import transient
from libs.common.events import publish
from libs.contracts.directory import Directory
from libs.contracts.queue import CancelCause, CounterChanged, TicketCancelled
from libs.contracts.registry import UnitStatus
from services.queue import policy
from services.queue.models import Counter, Ticket

log = structlog.get_logger()

_LEFT: Final = ("waiting", "parked")
_AT_ONCE: Final = 500
_EVER: Final = timedelta(days=36_500)


async def end_what_is_left_of(session: AsyncSession, turn: datetime, *, at: datetime) -> int:
    """Cancel tickets whose turn (`due_at`) was before an instant, at most 500; answer how many.

    Who stands at a counter stays there: its officer ends the visit. Replicas share the work,
    each ticket is ended by one of them.
    """
    ended = 0
    for status in _LEFT:
        ended += await _end(
            session, Ticket.status == status, Ticket.due_at < turn, cause="day_over", at=at
        )
    return ended


async def end_unit(session: AsyncSession, unit: str, *, at: datetime) -> None:
    """Cancel whoever waits in a unit that has closed, and close its counters."""
    counters = await session.scalars(
        select(Counter)
        .where(Counter.unit == unit, Counter.state != "closed")
        .order_by(Counter.number)
        .with_for_update()
    )
    for counter in counters:
        counter.state, counter.changed_at = "closed", at
        announce_counter(session, counter, at=at)
    for status in _LEFT:
        while await _end(
            session, Ticket.unit == unit, Ticket.status == status, cause="unit_closed", at=at
        ):
            pass


async def _end(
    session: AsyncSession, *which: ColumnElement[bool], cause: CancelCause, at: datetime
) -> int:
    # Whoever is called or moved at this moment is not left over; a look later will see.
    found: Sequence[Ticket] = (
        await session.scalars(
            select(Ticket)
            .where(*which)
            # As `counters` does it: who locks many locks them in one order.
            .order_by(Ticket.due_at, Ticket.id)
            .limit(_AT_ONCE)
            .with_for_update(skip_locked=cause == "day_over")
        )
    ).all()
    for ticket in found:
        ticket.status, ticket.cancel_cause, ticket.for_counter = "cancelled", cause, None
        ticket.ended_at = max(at, *_instants(ticket))
        ticket.version += 1
        publish(session, _cancelled(ticket, cause), at=ticket.ended_at)
    await session.flush()
    return len(found)


def _instants(ticket: Ticket) -> list[datetime]:
    known = (ticket.issued_at, ticket.called_at, ticket.started_at)
    return [instant for instant in known if instant is not None]


def _cancelled(ticket: Ticket, cause: CancelCause) -> TicketCancelled:
    assert ticket.ended_at is not None
    wait = (ticket.ended_at - ticket.issued_at).total_seconds()
    return TicketCancelled(**head(ticket, at=ticket.ended_at), wait_seconds=wait, cause=cause)


def head(ticket: Ticket, *, at: datetime) -> dict[str, Any]:
    """Give what every event of a ticket tells."""
    return {
        "ticket_id": ticket.id,
        "unit": ticket.unit,
        "version": ticket.version,
        "number": ticket.number,
        "series": ticket.series,
        "issued_at": ticket.issued_at,
        "due_at": ticket.due_at,
        "at": at,
    }


def announce_counter(session: AsyncSession, counter: Counter, *, at: datetime) -> None:
    """Tell a counter's new state; its row is locked."""
    counter.version += 1
    publish(
        session,
        CounterChanged(
            unit=counter.unit,
            number=counter.number,
            version=counter.version,
            state=counter.state,
            series=tuple(counter.series),
            at=at,
        ),
        at=at,
    )


class Nights:
    """The background work that ends what is left of days gone by and of closed units."""

    every_seconds: Final = 20.0

    def __init__(self, core: Core, directory: Directory) -> None:
        """Prepare; `run` looks."""
        self._core = core
        self._directory = directory
        self._seen: datetime | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                if not transient(error):
                    raise
                log.warning("nights.not_looked", error=type(error).__name__)
            await asyncio.sleep(self.every_seconds)

    async def look(self) -> None:
        """End what was over at the last look already, and what closed units have left.

        A clock that leaps ahead and is set right again must not send a hall home. What a clock
        that is wrong for longer has ended can be told (`cancel_cause`), not undone.
        """
        now = self._core.clock.now()
        turn = policy.oldest_now(now)
        over, self._seen = min(self._seen or turn - _EVER, turn), turn
        ended = _AT_ONCE
        while ended >= _AT_ONCE:
            async with self._core.db.sessions.begin() as session:
                ended = await end_what_is_left_of(session, over, at=now)
            if ended:
                log.info("nights.ended", tickets=ended, turn=over.isoformat())
        for unit in await self._closed_units():
            async with self._core.db.sessions.begin() as session:
                await end_unit(session, unit, at=now)

    async def _closed_units(self) -> list[str]:
        """Name the closed units where somebody waits or a counter is open."""
        async with self._core.db.sessions.begin() as session:
            busy = await session.scalars(
                union(
                    select(Ticket.unit).where(Ticket.status == "waiting"),
                    select(Ticket.unit).where(Ticket.status == "parked"),
                    select(Counter.unit).where(Counter.state != "closed"),
                )
            )
        known = self._directory.units
        return sorted(
            unit for unit in busy if unit in known and known[unit].status is UnitStatus.closed
        )

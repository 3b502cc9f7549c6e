"""After the visit: when its receipt was printed, and how people found it."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Principal
from libs.common.events import publish
from libs.common.problems import Conflict
from libs.contracts.intake import DossierReceived
from libs.contracts.queue import ReceiptPrinted, VisitRated
from libs.contracts.roles import Role
from services.queue.domain.moves import steps_from
from services.queue.domain.refusals import NotAllowedNow, UnknownTicket, check_unit
from services.queue.models import Rating, Receipt, Ticket


class RatedBefore(Conflict):
    """This visit has been rated; what was said of it stays.

    Nothing is to be done.
    """


async def rate(
    session: AsyncSession,
    ticket_id: UUID,
    *,
    score: int,
    reason: str | None,
    by: Principal,
    at: datetime,
) -> Rating:
    """Keep how somebody found a visit, once; what is announced is the score alone.

    Who knows the ticket's id was there. A second rating is refused, not taken instead of the first:
    a slip that was left behind must not be able to change what its owner said.

    Raises:
        UnknownTicket. NotYourUnit: a kiosk of another unit. NotAllowedNow: the visit is not over.
        RatedBefore.
    """
    ticket = await session.get(Ticket, ticket_id)
    if ticket is None:
        raise UnknownTicket(f"no ticket has the id {ticket_id}")
    if by.role == Role.kiosk:
        check_unit(ticket.unit, by)
    if ticket.status != "finished":
        raise NotAllowedNow(
            f"{ticket.number} is {ticket.status}: a visit is rated when it is finished",
            ticket_status=ticket.status,
            allowed=steps_from(ticket.status),
        )
    rating = Rating(ticket_id=ticket_id, score=score, reason=reason, rated_at=at)
    if not await _kept(session, Rating, rating):
        raise RatedBefore(f"{ticket.number} has been rated")
    publish(session, VisitRated(**_of(ticket), at=at, score=score), at=at)
    return rating


async def note_receipt(session: AsyncSession, event: DossierReceived) -> None:
    """Note when the receipt of a visit's first dossier was printed, and announce it.

    Form 01 is printed as the dossier is received. A ticket that is not the receiving unit's, or
    that nobody knows, was mistyped at the counter: it says nothing about anybody's visit.
    """
    if event.ticket_id is None or event.received_at is None:
        return
    ticket = await session.get(Ticket, event.ticket_id)
    if ticket is None or ticket.unit != event.receiving_unit:
        return
    receipt = Receipt(
        ticket_id=ticket.id,
        dossier_code=event.code,
        printed_at=max(event.received_at, ticket.issued_at),
    )
    if not await _kept(session, Receipt, receipt):
        return
    waited = (receipt.printed_at - ticket.issued_at).total_seconds()
    told = ReceiptPrinted(**_of(ticket), at=receipt.printed_at, receipt_seconds=waited)
    publish(session, told, at=receipt.printed_at)


def _of(ticket: Ticket) -> dict[str, Any]:
    return {"ticket_id": ticket.id, "unit": ticket.unit, "number": ticket.number}


async def _kept(session: AsyncSession, table: Any, row: Any) -> bool:
    """Insert a row unless its ticket has one."""
    values = {column.name: getattr(row, column.name) for column in table.__table__.columns}
    new = insert(table).values(values).on_conflict_do_nothing().returning(table.ticket_id)
    return await session.scalar(new) is not None


async def ratings_of(
    session: AsyncSession, unit: str, day: date, *, after: UUID | None, limit: int
) -> Sequence[Any]:
    """List up to `limit` of what was said of a unit's visits of a day, by the tickets' ids."""
    rows = (
        select(
            Rating.ticket_id,
            Ticket.number,
            Ticket.counter,
            Rating.score,
            Rating.reason,
            Rating.rated_at,
        )
        .join(Ticket, Ticket.id == Rating.ticket_id)
        .where(Ticket.unit == unit, Ticket.business_day == day)
        .order_by(Rating.ticket_id)
        .limit(limit)
    )
    if after is not None:
        rows = rows.where(Rating.ticket_id > after)
    return (await session.execute(rows)).all()

"""Facts from events: each event is one upsert, in whatever order and however often it comes.

The inbox already drops what was handled before. Order is kept per key by the bus, but a dead
letter that is replayed comes late, and so does everything of a key it was taken from. Therefore
*state* (what a later event replaces) follows the version, and *facts* that only one event tells
(when a ticket was issued, its first wait) are taken whenever that event comes.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Table, case, func
from sqlalchemy.dialects.postgresql import Insert, Range, insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import EventRouter
from libs.common.writes import put
from libs.contracts.intake import DOSSIER_EVENTS, DossierEvent, DossierStatus
from libs.contracts.queue import (
    ReceiptPrinted,
    TicketCalled,
    TicketCancelled,
    TicketEvent,
    TicketFinished,
    TicketIssued,
    TicketNoShow,
    TicketParked,
    TicketReissued,
    TicketReturned,
    TicketStarted,
    TicketTransferred,
    VisitEvent,
    VisitRated,
)
from services.reporting.models import Base

router = EventRouter()

TICKETS: Table = Base.metadata.tables["tickets"]
DOSSIERS: Table = Base.metadata.tables["dossiers"]

FACTS = (
    "issued_at", "first_called_at", "first_wait_seconds", "transferred_from", "receipt_seconds",
    "score",
)  # fmt: skip
"""What one event tells of a ticket and no later one changes."""

_TOLD = set(DOSSIERS.c.keys()) - {"span"}

NEVER_RECEIVED = (DossierStatus.submitted, DossierStatus.refused)
"""Statuses of a dossier that was not, or not validly, received."""


def _ticket_upsert() -> Insert:
    """Write the one statement of all steps: state by version, facts whenever they come."""
    row = insert(TICKETS)
    known, told = TICKETS.c, row.excluded
    newer = told.version > known.version
    return row.on_conflict_do_update(
        index_elements=[known.ticket_id],
        set_={
            "version": func.greatest(known.version, told.version),
            "status": case((newer, told.status), else_=known.status),
            "ended_at": case((newer, told.ended_at), else_=known.ended_at),
            **{name: func.coalesce(known[name], told[name]) for name in FACTS},
        },
    )


def _dossier_upsert() -> Insert:
    """Write the statement that replaces an older state of a dossier, never a newer one."""
    row = insert(DOSSIERS)
    return row.on_conflict_do_update(
        index_elements=[DOSSIERS.c.code],
        set_={name: row.excluded[name] for name in DOSSIERS.c.keys() if name != "code"},  # noqa: SIM118
        where=row.excluded.version > DOSSIERS.c.version,
    )


# Written once: building a statement for each event cost more than running it.
_TICKET, _DOSSIER = _ticket_upsert(), _dossier_upsert()


@router.on(TicketIssued)
async def note_issue(event: TicketIssued, session: AsyncSession) -> None:
    """Somebody waits; one who was sent here by another unit has waited since arriving there."""
    await _note(
        session, event, "waiting", issued_at=event.at, transferred_from=event.transferred_from
    )


@router.on(TicketCalled)
async def note_call(event: TicketCalled, session: AsyncSession) -> None:
    """Somebody was called; the first call ends the wait that is reported."""
    first: dict[str, Any] = {}
    if event.first_call:
        first = {"first_called_at": event.at, "first_wait_seconds": event.wait_seconds}
    await _note(session, event, "called", **first)


@router.on(TicketStarted)
async def note_start(event: TicketStarted, session: AsyncSession) -> None:
    """Somebody is being served."""
    await _note(session, event, "serving")


@router.on(TicketFinished)
async def note_finish(event: TicketFinished, session: AsyncSession) -> None:
    """A visit is over."""
    await _note(session, event, "finished", ended_at=event.at)


@router.on(TicketNoShow)
async def note_no_show(event: TicketNoShow, session: AsyncSession) -> None:
    """Nobody came."""
    await _note(session, event, "no_show", ended_at=event.at)


@router.on(TicketParked)
async def note_parking(event: TicketParked, session: AsyncSession) -> None:
    """Somebody was put aside."""
    await _note(session, event, "parked")


@router.on(TicketReturned, TicketReissued)
async def note_return(event: TicketReturned | TicketReissued, session: AsyncSession) -> None:
    """Somebody waits again, or again for the first time."""
    await _note(session, event, "waiting")


@router.on(TicketTransferred)
async def note_transfer(event: TicketTransferred, session: AsyncSession) -> None:
    """Somebody was sent on: to another unit, and then this ticket is over, or to wait again."""
    if event.to_unit is None:
        await _note(session, event, "waiting")
    else:
        await _note(session, event, "transferred", ended_at=event.at)


@router.on(TicketCancelled)
async def note_cancellation(event: TicketCancelled, session: AsyncSession) -> None:
    """Somebody gave up, or was never called."""
    await _note(session, event, "cancelled", ended_at=event.at)


@router.on(ReceiptPrinted)
async def note_receipt(event: ReceiptPrinted, session: AsyncSession) -> None:
    """A visit's first receipt was printed."""
    await _note_visit(session, event, receipt_seconds=event.receipt_seconds)


@router.on(VisitRated)
async def note_rating(event: VisitRated, session: AsyncSession) -> None:
    """Somebody said how the visit was."""
    await _note_visit(session, event, score=event.score)


async def _note_visit(session: AsyncSession, event: VisitEvent, **told: Any) -> None:
    """Apply what came of a visit; it may be heard of before the ticket is."""
    head = {"ticket_id": event.ticket_id, "unit": event.unit, "version": 0, "status": "waiting"}
    put(session, _TICKET, dict.fromkeys((*FACTS, "ended_at")) | head | told)


async def _note(session: AsyncSession, event: TicketEvent, status: str, **told: Any) -> None:
    """Apply one step of a ticket; columns it does not tell are left as they are."""
    head = {
        "ticket_id": event.ticket_id,
        "unit": event.unit,
        "version": event.version,
        "status": status,
    }
    put(session, _TICKET, dict.fromkeys((*FACTS, "ended_at")) | head | told)


@router.on(*DOSSIER_EVENTS)
async def note_dossier(event: DossierEvent, session: AsyncSession) -> None:
    """Keep a dossier's newest state: each of its events tells the whole."""
    told = event.model_dump(include=_TOLD)
    put(session, _DOSSIER, told | {"status": int(event.status), "span": span_of(event)})


def span_of(event: DossierEvent) -> Range[datetime] | None:
    """Give the time in which a report may have something to say of a dossier, or None for ever.

    From reception on; without end while it has not ended; until it ended and was returned. Instants
    in an impossible order are all covered, so that the report's check can see them.
    """
    if event.received_at is None or event.status in NEVER_RECEIVED:
        return None
    moments = [
        moment
        for moment in (event.received_at, event.ended_at, event.returned_at)
        if moment is not None
    ]
    return Range(min(moments), max(moments) if event.ended_at else None, bounds="[]")

"""Reactions to other services' events: a new centre gets its counters, a visit its receipt."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import EventRouter
from libs.contracts.intake import DossierReceived
from libs.contracts.registry import CentreChanged
from services.queue.domain import visits
from services.queue.models import Counter

router = EventRouter()


@router.on(CentreChanged)
async def make_planned_counters(event: CentreChanged, session: AsyncSession) -> None:
    """Make the counters that a centre plans, closed; those that exist keep their state."""
    await session.execute(
        insert(Counter)
        .values(
            [
                {"unit": event.unit, "number": number, "state": "closed", "series": []}
                for number in range(1, event.counters_planned + 1)
            ]
        )
        .on_conflict_do_nothing()
    )


@router.on(DossierReceived)
async def note_receipt(event: DossierReceived, session: AsyncSession) -> None:
    """Note when the receipt of a visit's first dossier was printed."""
    await visits.note_receipt(session, event)

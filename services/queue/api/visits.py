"""After the visit: how people found it, and what the day came to."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import Field

from libs.common.auth import Principal, require
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, Day, In, Limit, LocalTime, Out, Page, Paragraph
from libs.common.idempotency import KeepingRoute, Once
from libs.common.openapi.operations import refusals
from libs.common.problems import malformed_field
from libs.common.worktime import business_day
from libs.contracts.following import Registry
from libs.contracts.roles import Manager, Role, Staff
from services.queue import models
from services.queue.api.edge import RulesNow, Unit
from services.queue.day import figures
from services.queue.domain import visits
from services.queue.domain.refusals import NotAllowedNow, UnknownTicket, check_unit

router = APIRouter(prefix="/v1", tags=["visits"], route_class=KeepingRoute)

Visitor = Annotated[Principal, Depends(require(Role.nobody, Role.kiosk))]
"""Who was there, by the ticket's id, or at the centre's kiosk; nobody who works there."""


class RatingIn(In):
    """How a visit was, from 1 (bad) to 5 (good)."""

    score: Annotated[int, Field(ge=1, le=5)]
    reason: Paragraph | None = None
    """Read by the centre's manager alone, and in no event."""


class RatingOut(Out):
    """A rating that was kept; the words are not repeated, as answers are stored."""

    ticket_id: UUID
    score: int
    rated_at: LocalTime


@router.post(
    "/tickets/{ticket_id}/satisfaction",
    response_model=RatingOut,
    status_code=201,
    dependencies=[Once],
    operation_id="rate_visit",
    responses=refusals(UnknownTicket, NotAllowedNow, visits.RatedBefore),
)
async def rate(
    ticket_id: UUID, body: RatingIn, session: Session, now: Now, visitor: Visitor
) -> models.Rating:
    """Say once how a finished visit was."""
    return await visits.rate(
        session, ticket_id, score=body.score, reason=body.reason, by=visitor, at=now
    )


class RatingListed(Out):
    """What was said of a visit."""

    number: str
    counter: int | None
    score: int
    reason: str | None
    rated_at: LocalTime


@router.get("/units/{unit}/satisfaction", response_model=Page[RatingListed])
async def list_ratings(
    unit: Unit,
    session: Session,
    registry: Registry,
    now: Now,
    manager: Manager,
    date: Day | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RatingListed]:
    """List what was said of a day's visits: for the centre's manager, as it may be personal."""
    code = registry.current(unit).code
    check_unit(code, manager)
    day = date or business_day(now)
    rows = await visits.ratings_of(session, code, day, after=_after(cursor), limit=limit + 1)
    found = rows[:limit]
    return Page(
        items=[RatingListed.model_validate(row) for row in found],
        next_cursor=str(found[-1].ticket_id) if len(rows) > limit else None,
    )


def _after(cursor: str | None) -> UUID | None:
    try:
        return UUID(cursor) if cursor is not None else None
    except ValueError:
        raise malformed_field("cursor", "take it from `next_cursor` of the page before") from None


class CounterDay(Out):
    """The visits that ended at a counter; seconds of their last sitting."""

    number: int
    finished: int
    no_show: int
    service_seconds: float
    service_mean_seconds: float | None
    rated: int
    score_mean: float | None


class CentreDay(Out):
    """What became of a day's tickets: of all, each stands in one state."""

    tickets: int
    transferred_in: int
    called: int
    finished: int
    no_show: int
    cancelled: int
    transferred: int
    waiting: int
    parked: int
    at_counters: int
    within_sla: int
    uncalled_beyond_sla: int
    share_within_sla: float | None
    wait_p50_seconds: float | None
    wait_p95_seconds: float | None
    wait_max_seconds: float | None
    service_seconds: float
    service_mean_seconds: float | None
    receipts: int
    receipt_p50_seconds: float | None
    receipt_p95_seconds: float | None
    receipt_max_seconds: float | None
    rated: int
    score_mean: float | None


class UnitDay(Out):
    """A unit's day as it stands at an instant; waits and times in seconds."""

    unit: str
    date: date
    as_of: LocalTime
    sla_seconds: int
    centre: CentreDay
    counters: list[CounterDay]


@router.get("/units/{unit}/day", response_model=UnitDay, operation_id="show_unit_day")
async def show_day(
    unit: Unit,
    session: Session,
    registry: Registry,
    rules: RulesNow,
    now: Now,
    reader: Staff,
    date: Day | None = None,
) -> Any:
    """Show a day's figures, per counter and for the centre; today without a date."""
    code = registry.current(unit).code
    if reader.role != Role.city:
        check_unit(code, reader)
    day = date or business_day(now)
    return await figures(session, code, day, promise=rules.promise.within, at=now)

"""Routes by which operators search the audit, which all services write."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from sqlalchemy import MetaData, select

from libs.common.audit.tables import ENTRIES
from libs.common.db import Session
from libs.common.fields import Cursor, Limit, LocalTime, Out, Page, Search
from libs.common.problems import malformed_field
from libs.contracts.codes import UnitQuery
from libs.contracts.following import Registry
from libs.contracts.roles import Ops, Role
from services.registry.clients import wall_clock

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_AUDIT = ENTRIES.to_metadata(MetaData(), schema="audit")
_USUAL_SPAN = timedelta(days=7)


class EntryOut(Out):
    """What one call did; `at` is by the wall clock."""

    id: int
    at: LocalTime
    service: str
    subject: str
    role: str
    method: str
    route: str
    unit: str | None
    object: str | None
    outcome: Literal["done", "replayed", "refused", "failed"]
    status: int
    trace_id: str | None


@router.get("", response_model=Page[EntryOut], operation_id="search_audit")
async def search(
    session: Session,
    registry: Registry,
    _: Ops,
    service: Literal["registry", "intake", "queue", "reporting"] | None = None,
    subject: Search = None,
    role: Role | None = None,
    unit: UnitQuery | None = None,
    object: Search = None,  # noqa: A002  (the parameter clients know)
    outcome: Literal["done", "replayed", "refused", "failed"] | None = None,
    trace_id: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
    first: Annotated[
        AwareDatetime | None, Query(alias="from", description="A week before `to` if unset.")
    ] = None,
    last: Annotated[AwareDatetime | None, Query(alias="to", description="Now if unset.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[EntryOut]:
    """Search who did what, newest first; nothing personal stands in it."""
    until = last or wall_clock()
    since = first or _a_week_before(until)
    if until < since:
        raise malformed_field("to", "the last instant comes before the first")
    rows = select(_AUDIT).where(_AUDIT.c.at.between(since, until)).order_by(_AUDIT.c.id.desc())
    asked = {
        "service": service,
        "subject": subject,
        "role": role,
        "unit": registry.current(unit).code if unit else None,
        "object": object,
        "outcome": outcome,
        "trace_id": trace_id,
    }
    for column, value in asked.items():
        if value is not None:
            rows = rows.where(_AUDIT.c[column] == value)
    if cursor is not None:
        rows = rows.where(_AUDIT.c.id < _place(cursor))
    found = (await session.execute(rows.limit(limit + 1))).all()
    return Page(
        items=[EntryOut.model_validate(row) for row in found[:limit]],
        next_cursor=str(found[limit - 1].id) if len(found) > limit else None,
    )


def _a_week_before(until: datetime) -> datetime:
    try:
        return until - _USUAL_SPAN
    except OverflowError:
        raise malformed_field("to", "before all time") from None


def _place(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise malformed_field("cursor", "take it from `next_cursor` of the page before")
    return int(cursor)

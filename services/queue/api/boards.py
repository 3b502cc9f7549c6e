"""Boards for everybody and lists for officers."""

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy import func, select, tuple_

from libs.common import fast_json
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, Limit, LocalTime, Out, Page
from libs.common.problems import malformed_field
from libs.common.worktime import business_day
from libs.contracts.following import Registry
from libs.contracts.roles import Officer
from services.queue import models
from services.queue.api.edge import (
    Channel,
    CounterState,
    Hot,
    LoadsNow,
    TicketStatus,
    Unit,
    json_answer,
)
from services.queue.domain.refusals import check_unit
from services.queue.live import snapshot
from services.queue.policy import PriorityClass

router = APIRouter(prefix="/v1", tags=["live"])


class TicketShown(Out):
    """A ticket on a board: nothing personal and no id."""

    number: str
    status: TicketStatus
    counter: int | None = None
    issued_at: LocalTime
    due_at: LocalTime
    called_at: LocalTime | None = None


class CounterShown(Out):
    """A counter on a board."""

    number: int
    state: CounterState
    ticket: TicketShown | None


class Snapshot(Out):
    """A unit's queue at an instant."""

    unit: str
    as_of: LocalTime
    waiting: int
    oldest_wait_seconds: int
    forecast_wait_seconds: int | None
    counters: list[CounterShown]
    called: list[TicketShown]
    next: list[TicketShown]


class UnitLoad(Out):
    """How loaded one unit is."""

    unit: str
    name: str
    waiting: int
    oldest_wait_seconds: int
    forecast_wait_seconds: int | None
    open_counters: int


class Overview(Out):
    """How loaded the city is, the longest wait first."""

    as_of: LocalTime
    waiting: int
    items: list[UnitLoad]


@router.get("/units/{unit}/queue", response_model=Snapshot)
async def show_queue(
    unit: Unit, pool: Hot, registry: Registry, loads: LoadsNow, now: Now
) -> Response:
    """Show a unit's queue: counters, who is called, who is next."""
    code = registry.current(unit).code
    board = await snapshot(pool, code, now=now, forecast=loads.forecast(code))
    return json_answer(fast_json.dumps(board))


@router.get("/queue/overview", response_model=Overview)
async def overview(registry: Registry, loads: LoadsNow, now: Now) -> Response:
    """Show every unit where somebody waits or a counter is open, the longest wait first."""
    busy = sorted(loads.all().items(), key=lambda item: (-item[1].oldest_wait_seconds, item[0]))
    items = [
        {
            "unit": unit,
            "name": registry.units[unit].name if unit in registry.units else unit,
            "waiting": load.waiting,
            "oldest_wait_seconds": load.oldest_wait_seconds,
            "forecast_wait_seconds": load.forecast_wait_seconds,
            "open_counters": load.open_counters,
        }
        for unit, load in busy
    ]
    waiting = sum(load.waiting for _, load in busy)
    body = {"as_of": fast_json.instant(now), "waiting": waiting, "items": items}
    return json_answer(fast_json.dumps(body))


class TicketListed(Out):
    """A ticket in the officers' list."""

    id: UUID
    number: str
    status: TicketStatus
    series: str
    priority_class: PriorityClass
    channel: Channel
    procedure_codes: list[str]
    dossier_code: str | None
    issued_at: LocalTime
    due_at: LocalTime
    called_at: LocalTime | None
    counter: int | None
    call_reason: str | None
    for_counter: int | None
    version: int


@router.get("/units/{unit}/tickets", response_model=Page[TicketListed])
async def list_tickets(
    unit: Unit,
    session: Session,
    registry: Registry,
    now: Now,
    officer: Officer,
    status: TicketStatus | None = None,
    number: Annotated[str | None, Query(pattern=r"^[A-Z]{1,2}\d{3,6}$")] = None,
    counter: Annotated[int | None, Query(ge=1, le=99)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TicketListed]:
    """List today's tickets of a unit, with ids, in the order of issue."""
    code = registry.current(unit).code
    check_unit(code, officer)
    ticket = models.Ticket
    rows = (
        select(ticket)
        .where(ticket.unit == code, ticket.business_day == business_day(now))
        .order_by(_OF_NUMBER, ticket.sequence)
    )
    for column, value in ((ticket.status, status), (ticket.number, number)):
        if value is not None:
            rows = rows.where(column == value)
    if counter is not None:
        rows = rows.where(ticket.counter == counter)
    if cursor is not None:
        rows = rows.where(_after(cursor))
    found = list(await session.scalars(rows.limit(limit + 1)))
    last = found[limit - 1] if len(found) > limit else None
    return Page(
        items=[TicketListed.model_validate(row) for row in found[:limit]],
        next_cursor=f"{last.number[:1]}{last.sequence}" if last else None,
    )


_OF_NUMBER = func.rtrim(models.Ticket.number, "0123456789")
"""The series a number was given from; a ticket may wait in another one meanwhile."""
_PLACE = re.compile(r"([A-Z]{1,2})([0-9]{1,9})")


def _after(cursor: str) -> Any:
    place = _PLACE.fullmatch(cursor)
    if place is None:
        raise malformed_field("cursor", "take it from `next_cursor` of the page before")
    return tuple_(_OF_NUMBER, models.Ticket.sequence) > (place[1], int(place[2]))

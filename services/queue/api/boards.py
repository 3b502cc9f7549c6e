"""Boards for everybody and lists for officers."""

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from fastapi.responses import Response
from sqlalchemy import func, select, tuple_

from libs.common import fast_json
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, Limit, LocalTime, Out, Page
from libs.common.problems import malformed_field
from libs.common.streams import LiveStream
from libs.common.worktime import business_day
from libs.contracts.following import Registry
from libs.contracts.roles import Officer
from services.queue import models
from services.queue.api.edge import (
    Channel,
    CounterState,
    Hot,
    LiveStreams,
    LoadsNow,
    TicketStatus,
    Unit,
    json_answer,
)
from services.queue.board import read_board
from services.queue.domain.refusals import check_unit
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
    board = await read_board(pool, code, now)
    return json_answer(fast_json.dumps(board.snapshot(now, loads.forecast(code))))


@router.get("/queue/overview", response_model=Overview, operation_id="show_overview")
async def overview(streams: LiveStreams, loads: LoadsNow) -> Response:
    """Show every unit where somebody waits or a counter is open, the longest wait first."""
    return json_answer(fast_json.dumps(streams.overview(loads.all())))


# Live -------------------------------------------------------------------------------------------


class BoardChange(Snapshot):
    """What a ticket or a counter did, and what a board needs to show it.

    Each member replaces what was known, except that `counters` lists only the counters that may
    show something new, each replacing the one of its number.
    """

    ticket: TicketShown | None
    """The ticket that moved, as it is now, whatever its status; null where a counter changed."""


class BoardHeartbeat(Out):
    """What changes by itself as time goes by."""

    unit: str
    as_of: LocalTime
    waiting: int
    oldest_wait_seconds: int
    forecast_wait_seconds: int | None


class OverviewChange(Overview):
    """The loads that are new, about once a second, each replacing that of its unit.

    A unit where nobody waits and no counter is open leaves the list.
    """


class OverviewHeartbeat(Out):
    """How many wait in the whole city."""

    as_of: LocalTime
    waiting: int


LastEventId = Annotated[
    str | None,
    Header(description="The id of the last event that was taken: what came later is sent."),
]

_HOW = """Server-sent events, each with one of these shapes as its `data`.

- `snapshot`, what the call without `/stream` gives: stands first, unless the stream resumes, and
  comes again whenever not every change could be told one by one. It replaces what was known.
- `change`: one for each step of a ticket and each change of a counter; for the city about one a
  second.
- `heartbeat`, about every 5 seconds: vouches for what is shown. When nothing has come for 15
  seconds, say that the screen is stale.

`snapshot` and `change` carry an `id`. A client that comes back with it in `Last-Event-ID`, to
whichever process, is sent what it missed, in order and nothing twice; if that is not held any more,
or the id is not ours, a comment says so and a `snapshot` follows. While the bus lags, snapshots are
read from the tables; nothing resumes from their id."""


def _events(*shapes: type[Out]) -> dict[int | str, dict[str, Any]]:
    """Describe a stream as far as OpenAPI 3.1 can: text that holds JSON of one of these shapes."""
    described = []
    for shape in shapes:
        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)  # snapshots are answers elsewhere too, so these stand there
        described.append(schema)
    text = {"type": "string", "contentMediaType": "application/json"}
    schema = text | {"contentSchema": {"anyOf": described}}
    return {200: {"description": _HOW, "content": {"text/event-stream": {"schema": schema}}}}


@router.get(
    "/units/{unit}/queue/stream",
    status_code=200,
    response_class=LiveStream,
    responses=_events(Snapshot, BoardChange, BoardHeartbeat),
)
async def stream_queue(
    unit: Unit, registry: Registry, streams: LiveStreams, last_event_id: LastEventId = None
) -> LiveStream:
    """Follow a unit's queue live."""
    return LiveStream(streams.unit(registry.current(unit).code, last_event_id))


@router.get(
    "/queue/overview/stream",
    status_code=200,
    response_class=LiveStream,
    responses=_events(Overview, OverviewChange, OverviewHeartbeat),
)
async def stream_overview(streams: LiveStreams, last_event_id: LastEventId = None) -> LiveStream:
    """Follow the whole city live."""
    return LiveStream(streams.city(last_event_id))


# For officers -----------------------------------------------------------------------------------


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

"""Routes of the queue, and the shapes of what they take and give."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select, tuple_

from libs.common import fast_json
from libs.common.auth import Caller, Principal
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, In, Limit, Line, LocalTime, Out, Page
from libs.common.idempotency import KeepingRoute, OptionalKey
from libs.common.problems import Forbidden, Malformed, Unauthenticated, malformed_field
from libs.common.worktime import business_day
from libs.contracts.codes import DossierCode, ProcedureCode, UnitQuery
from libs.contracts.directory import UnitNotActive, UnitSplit
from libs.contracts.following import Registry
from libs.contracts.roles import Officer, Role
from services.queue import domain, models, statements
from services.queue.live import Loads, note_first_call, snapshot
from services.queue.policy import PriorityClass

tickets = APIRouter(prefix="/v1/tickets", tags=["tickets"], route_class=KeepingRoute)
counters = APIRouter(prefix="/v1/units/{unit}/counters", tags=["counters"])
boards = APIRouter(prefix="/v1", tags=["live"])

Channel = Literal["kiosk", "web", "counter", "portal"]
TicketStatus = Literal[
    "waiting", "called", "serving", "finished", "parked", "no_show", "cancelled", "transferred"
]
CounterState = Literal["open", "paused", "closed"]
CounterNumber = Annotated[int, Path(ge=1, le=99)]
Unit = Annotated[UnitQuery, Path(description="Current or older code, or `gso:26734`.")]


async def _hot(request: Request) -> asyncpg.Pool:
    return request.state.hot


async def _loads(request: Request) -> Loads:
    loads: Loads = request.state.loads
    return loads


async def _promise(request: Request) -> timedelta:
    return timedelta(seconds=request.state.settings.sla_seconds)


async def _wake_relay(request: Request) -> Any:
    return request.state.relay.wake


Hot = Annotated[asyncpg.Pool, Depends(_hot)]
LoadsNow = Annotated[Loads, Depends(_loads)]
Promise = Annotated[timedelta, Depends(_promise)]
Wake = Annotated[Any, Depends(_wake_relay)]


def _json(body: str | bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/json")


class TicketIn(In):
    """A wish for a place in the queue."""

    unit: UnitQuery
    procedure_codes: list[ProcedureCode] = Field(default_factory=list, max_length=20)
    series: Annotated[str, Field(pattern=r"^[A-Z]$")] = "A"
    priority_class: PriorityClass = "normal"
    channel: Channel
    dossier_code: DossierCode | None = None


class TicketOut(Out):
    """A ticket as its holder is answered; documentation of what `statements.ANSWER` writes."""

    id: UUID
    number: str
    unit: str
    series: str
    status: TicketStatus
    priority_class: PriorityClass
    channel: Channel
    procedure_codes: list[str]
    dossier_code: str | None
    business_day: date
    issued_at: LocalTime
    due_at: LocalTime
    counter: int | None
    called_at: LocalTime | None
    wait_seconds: float | None
    started_at: LocalTime | None
    ended_at: LocalTime | None
    version: int


class TicketAhead(TicketOut):
    """A ticket with its place: 1 is next, null past 999; the forecast is in seconds."""

    position: int | None
    forecast_wait_seconds: int | None


class Step(In):
    """A step at a counter; `counter`, when given, must be the one that called the ticket."""

    counter: Annotated[int, Field(ge=1, le=99)] | None = None


# Tickets --------------------------------------------------------------------------------------

_CHANNELS: Mapping[str, tuple[str, ...]] = {
    Role.nobody: ("web",),
    Role.kiosk: ("kiosk",),
    Role.portal: ("portal",),
    Role.officer: ("counter", "kiosk"),
    Role.manager: ("counter", "kiosk"),
}
"""By which channels a role hands out tickets."""


def _check_channel(principal: Principal, channel: str, unit: str) -> None:
    channels = _CHANNELS.get(principal.role, ())
    if not channels:
        raise Forbidden(f"the role {principal.role} takes no tickets")
    if channel not in channels:
        if principal.anonymous:
            raise Unauthenticated(f"the channel {channel} needs credentials; use web")
        raise Forbidden(f"the role {principal.role} hands out tickets by {' or '.join(channels)}")
    if principal.role in (Role.kiosk, Role.officer, Role.manager):
        domain.check_unit(unit, principal)


@tickets.post("", status_code=201, response_model=TicketAhead)
async def issue_ticket(
    body: TicketIn,
    pool: Hot,
    registry: Registry,
    loads: LoadsNow,
    promise: Promise,
    wake: Wake,
    now: Now,
    principal: Caller,
    key: OptionalKey,
) -> Response:
    """Take a ticket, however long the wait; a closed centre says when it opens."""
    try:
        unit = registry.current(body.unit).code
        _check_channel(principal, body.channel, unit)
        domain.check_issue(registry, unit, body.procedure_codes, now)
    except (domain.CentreClosed, domain.ProcedureNotOffered, UnitNotActive, UnitSplit, Malformed):
        await domain.replay_if_answered(pool, key)
        raise
    answer = await domain.issue(
        pool, unit, body, now=now, promise=promise, forecast=loads.forecast(unit), key=key
    )
    wake()
    return _json(answer, 201)


@tickets.get("/{ticket_id}", response_model=TicketAhead)
async def show_ticket(ticket_id: UUID, pool: Hot, loads: LoadsNow, now: Now) -> Response:
    """Show a ticket to who knows its id: where it stands and how long it will take."""
    row = await pool.fetchrow("SELECT unit FROM tickets WHERE id = $1", ticket_id)
    if row is None:
        raise domain.UnknownTicket(f"no ticket has the id {ticket_id}")
    forecast = loads.forecast(row["unit"])
    shown = await pool.fetchrow(statements.SHOW, ticket_id, domain.oldest(now), forecast)
    return _json(shown["body"])


@tickets.post("/{ticket_id}/cancel", response_model=TicketOut)
async def cancel(
    ticket_id: UUID,
    pool: Hot,
    wake: Wake,
    now: Now,
    principal: Caller,
    key: OptionalKey,
    body: Step | None = None,
) -> Response:
    """Give a place up: the citizen by the ticket's id, a kiosk or officer for its unit."""
    if principal.role not in (Role.nobody, Role.kiosk, Role.officer, Role.manager):
        raise Forbidden(f"the role {principal.role} cancels no tickets")
    return await _move("cancel", ticket_id, pool, wake, now, principal, key, body)


async def _move(
    name: str,
    ticket_id: UUID,
    pool: asyncpg.Pool,
    wake: Any,
    now: Any,
    principal: Principal,
    key: Any,
    body: Step | None,
) -> Response:
    answer = await domain.move(
        pool,
        ticket_id,
        name,
        principal=principal,
        counter=body.counter if body else None,
        now=now,
        key=key,
    )
    wake()
    return _json(answer)


@tickets.post("/{ticket_id}/start", response_model=TicketOut)
async def start(
    ticket_id: UUID,
    pool: Hot,
    wake: Wake,
    now: Now,
    officer: Officer,
    key: OptionalKey,
    body: Step | None = None,
) -> Response:
    """Say that the person called stands at the counter."""
    return await _move("start", ticket_id, pool, wake, now, officer, key, body)


@tickets.post("/{ticket_id}/finish", response_model=TicketOut)
async def finish(
    ticket_id: UUID,
    pool: Hot,
    wake: Wake,
    now: Now,
    officer: Officer,
    key: OptionalKey,
    body: Step | None = None,
) -> Response:
    """Say that the visit is over."""
    return await _move("finish", ticket_id, pool, wake, now, officer, key, body)


@tickets.post("/{ticket_id}/no-show", response_model=TicketOut)
async def no_show(
    ticket_id: UUID,
    pool: Hot,
    wake: Wake,
    now: Now,
    officer: Officer,
    key: OptionalKey,
    body: Step | None = None,
) -> Response:
    """Say that nobody came."""
    return await _move("no-show", ticket_id, pool, wake, now, officer, key, body)


# Counters -------------------------------------------------------------------------------------


class CounterIn(In):
    """What a counter does from now on; without series it calls all of them."""

    state: CounterState
    reason: Line | None = None
    series: list[Annotated[str, Field(pattern=r"^[A-Z]$")]] = Field(
        default_factory=list, max_length=26
    )


class CounterOut(Out):
    """A counter (quầy)."""

    unit: str
    number: int
    state: CounterState
    reason: str | None
    series: list[str]
    changed_at: LocalTime | None


@counters.get("", response_model=Page[CounterOut])
async def list_counters(unit: Unit, session: Session, registry: Registry) -> Page[CounterOut]:
    """List a centre's counters."""
    code = registry.current(unit).code
    rows = await session.scalars(
        select(models.Counter).where(models.Counter.unit == code).order_by(models.Counter.number)
    )
    return Page(items=[CounterOut.model_validate(row) for row in rows])


@counters.put("/{number}", response_model=CounterOut)
async def set_counter(
    unit: Unit,
    number: CounterNumber,
    body: CounterIn,
    session: Session,
    registry: Registry,
    now: Now,
    officer: Officer,
) -> models.Counter:
    """Open, pause or close a counter; a manager's word also makes one."""
    code = registry.current(unit).code
    domain.check_unit(code, officer)
    return await domain.set_counter(
        session,
        code,
        number,
        body.model_dump() | {"changed_at": now},
        may_create=officer.role == Role.manager,
    )


@counters.post(
    "/{number}/call-next",
    response_model=TicketOut,
    responses={204: {"description": "Nobody waits for this counter."}},
)
async def call_next(
    request: Request,
    unit: Unit,
    number: CounterNumber,
    pool: Hot,
    registry: Registry,
    wake: Wake,
    now: Now,
    officer: Officer,
    key: OptionalKey,
) -> Response:
    """Call whoever is due first to this counter."""
    code = registry.current(unit).code
    domain.check_unit(code, officer)
    called = await domain.call_next(pool, code, number, officer=officer.subject, now=now, key=key)
    if called is None:
        return Response(status_code=204)
    wake()
    if called.first_call:
        note_first_call(code, called.wait, request.state.settings.sla_seconds)
    return _json(called.body)


# Boards and lists -----------------------------------------------------------------------------


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


@boards.get("/units/{unit}/queue", response_model=Snapshot)
async def show_queue(
    unit: Unit, pool: Hot, registry: Registry, loads: LoadsNow, now: Now
) -> Response:
    """Show a unit's queue: counters, who is called, who is next."""
    code = registry.current(unit).code
    board = await snapshot(pool, code, now=now, forecast=loads.forecast(code))
    return _json(fast_json.dumps(board))


@boards.get("/queue/overview", response_model=Overview)
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
    return _json(fast_json.dumps(body))


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
    version: int


@boards.get("/units/{unit}/tickets", response_model=Page[TicketListed])
async def list_tickets(
    unit: Unit,
    session: Session,
    registry: Registry,
    now: Now,
    officer: Officer,
    status: TicketStatus | None = None,
    number: Annotated[str | None, Query(pattern=r"^[A-Z]\d{3,6}$")] = None,
    counter: Annotated[int | None, Query(ge=1, le=99)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TicketListed]:
    """List today's tickets of a unit, with ids, in the order of issue."""
    code = registry.current(unit).code
    domain.check_unit(code, officer)
    ticket = models.Ticket
    rows = (
        select(ticket)
        .where(ticket.unit == code, ticket.business_day == business_day(now))
        .order_by(ticket.series, ticket.sequence)
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
        next_cursor=f"{last.series}{last.sequence}" if last else None,
    )


def _after(cursor: str) -> Any:
    series, sequence = cursor[:1], cursor[1:]
    if not sequence.isascii() or not sequence.isdigit() or len(sequence) > 9:
        raise malformed_field("cursor", "take it from `next_cursor` of the page before")
    return tuple_(models.Ticket.series, models.Ticket.sequence) > (series, int(sequence))

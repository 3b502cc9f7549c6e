"""Tickets: taken, shown, moved step by step."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field

from libs.common.auth import Caller, Principal
from libs.common.edge import Now
from libs.common.fields import In
from libs.common.idempotency import KeepingRoute, OptionalKey, replay_if_answered
from libs.common.problems import Forbidden, Malformed, Unauthenticated
from libs.contracts.codes import DossierCode, ProcedureCode, UnitQuery
from libs.contracts.directory import UnitNotActive, UnitSplit
from libs.contracts.following import Registry
from libs.contracts.roles import Officer, Role
from services.queue import statements
from services.queue.api.edge import Channel, Hot, LoadsNow, Promise, TicketOut, Wake, json_answer
from services.queue.domain import issuing, moves
from services.queue.domain.refusals import (
    CentreClosed,
    ProcedureNotOffered,
    UnknownTicket,
    check_unit,
)
from services.queue.policy import PriorityClass, oldest_now

router = APIRouter(prefix="/v1/tickets", tags=["tickets"], route_class=KeepingRoute)


class TicketIn(In):
    """A wish for a place in the queue."""

    unit: UnitQuery
    procedure_codes: list[ProcedureCode] = Field(default_factory=list, max_length=20)
    series: Annotated[str, Field(pattern=r"^[A-Z]$")] = "A"
    priority_class: PriorityClass = "normal"
    channel: Channel
    dossier_code: DossierCode | None = None


class TicketAhead(TicketOut):
    """A ticket with its place: 1 is next, null past 999; the forecast is in seconds."""

    position: int | None
    forecast_wait_seconds: int | None


class Step(In):
    """A step at a counter; `counter`, when given, must be the one that called the ticket."""

    counter: Annotated[int, Field(ge=1, le=99)] | None = None


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
        check_unit(unit, principal)


@router.post("", status_code=201, response_model=TicketAhead)
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
        issuing.check_issue(registry, unit, body.procedure_codes, now)
    except (CentreClosed, ProcedureNotOffered, UnitNotActive, UnitSplit, Malformed):
        await replay_if_answered(pool, key)
        raise
    answer = await issuing.issue(
        pool, unit, body, now=now, promise=promise, forecast=loads.forecast(unit), key=key
    )
    wake()
    return json_answer(answer, 201)


@router.get("/{ticket_id}", response_model=TicketAhead)
async def show_ticket(ticket_id: UUID, pool: Hot, loads: LoadsNow, now: Now) -> Response:
    """Show a ticket to who knows its id: where it stands and how long it will take."""
    row = await pool.fetchrow("SELECT unit FROM tickets WHERE id = $1", ticket_id)
    if row is None:
        raise UnknownTicket(f"no ticket has the id {ticket_id}")
    forecast = loads.forecast(row["unit"])
    shown = await pool.fetchrow(statements.SHOW, ticket_id, oldest_now(now), forecast)
    return json_answer(shown["body"])


@router.post("/{ticket_id}/cancel", response_model=TicketOut)
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
    answer = await moves.move(
        pool,
        ticket_id,
        name,
        principal=principal,
        counter=body.counter if body else None,
        now=now,
        key=key,
    )
    wake()
    return json_answer(answer)


@router.post("/{ticket_id}/start", response_model=TicketOut)
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


@router.post("/{ticket_id}/finish", response_model=TicketOut)
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


@router.post("/{ticket_id}/no-show", response_model=TicketOut)
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

"""Tickets: taken, printed, shown and given up."""

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import Field

from libs.common.auth import Caller, Principal, require
from libs.common.edge import Now
from libs.common.fields import In, Line
from libs.common.idempotency import KeepingRoute, replay_if_answered
from libs.common.openapi.operations import refusals
from libs.common.problems import Forbidden, Malformed, Unauthenticated
from libs.contracts.codes import DossierCode, ProcedureCode, UnitQuery
from libs.contracts.directory import UnitNotActive, UnitSplit
from libs.contracts.following import Registry
from libs.contracts.roles import Role
from services.queue import statements
from services.queue.api.edge import (
    Act,
    Channel,
    Hot,
    LoadsNow,
    SeriesIn,
    Step,
    TicketOut,
    json_answer,
    move,
)
from services.queue.domain import issuing, moves
from services.queue.domain.refusals import (
    OF_A_TICKET,
    CentreClosed,
    DayOver,
    NoTimeLeft,
    ProcedureNotOffered,
    UnknownTicket,
    check_unit,
)
from services.queue.forecast import line_of
from services.queue.policy import PriorityClass, oldest_now
from services.queue.sla import note_given_up

log = structlog.get_logger()

router = APIRouter(prefix="/v1/tickets", tags=["tickets"], route_class=KeepingRoute)


class TicketIn(In):
    """A wish for a place in the queue."""

    unit: UnitQuery
    procedure_codes: list[ProcedureCode] = Field(default_factory=list, max_length=20)
    series: SeriesIn = "A"
    priority_class: PriorityClass = "normal"
    channel: Channel
    dossier_code: DossierCode | None = None


class TicketAhead(TicketOut):
    """A ticket with its place: 1 is next, null past 999; and how long it will wait, in seconds.

    Four in five wait between the two bounds. All three are null while no counter is open that calls
    the ticket's series.
    """

    position: int | None
    forecast_wait_seconds: int | None
    forecast_low_seconds: int | None
    forecast_high_seconds: int | None


class TicketSeen(TicketAhead):
    """A ticket as its holder looks at it, with what came after the visit."""

    receipt_seconds: float | None
    """From the ticket's issue to the receipt of the visit's first dossier."""
    score: int | None


class PrintIn(In):
    """What became of the slip."""

    ok: bool = True
    reason: Line | None = None
    """What the printer said; logged, not kept."""


Printer = Annotated[Principal, Depends(require(Role.kiosk, Role.officer, Role.manager))]
"""Whoever has a printer at hand."""

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


@router.post(
    "",
    status_code=201,
    response_model=TicketAhead,
    responses=refusals(CentreClosed, NoTimeLeft, ProcedureNotOffered),
)
async def issue_ticket(
    body: TicketIn, act: Act, registry: Registry, loads: LoadsNow, principal: Caller
) -> Response:
    """Take a ticket, however long the wait; a closed centre says when it opens."""
    try:
        unit = registry.current(body.unit).code
        _check_channel(principal, body.channel, unit)
        issuing.check_issue(registry, unit, body.procedure_codes, act.now)
        issuing.check_time_left(
            registry,
            unit,
            act.now,
            forecast=loads.forecast(unit),
            margin=act.rules.last_ticket_margin,
        )
    except (
        CentreClosed, NoTimeLeft, ProcedureNotOffered, UnitNotActive, UnitSplit, Malformed,
    ):  # fmt: skip
        await replay_if_answered(act.pool, act.key)
        raise
    answer = await issuing.issue(
        act.pool,
        unit,
        body,
        now=act.now,
        promise=act.rules.promise,
        waits=loads.waits(unit, body.series),
        key=act.key,
    )
    act.wake()
    return json_answer(answer, 201)


@router.get("/{ticket_id}", response_model=TicketSeen, responses=refusals(UnknownTicket))
async def show_ticket(ticket_id: UUID, pool: Hot, loads: LoadsNow, now: Now) -> Response:
    """Show a ticket to who knows its id: where it stands and how long it will take."""
    row = await pool.fetchrow(
        "SELECT unit, series, for_counter FROM tickets WHERE id = $1", ticket_id
    )
    if row is None:
        raise UnknownTicket(f"no ticket has the id {ticket_id}")
    waits = loads.waits(row["unit"], line_of(row["series"], row["for_counter"]))
    shown = await pool.fetchrow(statements.SHOW, ticket_id, oldest_now(now), waits)
    return json_answer(shown["body"])


@router.post(
    "/{ticket_id}/cancel",
    response_model=TicketOut,
    operation_id="cancel_ticket",
    responses=refusals(*OF_A_TICKET),
)
async def cancel(
    ticket_id: UUID, act: Act, principal: Caller, body: Step | None = None
) -> Response:
    """Give a place up: the citizen by the ticket's id, a kiosk or officer for its unit."""
    if principal.role not in (Role.nobody, Role.kiosk, Role.officer, Role.manager):
        raise Forbidden(f"the role {principal.role} cancels no tickets")
    moved = await moves.move(
        act.pool,
        ticket_id,
        moves.CANCEL,
        act.asked(principal),
        counter=body.counter if body else None,
    )
    act.wake()
    if moved["first_call"]:
        await note_given_up(act.pool, moved["body"], promise=act.rules.promise.within, at=act.now)
    return json_answer(moved["body"])


@router.post(
    "/{ticket_id}/printed",
    response_model=TicketOut,
    operation_id="note_print",
    responses=refusals(*OF_A_TICKET),
)
async def printed(
    ticket_id: UUID, act: Act, printer: Printer, body: PrintIn | None = None
) -> Response:
    """Say whether the slip came out; where it did not, nobody waits until it is reissued."""
    if body is None or body.ok:
        answer = await issuing.note_print(act.pool, ticket_id, act.asked(printer))
        return json_answer(answer)
    log.warning("ticket.print_failed", printer=printer.subject, reason=body.reason)
    return await move(moves.PRINT_FAILED, ticket_id, act, printer)


@router.post(
    "/{ticket_id}/reissue",
    response_model=TicketOut,
    operation_id="reissue_ticket",
    responses=refusals(*OF_A_TICKET, DayOver),
)
async def reissue(ticket_id: UUID, act: Act, printer: Printer) -> Response:
    """Print a slip again, lost or never come out: the same number, the same place."""
    return await move(moves.REISSUE, ticket_id, act, printer)

"""What happens to a ticket at the counters: called out of order, served, put aside, sent on."""

from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from libs.common.fields import In, Line
from libs.common.idempotency import KeepingRoute, replay_if_answered
from libs.common.openapi.operations import refusals
from libs.common.problems import Conflict, Malformed, NotFound, field_error
from libs.contracts.codes import UnitQuery
from libs.contracts.following import Registry
from libs.contracts.roles import Officer
from services.queue.api.edge import Act, CounterInBody, SeriesIn, Step, TicketOut, json_answer, move
from services.queue.domain import calls, issuing, moves, transfers
from services.queue.domain.refusals import (
    OF_A_COUNTER,
    OF_A_TICKET,
    CalledTooRecently,
    CentreClosed,
    ProcedureNotOffered,
    SeriesNotServed,
    StillHolding,
)
from services.queue.sla import note_first_call

router = APIRouter(prefix="/v1/tickets/{ticket_id}", tags=["steps"], route_class=KeepingRoute)


class CallIn(In):
    """A call out of order; the reason is kept and announced, so it names nobody."""

    counter: CounterInBody
    reason: Line


class TransferIn(In):
    """Where a person is sent: another series or counter of the unit, or another unit."""

    series: SeriesIn | None = None
    """Beside `unit` the series there; without it the ticket's own."""
    counter: CounterInBody | None = None
    unit: UnitQuery | None = None

    def check_one_place(self) -> None:
        """Refuse what names no place, or two that exclude one another, naming the fields.

        Raises:
            Malformed.
        """
        given = self.model_fields_set & {"series", "counter", "unit"}
        named = {name for name in given if getattr(self, name) is not None}
        if not named:
            wrong = dict.fromkeys(("series", "counter", "unit"), "name one of the three")
        elif "counter" in named and len(named) > 1:
            wrong = dict.fromkeys(sorted(named), "a counter is named alone")
        else:
            return
        errors = [field_error(name, message) for name, message in wrong.items()]
        raise Malformed(f"{len(errors)} value(s) to mend: {', '.join(wrong)}", errors=errors)


class TicketSent(TicketOut):
    """A ticket that was sent on; to another unit with the ticket that continues it there."""

    linked_ticket: TicketOut | None = None


@router.post(
    "/start",
    response_model=TicketOut,
    operation_id="start_ticket",
    responses=refusals(*OF_A_TICKET, StillHolding),
)
async def start(ticket_id: UUID, act: Act, officer: Officer, body: Step | None = None) -> Response:
    """Say that the person called stands at the counter."""
    return await move(moves.START, ticket_id, act, officer, body)


@router.post(
    "/finish",
    response_model=TicketOut,
    operation_id="finish_ticket",
    responses=refusals(*OF_A_TICKET),
)
async def finish(ticket_id: UUID, act: Act, officer: Officer, body: Step | None = None) -> Response:
    """Say that the visit is over."""
    return await move(moves.FINISH, ticket_id, act, officer, body)


@router.post(
    "/no-show",
    response_model=TicketOut,
    operation_id="mark_no_show",
    responses=refusals(*OF_A_TICKET),
)
async def no_show(
    ticket_id: UUID, act: Act, officer: Officer, body: Step | None = None
) -> Response:
    """Say that nobody came; for a while the person may still be recalled or returned."""
    return await move(moves.NO_SHOW, ticket_id, act, officer, body)


@router.post(
    "/recall",
    response_model=TicketOut,
    operation_id="recall_ticket",
    responses=refusals(*OF_A_TICKET, *OF_A_COUNTER, CalledTooRecently),
)
async def recall(ticket_id: UUID, act: Act, officer: Officer, body: Step | None = None) -> Response:
    """Call once more to the same counter, also soon after a no-show."""
    return await move(moves.RECALL, ticket_id, act, officer, body)


@router.post(
    "/park", response_model=TicketOut, operation_id="park_ticket", responses=refusals(*OF_A_TICKET)
)
async def park(ticket_id: UUID, act: Act, officer: Officer, body: Step | None = None) -> Response:
    """Put a person aside who fetches a paper or fills in a form, and free the counter."""
    return await move(moves.PARK, ticket_id, act, officer, body)


@router.post(
    "/return",
    response_model=TicketOut,
    operation_id="return_ticket",
    responses=refusals(*OF_A_TICKET),
)
async def return_(
    ticket_id: UUID, act: Act, officer: Officer, body: Step | None = None
) -> Response:
    """Let who was put aside, or missed the call, wait again in the place of the arrival."""
    return await move(moves.RETURN, ticket_id, act, officer, body)


@router.post(
    "/call",
    response_model=TicketOut,
    operation_id="call_ticket",
    responses=refusals(*OF_A_TICKET, *OF_A_COUNTER),
)
async def call(ticket_id: UUID, act: Act, officer: Officer, body: CallIn) -> Response:
    """Call this one to a counter, whoever else waits; a manager calls for who sits there."""
    called = await calls.call_out_of_order(
        act.pool, ticket_id, body.counter, body.reason, act.asked(officer)
    )
    act.wake()
    if called.first_call:
        promise = act.rules.promise.within
        await note_first_call(act.pool, called.body, called.wait, promise=promise, at=act.now)
    return json_answer(called.body)


@router.post(
    "/transfer",
    response_model=TicketSent,
    operation_id="transfer_ticket",
    responses=refusals(
        *OF_A_TICKET, *OF_A_COUNTER, SeriesNotServed, CentreClosed, ProcedureNotOffered
    ),
)
async def transfer(
    ticket_id: UUID, act: Act, registry: Registry, officer: Officer, body: TransferIn
) -> Response:
    """Send a person on, with the arrival time kept; to another unit only while it is open."""
    body.check_one_place()
    asked = act.asked(officer)
    if body.counter is not None:
        answer = await transfers.to_counter(act.pool, ticket_id, body.counter, asked)
    elif body.unit is None:
        assert body.series is not None
        answer = await transfers.to_series(act.pool, ticket_id, body.series, asked)
    else:
        try:
            unit = registry.current(body.unit).code
            procedures = await transfers.procedures_of(act.pool, ticket_id)
            issuing.check_issue(registry, unit, procedures, act.now)
        except (Conflict, NotFound):
            await replay_if_answered(act.pool, act.key)
            raise
        answer = await transfers.to_unit(act.pool, ticket_id, unit, body.series, asked)
    act.wake()
    return json_answer(answer)

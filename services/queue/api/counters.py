"""Counters: listed, opened and closed, and calling."""

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select

from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import In, Line, LocalTime, Out, Page
from libs.common.idempotency import OptionalKey
from libs.common.openapi.operations import refusals
from libs.contracts.following import Registry
from libs.contracts.roles import Manager, Officer, Role
from services.queue import models
from services.queue.api.edge import (
    Act,
    CounterNumber,
    CounterState,
    Hot,
    Promise,
    SeriesIn,
    TicketOut,
    Unit,
    Wake,
    json_answer,
)
from services.queue.domain import calls
from services.queue.domain import counters as desks
from services.queue.domain.refusals import (
    OF_A_COUNTER,
    NothingHeld,
    StillHolding,
    UnknownCounter,
    check_unit,
)
from services.queue.sla import note_first_call

router = APIRouter(prefix="/v1/units/{unit}/counters", tags=["counters"])


class CounterIn(In):
    """What a counter does from now on; without series it calls all of them."""

    state: CounterState
    reason: Line | None = None
    series: list[SeriesIn] = Field(default_factory=list, max_length=26)


class CounterOut(Out):
    """A counter (quầy)."""

    unit: str
    number: int
    state: CounterState
    reason: str | None
    series: list[str]
    changed_at: LocalTime | None


@router.get("", response_model=Page[CounterOut])
async def list_counters(unit: Unit, session: Session, registry: Registry) -> Page[CounterOut]:
    """List a centre's counters."""
    code = registry.current(unit).code
    rows = await session.scalars(
        select(models.Counter).where(models.Counter.unit == code).order_by(models.Counter.number)
    )
    return Page(items=[CounterOut.model_validate(row) for row in rows])


@router.put(
    "/{number}", response_model=CounterOut, responses=refusals(UnknownCounter, StillHolding)
)
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
    check_unit(code, officer)
    return await desks.set_counter(
        session,
        code,
        number,
        body.model_dump(),
        at=now,
        may_create=officer.role == Role.manager,
    )


@router.post(
    "/{number}/call-next",
    response_model=TicketOut,
    responses={**refusals(*OF_A_COUNTER), 204: {"description": "Nobody waits for this counter."}},
)
async def call_next(
    unit: Unit,
    number: CounterNumber,
    pool: Hot,
    registry: Registry,
    wake: Wake,
    now: Now,
    officer: Officer,
    promise: Promise,
    key: OptionalKey,
) -> Response:
    """Call whoever is due first to this counter."""
    code = registry.current(unit).code
    check_unit(code, officer)
    called = await calls.call_next(pool, code, number, officer=officer.subject, now=now, key=key)
    if called is None:
        return Response(status_code=204)
    wake()
    if called.first_call:
        await note_first_call(pool, called.body, called.wait, promise=promise.within, at=now)
    return json_answer(called.body)


@router.post(
    "/{number}/hand-back",
    response_model=TicketOut,
    operation_id="hand_back_ticket",
    responses=refusals(UnknownCounter, NothingHeld),
)
async def hand_back(
    unit: Unit,
    number: CounterNumber,
    act: Act,
    registry: Registry,
    manager: Manager,
) -> Response:
    """Let the person whom a counter holds wait again: its officer or machine will not go on."""
    code = registry.current(unit).code
    check_unit(code, manager)
    answer = await calls.hand_back(act.pool, code, number, act.asked(manager))
    act.wake()
    return json_answer(answer)

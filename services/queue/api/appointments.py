"""Appointments: slots shown, booked, checked in and given up; and a centre's rules for them."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field

from libs.common.auth import Caller, Principal, require
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Day, In, Instant, LocalTime, Out, Page
from libs.common.idempotency import OptionalKey, replay_if_answered
from libs.common.openapi.operations import refusals
from libs.common.problems import Forbidden, Problem
from libs.common.settings import Settings
from libs.common.worktime import business_day
from libs.contracts.codes import ProcedureCode, UnitQuery
from libs.contracts.directory import Directory, UnitNotActive
from libs.contracts.following import Registry
from libs.contracts.roles import ManagerOrCity, Role
from services.queue.api.edge import (
    Channel,
    Hot,
    LoadsNow,
    Promise,
    TicketStatus,
    Unit,
    Wake,
    json_answer,
)
from services.queue.api.tickets import TicketAhead
from services.queue.domain import appointments, booking
from services.queue.domain.refusals import CentreClosed, ProcedureNotOffered, check_unit
from services.queue.slots import Plan, plan_of

router = APIRouter(prefix="/v1/appointments", tags=["appointments"])

_Date = date  # A field called `date` would hide the type from the fields after it.

AppointmentStatus = Literal["booked", "checked_in", "cancelled", "missed"]


class AppointmentIn(In):
    """A wish for an appointment; nobody is asked who they are."""

    unit: UnitQuery
    starts_at: Instant
    procedure_codes: list[ProcedureCode] = Field(default_factory=list, max_length=20)
    series: Annotated[str, Field(pattern=r"^[A-Z]$")] = "A"


class Nothing(In):
    """No member is needed."""


class AppointmentOut(Out):
    """An appointment (lịch hẹn); the id is for its holder, the code for the hall."""

    id: UUID
    code: str
    unit: str
    status: AppointmentStatus
    starts_at: LocalTime
    ends_at: LocalTime
    check_in_from: LocalTime
    check_in_until: LocalTime
    series: str
    channel: Channel
    procedure_codes: list[str]
    booked_at: LocalTime
    ended_at: LocalTime | None
    """When it was checked in or cancelled, or could no longer be checked in."""
    ticket_id: UUID | None
    version: int


class AppointmentShown(AppointmentOut):
    """An appointment with what became of it."""

    ticket_number: str | None
    ticket_status: TicketStatus | None


class SlotOut(Out):
    """A slot; who is expected in it is told only to those who work at the centre."""

    starts_at: LocalTime
    ends_at: LocalTime
    free: int
    """How many more places the caller's kind may take."""
    capacity: int | None
    appointments: list[AppointmentShown] | None


class SlotPage(Page[SlotOut]):
    """The slots of a unit's day, and the last day for which it gives appointments."""

    unit: str
    date: _Date
    last_day: _Date


class RulesIn(In):
    """A centre's own rules; null leaves one to the settings."""

    slot_minutes: int | None = Field(default=None, ge=10, le=240)
    capacity: int | None = Field(default=None, ge=0, le=500)
    days_ahead: int | None = Field(default=None, ge=0, le=90)


class RulesOut(Out):
    """The rules by which a centre gives appointments."""

    unit: str
    slot_minutes: int
    capacity: int
    """People per slot."""
    web_capacity: int
    """How many of them may come without credentials."""
    days_ahead: int
    check_in_early_minutes: int
    check_in_late_minutes: int

    @classmethod
    def of(cls, unit: str, plan: Plan) -> "RulesOut":
        """Write a plan."""
        minute = timedelta(minutes=1)
        return cls(
            unit=unit,
            slot_minutes=plan.minutes,
            capacity=plan.capacity,
            web_capacity=plan.web_capacity,
            days_ahead=plan.days_ahead,
            check_in_early_minutes=plan.early // minute,
            check_in_late_minutes=plan.late // minute,
        )


_CHANNEL: Final[Mapping[str, Channel]] = {
    Role.nobody: "web",
    Role.kiosk: "kiosk",
    Role.officer: "counter",
    Role.manager: "counter",
    Role.portal: "portal",
}
"""By which channel a role comes."""

_OF_A_UNIT: Final = (Role.kiosk, Role.officer, Role.manager)

AtTheDoor = Annotated[Principal, Depends(require(*_OF_A_UNIT))]
"""Who stands where people come in: a kiosk, an officer or the manager of the unit."""


def _channel(principal: Principal) -> Channel:
    channel = _CHANNEL.get(principal.role)
    if channel is None:
        raise Forbidden(f"the role {principal.role} makes no appointments")
    return channel


def _units(principal: Principal) -> list[str] | None:
    """Name the units a caller acts for; None for a citizen and the portal, who show the id."""
    return sorted(principal.units) if principal.role in _OF_A_UNIT else None


def _expects(principal: Principal, unit: str) -> bool:
    """Tell whether a caller may see who is expected at a unit, and the ids by which they claim."""
    return principal.role in (Role.officer, Role.manager) and unit in principal.units


async def _plan(request: Request, pool: asyncpg.Pool, registry: Directory, unit: str) -> Plan:
    settings: Settings = request.state.settings
    return await booking.plan_for(pool, registry, settings, unit)


@router.get("", response_model=SlotPage)
async def list_slots(
    request: Request,
    unit: Annotated[UnitQuery, Query()],
    pool: Hot,
    registry: Registry,
    now: Now,
    principal: Caller,
    date: Annotated[Day | None, Query(description="A local day; today if none.")] = None,
) -> SlotPage:
    """List the slots of a unit's day: what is free for everybody, who is expected for its staff."""
    asked = registry.current(unit).code
    plan = await _plan(request, pool, registry, asked)
    day = date or business_day(now)
    booking.check_day(day, now)
    if _expects(principal, asked):
        items = await booking.whole_day(pool, registry, asked, day, plan, now=now)
    else:
        seats = plan.web_capacity if principal.anonymous else plan.capacity
        items = await booking.free_slots(pool, registry, asked, day, plan, seats=seats, now=now)
    return SlotPage(
        unit=asked,
        date=day,
        last_day=business_day(now) + timedelta(days=plan.days_ahead),
        items=[SlotOut.model_validate(slot) for slot in items],
    )


@router.post(
    "",
    status_code=201,
    response_model=AppointmentOut,
    operation_id="book_appointment",
    responses=refusals(
        booking.NoAppointments,
        booking.NoSuchSlot,
        booking.SlotFull,
        CentreClosed,
        ProcedureNotOffered,
    ),
)
async def book(
    request: Request,
    body: AppointmentIn,
    pool: Hot,
    registry: Registry,
    wake: Wake,
    now: Now,
    principal: Caller,
    key: OptionalKey,
) -> Response:
    """Book a slot: whoever has the id may check it in or cancel it, the code is for the hall."""
    wish = booking.Wish(
        body.starts_at, body.series, _channel(principal), list(body.procedure_codes)
    )
    try:
        unit = registry.current(body.unit).code
        if principal.role in _OF_A_UNIT:
            check_unit(unit, principal)
        plan = await _plan(request, pool, registry, unit)
        slot = booking.check_wish(registry, unit, plan, wish, now)
    except Problem:
        await replay_if_answered(pool, key)
        raise
    answer = await booking.book(pool, unit, wish, slot, plan, principal=principal, now=now, key=key)
    wake()
    return json_answer(answer, 201)


@router.get(
    "/{appointment_id}",
    response_model=AppointmentShown,
    responses=refusals(appointments.UnknownAppointment),
)
async def show_appointment(appointment_id: UUID, pool: Hot, now: Now) -> Mapping[str, Any]:
    """Show an appointment to who knows its id."""
    return dict(await appointments.shown(pool, appointment_id, now))


@router.get(
    "/codes/{unit}/{code}",
    response_model=AppointmentShown,
    responses=refusals(appointments.UnknownAppointment),
)
async def find_appointment(
    unit: Unit,
    code: Annotated[str, Path(pattern=r"^[0-9A-Za-z]{6}$", description="Upper or lower case.")],
    pool: Hot,
    registry: Registry,
    now: Now,
    principal: AtTheDoor,
) -> Mapping[str, Any]:
    """Find an appointment by the code that somebody says or types at the centre."""
    asked = registry.current(unit).code
    check_unit(asked, principal)
    return dict(await appointments.with_code(pool, asked, code.upper(), now))


@router.post(
    "/{appointment_id}/cancel",
    response_model=AppointmentOut,
    operation_id="cancel_appointment",
    responses=refusals(appointments.UnknownAppointment, appointments.AppointmentOver),
)
async def cancel(
    appointment_id: UUID,
    pool: Hot,
    wake: Wake,
    now: Now,
    principal: Caller,
    key: OptionalKey,
    body: Nothing | None = None,  # noqa: ARG001  (a body is optional, and holds nothing)
) -> Response:
    """Give an appointment up: its place is free again."""
    _channel(principal)
    answer = await appointments.cancel(
        pool, appointment_id, units=_units(principal), now=now, key=key
    )
    wake()
    return json_answer(answer)


@router.post(
    "/{appointment_id}/check-in",
    status_code=201,
    response_model=TicketAhead,
    operation_id="check_in_appointment",
    responses=refusals(
        appointments.UnknownAppointment,
        appointments.AppointmentOver,
        appointments.TooEarly,
        UnitNotActive,
        CentreClosed,
        ProcedureNotOffered,
    ),
)
async def check_in(
    appointment_id: UUID,
    pool: Hot,
    registry: Registry,
    loads: LoadsNow,
    promise: Promise,
    wake: Wake,
    now: Now,
    principal: Caller,
    key: OptionalKey,
    body: Nothing | None = None,  # noqa: ARG001  (a body is optional, and holds nothing)
) -> Response:
    """Say that whoever was expected is here: the answer is their ticket."""
    ticket = await appointments.check_in(
        pool,
        appointment_id,
        units=_units(principal),
        channel=_channel(principal),
        directory=registry,
        promise=promise,
        waits=loads.waits,
        now=now,
        key=key,
    )
    wake()
    return json_answer(ticket, 201)


@router.get("/rules/{unit}", response_model=RulesOut, operation_id="show_appointment_rules")
async def show_rules(request: Request, unit: Unit, pool: Hot, registry: Registry) -> RulesOut:
    """Show by which rules a centre gives appointments."""
    code = registry.current(unit).code
    return RulesOut.of(code, await _plan(request, pool, registry, code))


@router.put("/rules/{unit}", response_model=RulesOut, operation_id="set_appointment_rules")
async def set_rules(
    request: Request,
    unit: Unit,
    body: RulesIn,
    session: Session,
    registry: Registry,
    now: Now,
    actor: ManagerOrCity,
) -> RulesOut:
    """Give a centre rules of its own; whoever is booked keeps the time that was promised."""
    code = registry.current(unit).code
    if actor.role == Role.manager:
        check_unit(code, actor)
    centre = registry.centre(code)
    rules = body.model_dump()
    await booking.set_rules(session, code, rules | {"changed_at": now})
    return RulesOut.of(code, plan_of(request.state.settings, centre.counters_planned, rules))

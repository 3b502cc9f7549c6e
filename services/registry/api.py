"""Routes of the registry, and the shapes of what they take and give."""

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, status
from pydantic import AliasChoices, ConfigDict, Field
from sqlalchemy import func, select

from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, Day, In, Limit, Line, Out, Page, Search
from libs.common.idempotency import KeepingRoute, Once
from libs.common.openapi.operations import refusals
from libs.common.problems import Forbidden, NotFound
from libs.common.worktime import CalendarDay, DayOverride, OpeningHours, business_day
from libs.contracts.codes import ProcedureCode, UnitCode, UnitName, UnitQuery, searchable
from libs.contracts.directory import UnknownProcedure, UnknownUnit, short_code
from libs.contracts.following import Registry
from libs.contracts.registry import Level, ProcedureVersion, Successor, UnitStatus
from libs.contracts.roles import CityOffice, ManagerOrCity, Role
from services.registry import domain, models
from services.registry.words import say

units = APIRouter(prefix="/v1/units", tags=["units"], route_class=KeepingRoute)
centres = APIRouter(prefix="/v1/centres", tags=["centres"], route_class=KeepingRoute)
procedures = APIRouter(prefix="/v1/procedures", tags=["procedures"], route_class=KeepingRoute)
calendar = APIRouter(prefix="/v1/calendar", tags=["calendar"], route_class=KeepingRoute)

UnitType = Literal["city", "department", "ward", "commune", "special_zone"]
AnyUnitType = Literal["city", "department", "ward", "commune", "special_zone", "district", "former"]


class UnitIn(In):
    """A unit to plan."""

    code: UnitCode
    name: Line
    type: UnitType
    gso_code: Annotated[str, Field(pattern=r"^\d{2,5}$")] | None = None
    aliases: list[Annotated[str, Field(pattern=r"^[0-9A-Z.]{3,40}$")]] = Field(
        default_factory=list, max_length=10
    )
    valid_from: Day | None = None
    decision: Line | None = None


class Activation(In):
    """When a unit goes into service; the day of the call unless said."""

    date: Day | None = None


class SuccessorIn(In):
    """A unit that takes over."""

    code: UnitCode
    relation: Literal["whole", "part-default", "part"] = "whole"


class Closing(In):
    """Which document closes a unit, on which day (its last), and who succeeds it."""

    decision: Line
    date: Day
    successors: list[SuccessorIn] = Field(default_factory=list, max_length=50)


class Heir(Out):
    """A successor as shown."""

    code: str = Field(validation_alias=AliasChoices("code", "successor"))
    relation: str


class Ancestor(Out):
    """A predecessor as shown."""

    code: str = Field(validation_alias=AliasChoices("code", "predecessor"))
    relation: str


class UnitOut(Out):
    """A unit (đơn vị) with its code (mã định danh), life and succession."""

    code: str
    name: str
    type: str
    status: UnitStatus
    level: int
    parent: str | None
    gso_code: str | None
    aliases: list[str]
    valid_from: date | None
    valid_to: date | None
    decision: str | None
    successors: list[Heir]
    predecessors: list[Ancestor]
    synthetic: bool
    former_province: str | None
    area_km2: float | None

    @classmethod
    def of(cls, unit: models.Unit) -> "UnitOut":
        """Show a row."""
        fields = {name: getattr(unit, name) for name in cls.model_fields if name != "aliases"}
        return cls.model_validate(fields | {"aliases": [alias.alias for alias in unit.aliases]})


class ResolvedUnit(Out):
    """One unit that a code may stand for."""

    code: str
    name: str
    type: str
    status: UnitStatus
    gso_code: str | None
    valid_from: date | None
    valid_to: date | None


class Resolution(Out):
    """What a code stands for: one unit, or the candidates of a split one."""

    query: str
    units: list[ResolvedUnit]


Unit = Annotated[UnitQuery, Path(description="Current or older code, or `gso:26734`.")]
AnyUnit = Annotated[UnitName, Path(description="Current or older code, or `gso:26734`.")]
"""Also one that is closed or was split."""


@units.get("", response_model=Page[UnitOut])
async def list_units(
    session: Session,
    q: Search = None,
    type: AnyUnitType | None = None,  # noqa: A002  (the contract's parameter)
    status: UnitStatus | None = None,
    level: Annotated[int | None, Query(ge=1, le=10)] = None,
    parent: UnitCode | None = None,
    at: Day | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[UnitOut]:
    """List units; without filters the 168 that receive citizens. Accents do not matter in `q`."""
    rows = domain.units_where(q=q, type_=type, status=status, level=level, parent=parent, at=at)
    if cursor:
        rows = rows.where(models.Unit.code > cursor)
    found = list(await session.scalars(rows.limit(limit + 1)))
    more = len(found) > limit
    return Page(
        items=[UnitOut.of(unit) for unit in found[:limit]],
        next_cursor=found[limit - 1].code if more else None,
    )


@units.post(
    "",
    response_model=UnitOut,
    status_code=status.HTTP_201_CREATED,
    dependencies=[Once],
    operation_id="establish_unit",
    responses=refusals(domain.CodeReissued, domain.AliasTaken),
)
async def establish(body: UnitIn, session: Session, now: Now, _: CityOffice) -> UnitOut:
    """Plan a unit under a code never used before."""
    return UnitOut.of(await domain.establish(session, body, at=now))


@units.get("/{unit}", response_model=UnitOut, responses=refusals(UnknownUnit))
async def show_unit(
    unit: AnyUnit, session: Session, registry: Registry, at: Day | None = None
) -> UnitOut:
    """Show the record of a code: closed ones too, with their successors."""
    if at is not None:
        found = registry.resolve(unit, at)
        if not found:
            raise UnknownUnit(say("no unit had the code {unit} on {at}", unit=unit, at=at))
        unit = found[0].code
    return UnitOut.of(await domain.find_unit(session, unit, registry))


@units.get(
    "/{unit}/resolve",
    response_model=Resolution,
    operation_id="resolve_unit",
    responses=refusals(UnknownUnit),
)
async def resolve(unit: AnyUnit, registry: Registry, at: Day | None = None) -> dict[str, Any]:
    """Tell which unit a code stands for now, or stood for on a day."""
    found = registry.resolve(unit, at)
    if not found:
        if at is not None:
            raise UnknownUnit(say("{unit} stands for no unit on {at}", unit=unit, at=at))
        raise UnknownUnit(say("{unit} stands for no unit in service", unit=unit))
    return {"query": unit, "units": found}


@units.post(
    "/{unit}/activate",
    response_model=UnitOut,
    dependencies=[Once],
    operation_id="activate_unit",
    responses=refusals(UnknownUnit, domain.NotPlanned, domain.AliasTaken),
)
async def activate(
    unit: UnitCode, session: Session, now: Now, _: CityOffice, body: Activation | None = None
) -> UnitOut:
    """Put a planned unit into service."""
    on = body.date if body else None
    return UnitOut.of(await domain.activate(session, unit, on=on, at=now))


@units.post(
    "/{unit}/close",
    response_model=UnitOut,
    dependencies=[Once],
    operation_id="close_unit",
    responses=refusals(UnknownUnit, domain.NotActive),
)
async def close(
    unit: UnitCode, body: Closing, session: Session, now: Now, _: CityOffice
) -> UnitOut:
    """Close a unit's code for ever."""
    heirs = [Successor(code=s.code, relation=s.relation) for s in body.successors]
    closed = await domain.close(
        session, unit, decision=body.decision, on=body.date, successors=heirs, at=now
    )
    return UnitOut.of(closed)


# Centres --------------------------------------------------------------------------------------


class CentreIn(In):
    """What is known of a one-stop centre."""

    address: Line | None = None
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    hotlines: list[Line] = Field(default_factory=list, max_length=10)
    hours: OpeningHours
    counters_planned: int = Field(ge=1, le=99)
    name_board: Literal["unknown", "missing", "as regulated"] = "unknown"
    procedures: list[ProcedureCode] | None = Field(default=None, max_length=1000)


class CentreOut(Out):
    """A one-stop centre (trung tâm phục vụ hành chính công)."""

    unit: str
    address: str | None
    latitude: float | None
    longitude: float | None
    hotlines: list[str]
    hours: OpeningHours
    counters_planned: int
    name_board: str
    procedures: list[str] | None
    version: int


@centres.get("/{unit}", response_model=CentreOut, responses=refusals(domain.NoCentre))
async def show_centre(unit: Unit, session: Session, registry: Registry) -> models.Centre:
    """Show a unit's centre: opening hours, hotlines, counters planned, procedures offered."""
    return await domain.find_centre(session, registry.current(unit).code)


@centres.put("/{unit}", response_model=CentreOut)
async def put_centre(
    unit: Unit,
    body: CentreIn,
    session: Session,
    registry: Registry,
    now: Now,
    actor: ManagerOrCity,
) -> models.Centre:
    """Replace what is known of a unit's centre."""
    code = registry.current(unit).code
    if actor.role != Role.city and code not in actor.units:
        raise Forbidden(say("{code} is not your unit", code=code))
    return await domain.put_centre(session, code, body.model_dump(mode="json"), at=now)


# Procedures -----------------------------------------------------------------------------------


class ProcedureIn(In):
    """A procedure as it is from a day on."""

    name: Line
    name_en: Line | None = None
    field: Line
    competent_level: Literal["commune", "province", "ministry"]
    department: UnitCode | None = None
    territorial: bool
    boundary_independent: bool
    same_day: bool
    limit: "LimitIn"
    fee_vnd: Annotated[int, Field(ge=0, le=10**12)] | None = None
    components: list["ComponentIn"] = Field(default_factory=list, max_length=100)
    confidence: Literal["confirmed", "unconfirmed"] = "unconfirmed"


class LimitIn(In):
    """How long processing may take."""

    value: int = Field(ge=1, le=3650)
    unit: Literal["working_day", "working_hour", "calendar_day"]


class ComponentIn(In):
    """A paper that is asked for."""

    code: Line
    name: Line
    required: bool
    kind: Line
    reusable_from: Line | None = None


class ProcedureOut(ProcedureVersion):
    """A procedure (thủ tục hành chính) as it is in force on the day asked for."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    code: str

    @classmethod
    def of(cls, row: models.ProcedureVersion) -> "ProcedureOut":
        """Show a version."""
        return cls.model_validate({**row.body, "code": row.code})


class Coverage(Out):
    """The share of procedures that are published as independent of boundaries."""

    as_of: date
    procedures: int
    boundary_independent: int
    share: float


@procedures.get("", response_model=Page[ProcedureOut])
async def list_procedures(
    session: Session,
    now: Now,
    q: Search = None,
    field: Search = None,
    level: Level | None = None,
    at: Day | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ProcedureOut]:
    """List the procedures in force on a day (today unless said)."""
    version = models.ProcedureVersion
    in_force = domain.versions_in_force(at or business_day(now)).subquery()
    rows = select(version).join(
        in_force, (version.code == in_force.c.code) & (version.valid_from == in_force.c.valid_from)
    )
    if q:
        rows = rows.where(version.search.contains(searchable(q), autoescape=True))
    if field:
        rows = rows.where(version.field == field)
    if level:
        rows = rows.where(version.competent_level == level.value)
    if cursor:
        rows = rows.where(version.code > cursor)
    found = list(await session.scalars(rows.order_by(version.code).limit(limit + 1)))
    return Page(
        items=[ProcedureOut.of(row) for row in found[:limit]],
        next_cursor=found[limit - 1].code if len(found) > limit else None,
    )


@procedures.get("/coverage", response_model=Coverage, operation_id="show_coverage")
async def coverage(session: Session, now: Now, at: Day | None = None) -> Coverage:
    """Tell which share of the procedures in force is boundary-independent (order, item 13)."""
    day = at or business_day(now)
    in_force = domain.versions_in_force(day).subquery()
    total, independent = (
        await session.execute(
            select(
                func.count(),
                func.count().filter(in_force.c.body["boundary_independent"].as_boolean()),
            ).select_from(in_force)
        )
    ).one()
    share = round(independent / total, 4) if total else 0.0
    return Coverage(as_of=day, procedures=total, boundary_independent=independent, share=share)


@procedures.get("/{code}", response_model=ProcedureOut, responses=refusals(UnknownProcedure))
async def show_procedure(
    code: ProcedureCode, session: Session, now: Now, at: Day | None = None
) -> ProcedureOut:
    """Show a procedure as it is in force on a day (today unless said)."""
    day = at or business_day(now)
    return ProcedureOut.of(await domain.find_version(session, short_code(code), day))


@procedures.put(
    "/{code}/versions/{valid_from}",
    response_model=ProcedureOut,
    operation_id="put_procedure_version",
)
async def put_version(
    code: ProcedureCode,
    valid_from: Day,
    body: ProcedureIn,
    session: Session,
    now: Now,
    _: CityOffice,
) -> ProcedureOut:
    """Say how a procedure is from a day on; dossiers received before keep their rules."""
    state = ProcedureVersion.model_validate({**body.model_dump(), "valid_from": valid_from})
    await domain.put_version(session, short_code(code), state, at=now)
    return ProcedureOut.model_validate({**state.model_dump(), "code": short_code(code)})


# Calendar -------------------------------------------------------------------------------------


class OverrideIn(In):
    """Why a day is worked or off against the rules."""

    kind: Literal["off", "work"]
    decision: Line
    note: Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f]*$")] = ""
    in_lieu_of: Day | None = None


class NoException(NotFound):
    """The day is no exception."""


@calendar.get(
    "/overrides/{day}",
    response_model=DayOverride,
    operation_id="show_calendar_override",
    responses=refusals(NoException),
)
async def show_override(day: Day, session: Session) -> DayOverride:
    """Show why a day is an exception."""
    row = await session.get(models.CalendarOverride, day)
    if row is None or row.kind is None:
        raise NoException(say("{day} follows the ordinary rules", day=day))
    return domain.override_of(row)


@calendar.put("/overrides/{day}", response_model=DayOverride, operation_id="put_calendar_override")
async def put_override(
    day: Day, body: OverrideIn, session: Session, now: Now, _: CityOffice
) -> DayOverride:
    """Make a day an exception from weekend and holiday rules."""
    override = DayOverride.model_validate({**body.model_dump(), "date": day})
    await domain.set_override(session, day, override, at=now)
    return override


@calendar.delete(
    "/overrides/{day}",
    status_code=status.HTTP_204_NO_CONTENT,
    operation_id="delete_calendar_override",
    responses=refusals(NoException),
)
async def delete_override(day: Day, session: Session, now: Now, _: CityOffice) -> None:
    """Take an exception back."""
    await show_override(day, session)
    await domain.set_override(session, day, None, at=now)


@calendar.get("/{day}", response_model=CalendarDay, operation_id="show_calendar_day")
async def show_day(day: Day, session: Session) -> CalendarDay:
    """Tell whether a day is worked, and why."""
    return await domain.calendar_day(session, day)


ProcedureIn.model_rebuild()

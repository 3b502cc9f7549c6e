"""What may happen to units, centres, procedures and the calendar, and what is announced."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import publish
from libs.common.problems import Conflict, malformed_field
from libs.common.worktime import Calendar, CalendarDay, DayOverride, OpeningHours, business_day
from libs.contracts.codes import level_of, parent_of, searchable
from libs.contracts.directory import Directory, UnknownProcedure, UnknownUnit
from libs.contracts.registry import (
    COMMUNE_TYPES,
    CalendarDayChanged,
    CentreChanged,
    ProcedureChanged,
    Successor,
    UnitChanged,
    UnitStatus,
)
from libs.contracts.registry import ProcedureVersion as VersionState
from services.registry.models import (
    CalendarOverride,
    Centre,
    Procedure,
    ProcedureVersion,
    Succession,
    Unit,
    UnitAlias,
)
from services.registry.words import say

if TYPE_CHECKING:
    from services.registry.api import UnitIn


class CodeReissued(Conflict):
    """A unit code is issued once and never again.

    Choose a code that was never used.
    """


class AliasTaken(Conflict):
    """Another unit already goes by this code.

    Choose another code, or take it from the unit that `detail` names first.
    """


class NotPlanned(Conflict):
    """Only a planned unit can be activated.

    Look at the unit: `allowed` lists what may be done with it.
    """


class NotActive(Conflict):
    """Only an active unit can be closed.

    Look at the unit: `allowed` lists what may be done with it.
    """


class NoCentre(UnknownUnit):
    """The unit keeps no one-stop centre."""


# Units ----------------------------------------------------------------------------------------


def announce_unit(session: AsyncSession, unit: Unit, at: datetime) -> None:
    """Publish a unit's whole state under its next version."""
    event = UnitChanged(
        code=unit.code,
        version=unit.version,
        name=unit.name,
        type=unit.type,
        status=UnitStatus(unit.status),
        gso_code=unit.gso_code,
        aliases=tuple(alias.alias for alias in unit.aliases),
        valid_from=unit.valid_from,
        valid_to=unit.valid_to,
        successors=tuple(
            Successor.model_validate({"code": s.successor, "relation": s.relation})
            for s in unit.successors
        ),
        synthetic=unit.synthetic,
    )
    publish(session, event, at=at)


async def establish(session: AsyncSession, draft: "UnitIn", *, at: datetime) -> Unit:
    """Plan a new unit under a code that was never used.

    Raises:
        CodeReissued: the code was issued before, even if it is closed now.
        AliasTaken: an alias is another unit's.
    """
    if await session.get(Unit, draft.code):
        raise CodeReissued(say("{code} has been issued before", code=draft.code))
    taken = await session.scalar(select(UnitAlias).where(UnitAlias.alias.in_(draft.aliases)))
    if taken is not None:
        raise AliasTaken(say("{alias} stands for {unit}", alias=taken.alias, unit=taken.unit))
    parent = parent_of(draft.code)
    if parent is not None and not await session.get(Unit, parent):
        raise malformed_field("code", say("its parent {parent} is not registered", parent=parent))
    unit = Unit(
        code=draft.code,
        version=1,
        name=draft.name,
        search=searchable(draft.name),
        type=draft.type,
        level=level_of(draft.code),
        parent=parent,
        status=UnitStatus.planned.value,
        gso_code=draft.gso_code,
        valid_from=draft.valid_from,
        decision=draft.decision,
        synthetic=False,
        aliases=[UnitAlias(alias=alias) for alias in draft.aliases],
        successors=[],
        predecessors=[],
    )
    session.add(unit)
    await session.flush()
    announce_unit(session, unit, at)
    return unit


async def locked_unit(session: AsyncSession, code: str) -> Unit:
    """Take a unit for change; a second writer waits.

    Raises:
        UnknownUnit: no unit has exactly this code.
    """
    unit = await session.get(Unit, code, with_for_update=True)
    if unit is None:
        raise UnknownUnit(say("no unit has the code {code}", code=code))
    return unit


async def activate(session: AsyncSession, code: str, *, on: date | None, at: datetime) -> Unit:
    """Put a planned unit into service.

    Raises:
        UnknownUnit, NotPlanned.
    """
    unit = await locked_unit(session, code)
    if unit.status != UnitStatus.planned:
        raise NotPlanned(
            say("{code} is {status}", code=code, status=unit.status), allowed=_allowed(unit)
        )
    if unit.gso_code is not None:
        holder = await session.scalar(
            select(Unit.code).where(Unit.gso_code == unit.gso_code, Unit.status == "active")
        )
        if holder:
            raise AliasTaken(
                say(
                    "{holder} is active under the GSO code {gso_code}",
                    holder=holder,
                    gso_code=unit.gso_code,
                )
            )
    unit.status = UnitStatus.active.value
    unit.valid_from = on or unit.valid_from or business_day(at)
    unit.version += 1
    announce_unit(session, unit, at)
    return unit


async def close(
    session: AsyncSession,
    code: str,
    *,
    decision: str,
    on: date,
    successors: list[Successor],
    at: datetime,
) -> Unit:
    """Close a unit's code for ever and say who succeeds it (1→n).

    Raises:
        UnknownUnit, NotActive. Malformed: the date or a successor is not possible.
    """
    unit = await locked_unit(session, code)
    if unit.status != UnitStatus.active:
        raise NotActive(
            say("{code} is {status}", code=code, status=unit.status), allowed=_allowed(unit)
        )
    if on > business_day(at):
        raise malformed_field("date", say("a unit is closed on or after that day, not ahead of it"))
    if unit.valid_from is not None and on < unit.valid_from:
        raise malformed_field(
            "date", say("the unit exists only since {valid_from}", valid_from=unit.valid_from)
        )
    await _check_successors(session, code, successors)
    unit.status = UnitStatus.closed.value
    unit.valid_to = on
    unit.decision = decision
    unit.version += 1
    unit.successors = [Succession(successor=s.code, relation=s.relation) for s in successors]
    await session.flush()
    announce_unit(session, unit, at)
    return unit


async def _check_successors(session: AsyncSession, code: str, heirs: list[Successor]) -> None:
    codes = [heir.code for heir in heirs]
    if code in codes:
        raise malformed_field("successors", say("a unit does not succeed itself"))
    if len(set(codes)) < len(codes):
        raise malformed_field("successors", say("a successor is named twice"))
    known = set(
        await session.scalars(
            select(Unit.code).where(Unit.code.in_(codes), Unit.status != "closed")
        )
    )
    if missing := [heir for heir in codes if heir not in known]:
        raise malformed_field(
            "successors", say("not registered, or closed: {codes}", codes=", ".join(missing))
        )


def _allowed(unit: Unit) -> list[str]:
    return {"planned": ["activate"], "active": ["close"]}.get(unit.status, [])


async def find_unit(session: AsyncSession, query: str, directory: Directory) -> Unit:
    """Give the record a client asks for: the exact code's own, else what the name resolves to.

    A split code without a current bearer gives the closed record, whose successors are the
    candidates.

    Raises:
        UnknownUnit: nothing goes by that name.
    """
    unit = await session.get(Unit, query)
    if unit is None:
        found = directory.resolve(query)
        named = found if len(found) == 1 else directory.named(query)
        unit = await session.get(Unit, named[0].code) if named else None
    if unit is None:
        raise UnknownUnit(say("no unit has the code {code}", code=query))
    return unit


def units_where(
    *,
    q: str | None,
    type_: str | None,
    status: str | None,
    level: int | None,
    parent: str | None,
    at: date | None,
) -> Select[Unit]:
    """Select units: without any filter the active ones that receive citizens."""
    rows = select(Unit).order_by(Unit.code)
    if not any((q, type_, status, level, parent, at)):
        return rows.where(Unit.status == "active", Unit.type.in_(COMMUNE_TYPES))
    if q:
        rows = rows.where(Unit.search.contains(searchable(q), autoescape=True))
    if type_:
        rows = rows.where(Unit.type == type_)
    if level:
        rows = rows.where(Unit.level == level)
    if parent:
        rows = rows.where(Unit.parent == parent)
    if status or not at:
        rows = rows.where(Unit.status == (status or "active"))
    if at:
        rows = rows.where(
            (Unit.valid_from.is_(None)) | (Unit.valid_from <= at),
            (Unit.valid_to.is_(None)) | (Unit.valid_to >= at),
        )
    return rows


# Centres --------------------------------------------------------------------------------------


def announce_centre(session: AsyncSession, centre: Centre, at: datetime) -> None:
    """Publish a centre's whole state."""
    event = CentreChanged(
        unit=centre.unit,
        version=centre.version,
        latitude=centre.latitude,
        longitude=centre.longitude,
        hours=OpeningHours.model_validate(centre.hours),
        counters_planned=centre.counters_planned,
        procedures=None if centre.procedures is None else tuple(centre.procedures),
    )
    publish(session, event, at=at)


async def find_centre(session: AsyncSession, unit: str) -> Centre:
    """Give a unit's centre.

    Raises:
        NoCentre: it keeps none.
    """
    centre = await session.get(Centre, unit)
    if centre is None:
        raise NoCentre(say("{unit} keeps no one-stop centre", unit=unit))
    return centre


async def put_centre(
    session: AsyncSession, unit: str, values: dict[str, Any], *, at: datetime
) -> Centre:
    """Replace what is known of a unit's centre, or found it.

    Raises:
        Malformed: a procedure offered is not in the catalogue.
    """
    await locked_unit(session, unit)
    offered = values["procedures"]
    if offered is not None:
        known = set(
            await session.scalars(select(Procedure.code).where(Procedure.code.in_(offered)))
        )
        if unknown := sorted(set(offered) - known):
            raise malformed_field(
                "procedures", say("not in the catalogue: {codes}", codes=", ".join(unknown))
            )
    centre = await session.get(Centre, unit)
    if centre is None:
        centre = Centre(unit=unit, version=0)
        session.add(centre)
    for name, value in values.items():
        setattr(centre, name, value)
    centre.version += 1
    await session.flush()
    announce_centre(session, centre, at)
    return centre


# Procedures -----------------------------------------------------------------------------------


def announce_procedure(session: AsyncSession, procedure: Procedure, at: datetime) -> None:
    """Publish all versions of a procedure."""
    event = ProcedureChanged(
        code=procedure.code,
        version=procedure.version,
        versions=tuple(VersionState.model_validate(v.body) for v in procedure.versions),
    )
    publish(session, event, at=at)


def version_row(code: str, state: VersionState) -> ProcedureVersion:
    """Make the row of a procedure version."""
    return ProcedureVersion(
        code=code,
        valid_from=state.valid_from,
        name=state.name,
        search=searchable(f"{code} {state.name} {state.name_en or ''}"),
        field=state.field,
        competent_level=state.competent_level.value,
        body=state.model_dump(mode="json"),
    )


async def put_version(
    session: AsyncSession, code: str, state: VersionState, *, at: datetime
) -> VersionState:
    """Say how a procedure is from a day on; the version of that same day is replaced."""
    await session.execute(insert(Procedure).values(code=code, version=0).on_conflict_do_nothing())
    procedure = await session.get(Procedure, code, with_for_update=True)
    assert procedure is not None
    if state.department is not None and not await session.get(Unit, state.department):
        raise malformed_field(
            "department", say("{department} is not registered", department=state.department)
        )
    kept = [v for v in procedure.versions if v.valid_from != state.valid_from]
    if len(kept) < len(procedure.versions):
        procedure.versions = kept
        await session.flush()
    procedure.versions = sorted(
        [*kept, version_row(code, state)], key=lambda version: version.valid_from
    )
    procedure.version += 1
    await session.flush()
    announce_procedure(session, procedure, at)
    return state


def versions_in_force(day: date) -> Select[ProcedureVersion]:
    """Select the version of each procedure that is in force on a day."""
    return (
        select(ProcedureVersion)
        .ext(distinct_on(ProcedureVersion.code))
        .where(ProcedureVersion.valid_from <= day)
        .order_by(ProcedureVersion.code, ProcedureVersion.valid_from.desc())
    )


async def find_version(session: AsyncSession, code: str, day: date) -> ProcedureVersion:
    """Give the version of a procedure that is in force on a day.

    Raises:
        UnknownProcedure: there is none.
    """
    version = await session.scalar(
        versions_in_force(day).where(ProcedureVersion.code == code).limit(1)
    )
    if version is None:
        raise UnknownProcedure(
            say("no procedure in force on {day} has the code {code}", day=day, code=code)
        )
    return version


# Calendar -------------------------------------------------------------------------------------


async def calendar_day(session: AsyncSession, day: date) -> CalendarDay:
    """Tell whether a day is worked, and why."""
    row = await session.get(CalendarOverride, day)
    return Calendar([override_of(row)] if row is not None and row.kind else ()).day(day)


def override_of(row: CalendarOverride) -> DayOverride:
    """Give a stored exception in the shape that working time is computed with."""
    return DayOverride.model_validate(
        {
            "date": row.day,
            "kind": row.kind,
            "decision": row.decision,
            "note": row.note,
            "in_lieu_of": row.in_lieu_of,
        }
    )


def announce_day(session: AsyncSession, row: CalendarOverride, at: datetime) -> None:
    """Publish what a day is."""
    event = CalendarDayChanged.model_validate(
        {
            "day": row.day,
            "version": row.version,
            "kind": row.kind,
            "decision": row.decision,
            "note": row.note,
            "in_lieu_of": row.in_lieu_of,
        }
    )
    publish(session, event, at=at)


async def set_override(
    session: AsyncSession, day: date, override: DayOverride | None, *, at: datetime
) -> CalendarOverride:
    """Make a day an exception, or take the exception back."""
    await session.execute(
        insert(CalendarOverride)
        .values(day=day, version=0, decision="", note="")
        .on_conflict_do_nothing()
    )
    row = await session.get(CalendarOverride, day, with_for_update=True)
    assert row is not None
    row.version += 1
    row.kind = override.kind if override else None
    row.decision = override.decision if override else ""
    row.note = override.note if override else ""
    row.in_lieu_of = override.in_lieu_of if override else None
    await session.flush()
    announce_day(session, row, at)
    return row

"""What may be read of dossiers and by whom: lists, the control slip, the citizen's view."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, selectinload

from libs.common.auth import Principal
from libs.common.problems import Forbidden, NotFound, malformed_field
from libs.common.worktime import ZONE, business_day
from libs.contracts.directory import Directory
from libs.contracts.intake import DossierStatus
from libs.contracts.roles import Role
from services.intake.domain import acts_for, find, spelled
from services.intake.models import Applicant, Dossier, HandOver

PAUSED = (DossierStatus.supplement_requested, DossierStatus.payment_requested)
"""While a citizen is awaited the limit does not run."""


class NotTracked(NotFound):
    """No dossier goes by this code and these last four digits.

    Check both on the receipt; a wrong number answers as a wrong code does.
    """


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list of dossiers is narrowed to; days are local and both included."""

    units: Sequence[str] | None
    """Codes a dossier was received or is decided under; None: any."""
    status: Sequence[DossierStatus] = ()
    overdue: bool | None = None
    first_day: date | None = None
    last_day: date | None = None


def midnight(day: date) -> datetime:
    """Give the instant at which a local day begins."""
    return datetime.combine(day, time.min, ZONE)


def is_overdue(dossier: Dossier, at: datetime) -> bool:
    """Tell whether a dossier is pending after the local day of its appointment.

    As in the weekly report, the appointment's day still counts as on time, and more than one
    supplement request as late.
    """
    if dossier.appointment_at is None or dossier.ended_at is not None or dossier.status in PAUSED:
        return False
    return dossier.appointment_at < midnight(business_day(at)) or dossier.supplement_requests > 1


def _overdue(at: datetime) -> ColumnElement[bool]:
    """Say the same in SQL."""
    return and_(
        Dossier.ended_at.is_(None),
        Dossier.appointment_at.is_not(None),
        Dossier.status.not_in([status.value for status in PAUSED]),
        or_(
            Dossier.appointment_at < midnight(business_day(at)),
            Dossier.supplement_requests > 1,
        ),
    )


def units_asked_for(actor: Principal, unit: str | None, directory: Directory) -> list[str] | None:
    """Give the codes that a list is about, predecessors included; None: every unit.

    Raises:
        UnknownUnit, UnitSplit, UnitNotActive. Forbidden: it is not the caller's.
    """
    city = actor.role == Role.city
    if unit is None:
        if city:
            return None
        mine = actor.units
    else:
        code = directory.current(unit).code
        if not city and code not in actor.units:
            raise Forbidden(f"{code} is not your unit")
        mine = frozenset([code])
    former = [
        former.code
        for former in directory.units.values()
        if not former.active and any(heir.code in mine for heir in directory.heirs(former))
    ]
    return [*sorted(mine), *former]


async def listed(
    session: AsyncSession, wanted: Wanted, *, limit: int, cursor: str | None, at: datetime
) -> tuple[list[Dossier], str | None]:
    """List dossiers, newest first, with the cursor of the next page.

    Raises:
        Malformed: the cursor is not one of ours.
    """
    narrowed = list(_conditions(wanted, at))
    if cursor is not None:
        narrowed.append(tuple_(Dossier.submitted_at, Dossier.code) < tuple_(*_place(cursor)))
    newest = (Dossier.submitted_at.desc(), Dossier.code.desc())

    def some(*more: ColumnElement[bool]) -> Select[Any]:
        return select(Dossier.code).where(*narrowed, *more).order_by(*newest).limit(limit + 1)

    if wanted.units is None:
        codes = some().subquery()
    else:
        # Each unit's two indices are walked in order; an OR would collect and sort all it has.
        named = literal(list(wanted.units), ARRAY(String))
        units = func.unnest(named).table_valued("unit").render_derived()
        walks = [some(side == units.c.unit).lateral() for side in _SIDES]
        codes = union(
            *(select(walk.c.code).select_from(units.join(walk, true())) for walk in walks)
        ).subquery()
    query = (
        select(Dossier)
        .where(Dossier.code.in_(select(codes.c.code)))
        .order_by(*newest)
        .limit(limit + 1)
        .options(selectinload(Dossier.rules))
    )
    found = list(await session.scalars(query))
    more = len(found) > limit
    return found[:limit], _cursor(found[limit - 1]) if more else None


_SIDES: tuple[InstrumentedAttribute[str], ...] = (Dossier.competent_unit, Dossier.receiving_unit)
_EARLIEST, _LATEST = date(1970, 1, 1), date(9999, 1, 1)
"""Days beyond are no limit: PostgreSQL's driver cannot write their instants."""


def _conditions(wanted: Wanted, at: datetime) -> list[ColumnElement[bool]]:
    narrowed: list[ColumnElement[bool]] = []
    if wanted.status:
        narrowed.append(Dossier.status.in_([status.value for status in wanted.status]))
    if wanted.overdue is not None:
        overdue = _overdue(at)
        narrowed.append(overdue if wanted.overdue else ~overdue)
    if wanted.first_day is not None and wanted.first_day > _EARLIEST:
        narrowed.append(Dossier.submitted_at >= midnight(wanted.first_day))
    if wanted.last_day is not None and wanted.last_day < _LATEST:
        narrowed.append(Dossier.submitted_at < midnight(wanted.last_day + timedelta(days=1)))
    return narrowed


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _cursor(dossier: Dossier) -> str:
    return f"{(dossier.submitted_at - _EPOCH) // _MICROSECOND}-{dossier.code}"


def _place(cursor: str) -> tuple[datetime, str]:
    microseconds, _, code = cursor.partition("-")
    try:
        return _EPOCH + int(microseconds) * _MICROSECOND, code
    except (ValueError, OverflowError):
        raise malformed_field("cursor", "not a `next_cursor` of this list") from None


async def shown(
    session: AsyncSession, code: str, *, to: Principal, directory: Directory
) -> Dossier:
    """Give a dossier to somebody who may see it.

    Raises:
        UnknownDossier. Forbidden: neither the receiving nor the competent unit is the caller's.
    """
    dossier = await find(session, code)
    if to.role != Role.city and acts_for(dossier, to, directory) is None:
        raise Forbidden(f"{dossier.code} was neither received nor is decided by a unit of yours")
    return dossier


async def applicant_of(session: AsyncSession, dossier: Dossier) -> Applicant | None:
    """Read who handed a dossier in: only for staff of its units, never for the city."""
    return await session.get(Applicant, dossier.applicant_id)


async def hand_overs(
    session: AsyncSession, code: str, *, after: int = 0, limit: int = 200
) -> list[HandOver]:
    """Read the control slip of a dossier, oldest line first, after a version."""
    lines = (
        select(HandOver)
        .where(HandOver.dossier_code == code, HandOver.version > after)
        .order_by(HandOver.version)
        .limit(limit)
    )
    return list(await session.scalars(lines))


async def tracked(session: AsyncSession, code: str, last4: str) -> Dossier:
    """Find a dossier for who knows its code and the last four digits of the applicant's phone.

    Codes follow one another, so the code alone shows nothing. Where no phone was left the digits
    are those of the ID or tax number, hyphens left out; a dossier with none of these is told of
    at the counter only. A wrong number and an unknown code cannot be told apart: one statement,
    one answer.

    Raises:
        NotTracked.
    """
    number = func.coalesce(Applicant.phone, Applicant.id_number, Applicant.tax_number)
    dossier = await session.scalar(
        select(Dossier)
        .join(Dossier.applicant)
        .where(
            Dossier.code == spelled(code),
            func.right(func.replace(number, "-", ""), 4) == last4,
        )
        .options(selectinload(Dossier.components), selectinload(Dossier.rules))
    )
    if dossier is None:
        raise NotTracked("no dossier goes by this code and these last four digits; both stand on "
                         "the receipt")  # fmt: skip
    return dossier

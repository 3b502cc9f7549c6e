"""Kiosks: numbers lent for the time without network, and what was issued taken in afterwards."""

import re
from datetime import date, datetime
from typing import Annotated, Final, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, Day, In, Limit, LocalTime, Out, Page
from libs.common.idempotency import KeepingRoute, Once
from libs.common.openapi.operations import refusals
from libs.common.problems import Unavailable, malformed_field
from libs.contracts.codes import UnitQuery
from libs.contracts.following import Registry
from libs.contracts.roles import Kiosk, Role, Staff
from services.queue.api.edge import Promise, TicketOut
from services.queue.domain import kiosks
from services.queue.domain.kiosks import LeaseStatus
from services.queue.domain.refusals import CentreClosed, check_unit
from services.queue.leases import MOST_NUMBERS, IssuedOffline, LeaseKeys
from services.queue.models import KioskLease

router = APIRouter(prefix="/v1/kiosks", tags=["kiosks"], route_class=KeepingRoute)

KioskName = Annotated[str, Path(max_length=200, description="The subject of the kiosk's token.")]


async def _keys(request: Request) -> LeaseKeys:
    keys: LeaseKeys | None = request.state.lease_keys
    if keys is None:
        raise Unavailable("no key signs leases here: set MOTCUA_KIOSK_KEY_FILE", retry_after=60)
    return keys


Keys = Annotated[LeaseKeys, Depends(_keys)]


class LeaseIn(In):
    """A wish for numbers to issue offline."""

    unit: UnitQuery | None = None
    """Needed of a kiosk that stands for more units than one."""
    series: Annotated[str, Field(pattern=r"^[A-Z]$")] = "A"
    """The line in which people will wait."""
    business_day: Day | None = None
    """The day of the next opening, if none."""
    count: Annotated[int, Field(ge=1, le=MOST_NUMBERS)] | None = None


class LeaseOut(Out):
    """A block of numbers: `first` to `last` of `series`, each written with three digits or more."""

    kiosk: str
    unit: str
    series: str
    business_day: date
    first: int
    last: int
    granted_at: LocalTime
    valid_from: LocalTime
    expires_at: LocalTime
    status: LeaseStatus
    reconciled_at: LocalTime | None
    issued: int | None
    """How many of the numbers were given to somebody; null while nobody knows."""

    @classmethod
    def of(cls, lease: KioskLease, now: datetime) -> Self:
        """Write a lease as it stands at an instant."""
        columns = {column.name: getattr(lease, column.name) for column in lease.__table__.columns}
        return cls.model_validate(columns | {"status": kiosks.status_of(lease, now)})


class LeaseGranted(LeaseOut):
    """A lease as the kiosk alone sees it: the ids of its tickets follow from its own."""

    id: UUID
    signed: str
    """A JWS, which the kiosk keeps and sends back."""


class ReconcileIn(In):
    """The account of a lease: every number that was given to somebody, once for all."""

    signed: Annotated[str, Field(min_length=1, max_length=2000)]
    tickets: Annotated[list[IssuedOffline], Field(max_length=MOST_NUMBERS)]


class Reconciled(Out):
    """What a lease became: tickets like all others, in the order of their numbers."""

    lease: LeaseOut
    tickets: list[TicketOut]


class KeySet(Out):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]


@router.get("/keys", response_model=KeySet, operation_id="show_lease_keys")
async def show_keys(keys: Keys) -> KeySet:
    """Show the public keys by which a kiosk knows a lease as ours."""
    return KeySet(keys=keys.public())


@router.get("/leases", response_model=Page[LeaseOut])
async def list_leases(
    unit: Annotated[UnitQuery, Query()],
    session: Session,
    registry: Registry,
    now: Now,
    actor: Staff,
    date: Annotated[Day | None, Query(description="A business day.")] = None,
    status: LeaseStatus | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[LeaseOut]:
    """List what a unit's kiosks were lent, newest day first; `expired` ones are lost so far."""
    code = registry.current(unit).code
    if actor.role != Role.city:
        check_unit(code, actor)
    found = await kiosks.listed(
        session,
        code,
        day=date,
        status=status,
        now=now,
        limit=limit,
        after=_place(cursor) if cursor else None,
    )
    last = found[limit - 1] if len(found) > limit else None
    return Page(
        items=[LeaseOut.of(lease, now) for lease in found[:limit]],
        next_cursor=f"{last.business_day}{last.series}{last.first}" if last else None,
    )


_PLACE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})([A-Z]{2})(\d{1,9})", re.ASCII)


def _place(cursor: str) -> tuple[date, str, int]:
    try:
        place = _PLACE.fullmatch(cursor)
        assert place is not None
        return date.fromisoformat(place[1]), place[2], int(place[3])
    except (AssertionError, ValueError):
        raise malformed_field("cursor", "take it from `next_cursor` of the page before") from None


@router.post(
    "/{kiosk}/lease",
    status_code=201,
    response_model=LeaseGranted,
    dependencies=[Once],
    operation_id="lend_numbers",
    responses=refusals(
        kiosks.NotYourKiosk, kiosks.TooManyLeases, kiosks.NoSeriesLeft, CentreClosed
    ),
)
async def lend(
    request: Request,
    kiosk: KioskName,
    session: Session,
    registry: Registry,
    keys: Keys,
    now: Now,
    actor: Kiosk,
    body: LeaseIn | None = None,
) -> LeaseGranted:
    """Lend a kiosk a signed block of numbers to issue while it reaches nobody."""
    kiosks.check_kiosk(kiosk, actor)
    wish = body or LeaseIn()
    if wish.unit is None and len(actor.units) != 1:
        raise malformed_field("unit", f"say which: {', '.join(sorted(actor.units))}")
    unit = registry.current(wish.unit or next(iter(actor.units))).code
    check_unit(unit, actor)
    settings = request.state.settings
    day = kiosks.day_to_lend(
        registry, unit, wish.business_day, now=now, days_ahead=settings.kiosk_lease_days_ahead
    )
    count = wish.count or settings.kiosk_lease_numbers
    lease = await kiosks.lend(session, kiosk, unit, line=wish.series, day=day, count=count, now=now)
    seen = LeaseOut.of(lease, now).model_dump()
    return LeaseGranted(**seen, id=lease.id, signed=keys.sign(lease))


@router.post(
    "/{kiosk}/reconcile",
    response_model=Reconciled,
    dependencies=[Once],
    operation_id="reconcile_lease",
    responses=refusals(
        kiosks.NotYourKiosk, kiosks.UnknownLease, kiosks.AlreadyReconciled, kiosks.LeaseTooOld
    ),
)
async def reconcile(
    kiosk: KioskName,
    body: ReconcileIn,
    session: Session,
    keys: Keys,
    promise: Promise,
    now: Now,
    actor: Kiosk,
) -> Reconciled:
    """Take in what a kiosk issued from a lease: all of it at once, or nothing."""
    kiosks.check_kiosk(kiosk, actor)
    lease, tickets = await kiosks.reconcile(
        session,
        kiosk,
        body.signed,
        body.tickets,
        keys=keys,
        principal=actor,
        promise=promise,
        now=now,
    )
    return Reconciled(
        lease=LeaseOut.of(lease, now),
        tickets=[TicketOut.model_validate_json(ticket) for ticket in tickets],
    )

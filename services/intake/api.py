"""Routes of intake; the shapes of what they take and give stand in `shapes`."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, status

from libs.common.auth import Principal, require
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Cursor, Day, Limit, Page
from libs.common.idempotency import KeepingRoute, Once
from libs.common.openapi.operations import refusals
from libs.common.problems import malformed_field
from libs.contracts.codes import DossierCode, UnitQuery
from libs.contracts.directory import Directory
from libs.contracts.following import Registry
from libs.contracts.intake import DossierStatus
from libs.contracts.roles import Officer, Role, Staff
from services.intake import domain, reading, rules, submission
from services.intake.drafts import Assignment, DossierIn, Step
from services.intake.shapes import (
    DossierBrief,
    DossierOut,
    DossierWithApplicant,
    HandOverOut,
    Tracking,
)

dossiers = APIRouter(prefix="/v1/dossiers", tags=["dossiers"], route_class=KeepingRoute)
tracking = APIRouter(prefix="/v1/track", tags=["dossiers"])

Submitter = Annotated[Principal, Depends(require(Role.officer, Role.manager, Role.portal))]
"""Staff of the receiving unit, or the portal on a citizen's behalf."""

Code = Annotated[DossierCode, Path(description="Dossier code, like H29.26740-261120-0001.")]


@dossiers.post(
    "",
    response_model=DossierOut,
    status_code=status.HTTP_201_CREATED,
    dependencies=[Once],
    operation_id="submit_dossier",
    responses=refusals(rules.NotOffered, rules.NationalProcedure, rules.NoAppointment),
)
async def submit(
    body: DossierIn, session: Session, registry: Registry, now: Now, actor: Submitter
) -> DossierOut:
    """Take a dossier in; the answer names its code, the competent unit and the missing papers.

    `direct` and `postal` ones are entered by staff of the receiving unit who have the papers
    before them, so they are received in the same call. `online` ones wait in status 1: the portal
    brings them to any unit that offers the procedure, staff of the receiving unit enter them for
    citizens they help. Citizens have no credentials and come through the portal. The answer never
    repeats who the applicant is.
    """
    taken = await submission.submit(session, body, by=actor, directory=registry, at=now)
    return DossierOut.of(taken, registry, now)


@dossiers.get("", response_model=Page[DossierBrief])
async def list_dossiers(
    session: Session,
    registry: Registry,
    now: Now,
    actor: Staff,
    unit: Annotated[UnitQuery | None, Query(description="Received or decided there.")] = None,
    status: Annotated[list[DossierStatus] | None, Query()] = None,
    overdue: bool | None = None,
    first: Annotated[Day | None, Query(alias="from", description="First day handed in.")] = None,
    last: Annotated[Day | None, Query(alias="to", description="Last day handed in.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DossierBrief]:
    """List dossiers, newest first: staff those of their units, the city any; nothing personal.

    `from` and `to` are local days of submission, both included.
    """
    if first and last and last < first:
        raise malformed_field("to", "the last day comes before the first")
    wanted = reading.Wanted(
        units=reading.units_asked_for(actor, unit, registry),
        status=status or (),
        overdue=overdue,
        first_day=first,
        last_day=last,
    )
    found, more = await reading.listed(session, wanted, limit=limit, cursor=cursor, at=now)
    return Page(
        items=[DossierBrief.of(dossier, registry, now) for dossier in found], next_cursor=more
    )


@dossiers.get(
    "/{code}", response_model=DossierWithApplicant, responses=refusals(domain.UnknownDossier)
)
async def show_dossier(
    code: Code, session: Session, registry: Registry, now: Now, actor: Staff
) -> DossierWithApplicant:
    """Show a dossier: with its applicant to staff of its units, without to the city."""
    dossier = await reading.shown(session, code, to=actor, directory=registry)
    insider = actor.role != Role.city
    applicant = await reading.applicant_of(session, dossier) if insider else None
    return DossierWithApplicant.to_staff(dossier, applicant, registry, now)


@dossiers.get(
    "/{code}/history",
    response_model=Page[HandOverOut],
    operation_id="show_dossier_history",
    responses=refusals(domain.UnknownDossier),
)
async def show_history(
    code: Code,
    session: Session,
    registry: Registry,
    actor: Staff,
    limit: Limit = 200,
    cursor: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Page[HandOverOut]:
    """Show the control slip: giver, receiver, time and state of every hand-over, oldest first."""
    dossier = await reading.shown(session, code, to=actor, directory=registry)
    lines = await reading.hand_overs(session, dossier.code, after=cursor, limit=limit + 1)
    insider = actor.role != Role.city
    return Page(
        items=[HandOverOut.of(line, registry, insider=insider) for line in lines[:limit]],
        next_cursor=str(lines[limit - 1].version) if len(lines) > limit else None,
    )


async def _step(
    name: str,
    code: str,
    body: Step | None,
    session: Session,
    registry: Directory,
    now: datetime,
    actor: Principal,
) -> DossierOut:
    moved = await domain.step(
        session, code, name, body or Step(), by=actor, directory=registry, at=now
    )
    return DossierOut.of(moved, registry, now)


@dossiers.post(
    "/{code}/receive",
    response_model=DossierOut,
    dependencies=[Once],
    operation_id="receive_dossier",
    responses=refusals(domain.UnknownDossier, domain.ForbiddenTransition, rules.NoAppointment),
)
async def receive(
    code: Code, session: Session, registry: Registry, now: Now, actor: Officer,
    body: Step | None = None,
) -> DossierOut:  # fmt: skip
    """Receive an online dossier as complete and correct: its limit runs by this day's rules."""
    return await _step("receive", code, body, session, registry, now, actor)


@dossiers.post(
    "/{code}/assign",
    response_model=DossierOut,
    dependencies=[Once],
    operation_id="assign_dossier",
    responses=refusals(domain.UnknownDossier, domain.ForbiddenTransition),
)
async def assign(
    code: Code, session: Session, registry: Registry, now: Now, actor: Officer,
    body: Assignment | None = None,
) -> DossierOut:  # fmt: skip
    """Give a dossier to an officer of the competent unit, who works on it from now on."""
    return await _step("assign", code, body, session, registry, now, actor)


@dossiers.post(
    "/{code}/complete",
    response_model=DossierOut,
    dependencies=[Once],
    operation_id="complete_dossier",
    responses=refusals(domain.UnknownDossier, domain.ForbiddenTransition),
)
async def complete(
    code: Code, session: Session, registry: Registry, now: Now, actor: Officer,
    body: Step | None = None,
) -> DossierOut:  # fmt: skip
    """End the processing; `files` are the digitised result."""
    return await _step("complete", code, body, session, registry, now, actor)


@dossiers.post(
    "/{code}/return",
    response_model=DossierOut,
    dependencies=[Once],
    operation_id="return_dossier",
    responses=refusals(domain.UnknownDossier, domain.ForbiddenTransition),
)
async def return_result(
    code: Code, session: Session, registry: Registry, now: Now, actor: Officer,
    body: Step | None = None,
) -> DossierOut:  # fmt: skip
    """Hand the result to the applicant."""
    return await _step("return", code, body, session, registry, now, actor)


@tracking.get(
    "/{code}",
    response_model=Tracking,
    operation_id="track_dossier",
    responses=refusals(reading.NotTracked),
)
async def track(
    code: Code,
    session: Session,
    registry: Registry,
    now: Now,
    phone_last4: Annotated[str, Query(pattern=r"^[0-9]{4}$")],
) -> Tracking:
    """Follow a dossier without credentials: its code and the last four digits of the phone.

    Where no phone was left, the last four digits of the ID or tax number. Nothing personal is
    shown, and a wrong number answers as an unknown code does.
    """
    dossier = await reading.tracked(session, code, phone_last4)
    lines = await reading.hand_overs(session, dossier.code)
    return Tracking.of(dossier, lines, registry, now)

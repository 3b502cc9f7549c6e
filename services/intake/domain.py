"""What may happen to a dossier, what is refused, and what is announced."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from libs.common.auth import Principal
from libs.common.events import publish
from libs.common.problems import Conflict, Forbidden, NotFound
from libs.contracts.codes import parse_dossier_code
from libs.contracts.directory import Directory
from libs.contracts.intake import (
    DossierAssigned,
    DossierCompleted,
    DossierEvent,
    DossierReceived,
    DossierReturned,
    DossierStatus,
)
from services.intake.drafts import Assignment, Step
from services.intake.models import Dossier, HandOver
from services.intake.rules import appoint, keep_rules, procedure_in_force


class UnknownDossier(NotFound):
    """No dossier has this code.

    Check the code: unit, date and number, like H29.26740-261120-0001.
    """


class ForbiddenTransition(Conflict):
    """The dossier's present status does not allow this step.

    Take one of the steps that `allowed` lists.
    """


class Hand(Enum):
    """Between whom a dossier's papers pass."""

    applicant = auto()
    receiving_unit = auto()
    officer = auto()
    """Who takes the step."""
    holder = auto()
    """Who has had the papers so far."""
    assignee = auto()
    """The officer named to work on it, else the one who takes the step."""


class Side(Enum):
    """Whose staff may take a step: the unit that received, or the one that decides."""

    receiving = "receiving_unit"
    competent = "competent_unit"


@dataclass(frozen=True, slots=True)
class Transition:
    """A step from some statuses to another: who may take it, what it announces, who gets it."""

    name: str
    since: frozenset[DossierStatus]
    to: DossierStatus
    by: tuple[Side, ...]
    giver: Hand
    receiver: Hand
    announces: type[DossierEvent]


def _row(
    name: str,
    *since: DossierStatus,
    to: DossierStatus,
    by: tuple[Side, ...],
    hands: tuple[Hand, Hand],
    announces: type[DossierEvent],
) -> tuple[str, Transition]:
    return name, Transition(name, frozenset(since), to, by, *hands, announces)


_S, _H = DossierStatus, Hand

TRANSITIONS: Final[Mapping[str, Transition]] = dict(
    (
        _row("receive", _S.submitted, to=_S.received, by=(Side.receiving,),
             hands=(_H.applicant, _H.officer), announces=DossierReceived),
        # Again while it is processed: another officer takes over.
        _row("assign", _S.received, _S.processing, to=_S.processing, by=(Side.competent,),
             hands=(_H.holder, _H.assignee), announces=DossierAssigned),
        _row("complete", _S.processing, to=_S.processed, by=(Side.competent,),
             hands=(_H.officer, _H.receiving_unit), announces=DossierCompleted),
        _row("return", _S.processed, to=_S.returned, by=(Side.receiving, Side.competent),
             hands=(_H.officer, _H.applicant), announces=DossierReturned),
    )
)  # fmt: skip
"""Every step, in the order of a dossier's life (national status codes, domain.md §4)."""


def allowed(status: DossierStatus) -> list[str]:
    """Name the steps that a status allows, in the order of the table."""
    return [step.name for step in TRANSITIONS.values() if status in step.since]


# Units ----------------------------------------------------------------------------------------


def holders(directory: Directory, unit: str) -> list[str]:
    """Name the active units that answer for a unit's dossiers: itself, or who succeeded it."""
    found = directory.named(unit)
    if not found or found[0].active:
        return [unit]
    return [heir.code for heir in directory.heirs(found[0])] or [unit]


def current_code(directory: Directory, unit: str) -> str:
    """Give the code under which a unit is shown: its one successor's, once it is closed.

    One that was split keeps its own: which part a dossier went to, the code cannot tell.
    """
    answering = holders(directory, unit)
    return answering[0] if len(answering) == 1 else unit


def acts_for(
    dossier: Dossier, actor: Principal, directory: Directory, sides: Sequence[Side] = tuple(Side)
) -> str | None:
    """Give the unit for which somebody may act on a dossier, the first of the sides that fits."""
    for side in sides:
        for unit in holders(directory, getattr(dossier, side.value)):
            if unit in actor.units:
                return unit
    return None


# Steps ----------------------------------------------------------------------------------------


def spelled(code: str) -> str:
    """Write a dossier code as this system mints it; older systems put eight digits for the day."""
    try:
        return str(parse_dossier_code(code))
    except ValueError:
        return code


async def find(session: AsyncSession, code: str, *, lock: bool = False) -> Dossier:
    """Give a dossier with its papers and rules; `lock` makes a second writer wait.

    Raises:
        UnknownDossier: there is none.
    """
    query = (
        select(Dossier)
        .where(Dossier.code == spelled(code))
        .options(selectinload(Dossier.components), selectinload(Dossier.rules))
    )
    dossier = await session.scalar(query.with_for_update() if lock else query)
    if dossier is None:
        raise UnknownDossier(f"no dossier has the code {code}")
    return dossier


async def step(
    session: AsyncSession,
    code: str,
    name: str,
    remarks: Step,
    *,
    by: Principal,
    directory: Directory,
    at: datetime,
) -> Dossier:
    """Take one step of `TRANSITIONS` with a dossier and announce it.

    Raises:
        UnknownDossier.
        Forbidden: the caller holds none of the units that may take this step.
        ForbiddenTransition: the present status does not allow it; the problem says what it does.
    """
    dossier = await find(session, code, lock=True)
    transition = TRANSITIONS[name]
    acting_unit = acts_for(dossier, by, directory, transition.by)
    if acting_unit is None:
        who = " or ".join(getattr(dossier, side.value) for side in transition.by)
        raise Forbidden(f"{name} is for the staff of {who}")
    status = DossierStatus(dossier.status)
    if status not in transition.since:
        raise ForbiddenTransition(
            f"{dossier.code} is in status {status.value} ({status.name}), which does not allow "
            f"{name}",
            allowed=allowed(status),
            dossier_status=status.value,
        )
    giver, receiver = _hands(dossier, transition, acting_unit, by.subject, remarks, directory)
    await _effect(session, dossier, transition.to, remarks, directory, at)
    dossier.holder_unit, dossier.holder = receiver
    dossier.status = transition.to.value
    dossier.version += 1
    note_hand_over(
        session, dossier, name, giver=giver, receiver=receiver, by=by, at=at, remarks=remarks
    )
    announce(session, dossier, transition.announces, directory, at)
    return dossier


Holder = tuple[str | None, str | None]
"""A unit and, where one is named, its officer; no unit is the applicant."""


def _hands(
    dossier: Dossier,
    transition: Transition,
    acting_unit: str,
    officer: str,
    remarks: Step,
    directory: Directory,
) -> tuple[Holder, Holder]:
    named = remarks.assignee if isinstance(remarks, Assignment) else None
    who: dict[Hand, Holder] = {
        Hand.applicant: (None, None),
        Hand.receiving_unit: (current_code(directory, dossier.receiving_unit), None),
        Hand.officer: (acting_unit, officer),
        Hand.holder: (dossier.holder_unit, dossier.holder),
        Hand.assignee: (acting_unit, named or officer),
    }
    return who[transition.giver], who[transition.receiver]


async def _effect(
    session: AsyncSession,
    dossier: Dossier,
    to: DossierStatus,
    remarks: Step,
    directory: Directory,
    at: datetime,
) -> None:
    """Change what a status changes beside itself."""
    if to is DossierStatus.received:
        procedure = procedure_in_force(directory, dossier.procedure_code, at)
        dossier.rules = await keep_rules(session, dossier.procedure_code, procedure)
        dossier.field = procedure.field
        dossier.boundary_independent = procedure.boundary_independent
        dossier.received_at = at
        dossier.appointment_at = appoint(
            procedure,
            receiving=dossier.receiving_unit,
            competent=current_code(directory, dossier.competent_unit),
            directory=directory,
            at=at,
        )
    elif to is DossierStatus.processed:
        dossier.ended_at = at
        dossier.result_files += len(remarks.files)
    elif to is DossierStatus.returned:
        dossier.returned_at = at


def note_hand_over(
    session: AsyncSession,
    dossier: Dossier,
    action: str,
    *,
    giver: Holder,
    receiver: Holder,
    by: Principal,
    at: datetime,
    remarks: Step,
) -> None:
    """Write a line of the control slip (form 06)."""
    session.add(
        HandOver(
            dossier=dossier,
            version=dossier.version,
            at=at,
            action=action,
            status=dossier.status,
            by=by.subject,
            giver_unit=giver[0],
            giver=giver[1],
            receiver_unit=receiver[0],
            receiver=receiver[1],
            reason=remarks.reason,
            note=remarks.note,
            files=remarks.files,
        )
    )


def announce(
    session: AsyncSession,
    dossier: Dossier,
    kind: type[DossierEvent],
    directory: Directory,
    at: datetime,
) -> None:
    """Publish a dossier's whole state, of which nothing is personal."""
    event = kind(
        code=dossier.code,
        version=dossier.version,
        at=at,
        status=DossierStatus(dossier.status),
        procedure_code=dossier.procedure_code,
        field=dossier.field,
        receiving_unit=current_code(directory, dossier.receiving_unit),
        competent_unit=current_code(directory, dossier.competent_unit),
        channel=dossier.channel,
        boundary_independent=dossier.boundary_independent,
        submitted_at=dossier.submitted_at,
        received_at=dossier.received_at,
        appointment_at=dossier.appointment_at,
        ended_at=dossier.ended_at,
        returned_at=dossier.returned_at,
        supplement_requests=dossier.supplement_requests,
        components=dossier.components_handed_in,
        components_digitised=dossier.components_digitised,
        components_reused=dossier.components_reused,
        ticket_id=dossier.ticket_id,
    )
    publish(session, event, at=at)


def missing(dossier: Dossier) -> Iterator[tuple[str, str]]:
    """List code and name of the required papers that were not handed in; they block nothing."""
    handed_in = {component.component_code for component in dossier.components}
    for component in dossier.rules.version.components:
        if component.required and component.code not in handed_in:
            yield component.code, component.name

"""The rules a dossier is treated by: its procedure's version, who is competent, when it is due."""

import hashlib
from datetime import datetime
from typing import Final

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.problems import Conflict, malformed_field
from libs.common.worktime import Limit, NoDeadlineError, appointment, deadline
from libs.contracts.competence import competent_unit
from libs.contracts.directory import Directory, UnknownProcedure, UnknownUnit
from libs.contracts.registry import Level, ProcedureVersion
from services.intake.models import ProcedureRules

RECEPTION_LIMIT: Final = Limit(value=1, unit="working_day")
"""An online dossier not received within it counts as late received (domain.md §4)."""

WITHOUT_SUBJECTS = ("city", "department", "district")
"""Kinds of unit in which no subject matter lies: the wards and communes beneath them hold it."""


class NotOffered(Conflict):
    """The receiving unit does not take dossiers of this procedure.

    Ask `/v1/route` where the procedure is received.
    """


class NationalProcedure(Conflict):
    """The procedure is handled in the ministry's own system.

    Hand the dossier in on the ministry's own system.
    """


class NoAppointment(Conflict):
    """The competent unit's opening hours hold no working time to give an appointment in.

    Let the unit's opening hours be mended in the registry.
    """


def procedure_in_force(directory: Directory, code: str, at: datetime) -> ProcedureVersion:
    """Give the version by which a dossier received at an instant is treated.

    Raises:
        Malformed: no procedure in force has the code; it names `procedure_code`.
    """
    try:
        return directory.procedure(code, at)
    except UnknownProcedure as unknown:
        raise malformed_field("procedure_code", unknown.detail) from None


def named_unit(directory: Directory, field: str, query: str | None) -> str | None:
    """Give the current code of a unit that a body names beside the receiving one.

    Raises:
        Malformed: it does not exist; the field is named. UnitSplit, UnitNotActive: as they say.
    """
    if query is None:
        return None
    try:
        return directory.current(query).code
    except UnknownUnit as unknown:
        raise malformed_field(field, unknown.detail) from None


def competent_for(
    procedure: ProcedureVersion,
    code: str,
    *,
    receiving: str,
    subject: str | None,
    directory: Directory,
    at: datetime,
) -> str:
    """Give the current code of the unit that decides on a dossier handed in at `receiving`.

    A department takes what it decides itself although it keeps no one-stop centre.

    Raises:
        Malformed: a territorial procedure came without the ward or commune of its subject.
        NationalProcedure: a ministry decides. NotOffered: not to be handed in there.
    """
    if procedure.territorial and subject is None:
        raise malformed_field(
            "subject_unit",
            "this procedure is decided where its subject lies: name that ward or commune",
        )
    if procedure.competent_level is Level.ministry:
        raise NationalProcedure(f"{code} is decided by a ministry; hand it in on its own system")
    if (
        procedure.competent_level is Level.commune
        and procedure.territorial
        and subject is not None
        and directory.units[subject].type in WITHOUT_SUBJECTS
    ):
        raise malformed_field("subject_unit", f"{subject} is no ward, commune or special zone")
    decides = directory.current(
        competent_unit(procedure, receiving=receiving, subject=subject, directory=directory)
    ).code
    own = procedure.competent_level is Level.province and receiving == decides
    if not own and not directory.offers(receiving, code, at):
        raise NotOffered(f"{receiving} does not receive dossiers of {code}")
    return decides


def appoint(
    procedure: ProcedureVersion,
    *,
    receiving: str,
    competent: str,
    directory: Directory,
    at: datetime,
) -> datetime:
    """Give the appointment of a dossier received at `at`, by the competent unit's office hours.

    Raises:
        NoAppointment: those hours hold no working time.
    """
    try:
        return appointment(
            at,
            procedure.limit,
            same_day=procedure.same_day,
            hours=directory.office_hours(competent),
            calendar=directory.calendar,
            handed_over=procedure.boundary_independent and receiving != competent,
        )
    except NoDeadlineError as nothing:
        raise NoAppointment(f"{competent}: {nothing}") from None


def reception_due(receiving: str, directory: Directory, at: datetime) -> datetime:
    """Give the instant by which an online dossier is to be received.

    Raises:
        NoAppointment: the receiving unit's hours hold no working time.
    """
    try:
        return deadline(at, RECEPTION_LIMIT, directory.office_hours(receiving), directory.calendar)
    except NoDeadlineError as nothing:
        raise NoAppointment(f"{receiving}: {nothing}") from None


async def keep_rules(
    session: AsyncSession, code: str, procedure: ProcedureVersion
) -> ProcedureRules:
    """Store a version for the dossiers received under it; an equal one is stored once.

    A dossier keeps the rules of its reception day, also when the version in the catalogue is
    replaced later.
    """
    key = hashlib.sha256(f"{code}\0{procedure.model_dump_json()}".encode()).hexdigest()
    kept = await session.get(ProcedureRules, key)
    if kept is None:
        body = procedure.model_dump(mode="json")
        row = insert(ProcedureRules).values(id=key, procedure_code=code, body=body)
        await session.execute(row.on_conflict_do_nothing())
        kept = await session.get(ProcedureRules, key)
        assert kept is not None
    return kept

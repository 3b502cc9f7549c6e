"""How a dossier comes in: what is checked, the code it gets, and its first line of the slip."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from uuid import uuid4

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Principal
from libs.common.problems import Forbidden, field_error, malformed_fields
from libs.common.worktime import business_day
from libs.contracts.codes import DossierNumber
from libs.contracts.directory import Directory, short_code
from libs.contracts.intake import DossierReceived, DossierStatus, DossierSubmitted
from libs.contracts.registry import ProcedureVersion
from libs.contracts.roles import Role
from services.intake.applicants import check_born
from services.intake.domain import announce, note_hand_over
from services.intake.drafts import ApplicantIn, ComponentIn, DossierIn, Step
from services.intake.models import Applicant, Dossier, DossierComponent, DossierSequence
from services.intake.rules import (
    appoint,
    competent_for,
    keep_rules,
    named_unit,
    procedure_in_force,
    reception_due,
)
from services.intake.words import say


def check_may_submit(actor: Principal, channel: str, receiving: str) -> None:
    """Refuse who may not bring a dossier to a unit.

    Staff of the receiving unit bring every kind: over the counter, out of the post, or online on
    behalf of somebody they help. Citizens come through the portal, which brings online ones only.

    Raises:
        Forbidden.
    """
    if actor.role == Role.portal:
        if channel != "online":
            raise Forbidden(
                say("the portal brings online dossiers, not {channel} ones", channel=channel)
            )
    elif receiving not in actor.units:
        raise Forbidden(say("{receiving} is not your unit", receiving=receiving))


async def submit(
    session: AsyncSession,
    draft: DossierIn,
    *,
    by: Principal,
    directory: Directory,
    at: datetime,
) -> Dossier:
    """Take a dossier in: at a counter or by post it is received at once, online it waits.

    What is received at once announces `DossierReceived` alone, with version 1: it never waited in
    status 1, and `submitted_at` equals `received_at`.

    Raises:
        UnknownUnit (404): nothing has the receiving unit's code. Forbidden: it is not the caller's.
        UnitSplit, UnitNotActive, NotOffered, NationalProcedure, NoAppointment (409).
        Malformed (422): procedure, subject unit, support point, a component or the ID number.
    """
    receiving = directory.current(draft.receiving_unit).code
    check_may_submit(by, draft.channel, receiving)
    code = short_code(draft.procedure_code)
    procedure = procedure_in_force(directory, code, at)
    _check_values(draft, procedure, business_day(at))
    subject = named_unit(directory, "subject_unit", draft.subject_unit)
    support_point = named_unit(directory, "support_point", draft.support_point)
    competent = competent_for(
        procedure, code, receiving=receiving, subject=subject, directory=directory, at=at
    )
    received = draft.channel != "online"
    due = None if received else reception_due(receiving, directory, at)
    appointed = (
        appoint(procedure, receiving=receiving, competent=competent, directory=directory, at=at)
        if received
        else None
    )
    rules = await keep_rules(session, code, procedure)
    dossier = Dossier(
        # The last thing that may wait: other dossiers of the unit and day wait for our commit.
        code=str(await mint(session, competent, business_day(at))),
        version=1,
        status=(DossierStatus.received if received else DossierStatus.submitted).value,
        procedure_code=code,
        rules=rules,
        field=procedure.field,
        boundary_independent=procedure.boundary_independent,
        channel=draft.channel,
        receiving_unit=receiving,
        competent_unit=competent,
        subject_unit=subject,
        support_point=support_point,
        applicant=_applicant(draft.applicant),
        ticket_id=draft.ticket_id,
        submitted_at=at,
        reception_due_at=due,
        received_at=at if received else None,
        appointment_at=appointed,
        holder_unit=receiving,
        holder=by.subject if received else None,
        supplement_requests=0,
        result_files=0,
    )
    _hand_in(dossier, draft.components)
    session.add(dossier)
    note_hand_over(
        session,
        dossier,
        "receive" if received else "submit",
        giver=(None, None),
        receiver=(dossier.holder_unit, dossier.holder),
        by=by,
        at=at,
        remarks=Step(),
    )
    announce(session, dossier, DossierReceived if received else DossierSubmitted, directory, at)
    await session.flush()
    return dossier


async def mint(session: AsyncSession, unit: str, day: date) -> DossierNumber:
    """Take the next code of a competent unit and local day: no gaps, no duplicates.

    The row stays locked until the transaction ends, and a roll-back gives the number back.
    """
    row = insert(DossierSequence).values(unit=unit, day=day, last=1)
    row = row.on_conflict_do_update(
        index_elements=[DossierSequence.unit, DossierSequence.day],
        set_={"last": DossierSequence.last + 1},
    )
    sequence = await session.scalar(row.returning(DossierSequence.last))
    assert sequence is not None
    return DossierNumber(unit, day, sequence)


def _check_values(draft: DossierIn, procedure: ProcedureVersion, today: date) -> None:
    bad = list(_unknown_components(draft.components, procedure))
    if draft.applicant.id_number is not None:
        try:
            check_born(draft.applicant.id_number, today)
        except ValueError as why:
            bad.append(field_error("applicant.id_number", why.args[0]))
    if bad:
        raise malformed_fields(bad)


def _unknown_components(
    components: Sequence[ComponentIn], procedure: ProcedureVersion
) -> Iterator[dict[str, str]]:
    known = {component.code for component in procedure.components}
    # Half of the catalogue lists no papers yet; then any code is taken rather than none.
    for index, component in enumerate(components):
        if known and component.component_code not in known:
            yield field_error(
                f"components.{index}.component_code", say("this procedure asks for no such paper")
            )


def _applicant(draft: ApplicantIn) -> Applicant:
    return Applicant(
        id=uuid4(),
        kind=draft.kind,
        name=draft.name,
        id_number=draft.id_number,
        tax_number=draft.tax_number,
        phone=draft.phone,
        email=draft.email,
        representative=draft.representative,
    )


def _hand_in(dossier: Dossier, papers: Sequence[ComponentIn]) -> None:
    dossier.components = [
        DossierComponent(
            number=number,
            component_code=paper.component_code,
            file_sha256=paper.file_sha256,
            reused_from=paper.reused_from,
        )
        for number, paper in enumerate(papers, start=1)
    ]
    dossier.components_handed_in = len(papers)
    dossier.components_digitised = sum(paper.file_sha256 is not None for paper in papers)
    dossier.components_reused = sum(paper.reused_from is not None for paper in papers)

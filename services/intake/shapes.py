"""Shapes of what intake gives; what it takes stands in `drafts`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from libs.common.fields import LocalTime, Out
from libs.common.worktime import Limit
from libs.contracts.directory import Directory
from libs.contracts.intake import DossierStatus
from services.intake.domain import allowed, current_code, missing
from services.intake.drafts import Channel
from services.intake.models import Applicant, Dossier, HandOver
from services.intake.reading import is_overdue


class DossierBrief(Out):
    """A dossier (hồ sơ) as lists show it; nothing personal."""

    code: str
    version: int
    status: DossierStatus
    status_name: str
    procedure_code: str
    procedure_name: str
    field: str
    channel: Channel
    receiving_unit: str
    competent_unit: str
    subject_unit: str | None
    support_point: str | None
    boundary_independent: bool
    same_day: bool
    limit: Limit
    submitted_at: LocalTime
    reception_due_at: LocalTime | None
    received_at: LocalTime | None
    appointment_at: LocalTime | None
    ended_at: LocalTime | None
    returned_at: LocalTime | None
    overdue: bool
    supplement_requests: int
    components_handed_in: int
    components_digitised: int
    components_reused: int
    result_files: int

    @classmethod
    def of(cls, dossier: Dossier, directory: Directory, at: datetime) -> "DossierBrief":
        """Show a row."""
        return cls.model_validate(_plain(dossier, directory, at))


_COMPUTED = frozenset(
    {"status_name", "procedure_name", "same_day", "limit", "overdue"}
    | {"receiving_unit", "competent_unit", "subject_unit", "support_point"}
)


def _plain(dossier: Dossier, directory: Directory, at: datetime) -> dict[str, Any]:
    rules = dossier.rules.version
    stored = {name: getattr(dossier, name) for name in DossierBrief.model_fields.keys() - _COMPUTED}
    units: Mapping[str, str | None] = {
        name: (code := getattr(dossier, name)) and current_code(directory, code)
        for name in ("receiving_unit", "competent_unit", "subject_unit", "support_point")
    }
    return {
        **stored,
        **units,
        "status_name": DossierStatus(dossier.status).name,
        "procedure_name": rules.name,
        "same_day": rules.same_day,
        "limit": rules.limit,
        "overdue": is_overdue(dossier, at),
    }


class MissingComponent(Out):
    """A required paper that was not handed in."""

    component_code: str
    name: str


class ComponentOut(Out):
    """A paper as handed in; the hash is for staff of the dossier's units."""

    component_code: str
    digitised: bool
    reused: bool
    file_sha256: str | None
    reused_from: str | None


class DossierOut(DossierBrief):
    """A dossier with its papers and the steps its status allows; who it is about is not in it."""

    components: list[ComponentOut]
    missing_components: list[MissingComponent]
    allowed: list[str]
    ticket_id: UUID | None
    holder_unit: str | None
    """Who has the papers; null once the applicant has the result."""
    holder: str | None

    @classmethod
    def of(
        cls, dossier: Dossier, directory: Directory, at: datetime, *, insider: bool = True
    ) -> "DossierOut":
        """Show a row; to who is no insider without what could lead to a person."""
        return cls.model_validate(_whole(dossier, directory, at, insider=insider))


def _whole(
    dossier: Dossier, directory: Directory, at: datetime, *, insider: bool
) -> dict[str, Any]:
    unit = dossier.holder_unit
    return {
        **_plain(dossier, directory, at),
        "components": [
            {
                "component_code": paper.component_code,
                "digitised": paper.file_sha256 is not None,
                "reused": paper.reused_from is not None,
                "file_sha256": paper.file_sha256 if insider else None,
                "reused_from": paper.reused_from if insider else None,
            }
            for paper in dossier.components
        ],
        "missing_components": _missing(dossier),
        "allowed": allowed(DossierStatus(dossier.status)),
        "ticket_id": dossier.ticket_id if insider else None,
        "holder_unit": unit and current_code(directory, unit),
        "holder": dossier.holder if insider else None,
    }


def _missing(dossier: Dossier) -> list[MissingComponent]:
    return [MissingComponent(component_code=code, name=name) for code, name in missing(dossier)]


class ApplicantOut(Out):
    """Who handed a dossier in: for staff of the dossier's units alone."""

    id: UUID
    kind: str
    name: str
    id_number: str | None
    tax_number: str | None
    phone: str | None
    email: str | None
    representative: str | None


class DossierWithApplicant(DossierOut):
    """A dossier as staff of its units see it; to the city `applicant` is null."""

    applicant: ApplicantOut | None

    @classmethod
    def to_staff(
        cls, dossier: Dossier, applicant: Applicant | None, directory: Directory, at: datetime
    ) -> "DossierWithApplicant":
        """Show a dossier to staff of its units, or (without applicant) to the city."""
        shown = _whole(dossier, directory, at, insider=applicant is not None)
        person = ApplicantOut.model_validate(applicant) if applicant else None
        return cls.model_validate({**shown, "applicant": person})


class HandOverParty(Out):
    """One side of a hand-over; the applicant where there is no unit."""

    party: Literal["applicant", "unit"]
    unit: str | None
    person: str | None


class HandOverOut(Out):
    """A line of the control slip (phiếu kiểm soát)."""

    version: int
    at: LocalTime
    action: str
    status: DossierStatus
    giver: HandOverParty
    receiver: HandOverParty
    by: str | None
    reason: str | None
    note: str | None
    files: list[str]

    @classmethod
    def of(cls, line: HandOver, directory: Directory, *, insider: bool) -> "HandOverOut":
        """Show a line; to who is no insider without people, texts and files."""

        def party(unit: str | None, person: str | None) -> HandOverParty:
            return HandOverParty(
                party="unit" if unit else "applicant",
                unit=unit and current_code(directory, unit),
                person=person if insider else None,
            )

        return cls(
            version=line.version,
            at=line.at,
            action=line.action,
            status=DossierStatus(line.status),
            giver=party(line.giver_unit, line.giver),
            receiver=party(line.receiver_unit, line.receiver),
            by=line.by if insider else None,
            reason=line.reason if insider else None,
            note=line.note if insider else None,
            files=line.files if insider else [],
        )


class StepOut(Out):
    """A step as a citizen follows it."""

    at: LocalTime
    action: str
    status: DossierStatus
    unit: str | None
    """Where the papers are since."""


class Tracking(Out):
    """What a citizen sees of a dossier; nothing personal."""

    code: str
    status: DossierStatus
    status_name: str
    procedure_code: str
    procedure_name: str
    channel: Channel
    receiving_unit: str
    competent_unit: str
    submitted_at: LocalTime
    received_at: LocalTime | None
    appointment_at: LocalTime | None
    ended_at: LocalTime | None
    returned_at: LocalTime | None
    overdue: bool
    missing_components: list[MissingComponent]
    steps: list[StepOut]

    @classmethod
    def of(
        cls, dossier: Dossier, lines: list[HandOver], directory: Directory, at: datetime
    ) -> "Tracking":
        """Show a dossier and its slip to the citizen."""
        steps = [
            StepOut(
                at=line.at,
                action=line.action,
                status=DossierStatus(line.status),
                unit=line.receiver_unit and current_code(directory, line.receiver_unit),
            )
            for line in lines
        ]
        plain = _plain(dossier, directory, at)
        return cls.model_validate(
            {**plain, "missing_components": _missing(dossier), "steps": steps}
        )

"""Shapes of what intake takes: strict, bounded, every bad field named and none repeated."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from libs.common.fields import In, Line, Paragraph
from libs.contracts.codes import ProcedureCode, UnitQuery
from services.intake.applicants import Email, IdNumber, Phone, TaxNumber
from services.intake.words import say

Channel = Literal["direct", "online", "postal"]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A file's SHA-256, in lower-case hexadecimal."""


class ApplicantIn(In):
    """Who hands a dossier in: a citizen, or an organisation and who speaks for it."""

    kind: Literal["citizen", "organisation"]
    name: Line
    id_number: IdNumber | None = None
    tax_number: TaxNumber | None = None
    phone: Phone | None = None
    email: Email | None = None
    representative: Line | None = None

    @field_validator("tax_number")
    @classmethod
    def _one_number(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("id_number") is not None:
            raise ValueError(say("give either id_number or tax_number"))
        if info.data.get("kind") == "citizen":
            raise ValueError(
                say("a citizen is known by id_number, a tax number is an organisation's")
            )
        return value


class ComponentIn(In):
    """A paper handed in: with a file it is digitised, from a database it is reused."""

    component_code: Line
    file_sha256: Sha256 | None = None
    reused_from: Line | None = None


class DossierIn(In):
    """A dossier to take in."""

    procedure_code: ProcedureCode
    receiving_unit: UnitQuery
    subject_unit: UnitQuery | None = None
    support_point: UnitQuery | None = None
    channel: Channel
    applicant: ApplicantIn
    components: list[ComponentIn] = Field(default_factory=list, max_length=200)
    ticket_id: Annotated[UUID, Field(strict=False)] | None = None


class Step(In):
    """What may be said with a step; the text stays on the control slip."""

    reason: Paragraph | None = None
    note: Paragraph | None = None
    files: list[Sha256] = Field(default_factory=list, max_length=100)


class Assignment(Step):
    """Who works on the dossier; who assigns it, unless somebody is named (a token's subject)."""

    assignee: Line | None = None

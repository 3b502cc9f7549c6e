"""Tables of intake. What is personal stands in `applicants` alone."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    String,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from libs.common.db import NAMING
from libs.common.outbox import mechanism
from libs.contracts.registry import ProcedureVersion


class Base(DeclarativeBase):
    """Intake's tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's own way to say it)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(String),
    }


METADATA = [Base.metadata, mechanism]


class DossierSequence(Base):
    """The last sequence given, per competent unit and local day: one row, so one at a time."""

    __tablename__ = "dossier_sequences"

    unit: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    last: Mapped[int]


class ProcedureRules(Base):
    """A procedure's version as dossiers were received under; equal ones are kept once, for ever."""

    __tablename__ = "procedure_rules"

    id: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of procedure code and version, so a version that is replaced leaves this one be."""
    procedure_code: Mapped[str]
    body: Mapped[dict[str, Any]]
    """The version in the shape of the contract."""

    @property
    def version(self) -> ProcedureVersion:
        """Give the rules as the contract has them."""
        return ProcedureVersion.model_validate(self.body)


class Applicant(Base):
    """Who handed a dossier in (chủ hồ sơ): personal data, one row per dossier.

    Never in an event, a log, a problem or a stored answer (Law 91/2025/QH15).
    """

    __tablename__ = "applicants"
    __table_args__ = (
        CheckConstraint("kind IN ('citizen', 'organisation')", name="kind"),
        CheckConstraint("id_number IS NULL OR tax_number IS NULL", name="one_number"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    id_number: Mapped[str | None]
    tax_number: Mapped[str | None]
    phone: Mapped[str | None]
    email: Mapped[str | None]
    representative: Mapped[str | None]


class Dossier(Base):
    """A dossier (hồ sơ) with the units it belongs to, its status and its times."""

    __tablename__ = "dossiers"
    __table_args__ = (
        CheckConstraint("status BETWEEN 1 AND 10", name="status"),
        CheckConstraint("channel IN ('direct', 'online', 'postal')", name="channel"),
        # Submitted, refused and withdrawn dossiers may never have been received; all others were.
        CheckConstraint("status IN (1, 3, 7) OR received_at IS NOT NULL", name="received"),
        CheckConstraint("(received_at IS NULL) = (appointment_at IS NULL)", name="appointment"),
        CheckConstraint("status NOT IN (9, 10) OR ended_at IS NOT NULL", name="ended"),
        CheckConstraint("(status = 10) = (returned_at IS NOT NULL)", name="returned"),
        # The lists of a unit and of the city, newest first.
        Index("dossiers_competent", "competent_unit", "submitted_at", "code"),
        Index("dossiers_receiving", "receiving_unit", "submitted_at", "code"),
        Index("dossiers_submitted", "submitted_at", "code"),
        # Overdue ones are few among the pending, and the pending few among all.
        Index("dossiers_pending", "appointment_at", postgresql_where=text("ended_at IS NULL")),
    )

    code: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    status: Mapped[int] = mapped_column(SmallInteger)
    procedure_code: Mapped[str]
    rules_id: Mapped[str] = mapped_column(ForeignKey("procedure_rules.id"))
    field: Mapped[str]
    boundary_independent: Mapped[bool]
    channel: Mapped[str]
    receiving_unit: Mapped[str]
    competent_unit: Mapped[str]
    subject_unit: Mapped[str | None]
    support_point: Mapped[str | None]
    applicant_id: Mapped[UUID] = mapped_column(ForeignKey("applicants.id"))
    ticket_id: Mapped[UUID | None]
    submitted_at: Mapped[datetime]
    reception_due_at: Mapped[datetime | None]
    """Online only: received after it counts as late received (one working day)."""
    received_at: Mapped[datetime | None]
    appointment_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    returned_at: Mapped[datetime | None]
    holder_unit: Mapped[str | None]
    """Who has the papers; null once they are back with the applicant."""
    holder: Mapped[str | None]
    """Subject of the officer who has them; null while they lie with the unit."""
    supplement_requests: Mapped[int]
    components_handed_in: Mapped[int]
    components_digitised: Mapped[int]
    components_reused: Mapped[int]
    result_files: Mapped[int]

    rules: Mapped[ProcedureRules] = relationship(lazy="raise")
    applicant: Mapped[Applicant] = relationship(lazy="raise")
    components: Mapped[list["DossierComponent"]] = relationship(
        lazy="raise", order_by="DossierComponent.number"
    )


class DossierComponent(Base):
    """A paper of a dossier (thành phần hồ sơ); one component may come as several papers."""

    __tablename__ = "dossier_components"

    dossier_code: Mapped[str] = mapped_column(ForeignKey("dossiers.code"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    component_code: Mapped[str]
    file_sha256: Mapped[str | None]
    reused_from: Mapped[str | None]
    """The database that already held it."""


class HandOver(Base):
    """One line of the control slip (phiếu kiểm soát, form 06): giver, receiver, time, state.

    Append-only: the service's role may neither update nor delete (see the migration). Where giver
    or receiver has no unit, it is the applicant.
    """

    __tablename__ = "hand_overs"

    dossier_code: Mapped[str] = mapped_column(ForeignKey("dossiers.code"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    action: Mapped[str]
    status: Mapped[int] = mapped_column(SmallInteger)
    by: Mapped[str]
    """Subject of the token that recorded it."""
    giver_unit: Mapped[str | None]
    giver: Mapped[str | None]
    receiver_unit: Mapped[str | None]
    receiver: Mapped[str | None]
    reason: Mapped[str | None]
    note: Mapped[str | None]
    files: Mapped[list[str]]
    """SHA-256 of the files that came with the step."""

    dossier: Mapped[Dossier] = relationship(lazy="raise")

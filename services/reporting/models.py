"""Tables of reporting: one row per ticket and per dossier, copied from events.

They are projections. What another service announced is stored as it was said, even where it
contradicts itself: a CHECK would turn a strange dossier into a dead letter and hide it from the
report, whose identity check shows it instead.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Index,
    MetaData,
    SmallInteger,
)
from sqlalchemy.dialects.postgresql import TSTZRANGE, Range
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import NAMING
from libs.common.outbox import mechanism


class Base(DeclarativeBase):
    """Reporting's tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012  (SQLAlchemy's name)


METADATA = [Base.metadata, mechanism]


class Ticket(Base):
    """A ticket (phiếu số thứ tự) as far as its events have come in."""

    __tablename__ = "tickets"
    __table_args__ = (
        CheckConstraint(
            "status IN ('waiting', 'called', 'serving', 'parked', 'no_show', 'finished', "
            "'cancelled', 'transferred')",
            name="status",
        ),
    )

    ticket_id: Mapped[UUID] = mapped_column(primary_key=True)
    unit: Mapped[str]
    version: Mapped[int]
    """Of the newest event applied; the ones before it may have come later or be missing."""
    status: Mapped[str]
    issued_at: Mapped[datetime | None] = mapped_column(index=True)
    """Null while only later steps are known; such a row is in no report yet."""
    first_called_at: Mapped[datetime | None]
    first_wait_seconds: Mapped[float | None]
    """From issue to first call, as the queue measured it."""
    ended_at: Mapped[datetime | None]
    receipt_seconds: Mapped[float | None]
    """From issue to the receipt of the visit's first dossier, as the queue measured it."""
    score: Mapped[int | None] = mapped_column(SmallInteger)
    """How the visit was, 1 to 5."""
    transferred_from: Mapped[UUID | None]
    """The ticket of another unit that this one continues; such a one is not issued anew."""


class Dossier(Base):
    """A dossier (hồ sơ) in the state of its newest event."""

    __tablename__ = "dossiers"
    __table_args__ = (
        CheckConstraint("status BETWEEN 1 AND 10", name="status"),
        Index("dossiers_span_idx", "span", postgresql_using="gist"),
    )

    code: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    status: Mapped[int] = mapped_column(SmallInteger)
    field: Mapped[str]
    receiving_unit: Mapped[str]
    competent_unit: Mapped[str]
    channel: Mapped[str]
    boundary_independent: Mapped[bool]
    submitted_at: Mapped[datetime]
    received_at: Mapped[datetime | None]
    appointment_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    returned_at: Mapped[datetime | None]
    supplement_requests: Mapped[int]
    components: Mapped[int]
    components_digitised: Mapped[int]
    components_reused: Mapped[int]
    span: Mapped[Range[datetime] | None] = mapped_column(TSTZRANGE)
    """From the first to the last instant at which a report has something to say of it, so that one
    index finds a period's dossiers however old the period is; null: never validly received."""


PROJECTIONS = (Ticket.__tablename__, Dossier.__tablename__)
"""What handlers alone fill, so that the log can fill it again (`motcua rebuild reporting`). Tables
that are not named here are reporting's own word and stay as they are."""

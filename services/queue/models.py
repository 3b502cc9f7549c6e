"""Tables of the queue. The hot paths use them through `statements`, never through the ORM."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from libs.common.db import NAMING
from libs.common.outbox import mechanism

AT_A_COUNTER = "status IN ('called', 'serving')"


class Base(DeclarativeBase):
    """The queue's tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: TIMESTAMP(timezone=True), str: Text}  # noqa: RUF012


METADATA = [Base.metadata, mechanism]


class Counter(Base):
    """A counter (quầy) of a centre."""

    __tablename__ = "counters"
    __table_args__ = (
        CheckConstraint("number BETWEEN 1 AND 99", name="number"),
        CheckConstraint("state IN ('open', 'paused', 'closed')", name="state"),
    )

    unit: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    reason: Mapped[str | None]
    series: Mapped[list[str]] = mapped_column(ARRAY(String), server_default="{}")
    """The series it calls; empty means all."""
    changed_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(server_default="0")
    """Counts the announced changes."""


class TicketNumber(Base):
    """The last number given, per unit, series and business day: one row, so one at a time."""

    __tablename__ = "ticket_numbers"

    unit: Mapped[str] = mapped_column(primary_key=True)
    series: Mapped[str] = mapped_column(primary_key=True)
    business_day: Mapped[date] = mapped_column(primary_key=True)
    last: Mapped[int]


class Ticket(Base):
    """A place in the queue (số thứ tự); its id is what only the holder knows."""

    __tablename__ = "tickets"
    __table_args__ = (
        # No number twice, whatever the code above does.
        UniqueConstraint("unit", "series", "business_day", "sequence", name="tickets_number_once"),
        # A counter and an officer hold one person at a time.
        Index("tickets_one_per_counter", "unit", "counter", unique=True,
              postgresql_where=text(AT_A_COUNTER)),
        Index("tickets_one_per_officer", "officer", unique=True,
              postgresql_where=text(AT_A_COUNTER)),
        # The order of calling: earliest due first.
        Index("tickets_waiting", "unit", "due_at", "issued_at", "id",
              postgresql_where=text("status = 'waiting'")),
        Index("tickets_day", "unit", "business_day", "issued_at"),
        Index("tickets_ended", "ended_at", postgresql_where=text("status = 'finished'")),
        CheckConstraint(
            "status IN ('waiting', 'called', 'serving', 'finished', 'parked', 'no_show', "
            "'cancelled', 'transferred')", name="status"),
        CheckConstraint(f"NOT ({AT_A_COUNTER}) OR (counter IS NOT NULL AND officer IS NOT NULL)",
                        name="at_a_counter"),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    unit: Mapped[str]
    series: Mapped[str]
    business_day: Mapped[date]
    sequence: Mapped[int]
    number: Mapped[str]
    status: Mapped[str]
    priority_class: Mapped[str]
    channel: Mapped[str]
    procedure_codes: Mapped[list[str]] = mapped_column(ARRAY(String))
    dossier_code: Mapped[str | None]
    issued_at: Mapped[datetime]
    due_at: Mapped[datetime]
    called_at: Mapped[datetime | None]
    """The latest call."""
    first_called_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    counter: Mapped[int | None]
    officer: Mapped[str | None]
    """Subject of the token that called it."""


class PublishedLoad(Base):
    """What was last announced of a unit's load, so that replicas together announce it once."""

    __tablename__ = "published_loads"

    unit: Mapped[str] = mapped_column(primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    """Wall clock, milliseconds."""
    figures: Mapped[str]

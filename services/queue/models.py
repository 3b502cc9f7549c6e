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
        UniqueConstraint("unit", "business_day", "number", name="tickets_number_once"),
        # A ticket goes on in one other unit.
        Index("tickets_linked_once", "transferred_from", unique=True,
              postgresql_where=text("transferred_from IS NOT NULL")),
        # A counter and an officer hold one person at a time.
        Index("tickets_one_per_counter", "unit", "counter", unique=True,
              postgresql_where=text(AT_A_COUNTER)),
        Index("tickets_one_per_officer", "officer", unique=True,
              postgresql_where=text(AT_A_COUNTER)),
        # The order of calling: earliest due first.
        Index("tickets_waiting", "unit", "due_at", "issued_at", "id",
              postgresql_where=text("status = 'waiting'")),
        Index("tickets_parked", "unit", postgresql_where=text("status = 'parked'")),
        Index("tickets_day", "unit", "business_day", "issued_at"),
        Index("tickets_ended", "ended_at", postgresql_where=text("status = 'finished'")),
        CheckConstraint(
            "status IN ('waiting', 'called', 'serving', 'finished', 'parked', 'no_show', "
            "'cancelled', 'transferred')", name="status"),
        # Who is called by a manager is held by nobody until an officer at the counter begins.
        CheckConstraint("status NOT IN ('called', 'serving') OR counter IS NOT NULL"
                        " AND (officer IS NOT NULL OR NOT status = 'serving')",
                        name="at_a_counter"),
        # Only waiting is bound to a counter: a closed one must find all who wait for it alone.
        CheckConstraint("for_counter IS NULL OR status = 'waiting'", name="for_counter"),
        CheckConstraint("cancel_cause IS NULL OR status = 'cancelled' AND cancel_cause IN "
                        "('asked', 'print_failed', 'day_over', 'unit_closed')",
                        name="cancel_cause"),
        CheckConstraint("(status = 'transferred') = (transferred_to IS NOT NULL)",
                        name="transferred"),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    unit: Mapped[str]
    series: Mapped[str]
    """The one it waits in; the number's own is its first letter."""
    business_day: Mapped[date]
    sequence: Mapped[int]
    number: Mapped[str]
    status: Mapped[str]
    priority_class: Mapped[str]
    channel: Mapped[str]
    procedure_codes: Mapped[list[str]] = mapped_column(ARRAY(String))
    dossier_code: Mapped[str | None]
    issued_at: Mapped[datetime]
    """When the person came; a ticket that continues another one keeps that one's."""
    due_at: Mapped[datetime]
    called_at: Mapped[datetime | None]
    """The latest call."""
    first_called_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    """Of the latest sitting; null again while the person waits."""
    ended_at: Mapped[datetime | None]
    counter: Mapped[int | None]
    officer: Mapped[str | None]
    """Subject of the token that called it."""
    call_reason: Mapped[str | None]
    """Why it was called out of order, the last time that it was."""
    for_counter: Mapped[int | None]
    """The only counter that may call it."""
    printed_at: Mapped[datetime | None]
    reissues: Mapped[int] = mapped_column(server_default="0")
    cancel_cause: Mapped[str | None]
    transferred_from: Mapped[UUID | None]
    transferred_to: Mapped[UUID | None]


class PublishedLoad(Base):
    """What was last announced of a unit's load, so that replicas together announce it once."""

    __tablename__ = "published_loads"

    unit: Mapped[str] = mapped_column(primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    """Wall clock, milliseconds."""
    figures: Mapped[str]

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


class AppointmentRules(Base):
    """How a centre gives appointments, where it departs from the settings."""

    __tablename__ = "appointment_rules"
    __table_args__ = (
        CheckConstraint("slot_minutes BETWEEN 10 AND 240", name="slot_minutes"),
        CheckConstraint("capacity BETWEEN 0 AND 500", name="capacity"),
        CheckConstraint("days_ahead BETWEEN 0 AND 90", name="days_ahead"),
    )

    unit: Mapped[str] = mapped_column(primary_key=True)
    slot_minutes: Mapped[int | None]
    capacity: Mapped[int | None]
    """People per slot; 0 gives no appointments."""
    days_ahead: Mapped[int | None]
    changed_at: Mapped[datetime]


class AppointmentSlot(Base):
    """How many are expected at a time: one row, so that places are taken one after another."""

    __tablename__ = "appointment_slots"
    __table_args__ = (
        # Nobody is promised a place that is not there, whatever the code above does.
        CheckConstraint("booked BETWEEN 0 AND capacity", name="capacity"),
        CheckConstraint("starts_at < ends_at", name="times"),
    )

    unit: Mapped[str] = mapped_column(primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(primary_key=True)
    ends_at: Mapped[datetime]
    capacity: Mapped[int]
    """As it was when the last place was taken: a centre that takes fewer from now on keeps those
    whom it has promised."""
    booked: Mapped[int]


class Appointment(Base):
    """A promised time (lịch hẹn); its id is what only the holder knows, and nothing personal."""

    __tablename__ = "appointments"
    __table_args__ = (
        CheckConstraint("status IN ('booked', 'checked_in', 'cancelled', 'missed')", name="status"),
        # Checked in once, to one ticket.
        CheckConstraint("(status = 'checked_in') = (ticket_id IS NOT NULL)", name="ticket"),
        CheckConstraint("(status = 'booked') = (ended_at IS NULL)", name="ended"),
        UniqueConstraint("ticket_id"),
        # What somebody says at a centre stands for one appointment.
        Index("appointments_code_once", "unit", "code", unique=True,
              postgresql_where=text("status = 'booked'")),
        Index("appointments_day", "unit", "starts_at"),
        Index("appointments_open", "check_in_until", postgresql_where=text("status = 'booked'")),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int]
    unit: Mapped[str]
    code: Mapped[str]
    status: Mapped[str]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    check_in_from: Mapped[datetime]
    check_in_until: Mapped[datetime]
    series: Mapped[str]
    channel: Mapped[str]
    procedure_codes: Mapped[list[str]] = mapped_column(ARRAY(String))
    booked_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ticket_id: Mapped[UUID | None]


class KioskSeries(Base):
    """The letter by which a kiosk's offline numbers of a day differ from everybody else's."""

    __tablename__ = "kiosk_series"
    __table_args__ = (
        # Two kiosks of a centre never share a series.
        UniqueConstraint("unit", "business_day", "letter", name="kiosk_series_letter_once"),
        CheckConstraint("letter ~ '^[A-Z]$'", name="letter"),
    )

    unit: Mapped[str] = mapped_column(primary_key=True)
    business_day: Mapped[date] = mapped_column(primary_key=True)
    kiosk: Mapped[str] = mapped_column(primary_key=True)
    letter: Mapped[str]


class KioskLease(Base):
    """A block of numbers that a kiosk may issue while it reaches nobody; never given twice."""

    __tablename__ = "kiosk_leases"
    __table_args__ = (
        UniqueConstraint("unit", "business_day", "series", "first", name="kiosk_leases_block_once"),
        CheckConstraint("1 <= first AND first <= last", name="block"),
        CheckConstraint("valid_from < expires_at", name="life"),
        CheckConstraint(
            "(reconciled_at IS NULL) = (contents IS NULL) "
            "AND (reconciled_at IS NULL) = (issued IS NULL)", name="reconciled"),
    )  # fmt: skip

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kiosk: Mapped[str]
    unit: Mapped[str]
    series: Mapped[str]
    business_day: Mapped[date]
    first: Mapped[int]
    last: Mapped[int]
    granted_at: Mapped[datetime]
    valid_from: Mapped[datetime]
    expires_at: Mapped[datetime]
    reconciled_at: Mapped[datetime | None]
    issued: Mapped[int | None]
    """How many of its numbers were given to somebody."""
    contents: Mapped[bytes | None]
    """SHA-256 of what was sent in: the same again is answered, anything else refused."""


class PublishedLoad(Base):
    """What was last announced of a unit's load, so that replicas together announce it once."""

    __tablename__ = "published_loads"

    unit: Mapped[str] = mapped_column(primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    """Wall clock, milliseconds."""
    figures: Mapped[str]

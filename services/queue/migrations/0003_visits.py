"""Appointments and their slots; the series and leases of kiosks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0003"
down_revision = "0002"

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables."""
    _create_slots()
    _create_appointments()
    op.create_table(
        "kiosk_series",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("business_day", sa.Date, nullable=False),
        sa.Column("kiosk", sa.Text, nullable=False),
        sa.Column("letter", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("unit", "business_day", "kiosk", name="kiosk_series_pkey"),
        sa.UniqueConstraint("unit", "business_day", "letter", name="kiosk_series_letter_once"),
        sa.CheckConstraint("letter ~ '^[A-Z]$'", name="kiosk_series_letter_check"),
    )
    _create_leases()


def _create_slots() -> None:
    op.create_table(
        "appointment_rules",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("slot_minutes", sa.Integer),
        sa.Column("capacity", sa.Integer),
        sa.Column("days_ahead", sa.Integer),
        sa.Column("changed_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("unit", name="appointment_rules_pkey"),
        sa.CheckConstraint(
            "slot_minutes BETWEEN 10 AND 240", name="appointment_rules_slot_minutes_check"
        ),
        sa.CheckConstraint("capacity BETWEEN 0 AND 500", name="appointment_rules_capacity_check"),
        sa.CheckConstraint(
            "days_ahead BETWEEN 0 AND 90", name="appointment_rules_days_ahead_check"
        ),
    )
    op.create_table(
        "appointment_slots",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("starts_at", _INSTANT, nullable=False),
        sa.Column("ends_at", _INSTANT, nullable=False),
        sa.Column("capacity", sa.Integer, nullable=False),
        sa.Column("booked", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("unit", "starts_at", name="appointment_slots_pkey"),
        sa.CheckConstraint(
            "booked BETWEEN 0 AND capacity", name="appointment_slots_capacity_check"
        ),
        sa.CheckConstraint("starts_at < ends_at", name="appointment_slots_times_check"),
    )


def _create_appointments() -> None:
    op.create_table(
        "appointments",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("starts_at", _INSTANT, nullable=False),
        sa.Column("ends_at", _INSTANT, nullable=False),
        sa.Column("check_in_from", _INSTANT, nullable=False),
        sa.Column("check_in_until", _INSTANT, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("procedure_codes", ARRAY(sa.String), nullable=False),
        sa.Column("booked_at", _INSTANT, nullable=False),
        sa.Column("ended_at", _INSTANT),
        sa.Column("ticket_id", sa.Uuid),
        sa.PrimaryKeyConstraint("id", name="appointments_pkey"),
        sa.UniqueConstraint("ticket_id", name="appointments_ticket_id_key"),
        sa.CheckConstraint(
            "status IN ('booked', 'checked_in', 'cancelled', 'missed')",
            name="appointments_status_check",
        ),
        sa.CheckConstraint(
            "(status = 'checked_in') = (ticket_id IS NOT NULL)", name="appointments_ticket_check"
        ),
        sa.CheckConstraint(
            "(status = 'booked') = (ended_at IS NULL)", name="appointments_ended_check"
        ),
    )
    booked = sa.text("status = 'booked'")
    op.create_index(
        "appointments_code_once",
        "appointments",
        ["unit", "code"],
        unique=True,
        postgresql_where=booked,
    )
    op.create_index("appointments_day", "appointments", ["unit", "starts_at"])
    op.create_index(
        "appointments_open", "appointments", ["check_in_until"], postgresql_where=booked
    )


def _create_leases() -> None:
    op.create_table(
        "kiosk_leases",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kiosk", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("business_day", sa.Date, nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.Column("granted_at", _INSTANT, nullable=False),
        sa.Column("valid_from", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.Column("reconciled_at", _INSTANT),
        sa.Column("issued", sa.Integer),
        sa.Column("contents", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name="kiosk_leases_pkey"),
        sa.UniqueConstraint(
            "unit", "business_day", "series", "first", name="kiosk_leases_block_once"
        ),
        sa.CheckConstraint("1 <= first AND first <= last", name="kiosk_leases_block_check"),
        sa.CheckConstraint("valid_from < expires_at", name="kiosk_leases_life_check"),
        sa.CheckConstraint(
            "(reconciled_at IS NULL) = (contents IS NULL) "
            "AND (reconciled_at IS NULL) = (issued IS NULL)",
            name="kiosk_leases_reconciled_check",
        ),
    )


def downgrade() -> None:
    """Drop them."""
    for table in (
        "kiosk_leases",
        "kiosk_series",
        "appointments",
        "appointment_slots",
        "appointment_rules",
    ):
        op.drop_table(table)

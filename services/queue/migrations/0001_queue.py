"""Counters, numbers, tickets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from libs.common import mechanism_v1

revision = "0001"
down_revision = None

_INSTANT = sa.DateTime(timezone=True)
_AT_A_COUNTER = "status IN ('called', 'serving')"


def upgrade() -> None:
    """Create the queue's tables."""
    mechanism_v1.create()
    op.create_table(
        "counters",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("series", ARRAY(sa.String), nullable=False, server_default="{}"),
        sa.Column("changed_at", _INSTANT),
        sa.PrimaryKeyConstraint("unit", "number", name="counters_pkey"),
        sa.CheckConstraint("number BETWEEN 1 AND 99", name="counters_number_check"),
        sa.CheckConstraint("state IN ('open', 'paused', 'closed')", name="counters_state_check"),
    )
    op.create_table(
        "ticket_numbers",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("business_day", sa.Date, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("unit", "series", "business_day", name="ticket_numbers_pkey"),
    )
    # The row of a busy unit is updated with every ticket: room in its page keeps that in place.
    op.execute("ALTER TABLE ticket_numbers SET (fillfactor = 50)")
    _create_tickets()
    op.create_table(
        "published_loads",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("figures", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("unit", name="published_loads_pkey"),
    )


def _create_tickets() -> None:
    op.create_table(
        "tickets",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("series", sa.Text, nullable=False),
        sa.Column("business_day", sa.Date, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("number", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("priority_class", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("procedure_codes", ARRAY(sa.String), nullable=False),
        sa.Column("dossier_code", sa.Text),
        sa.Column("issued_at", _INSTANT, nullable=False),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.Column("called_at", _INSTANT),
        sa.Column("first_called_at", _INSTANT),
        sa.Column("started_at", _INSTANT),
        sa.Column("ended_at", _INSTANT),
        sa.Column("counter", sa.Integer),
        sa.Column("officer", sa.Text),
        sa.PrimaryKeyConstraint("id", name="tickets_pkey"),
        sa.UniqueConstraint(
            "unit", "series", "business_day", "sequence", name="tickets_number_once"
        ),
        sa.CheckConstraint(
            "status IN ('waiting', 'called', 'serving', 'finished', 'parked', 'no_show', "
            "'cancelled', 'transferred')",
            name="tickets_status_check",
        ),
        sa.CheckConstraint(
            f"NOT ({_AT_A_COUNTER}) OR (counter IS NOT NULL AND officer IS NOT NULL)",
            name="tickets_at_a_counter_check",
        ),
    )
    held = sa.text(_AT_A_COUNTER)
    op.create_index(
        "tickets_one_per_counter",
        "tickets",
        ["unit", "counter"],
        unique=True,
        postgresql_where=held,
    )
    op.create_index(
        "tickets_one_per_officer", "tickets", ["officer"], unique=True, postgresql_where=held
    )
    op.create_index(
        "tickets_waiting",
        "tickets",
        ["unit", "due_at", "issued_at", "id"],
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_index("tickets_day", "tickets", ["unit", "business_day", "issued_at"])
    op.create_index(
        "tickets_ended",
        "tickets",
        ["ended_at"],
        postgresql_where=sa.text("status = 'finished'"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("published_loads", "tickets", "ticket_numbers", "counters"):
        op.drop_table(table)
    mechanism_v1.drop()

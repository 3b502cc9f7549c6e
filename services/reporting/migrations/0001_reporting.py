"""Facts of tickets and dossiers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSTZRANGE

from libs.common import mechanism_v1

revision = "0001"
down_revision = None

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create reporting's tables."""
    mechanism_v1.create()
    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.Uuid, nullable=False),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("issued_at", _INSTANT),
        sa.Column("first_called_at", _INSTANT),
        sa.Column("first_wait_seconds", sa.Float),
        sa.Column("ended_at", _INSTANT),
        sa.Column("transferred_from", sa.Uuid),
        sa.PrimaryKeyConstraint("ticket_id", name="tickets_pkey"),
        sa.CheckConstraint(
            "status IN ('waiting', 'called', 'serving', 'parked', 'no_show', 'finished', "
            "'cancelled', 'transferred')",
            name="tickets_status_check",
        ),
    )
    op.create_index("tickets_issued_at_idx", "tickets", ["issued_at"])
    op.create_table(
        "dossiers",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("field", sa.String, nullable=False),
        sa.Column("receiving_unit", sa.String, nullable=False),
        sa.Column("competent_unit", sa.String, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("boundary_independent", sa.Boolean, nullable=False),
        sa.Column("submitted_at", _INSTANT, nullable=False),
        sa.Column("received_at", _INSTANT),
        sa.Column("appointment_at", _INSTANT),
        sa.Column("ended_at", _INSTANT),
        sa.Column("returned_at", _INSTANT),
        sa.Column("supplement_requests", sa.Integer, nullable=False),
        sa.Column("components", sa.Integer, nullable=False),
        sa.Column("components_digitised", sa.Integer, nullable=False),
        sa.Column("components_reused", sa.Integer, nullable=False),
        sa.Column("span", TSTZRANGE),
        sa.PrimaryKeyConstraint("code", name="dossiers_pkey"),
        sa.CheckConstraint("status BETWEEN 1 AND 10", name="dossiers_status_check"),
    )
    op.create_index("dossiers_span_idx", "dossiers", ["span"], postgresql_using="gist")


def downgrade() -> None:
    """Drop them."""
    op.drop_table("dossiers")
    op.drop_table("tickets")
    mechanism_v1.drop()

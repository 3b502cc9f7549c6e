"""Episodes of the promise, what is remembered of the registry, and what comes after a visit."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create tables that the running version does not know, and a column it does not write."""
    op.add_column(
        "published_loads", sa.Column("version", sa.BigInteger, nullable=False, server_default="0")
    )
    op.create_table(
        "episodes",
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("watch", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("since", _INSTANT),
        sa.Column("leaning_since", _INSTANT),
        sa.PrimaryKeyConstraint("unit", "watch", name="episodes_pkey"),
        sa.CheckConstraint("level BETWEEN 0 AND 2", name="episodes_level_check"),
        sa.CheckConstraint("(level = 0) = (since IS NULL)", name="episodes_since_check"),
    )
    op.create_table(
        "late_tickets",
        sa.Column("ticket_id", sa.Uuid, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("noticed_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name="late_tickets_pkey"),
    )
    op.create_table(
        "known_states",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("topic", "key", name="known_states_pkey"),
    )
    op.create_table(
        "receipts",
        sa.Column("ticket_id", sa.Uuid, nullable=False),
        sa.Column("dossier_code", sa.Text, nullable=False),
        sa.Column("printed_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name="receipts_pkey"),
    )
    op.create_table(
        "ratings",
        sa.Column("ticket_id", sa.Uuid, nullable=False),
        sa.Column("score", sa.SmallInteger, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("rated_at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("ticket_id", name="ratings_pkey"),
        sa.CheckConstraint("score BETWEEN 1 AND 5", name="ratings_score_check"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("ratings", "receipts", "known_states", "late_tickets", "episodes"):
        op.drop_table(table)
    op.drop_column("published_loads", "version")

"""The embedded carrier's log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create topics, log, producers and groups."""
    op.create_table(
        "topics",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("compacted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("next_offset", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("name", name="topics_pkey"),
    )
    op.create_table(
        "log",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary),
        sa.Column("headers", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("topic", "offset", name="log_pkey"),
    )
    op.create_index("log_topic_key_offset_idx", "log", ["topic", "key", "offset"])
    op.create_table(
        "producers",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="producers_pkey"),
    )
    op.create_table(
        "groups",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "topic", name="groups_pkey"),
    )


def downgrade() -> None:
    """Drop them; events that nobody has read are lost."""
    for table in ("groups", "producers", "log", "topics"):
        op.drop_table(table)

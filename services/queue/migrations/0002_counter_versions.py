"""Counters count their changes, so that readers of their events can drop older ones."""

import sqlalchemy as sa
from alembic import op

revision = "counter_versions"
down_revision = "0001"


def upgrade() -> None:
    """Add the count; code of the version before neither sees nor needs it."""
    op.add_column("counters", sa.Column("version", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("counters", "version")

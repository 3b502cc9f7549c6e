"""What comes after a visit: its receipt, and how it was found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns that the running version does not write."""
    op.add_column("tickets", sa.Column("receipt_seconds", sa.Float))
    op.add_column("tickets", sa.Column("score", sa.SmallInteger))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("tickets", "score")
    op.drop_column("tickets", "receipt_seconds")

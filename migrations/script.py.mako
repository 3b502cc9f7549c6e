"""${message}."""

from alembic import op
import sqlalchemy as sa

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Apply; the code that runs now must survive it."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Go back; data that only the new shape holds is lost."""
    ${downgrades if downgrades else "pass"}

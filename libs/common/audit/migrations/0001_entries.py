"""The audit: one table that services add to and nobody changes."""

import sqlalchemy as sa
from alembic import op

from libs.common.settings import SERVICES

revision = "0001"
down_revision = None

_WRITTEN_BY_SERVICES = (
    "subject", "role", "method", "route", "unit", "object", "outcome", "status", "trace_id",
)  # fmt: skip


def upgrade() -> None:
    """Create the table, let services add rows, and refuse everybody else, the owner too."""
    op.create_table(
        "entries",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("service", sa.Text, nullable=False, server_default=sa.text("CURRENT_USER")),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False,
                  server_default=sa.func.clock_timestamp()),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("unit", sa.Text),
        sa.Column("object", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("trace_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="entries_pkey"),
        sa.CheckConstraint(
            "outcome IN ('done', 'replayed', 'refused', 'failed')", name="entries_outcome_check"
        ),
    )  # fmt: skip
    op.create_index("entries_at_idx", "entries", ["at"], postgresql_using="brin")
    columns = ", ".join(_WRITTEN_BY_SERVICES)
    for service in SERVICES:
        op.execute(f"GRANT INSERT ({columns}) ON entries TO {service}")
    # Rights keep services out; this also stops who works as the owner and forgets where he is.
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$"
        "BEGIN RAISE EXCEPTION 'the audit is only added to'; END $$"
    )
    op.execute(
        "CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    """Drop it, with everything that was noted."""
    op.drop_table("entries")
    op.execute("DROP FUNCTION refuse_change()")

"""First version of the tables every service has. Released: never edited, only followed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

_WALL_CLOCK = sa.func.clock_timestamp()


def create() -> None:
    """Create outbox, inbox and idempotency keys in the schema being migrated."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("extra", JSONB),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False,
                  server_default=_WALL_CLOCK),
        sa.PrimaryKeyConstraint("id", name="outbox_pkey"),
    )  # fmt: skip
    # Every row is deleted soon after it was written: without an eager vacuum the relay's scan in
    # id order would walk over ever more dead rows.
    op.execute(
        "ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0.0, "
        "autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_threshold = -1)"
    )
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False,
                  server_default=_WALL_CLOCK),
        sa.PrimaryKeyConstraint("event_id", name="inbox_pkey"),
    )  # fmt: skip
    op.create_index("inbox_received_at_idx", "inbox", ["received_at"])
    op.create_table(
        "idempotency_keys",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("answer", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False,
                  server_default=_WALL_CLOCK),
        sa.PrimaryKeyConstraint("digest", name="idempotency_keys_pkey"),
    )  # fmt: skip
    op.create_index("idempotency_keys_created_at_idx", "idempotency_keys", ["created_at"])


def drop() -> None:
    """Remove them again."""
    for table in ("idempotency_keys", "inbox", "outbox"):
        op.drop_table(table)

"""Kiosks and the portal as callers, with the hashes of their API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create clients and their keys."""
    op.create_table(
        "clients",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("units", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="clients_pkey"),
        sa.CheckConstraint("kind IN ('kiosk', 'portal')", name="clients_kind_check"),
        sa.CheckConstraint(
            "(kind = 'kiosk') = (units <> '[]'::jsonb)", name="clients_kiosk_has_units_check"
        ),
    )
    op.create_table(
        "api_keys",
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("client", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_after", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("sha256", name="api_keys_pkey"),
        sa.ForeignKeyConstraint(["client"], ["clients.id"], name="api_keys_client_fkey"),
    )
    op.create_index("api_keys_client_idx", "api_keys", ["client"])


def downgrade() -> None:
    """Drop them: no kiosk can call any more."""
    op.drop_table("api_keys")
    op.drop_table("clients")

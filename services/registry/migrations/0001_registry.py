"""Units, centres, procedures, calendar."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from libs.common import mechanism_v1

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the registry's tables."""
    mechanism_v1.create()
    _create_units()
    _create_centres()
    _create_procedures()
    op.create_table(
        "calendar_overrides",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("kind", sa.String),
        sa.Column("decision", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("in_lieu_of", sa.Date),
        sa.PrimaryKeyConstraint("day", name="calendar_overrides_pkey"),
        sa.CheckConstraint("kind IN ('off', 'work')", name="calendar_overrides_kind_check"),
    )


def _create_units() -> None:
    op.create_table(
        "units",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("search", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("parent", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("gso_code", sa.String),
        sa.Column("valid_from", sa.Date),
        sa.Column("valid_to", sa.Date),
        sa.Column("decision", sa.String),
        sa.Column("former_province", sa.String),
        sa.Column("area_km2", sa.Float),
        sa.Column("synthetic", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("code", name="units_pkey"),
        sa.CheckConstraint("status IN ('planned', 'active', 'closed')", name="units_status_check"),
        sa.CheckConstraint(
            "(status = 'closed') = (valid_to IS NOT NULL)", name="units_closed_has_end_check"
        ),
    )
    for column in ("type", "parent", "gso_code"):
        op.create_index(f"units_{column}_idx", "units", [column])
    op.create_index(
        "units_one_active_gso_code",
        "units",
        ["gso_code"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "unit_aliases",
        sa.Column("alias", sa.String, nullable=False),
        sa.Column("unit", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("alias", name="unit_aliases_pkey"),
        sa.ForeignKeyConstraint(["unit"], ["units.code"], name="unit_aliases_unit_fkey"),
    )
    op.create_index("unit_aliases_unit_idx", "unit_aliases", ["unit"])
    op.create_table(
        "successions",
        sa.Column("predecessor", sa.String, nullable=False),
        sa.Column("successor", sa.String, nullable=False),
        sa.Column("relation", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("predecessor", "successor", name="successions_pkey"),
        sa.ForeignKeyConstraint(
            ["predecessor"], ["units.code"], name="successions_predecessor_fkey"
        ),
        sa.ForeignKeyConstraint(["successor"], ["units.code"], name="successions_successor_fkey"),
        sa.CheckConstraint(
            "relation IN ('whole', 'part-default', 'part')", name="successions_relation_check"
        ),
        sa.CheckConstraint("predecessor <> successor", name="successions_not_itself_check"),
    )
    op.create_index("successions_successor_idx", "successions", ["successor"])


def _create_centres() -> None:
    op.create_table(
        "centres",
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("address", sa.String),
        sa.Column("latitude", sa.Float),
        sa.Column("longitude", sa.Float),
        sa.Column("hotlines", JSONB, nullable=False),
        sa.Column("hours", JSONB, nullable=False),
        sa.Column("counters_planned", sa.Integer, nullable=False),
        sa.Column("name_board", sa.String, nullable=False),
        sa.Column("procedures", JSONB),
        sa.PrimaryKeyConstraint("unit", name="centres_pkey"),
        sa.ForeignKeyConstraint(["unit"], ["units.code"], name="centres_unit_fkey"),
        sa.CheckConstraint("counters_planned BETWEEN 1 AND 99", name="centres_counters_check"),
    )


def _create_procedures() -> None:
    op.create_table(
        "procedures",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("code", name="procedures_pkey"),
    )
    op.create_table(
        "procedure_versions",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("valid_from", sa.Date, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("search", sa.String, nullable=False),
        sa.Column("field", sa.String, nullable=False),
        sa.Column("competent_level", sa.String, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("code", "valid_from", name="procedure_versions_pkey"),
        sa.ForeignKeyConstraint(["code"], ["procedures.code"], name="procedure_versions_code_fkey"),
    )
    op.create_index("procedure_versions_field_idx", "procedure_versions", ["field"])


def downgrade() -> None:
    """Drop them."""
    for table in (
        "calendar_overrides", "procedure_versions", "procedures", "centres", "successions",
        "unit_aliases", "units",
    ):  # fmt: skip
        op.drop_table(table)
    mechanism_v1.drop()

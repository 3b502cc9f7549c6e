"""Dossiers, their papers, applicants, and the control slip that is only ever appended to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from libs.common import mechanism_v1

revision = "0001"
down_revision = None

_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create intake's tables."""
    mechanism_v1.create()
    op.create_table(
        "dossier_sequences",
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("unit", "day", name="dossier_sequences_pkey"),
    )
    # The row of a busy unit is updated with every dossier: room in its page keeps that in place.
    op.execute("ALTER TABLE dossier_sequences SET (fillfactor = 50)")
    op.create_table(
        "procedure_rules",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("procedure_code", sa.String, nullable=False),
        sa.Column("body", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="procedure_rules_pkey"),
    )
    op.create_table(
        "applicants",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("id_number", sa.String),
        sa.Column("tax_number", sa.String),
        sa.Column("phone", sa.String),
        sa.Column("email", sa.String),
        sa.Column("representative", sa.String),
        sa.PrimaryKeyConstraint("id", name="applicants_pkey"),
        sa.CheckConstraint("kind IN ('citizen', 'organisation')", name="applicants_kind_check"),
        sa.CheckConstraint(
            "id_number IS NULL OR tax_number IS NULL", name="applicants_one_number_check"
        ),
    )
    _create_dossiers()
    _create_parts()
    # What happened and the rules it happened under stay as they were written, for the service
    # too; only the owner, which no service can log in as, could change them.
    op.execute("REVOKE UPDATE, DELETE ON hand_overs, procedure_rules FROM intake")


def _create_dossiers() -> None:
    op.create_table(
        "dossiers",
        sa.Column("code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("procedure_code", sa.String, nullable=False),
        sa.Column("rules_id", sa.String, nullable=False),
        sa.Column("field", sa.String, nullable=False),
        sa.Column("boundary_independent", sa.Boolean, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("receiving_unit", sa.String, nullable=False),
        sa.Column("competent_unit", sa.String, nullable=False),
        sa.Column("subject_unit", sa.String),
        sa.Column("support_point", sa.String),
        sa.Column("applicant_id", sa.Uuid, nullable=False),
        sa.Column("ticket_id", sa.Uuid),
        sa.Column("submitted_at", _INSTANT, nullable=False),
        sa.Column("reception_due_at", _INSTANT),
        sa.Column("received_at", _INSTANT),
        sa.Column("appointment_at", _INSTANT),
        sa.Column("ended_at", _INSTANT),
        sa.Column("returned_at", _INSTANT),
        sa.Column("holder_unit", sa.String),
        sa.Column("holder", sa.String),
        sa.Column("supplement_requests", sa.Integer, nullable=False),
        sa.Column("components_handed_in", sa.Integer, nullable=False),
        sa.Column("components_digitised", sa.Integer, nullable=False),
        sa.Column("components_reused", sa.Integer, nullable=False),
        sa.Column("result_files", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("code", name="dossiers_pkey"),
        sa.ForeignKeyConstraint(
            ["rules_id"], ["procedure_rules.id"], name="dossiers_rules_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["applicant_id"], ["applicants.id"], name="dossiers_applicant_id_fkey"
        ),
        sa.CheckConstraint("status BETWEEN 1 AND 10", name="dossiers_status_check"),
        sa.CheckConstraint(
            "channel IN ('direct', 'online', 'postal')", name="dossiers_channel_check"
        ),
        sa.CheckConstraint(
            "status IN (1, 3, 7) OR received_at IS NOT NULL", name="dossiers_received_check"
        ),
        sa.CheckConstraint(
            "(received_at IS NULL) = (appointment_at IS NULL)", name="dossiers_appointment_check"
        ),
        sa.CheckConstraint(
            "status NOT IN (9, 10) OR ended_at IS NOT NULL", name="dossiers_ended_check"
        ),
        sa.CheckConstraint(
            "(status = 10) = (returned_at IS NOT NULL)", name="dossiers_returned_check"
        ),
    )
    for name in ("competent", "receiving"):
        op.create_index(f"dossiers_{name}", "dossiers", [f"{name}_unit", "submitted_at", "code"])
    op.create_index("dossiers_submitted", "dossiers", ["submitted_at", "code"])
    op.create_index(
        "dossiers_pending",
        "dossiers",
        ["appointment_at"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _create_parts() -> None:
    op.create_table(
        "dossier_components",
        sa.Column("dossier_code", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("component_code", sa.String, nullable=False),
        sa.Column("file_sha256", sa.String),
        sa.Column("reused_from", sa.String),
        sa.PrimaryKeyConstraint("dossier_code", "number", name="dossier_components_pkey"),
        sa.ForeignKeyConstraint(
            ["dossier_code"], ["dossiers.code"], name="dossier_components_dossier_code_fkey"
        ),
    )
    op.create_table(
        "hand_overs",
        sa.Column("dossier_code", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("giver_unit", sa.String),
        sa.Column("giver", sa.String),
        sa.Column("receiver_unit", sa.String),
        sa.Column("receiver", sa.String),
        sa.Column("reason", sa.String),
        sa.Column("note", sa.String),
        sa.Column("files", ARRAY(sa.String), nullable=False),
        sa.PrimaryKeyConstraint("dossier_code", "version", name="hand_overs_pkey"),
        sa.ForeignKeyConstraint(
            ["dossier_code"], ["dossiers.code"], name="hand_overs_dossier_code_fkey"
        ),
    )


def downgrade() -> None:
    """Drop them."""
    for table in (
        "hand_overs", "dossier_components", "dossiers", "applicants", "procedure_rules",
        "dossier_sequences",
    ):  # fmt: skip
        op.drop_table(table)
    mechanism_v1.drop()

"""A ticket's whole life: set aside, sent on, printed again, ended for want of a day or unit."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NEW: dict[str, Any] = {
    "for_counter": sa.Integer(),
    "printed_at": sa.DateTime(timezone=True),
    "call_reason": sa.Text(),
    "cancel_cause": sa.Text(),
    "transferred_from": sa.Uuid(),
    "transferred_to": sa.Uuid(),
}
_COUNTED = (("tickets", "reissues"), ("counters", "version"))
_CHECKS = {
    "for_counter": "for_counter IS NULL OR status = 'waiting'",
    "cancel_cause": "cancel_cause IS NULL OR status = 'cancelled' AND cancel_cause IN "
    "('asked', 'print_failed', 'day_over', 'unit_closed')",
    "transferred": "(status = 'transferred') = (transferred_to IS NOT NULL)",
}


def upgrade() -> None:
    """Add columns that the running version does not write and need not know."""
    for name, kind in _NEW.items():
        op.add_column("tickets", sa.Column(name, kind))
    for table, name in _COUNTED:
        op.add_column(table, sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    for name, condition in _CHECKS.items():
        op.create_check_constraint(f"tickets_{name}_check", "tickets", condition)
    _officer_needed("status = 'serving'")
    # A ticket that is sent to another series keeps its number, and with it the number's series.
    op.drop_constraint("tickets_number_once", "tickets")
    op.create_unique_constraint(
        "tickets_number_once", "tickets", ["unit", "business_day", "number"]
    )
    op.create_index(
        "tickets_linked_once",
        "tickets",
        ["transferred_from"],
        unique=True,
        postgresql_where=sa.text("transferred_from IS NOT NULL"),
    )
    op.create_index(
        "tickets_parked", "tickets", ["unit"], postgresql_where=sa.text("status = 'parked'")
    )


def _officer_needed(when: str) -> None:
    """Say in which states at a counter somebody must hold the ticket."""
    op.drop_constraint("tickets_at_a_counter_check", "tickets")
    op.create_check_constraint(
        "tickets_at_a_counter_check",
        "tickets",
        "status NOT IN ('called', 'serving') OR counter IS NOT NULL"
        f" AND (officer IS NOT NULL OR NOT {when})",
    )


def downgrade() -> None:
    """Take them away; refused by the old constraints while tickets live by the new rules."""
    op.drop_index("tickets_parked", "tickets")
    op.drop_index("tickets_linked_once", "tickets")
    op.drop_constraint("tickets_number_once", "tickets")
    op.create_unique_constraint(
        "tickets_number_once", "tickets", ["unit", "series", "business_day", "sequence"]
    )
    _officer_needed("true")
    for name in _CHECKS:
        op.drop_constraint(f"tickets_{name}_check", "tickets")
    for table, name in _COUNTED:
        op.drop_column(table, name)
    for name in _NEW:
        op.drop_column("tickets", name)

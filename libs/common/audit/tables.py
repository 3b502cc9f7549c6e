"""The audit's one table, in the schema `audit`; its statements name it in full."""

import sqlalchemy as sa

from libs.common.db import NAMING

metadata = sa.MetaData(naming_convention=NAMING)
METADATA = [metadata]

OUTCOMES = ("done", "replayed", "refused", "failed")

ENTRIES = sa.Table(
    "entries",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # Whom the database says that it serves: a service cannot write in another's name.
    sa.Column("service", sa.Text, nullable=False, server_default=sa.text("CURRENT_USER")),
    sa.Column(
        "at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.func.clock_timestamp(),
    ),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    # The route's template, never the address that was called: that holds what people wrote.
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("unit", sa.Text),
    sa.Column("object", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("status", sa.SmallInteger, nullable=False),
    sa.Column("trace_id", sa.Text),
    sa.CheckConstraint(f"outcome IN {OUTCOMES}", name="outcome"),
    # Rows come in the order of time, so a few pages of summary find a day among years.
    sa.Index("entries_at_idx", "at", postgresql_using="brin"),
)

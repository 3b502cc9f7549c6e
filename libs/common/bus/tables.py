"""The embedded carrier's tables, in the schema `bus`; its statements name them in full."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from libs.common.db import NAMING

metadata = sa.MetaData(naming_convention=NAMING)
METADATA = [metadata]

TOPICS = sa.Table(
    "topics",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("compacted", sa.Boolean, nullable=False, server_default=sa.false()),
    # The offset that the next record gets; the row's lock is what keeps offsets in commit order.
    sa.Column("next_offset", sa.BigInteger, nullable=False, server_default="0"),
)

LOG = sa.Table(
    "log",
    metadata,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("value", sa.LargeBinary),
    sa.Column("headers", JSONB, nullable=False),
    sa.Index("log_topic_key_offset_idx", "topic", "key", "offset"),
)

PRODUCERS = sa.Table(
    "producers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    # Raised by each opening: appends of an older epoch are refused.
    sa.Column("epoch", sa.BigInteger, nullable=False),
)

GROUPS = sa.Table(
    "groups",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    # Raised each time another member takes the topic: commits of an older generation are refused.
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
)

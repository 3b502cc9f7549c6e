"""x."""

from libs.common import mechanism_v1

revision = "0001"
down_revision = None


def upgrade():
    mechanism_v1.create()

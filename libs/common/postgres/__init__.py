"""The embedded PostgreSQL: found on the machine, started as a child of this process, kept alive."""

from libs.common.postgres.binaries import Binaries, find_binaries
from libs.common.postgres.errors import (
    BinariesMissing,
    FolderInUse,
    NoAccount,
    OtherVersion,
    PostgresError,
    ServerFailed,
)
from libs.common.postgres.server import EmbeddedPostgres

__all__ = [
    "Binaries",
    "BinariesMissing",
    "EmbeddedPostgres",
    "FolderInUse",
    "NoAccount",
    "OtherVersion",
    "PostgresError",
    "ServerFailed",
    "find_binaries",
]

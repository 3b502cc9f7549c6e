"""Why the embedded PostgreSQL cannot run; every message says what to do next."""


class PostgresError(Exception):
    """The embedded PostgreSQL cannot run; print the message and exit with 1."""


class BinariesMissing(PostgresError):
    """No PostgreSQL server that could be run was found on this machine."""


class OtherVersion(PostgresError):
    """The data was made by a major version of PostgreSQL that this machine does not have."""


class FolderInUse(PostgresError):
    """Another process works on the data folder."""


class NoAccount(PostgresError):
    """There is no account that PostgreSQL could run as."""


class ServerFailed(PostgresError):
    """PostgreSQL was started and gave up."""

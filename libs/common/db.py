"""PostgreSQL: the engine and the function-scoped session, and the driver's pool for hot paths."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from fastapi import Depends, Request
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from libs.common.events import EdgeSession
from libs.common.observability import CONNECTIONS, CONNECTIONS_LIMIT
from libs.common.settings import Settings

NAMING = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}
"""PostgreSQL's own style of names, so that constraints can be told apart in code and in psql."""


@dataclass(frozen=True, slots=True)
class Database:
    """One service's way to its schema."""

    sessions: async_sessionmaker[AsyncSession]
    """Transactions for everything that is not hot."""
    hot: asyncpg.Pool
    """Autocommit connections for the paths that are one statement."""
    connect: Callable[[], Any]
    """Opens a connection of its own, for who must hold a session lock (relay, bus)."""


def service_url(settings: Settings, service: str) -> str:
    """Give the login of one service.

    In development one account serves all, so the role and its password follow from it; in
    production the setting is already that service's own login.

    Raises:
        ValueError: no database is configured.
    """
    if settings.database_url is None:
        raise ValueError(
            f"{service} needs a database: set MOTCUA_DATABASE_URL=postgresql://..., "
            "or start the whole city with `make run`, which brings its own"
        )
    url = settings.database_url.get_secret_value()
    if not settings.development:
        return url
    parts = urlsplit(url)
    if parts.username == service:
        return url
    secret = service_password(parts.password or "", service)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(service)}:{secret}@{host}"))


def service_password(admin_password: str, service: str) -> str:
    """Derive a service's development password from the one account's: nothing is stored twice."""
    return hashlib.sha256(f"motcua:{service}:{admin_password}".encode()).hexdigest()


def connector(url: str, service: str, schema: str | None = None) -> Callable[[], Any]:
    """Make the function that opens a connection as a service, on its own schema unless told."""

    async def connect() -> Any:
        # The server gives up on a statement first; the client's own bound is for a network that
        # stalls without closing, where nothing would ever come back.
        return await asyncpg.connect(
            url, timeout=10, command_timeout=35, server_settings=_server_settings(service, schema)
        )

    return connect


def _server_settings(service: str, schema: str | None) -> dict[str, str]:
    return {
        "application_name": f"motcua-{service}",
        "search_path": schema or service,
        # Statements that build JSON themselves then write the offset people expect.
        "timezone": "Asia/Ho_Chi_Minh",
        "statement_timeout": "30s",
    }


@asynccontextmanager
async def open_database(
    url: str,
    service: str,
    *,
    schema: str | None = None,
    pool: int = 8,
    hot_pool: int = 8,
    on_commit: Callable[[], None] = lambda: None,
) -> AsyncIterator[Database]:
    """Open both pools on a service's schema, or on a twin of it (`migrate.make_twin`).

    `on_commit` is called after each commit of a session that wrote events.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector(url, service, schema),
        pool_size=pool,
        max_overflow=pool,
        pool_timeout=10,
        # A failed statement's parameters would stand in the log, and may be somebody's name.
        hide_parameters=True,
    )
    _drop_dead_connections(engine.sync_engine)
    sessions = async_sessionmaker(
        engine,
        sync_session_class=EdgeSession,
        expire_on_commit=False,
        info={"on_commit": on_commit},
    )
    hot = await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=hot_pool,
        timeout=10,
        command_timeout=30,
        server_settings=_server_settings(service, schema),
        # The hot statements leave no session state behind, so the reset round trip buys nothing.
        reset=_nothing_to_reset,
    )
    if schema is None:
        _show_use(service, "sessions", engine.sync_engine.pool.checkedout, 2 * pool)
        _show_use(service, "hot", lambda: hot.get_size() - hot.get_idle_size(), hot_pool)
    try:
        yield Database(sessions, hot, connector(url, service, schema))
    finally:
        hot.terminate()
        await engine.dispose()


def _show_use(service: str, pool: str, used: Callable[[], int], limit: int) -> None:
    """Show how many connections are held, asked at each scrape, and how many there may be."""
    CONNECTIONS.labels(service, pool).set_function(used)
    CONNECTIONS_LIMIT.labels(service, pool).set(limit)


async def _nothing_to_reset(_: Any) -> None:
    return


def _drop_dead_connections(engine: Any) -> None:
    """Notice a connection the server closed without a round trip: the driver already knows."""

    @event.listens_for(engine, "checkout")
    def check(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
        if dbapi_connection.driver_connection.is_closed():
            raise DisconnectionError


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    """Open a transaction for the request; commit on return, roll back on exception."""
    async with request.state.sessions.begin() as transaction:
        request.state.transaction = transaction
        yield transaction


# scope="function": commit *before* the response is sent, so a 201 means "stored".
Session = Annotated[AsyncSession, Depends(session, scope="function")]


def transient(error: BaseException) -> bool:
    """Tell whether the same call may succeed later: the database was away, busy or in conflict."""
    if isinstance(error, DBAPIError):
        cause = error.orig.__cause__ if error.orig else None
        return error.connection_invalidated or (cause is not None and transient(cause))
    if isinstance(error, ValueError):
        return False  # asyncpg calls an argument it cannot encode an InterfaceError
    return isinstance(error, _TRANSIENT)


_TRANSIENT = (
    OSError,
    TimeoutError,
    PoolTimeout,
    DisconnectionError,
    asyncpg.InterfaceError,
    # A connection that heard of the server's end while it was idle, used before it is closed.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.CannotConnectNowError,
    asyncpg.LockNotAvailableError,
)


def refused_value(error: BaseException) -> bool:
    """Tell whether a value cannot be stored: a number out of range, NUL, broken Unicode."""
    if isinstance(error, DBAPIError):
        error = getattr(error.orig, "__cause__", None) or error
    if isinstance(error, asyncpg.DataError) and isinstance(error.__cause__, OverflowError):
        return True  # the driver could not write the number; a wrong type is a defect of ours
    return isinstance(error, _REFUSED)


_REFUSED = (
    UnicodeEncodeError,
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.DatetimeFieldOverflowError,
)

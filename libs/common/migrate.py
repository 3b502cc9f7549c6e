"""Roles, schemas and revisions: everything a database needs before the services may use it."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from libs.common.bus.base import Topic
from libs.common.db import Database, service_password
from libs.common.settings import SERVICES, Settings

OWNER = "motcua_owner"
"""Owns schemas and tables and cannot log in: services can use their tables, never alter them."""

AUDIT = "audit"
SCHEMAS = ("bus", AUDIT, *SERVICES)
READER = "gateway"
"""Has no schema; reads the embedded bus."""

_INI = Path(__file__).parents[2] / "migrations" / "alembic.ini"
MIGRATE_LOCK = 0x6D6F7463  # "motc"
"""The advisory lock under which tables are made and changed."""


def admin_url(settings: Settings) -> str:
    """Give the account that may create roles and schemas.

    Raises:
        ValueError: no database is configured.
    """
    url = settings.admin_database_url or settings.database_url
    if url is None:
        raise ValueError(
            "set MOTCUA_DATABASE_URL=postgresql://... to say which database to migrate"
        )
    return url.get_secret_value()


async def migrate(settings: Settings, topics: Sequence[Topic]) -> None:
    """Bring a database to the newest revision of every schema; changes nothing if it is there."""
    url = admin_url(settings)
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", MIGRATE_LOCK)
        await _make_roles(connection, settings)
        for schema in SCHEMAS:
            await _make_schema(connection, schema)
        await _upgrade(url, {schema: schema for schema in SCHEMAS})
        await _apply_topics(connection, topics)
    finally:
        await connection.close()


async def make_roles(settings: Settings) -> None:
    """Make the services' accounts on a new server, so that a dump can be restored there.

    They are the server's, not the database's: no dump of the database holds them.
    """
    connection = await asyncpg.connect(admin_url(settings), timeout=10)
    try:
        await _make_roles(connection, settings)
    finally:
        await connection.close()


async def _make_roles(connection: Any, settings: Settings) -> None:
    with_passwords = settings.development and settings.admin_database_url is None
    admin_password = urlsplit(admin_url(settings)).password or ""
    await _tolerating_twins(connection, f"CREATE ROLE {OWNER} NOLOGIN")
    await _tolerating_twins(connection, f"GRANT {OWNER} TO CURRENT_USER")
    for role in (*SERVICES, READER):
        await _tolerating_twins(connection, f"CREATE ROLE {role} LOGIN")
        if with_passwords:
            secret = service_password(admin_password, role)
            await _tolerating_twins(connection, f"ALTER ROLE {role} PASSWORD '{secret}'")


async def _tolerating_twins(connection: Any, statement: str) -> None:
    """Run a statement on roles, which all databases of a server share, beside another migration."""
    for _ in range(20):
        try:
            await connection.execute(statement)
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            return
        except asyncpg.InternalServerError:  # tuple concurrently updated
            continue
        else:
            return
    raise RuntimeError(f"another migration keeps changing the same role: {statement.split()[2]}")


async def _make_schema(connection: Any, schema: str) -> None:
    users = {"bus": (*SERVICES, READER), AUDIT: SERVICES}.get(schema, (schema,))
    await _make_usable(connection, schema, users)
    if schema in SERVICES:
        database = await connection.fetchval("SELECT quote_ident(current_database())")
        await _tolerating_twins(
            connection, f"ALTER ROLE {schema} IN DATABASE {database} SET search_path TO {schema}"
        )


async def _make_usable(connection: Any, schema: str, users: Sequence[str]) -> None:
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {OWNER}")
    for user in users:
        rights = "SELECT, INSERT, UPDATE, DELETE"
        if user == READER or schema == AUDIT:
            rights = "SELECT"  # what may be added to the audit, its revision says column by column
        await connection.execute(
            f"GRANT USAGE ON SCHEMA {schema} TO {user};"
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA {schema} "
            f"GRANT {rights} ON TABLES TO {user};"
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA {schema} "
            f"GRANT USAGE ON SEQUENCES TO {user};"
        )


def _config(schema: str) -> Config:
    return Config(str(_INI), ini_section=schema)


def version_table_options(schema: str) -> dict[str, Any]:
    """Keep each schema's revision in the schema itself."""
    return {"version_table": "alembic_version", "version_table_schema": schema}


@cache
def head(schema: str) -> str:
    """Name the newest revision that the code knows."""
    return str(ScriptDirectory.from_config(_config(schema)).get_current_head())


async def make_twin(url: str, service: str, twin: str) -> None:
    """Make an empty schema by a service's revisions, which the service may use like its own."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await _make_usable(connection, twin, (service,))
    finally:
        await connection.close()
    await _upgrade(url, {twin: service})


async def _upgrade(url: str, schemas: Mapping[str, str]) -> None:
    """Bring schemas to the newest of the revisions that are named for each."""

    async def connect() -> Any:
        return await asyncpg.connect(url, timeout=10)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    for schema, revisions in schemas.items():
        async with engine.begin() as connection:
            await connection.run_sync(_run_revisions, schema, revisions)
    await engine.dispose()


def _run_revisions(connection: Any, schema: str, revisions: str) -> None:
    config = _config(revisions)
    config.attributes |= {"connection": connection, "schema": schema}
    command.upgrade(config, "head")


async def _apply_topics(connection: Any, topics: Sequence[Topic]) -> None:
    await connection.executemany(
        "INSERT INTO bus.topics (name, compacted) VALUES ($1, $2) "
        "ON CONFLICT (name) DO UPDATE SET compacted = excluded.compacted",
        [(topic.name, topic.compacted) for topic in topics],
    )


async def missing_revision(database: Database, schema: str) -> str | None:
    """Say which revision a schema lacks, or None when it is as new as the code."""
    try:
        at = await database.hot.fetchval(f"SELECT version_num FROM {schema}.alembic_version")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        at = None
    wanted = head(schema)
    return None if at == wanted else f"{schema} is at {at or 'nothing'}, the code wants {wanted}"


def metadata_of(schema: str) -> list[MetaData]:
    """Give the tables a schema should have, for the test that compares them with the revisions."""
    module = import_module(_config(schema).get_main_option("models") or "")
    return list(module.METADATA)

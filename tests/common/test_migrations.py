"""Migrations: revisions equal models, come again without harm, and leave services few rights."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from libs.common.db import Database, connector, open_database, service_url
from libs.common.migrate import SCHEMAS, _config, head, metadata_of, migrate, missing_revision
from libs.common.settings import SERVICES
from libs.contracts.topics import all_topics
from tests.common.helpers import admin, scratch_database
from tests.support import settings_for

TOPICS = list(all_topics())


def _has_models(schema: str) -> bool:
    name = _config(schema).get_main_option("models") or ""
    return find_spec(name) is not None


WITH_MODELS = [schema for schema in SCHEMAS if _has_models(schema)]


@pytest.fixture(scope="module")
async def url(server_url: str, migrated: str) -> AsyncIterator[str]:
    """Give a migrated database to look at."""
    async with scratch_database(server_url, migrated) as url:
        yield url


async def _inspect(url: str, schema: str, look: Any) -> Any:
    async def connect() -> Any:
        return await asyncpg.connect(url, server_settings={"search_path": schema})

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(look)
    finally:
        await engine.dispose()


def _differences(metadata: list[MetaData]) -> Any:
    def look(connection: Any) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={"compare_server_default": True, "include_name": _not_alembics},
        )
        found: list[Any] = compare_metadata(context, metadata)  # type: ignore[arg-type]
        return found

    return look


def _not_alembics(name: str | None, kind: str, _: Any) -> bool:
    return not (kind == "table" and name == "alembic_version")


@pytest.mark.parametrize("schema", WITH_MODELS)
async def test_the_revisions_make_what_the_models_say(url: str, schema: str) -> None:
    assert await _inspect(url, schema, _differences(metadata_of(schema))) == []


@pytest.mark.parametrize("schema", WITH_MODELS)
async def test_the_checks_in_the_database_are_those_of_the_models(url: str, schema: str) -> None:
    """Alembic does not compare CHECK constraints, which say which states are legal."""
    expected = {
        (table.name, constraint.name)
        for metadata in metadata_of(schema)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }

    def look(connection: Any) -> set[tuple[str, str]]:
        rows = connection.execute(
            text(
                "SELECT c.relname, k.conname FROM pg_constraint k "
                "JOIN pg_class c ON c.oid = k.conrelid "
                "WHERE k.contype = 'c' AND k.connamespace = CAST(:schema AS regnamespace)"
            ),
            {"schema": schema},
        )
        return {(row[0], row[1]) for row in rows}

    assert await _inspect(url, schema, look) == {
        (table, _final_name(table, name)) for table, name in expected
    }


def _final_name(table: str, name: Any) -> str:
    return str(name) if str(name).startswith(f"{table}_") else f"{table}_{name}_check"


def _snapshot(connection: Any) -> list[Any]:
    rows = connection.execute(
        text(
            "SELECT n.nspname, c.relname, c.relkind, c.relacl::text, pg_get_userbyid(c.relowner), "
            "(SELECT array_agg(a.attname::text || ':' || a.atttypid::text ORDER BY a.attnum) "
            " FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(:schemas) ORDER BY 1, 2"
        ),
        {"schemas": list(SCHEMAS)},
    )
    return [tuple(row) for row in rows]


async def test_migrating_again_changes_nothing(url: str) -> None:
    before = await _inspect(url, "bus", _snapshot)
    async with admin(url) as operator:
        await operator.execute("UPDATE bus.topics SET next_offset = 7 WHERE name = 'queue.load.v1'")
    await migrate(settings_for(url), TOPICS)
    assert await _inspect(url, "bus", _snapshot) == before
    async with admin(url) as operator:
        assert (
            await operator.fetchval(
                "SELECT next_offset FROM bus.topics WHERE name = 'queue.load.v1'"
            )
            == 7
        )
        names = {row["name"] for row in await operator.fetch("SELECT name FROM bus.topics")}
    assert names == {topic.name for topic in TOPICS}


async def test_two_migrations_at_once_of_one_database_and_of_two_on_one_server(
    server_url: str,
) -> None:
    """Roles belong to the server, schemas to the database: neither may trip over a twin."""
    async with scratch_database(server_url) as one, scratch_database(server_url) as other:
        commands = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.cli", "migrate",
                env=os.environ | {"MOTCUA_DATABASE_URL": url},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for url in (one, one, other)
        ]  # fmt: skip
        for command in commands:
            _, errors = await command.communicate()
            assert command.returncode == 0, errors.decode()
        for url in (one, other):
            for service in SERVICES:
                async with service_of(url, service) as database:
                    assert await missing_revision(database, service) is None
                    assert await database.hot.fetchval("SELECT count(*) FROM outbox") == 0


def service_of(url: str, service: str) -> Any:
    """Open a database as one of its services."""
    return open_database(service_url(settings_for(url), service), service)


async def test_a_database_that_was_never_migrated_says_which_revision_it_lacks(
    server_url: str,
) -> None:
    async with scratch_database(server_url) as url, service_of(url, "queue") as database:
        words = await missing_revision(database, "queue")
        assert words == f"queue is at nothing, the code wants {head('queue')}"


async def connection_as(url: str, service: str) -> Any:
    """Log in as a service."""
    return await connector(service_url(settings_for(url), service), service)()


FORBIDDEN = [
    "ALTER TABLE outbox ADD COLUMN more int",
    "DROP TABLE outbox",
    "TRUNCATE outbox",
    "CREATE TABLE mine (one int)",
    "CREATE TABLE public.mine (one int)",
    "CREATE SCHEMA mine",
    "CREATE INDEX ON outbox (topic)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE outbox DISABLE TRIGGER ALL",
    "SET ROLE motcua_owner",
    "DROP SCHEMA bus CASCADE",
    "ALTER TABLE bus.log ADD COLUMN more int",
    "CREATE ROLE mine",
]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_may_use_its_tables_and_change_none(url: str, service: str) -> None:
    connection = await connection_as(url, service)
    try:
        assert await connection.fetchval("SELECT current_user || '.' || current_schema()") == (
            f"{service}.{service}"
        )
        for statement in FORBIDDEN:
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            raise AssertionError(f"{service} may {statement}")
        await connection.execute("DELETE FROM outbox")
    finally:
        await connection.close()


@pytest.mark.parametrize("service", [*SERVICES, "gateway"])
async def test_a_service_cannot_look_into_anothers_schema(url: str, service: str) -> None:
    connection = await connection_as(url, service)
    try:
        for other in SERVICES:
            if other != service:
                for table in ("outbox", "inbox", "idempotency_keys", "alembic_version"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.fetch(f"SELECT * FROM {other}.{table}")
        assert await connection.fetch("SELECT name FROM bus.topics")
    finally:
        await connection.close()


async def test_the_gateway_reads_the_bus_and_writes_nothing(url: str) -> None:
    connection = await connection_as(url, "gateway")
    try:
        for table in ("topics", "log", "producers", "groups"):
            await connection.fetch(f"SELECT * FROM bus.{table}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"DELETE FROM bus.{table}")
    finally:
        await connection.close()


async def test_a_role_finds_its_schema_first_in_each_database_of_the_server(
    server_url: str, url: str
) -> None:
    """Also who logs in with another client than ours, which sets no search_path."""
    async with scratch_database(server_url) as other:
        await migrate(settings_for(other), TOPICS)
        for database in (url, other):
            connection = await asyncpg.connect(service_url(settings_for(database), "queue"))
            try:
                assert await connection.fetchval("SHOW search_path") == "queue"
                assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
            finally:
                await connection.close()


async def test_every_schema_has_one_newest_revision() -> None:
    from alembic.script import ScriptDirectory

    for schema in SCHEMAS:
        assert len(ScriptDirectory.from_config(_config(schema)).get_heads()) == 1, schema


async def test_a_database_opened_as_a_service_closes_with_nothing_left_behind(url: str) -> None:
    async with service_of(url, "queue") as database:
        assert isinstance(database, Database)
        async with database.sessions() as session:
            await session.execute(text("SELECT 1"))
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with admin(url) as operator:
        for _ in range(200):
            if not await operator.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid
            ):
                return
            await asyncio.sleep(0.01)
    raise AssertionError("the connection is still open")

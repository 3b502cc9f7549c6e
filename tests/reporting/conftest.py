"""Reporting's tables for tests: one database for rolled-back transactions, or one of their own."""

import os
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database, open_database, service_url
from tests.support import on_database, settings_for


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Open an empty database as reporting, for tests that commit."""
    url = service_url(settings_for(database_url), "reporting")
    async with open_database(url, "reporting") as opened:
        yield opened


@pytest.fixture(scope="session")
async def shared(server_url: str, migrated: str) -> AsyncIterator[Database]:
    """Open one empty database for all tests that never commit."""
    name = f"motcua_reporting_{os.getpid()}"
    admin = await asyncpg.connect(on_database(server_url, "postgres"))
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
        url = service_url(settings_for(on_database(server_url, name)), "reporting")
        async with open_database(url, "reporting") as opened:
            yield opened
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def session(shared: Database) -> AsyncIterator[AsyncSession]:
    """Give a transaction that is rolled back."""
    async with shared.sessions() as opened, opened.begin() as transaction:
        yield opened
        await transaction.rollback()

"""A database that may forget what it has acknowledged is refused at the start."""

import pytest

from libs.common.app import UnsafeDatabase
from libs.common.db import service_url
from services.queue.main import app
from tests.common.helpers import admin
from tests.support import PRODUCTION, running, settings_for


@pytest.fixture
async def unsafe_url(database_url: str) -> str:
    """Give a database in which one service's commits need not reach the disk."""
    async with admin(database_url) as connection:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(
            f"ALTER ROLE queue IN DATABASE {name} SET synchronous_commit TO off"
        )
    return database_url


async def test_a_database_with_postgresqls_defaults_is_taken(database_url: str) -> None:
    async with running(app, settings_for(database_url)):
        pass


async def test_a_service_refuses_a_database_that_may_lose_its_commits(unsafe_url: str) -> None:
    with pytest.raises(UnsafeDatabase, match=r"off.*MOTCUA_ALLOW_UNSAFE_DATABASE=1$"):
        async with running(app, settings_for(unsafe_url)):
            pass


async def test_a_developer_may_allow_it(unsafe_url: str) -> None:
    async with running(app, settings_for(unsafe_url, allow_unsafe_database=True)):
        pass


async def test_in_production_no_way_around_is_named(unsafe_url: str) -> None:
    production = settings_for(service_url(settings_for(unsafe_url), "queue"), **PRODUCTION)
    with pytest.raises(UnsafeDatabase, match=r"synchronous_commit is off.*default$"):
        async with running(app, production):
            pass

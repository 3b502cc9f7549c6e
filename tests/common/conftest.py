"""A database in which things are counted; and logs kept short, whose tracebacks take seconds."""

import logging
from collections.abc import AsyncIterator

import pytest
import structlog

from tests.common.helpers import admin, execute_as_owner, scratch_database
from tests.common.things import TABLES, WIPE

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)
logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
async def counting(server_url: str, migrated: str) -> AsyncIterator[str]:
    """Give a module a database with tables to count things in."""
    async with scratch_database(server_url, migrated) as url:
        await execute_as_owner(url, *TABLES)
        yield url


@pytest.fixture
async def counting_url(counting: str) -> str:
    """Give that database as empty as it was made; a fresh one for each test takes too long."""
    async with admin(counting) as connection:
        await connection.execute(WIPE)
    return counting

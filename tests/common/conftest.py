"""A database in which things are counted; and logs kept short, whose tracebacks take seconds."""

import logging
from collections.abc import AsyncIterator

import pytest
import structlog

from libs.common.bus.base import Bus
from tests.common.carriers import CARRIERS, OpenBus, embedded_buses, kafka_buses
from tests.common.helpers import admin, execute_as_owner, scratch_database
from tests.common.things import TABLES, TOPICS, WIPE

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


@pytest.fixture(params=CARRIERS)
async def open_bus(request: pytest.FixtureRequest, counting_url: str) -> AsyncIterator[OpenBus]:
    """Give what opens the bus on each carrier in turn, empty."""
    if request.param == "kafka":
        async with kafka_buses(request.getfixturevalue("kafka")) as opened:
            yield opened
    else:
        async with embedded_buses(counting_url) as opened:
            yield opened


@pytest.fixture
async def bus(open_bus: OpenBus) -> AsyncIterator[Bus]:
    """Open the bus, with topics to count things on."""
    async with open_bus() as bus:
        await bus.apply_topics(TOPICS)
        yield bus

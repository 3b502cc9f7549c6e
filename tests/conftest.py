"""Real PostgreSQL for every test: a server per test process, a fresh database per test."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count

import asyncpg
import hypothesis
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database, open_database, service_url
from libs.common.migrate import migrate
from libs.common.postgres import EmbeddedPostgres
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from tests.kafka import shared_kafka
from tests.support import on_database, reachable_folder, settings_for

_numbers = count(1)


def pytest_configure() -> None:
    """Hear Ctrl-C again where a script started the run in its background, which makes it deaf, and
    every program that the tests start and interrupt. And time nothing."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine is no defect: no example of a property is timed.
    hypothesis.settings.register_profile("motcua", deadline=None)
    hypothesis.settings.load_profile("motcua")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what starts whole cities: a long file begun last would leave one worker idle."""
    long = ("system", "keycloak")
    items.sort(key=lambda item: not any(map(item.get_closest_marker, long)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many of the tests that run over the bus passed on each carrier."""
    names = [report.nodeid for report in terminalreporter.getreports("passed")]
    counts = {c: sum(f"[{c}" in n or f"-{c}" in n for n in names) for c in ("embedded", "kafka")}
    if any(counts.values()):
        told = ", ".join(f"{count} on {carrier}" for carrier, count in counts.items())
        terminalreporter.write_line(f"bus: the same tests passed on both carriers: {told}")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """Give an account that may create databases and roles: `MOTCUA_TEST_DATABASE_URL`, or our own
    server on the machine's binaries."""
    if url := os.environ.get("MOTCUA_TEST_DATABASE_URL"):
        yield url
        return
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        yield server.url


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(on_database(url, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Give the address of a real Kafka that nobody stops."""
    with shared_kafka() as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
async def migrated(server_url: str) -> AsyncIterator[str]:
    """Give the name of a migrated database to copy."""
    name = f"motcua_template_{os.getpid()}"
    await _run(server_url, f"CREATE DATABASE {name}")
    await migrate(settings_for(on_database(server_url, name)), list(all_topics()))
    yield name
    await _run(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
async def seeded(server_url: str, migrated: str) -> AsyncIterator[str]:
    """Give the name of a database that holds the city, its events on the bus."""
    name = f"motcua_seeded_{os.getpid()}"
    await _run(server_url, f"CREATE DATABASE {name} TEMPLATE {migrated}")
    await seed_registry(settings_for(on_database(server_url, name)))
    yield name
    await _run(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _copy(server_url: str, template: str) -> AsyncIterator[str]:
    name = f"motcua_test_{os.getpid()}_{next(_numbers)}"
    for _ in range(100):  # a service of the last test may still be leaving the template
        try:
            await _run(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
            break
        except asyncpg.ObjectInUseError:
            await asyncio.sleep(0.05)
    yield on_database(server_url, name)
    await _run(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(server_url: str, migrated: str) -> AsyncIterator[str]:
    """Give an account on a migrated, empty database of this test's own."""
    async for url in _copy(server_url, migrated):
        yield url


@pytest.fixture
async def city_url(server_url: str, seeded: str) -> AsyncIterator[str]:
    """Give an account on a database of this test's own that holds the city."""
    async for url in _copy(server_url, seeded):
        yield url


@pytest.fixture
async def queue_database(database_url: str) -> AsyncIterator[Database]:
    """Open an empty database as the service `queue`, which stands for any in tests of mechanism."""
    url = service_url(settings_for(database_url), "queue")
    async with open_database(url, "queue") as database:
        yield database


@pytest.fixture
async def session(queue_database: Database) -> AsyncIterator[AsyncSession]:
    """Give a transaction that is rolled back."""
    async with queue_database.sessions() as session, session.begin() as transaction:
        yield session
        await transaction.rollback()

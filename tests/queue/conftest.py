"""A queue that runs while a module's tests walk through its units, one unit each."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from services.queue.main import app
from tests.conftest import _copy
from tests.queue.hall import MONDAY
from tests.support import FrozenClock, running, settings_for


@pytest.fixture(scope="module")
async def hall_url(server_url: str, seeded: str) -> AsyncIterator[str]:
    """Give an account on a database of the module's own that holds the city."""
    async for url in _copy(server_url, seeded):
        yield url


@pytest.fixture(scope="module")
def hall_clock() -> FrozenClock:
    """Give the clock that the module's queue goes by."""
    return FrozenClock(MONDAY)


@pytest.fixture
def clock(hall_clock: FrozenClock) -> FrozenClock:
    """Give the queue's clock, set to an ordinary Monday morning."""
    hall_clock.at = MONDAY
    return hall_clock


@pytest.fixture(scope="module")
async def queue(hall_url: str, hall_clock: FrozenClock) -> AsyncIterator[httpx.AsyncClient]:
    """Give the queue with the city in it; its centres keep office hours."""
    async with running(app, settings_for(hall_url, hours="official"), hall_clock) as client:
        yield client


@pytest.fixture(scope="module")
async def replica(
    queue: httpx.AsyncClient, hall_url: str, hall_clock: FrozenClock
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a second process of the queue on the same database."""
    async with running(app, settings_for(hall_url, hours="official"), hall_clock) as client:
        yield client


@pytest.fixture(scope="module")
def units(queue: httpx.AsyncClient) -> Iterator[str]:
    """Give the city's units, each once."""
    return iter(sorted(queue.state["directory"].centres))  # type: ignore[attr-defined]


@pytest.fixture
def unit(units: Iterator[str]) -> str:
    """Give a unit that no other test of the module has used."""
    return next(units)

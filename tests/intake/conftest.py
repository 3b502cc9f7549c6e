"""The service on a city of the test's own, at nine on a Monday."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from services.intake.main import app
from tests.intake.city import on
from tests.support import FrozenClock, running, settings_for


@pytest.fixture
def clock() -> FrozenClock:
    """Stand at Monday, 9 November 2026, 9:00."""
    return FrozenClock(on(9))


@pytest.fixture
async def intake(city_url: str, clock: FrozenClock) -> AsyncIterator[httpx.AsyncClient]:
    """Give the service once it knows the city."""
    async with running(app, settings_for(city_url), clock) as client:
        async with asyncio.timeout(10):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        yield client

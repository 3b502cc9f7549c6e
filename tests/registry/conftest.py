"""The registry with the city in it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from services.registry.main import app
from tests.support import FrozenClock, running, settings_for


@pytest.fixture
async def registry(city_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give the registry on Monday 16 November 2026, 9:00 in the city."""
    clock = FrozenClock(datetime(2026, 11, 16, 2, 0, tzinfo=UTC))
    async with running(app, settings_for(city_url), clock) as client:
        yield client

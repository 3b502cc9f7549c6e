"""Units: search, life cycle, succession."""

from collections.abc import AsyncIterator

import httpx
import pytest

from services.registry.main import app
from tests.support import bearer, fields_of, running, settings_for


@pytest.fixture
async def registry(city_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give the registry with the city in it."""
    async with running(app, settings_for(city_url)) as client:
        yield client


async def test_without_filters_the_168_units_that_receive_citizens_are_listed(
    registry: httpx.AsyncClient,
) -> None:
    answer = await registry.get("/v1/units", params={"limit": 200})
    units = answer.json()["items"]
    assert len(units) == 168
    assert {unit["type"] for unit in units} == {"ward", "commune", "special_zone"}
    assert all(unit["synthetic"] and unit["gso_code"] for unit in units)
    assert answer.json()["next_cursor"] is None

"""The gateway on a city of its module's own, whose centres keep office hours."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from libs.common.settings import SERVICES
from services.gateway.directory import City
from services.gateway.main import app
from tests.conftest import _copy
from tests.gateway.city import MONDAY, copy_of
from tests.support import FrozenClock, running, settings_for


@pytest.fixture(scope="module")
async def gateway_url(server_url: str, seeded: str) -> AsyncIterator[str]:
    """Give an account on a database of the module's own that holds the city."""
    async for url in _copy(server_url, seeded):
        yield url


@pytest.fixture(scope="module")
def module_clock() -> FrozenClock:
    """Give the clock that the module's gateway goes by."""
    return FrozenClock(MONDAY)


@pytest.fixture
def clock(module_clock: FrozenClock) -> Iterator[FrozenClock]:
    """Give the gateway's clock, which is set back to Monday morning afterwards."""
    yield module_clock
    module_clock.at = MONDAY


@pytest.fixture(scope="module")
async def gateway(gateway_url: str, module_clock: FrozenClock) -> AsyncIterator[httpx.AsyncClient]:
    """Give the gateway once it knows the city; no service is behind it."""
    nobody = dict.fromkeys((f"{service}_url" for service in SERVICES), "http://127.0.0.1:1")
    settings = settings_for(gateway_url, hours="official", **nobody)
    async with running(app, settings, module_clock) as client:
        yield client


@pytest.fixture
def city(gateway: httpx.AsyncClient) -> Iterator[City]:
    """Give the gateway a city that this test may change."""
    state = gateway.state  # type: ignore[attr-defined]
    whole = state["city"]
    state["city"] = copy_of(whole)
    yield state["city"]
    state["city"] = whole

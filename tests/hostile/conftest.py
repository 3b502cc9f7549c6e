"""One city for all that is hostile."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import _copy
from tests.hostile.families import prepare
from tests.hostile.house import House, opened


@pytest.fixture(scope="module")
async def house(server_url: str, seeded: str) -> AsyncIterator[House]:
    """Open a city of the module's own, with something of everything in it."""
    async for url in _copy(server_url, seeded):
        async with opened(url) as house:
            await prepare(house)
            yield house

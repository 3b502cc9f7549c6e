"""What a queue that has just been started says of itself."""

import asyncio

import httpx
import pytest

from libs.common.bus.embedded import EmbeddedBus
from services.queue.main import app
from tests.common.helpers import admin, eventually
from tests.queue.hall import take
from tests.support import settings_for, started


async def test_a_queue_is_not_ready_before_it_has_made_the_counters_that_the_registry_announced(
    city_url: str,
) -> None:
    async with admin(city_url) as operator:
        held = operator.transaction()
        await held.start()
        # Nobody makes a counter while this is held, and everything else goes on.
        await operator.execute("LOCK TABLE queue.counters IN EXCLUSIVE MODE")
        async with started(app, settings_for(city_url)) as queue:
            health = await queue.get("/readyz")
            assert health.status_code == 503
            assert "registry.centres.v1" in health.json()["not_ready"]["events"]
            await held.rollback()
            await eventually(lambda: _ready(queue))
            listed = await queue.get("/v1/units/H29.26740/counters")
        assert [counter["number"] for counter in listed.json()["items"]] == [1, 2, 3, 4, 5]


async def test_a_queue_that_says_that_it_is_ready_serves(
    city_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its readers begin before the process has looked at the log for the first time."""

    async def never(_: EmbeddedBus) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(EmbeddedBus, "watch", never)
    async with started(app, settings_for(city_url)) as queue:
        await eventually(lambda: _ready(queue))
        await take(queue, "H29.26740")


async def _ready(queue: httpx.AsyncClient) -> bool:
    return (await queue.get("/readyz")).status_code == 200

"""The last ticket of the day, where an installation has set a margin before closing."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import httpx
import pytest

from services.queue.main import app
from tests.queue.hall import eventually, keyed, set_counter, take
from tests.queue.test_steps import problem
from tests.support import FrozenClock, running, settings_for

EVENING = datetime.fromisoformat("2026-11-16T16:35:00+07:00")
"""25 minutes before closing; a visit takes 8."""


@pytest.fixture(scope="module")
async def strict(hall_url: str, hall_clock: FrozenClock) -> AsyncIterator[httpx.AsyncClient]:
    """Give a queue in which a turn must be expected ten minutes before closing."""
    settings = settings_for(hall_url, hours="official", last_ticket_margin_seconds=600)
    async with running(app, settings, hall_clock) as client:
        yield client


async def wish(queue: httpx.AsyncClient, unit: str, key: str | None = None) -> httpx.Response:
    """Ask for a ticket."""
    headers = keyed(key) if key else {}
    return await queue.post("/v1/tickets", json={"unit": unit, "channel": "web"}, headers=headers)


async def forecast(queue: httpx.AsyncClient, unit: str, at_least: int) -> None:
    """Wait until the forecast has seen who waits."""

    async def seen() -> bool:
        board = (await queue.get(f"/v1/units/{unit}/queue")).json()
        return bool((board["forecast_wait_seconds"] or 0) >= at_least)

    assert await eventually(seen, within=5)


async def test_nobody_gets_a_ticket_whose_turn_would_come_after_closing(
    strict: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = EVENING
    key = "7f2c9a34-6b1d-4f7e-9c55-0d8f3a6b2e10"
    first = await wish(strict, unit, key)
    assert first.status_code == 201, "nobody can tell how long the wait is while nothing is open"
    await set_counter(strict, unit)
    for _ in range(2):
        await wish(strict, unit)
    await forecast(strict, unit, 960)
    refused = await wish(strict, unit)
    assert problem(refused) == (409, "no-time-left")
    assert refused.json()["next_opening"] == "2026-11-17T07:30:00+07:00"
    again = await wish(strict, unit, key)
    assert (again.status_code, again.text) == (201, first.text), "a repeat is answered as before"


async def test_a_break_does_not_end_the_day(
    strict: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = datetime.fromisoformat("2026-11-16T11:25:00+07:00")
    await set_counter(strict, unit)
    for _ in range(3):
        await take(strict, unit)
    await forecast(strict, unit, 90 * 60)
    assert (await wish(strict, unit)).status_code == 201, "a ticket survives the lunch break"


async def test_without_the_setting_tickets_are_given_to_the_end(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = EVENING + timedelta(minutes=24)
    await set_counter(queue, unit)
    for _ in range(3):
        await take(queue, unit)
    await forecast(queue, unit, 1200)
    assert (await wish(queue, unit)).status_code == 201

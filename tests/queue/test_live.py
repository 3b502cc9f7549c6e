"""What the queue tells of itself: loads, metrics, counters of new centres; and without the bus."""

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import pairwise
from time import monotonic
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY

from libs.common.worktime import OFFICIAL_HOURS
from libs.contracts.registry import CentreChanged
from services.queue import handlers
from services.queue.load import Loads
from services.queue.main import app
from tests.queue.hall import (
    LOADS,
    announced,
    call,
    called_numbers,
    core_of,
    eventually,
    manager,
    seconds,
    set_counter,
    step,
    take,
)
from tests.support import FrozenClock, running, settings_for


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


@pytest.fixture(scope="module")
async def replica(
    queue: httpx.AsyncClient, hall_url: str, hall_clock: FrozenClock
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a second process of the same queue."""
    async with running(app, settings_for(hall_url, hours="official"), hall_clock) as client:
        yield client


def gauge(name: str, unit: str) -> float | None:
    """Read a metric of a unit."""
    return REGISTRY.get_sample_value(f"motcua_queue_{name}", {"unit": unit})


async def loads_of(queue: httpx.AsyncClient, unit: str) -> list[dict[str, Any]]:
    """Give what was announced of a unit's load."""
    return [body for _, body in await announced(queue, unit, LOADS)]


def loads_in(queue: httpx.AsyncClient) -> Loads:
    """Give loads of a process that only measure when the test says so."""
    return Loads(core_of(queue), queue.state["directory"])  # type: ignore[attr-defined]


# Metrics --------------------------------------------------------------------------------------


async def test_every_unit_has_its_metrics_before_its_first_ticket(
    queue: httpx.AsyncClient, unit: str
) -> None:
    text = (await queue.get("/metrics")).text
    shown = set(text.splitlines())
    centres = queue.state["directory"].centres  # type: ignore[attr-defined]
    assert len(centres) == 168
    for code in centres:
        for name in ("waiting_tickets", "oldest_wait_seconds", "forecast_wait_seconds",
                     "open_counters", "sla_breaches_total"):  # fmt: skip
            sample = f'motcua_queue_{name}{{unit="{code}"}} '
            assert any(line.startswith(sample) for line in shown), sample
    assert math.isnan(gauge("forecast_wait_seconds", unit) or 0), "no counter, no forecast"
    assert 'motcua_queue_wait_seconds_bucket{le="1200.0"}' in text


async def test_the_gauges_follow_what_goes_on(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    clock.at += seconds(70)
    await take(queue, unit)

    async def seen(*expected: float) -> bool:
        names = ("waiting_tickets", "oldest_wait_seconds", "open_counters")
        return tuple(gauge(name, unit) for name in names) == expected

    assert await eventually(lambda: seen(2, 70, 1), within=20)
    assert 720 < (gauge("forecast_wait_seconds", unit) or 0) < 1200, "two visits of 8 minutes"
    await called_numbers(queue, unit)
    await set_counter(queue, unit, 1, "closed")
    assert await eventually(lambda: seen(0, 0, 0), within=20)
    assert math.isnan(gauge("forecast_wait_seconds", unit) or 0)


async def test_a_wait_past_the_promise_is_counted_once(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    waits = REGISTRY.get_sample_value("motcua_queue_wait_seconds_count") or 0
    late = gauge("sla_breaches_total", unit) or 0
    for wait in (1200, 1201):
        await take(queue, unit)
        clock.at += seconds(wait)
        key = str(uuid4())
        for _ in range(3):
            answer = await call(queue, unit, 1, key)
        await step(queue, answer.json(), "no-show")
    assert gauge("sla_breaches_total", unit) == late + 1
    assert REGISTRY.get_sample_value("motcua_queue_wait_seconds_count") == waits + 2


# Loads ----------------------------------------------------------------------------------------


async def test_a_load_is_announced_as_it_is(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await take(queue, unit)
    clock.at += seconds(30)
    await set_counter(queue, unit)

    async def complete() -> list[dict[str, Any]]:
        return [load for load in await loads_of(queue, unit) if load["open_counters"]]

    load = (await eventually(complete, within=4))[0]
    assert (load["unit"], load["waiting"], load["oldest_wait_seconds"]) == (unit, 1, 30)
    assert 360 < load["forecast_wait_seconds"] < 600, "a visit of 8 minutes"
    assert load["as_of"] == "2026-11-16T01:00:30Z" or load["as_of"].startswith(
        "2026-11-16T08:00:30"
    )
    overview = (await queue.get("/v1/queue/overview")).json()
    shown = {item["unit"]: item for item in overview["items"]}[unit]
    assert (shown["waiting"], shown["oldest_wait_seconds"]) == (1, 30)
    assert shown["name"]


async def test_replicas_together_announce_a_unit_once_a_second_at_most(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, unit: str
) -> None:
    measuring = [loads_in(each) for each in (queue, replica)]
    end = monotonic() + 2.5
    while monotonic() < end:
        await take(queue, unit)
        await asyncio.gather(*(loads._measure() for loads in measuring))
    loads = await loads_of(queue, unit)
    versions = [load["version"] for load in loads]
    gaps = [later - earlier for earlier, later in pairwise(versions)]
    assert 2 <= len(loads) <= 4
    assert min(gaps) >= 1000, gaps

    async def told() -> bool:
        known = await loads_of(queue, unit)
        return bool(known[-1]["waiting"] > loads[-1]["waiting"])

    assert await eventually(told, within=20), "what came last is told in the end"
    again = await loads_of(queue, unit)
    for _ in range(5):
        await asyncio.gather(*(each._measure() for each in measuring))
    assert await loads_of(queue, unit) == again, "nothing new is nothing to tell"


async def test_a_unit_that_went_quiet_says_so_once(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, unit: str
) -> None:
    ticket = await take(queue, unit)

    async def waits() -> bool:
        return bool([load for load in await loads_of(queue, unit) if load["waiting"]])

    async def quiet() -> list[dict[str, Any]]:
        return [load for load in await loads_of(queue, unit) if not load["waiting"]]

    assert await eventually(waits, within=20)
    await step(queue, ticket, "cancel", headers=manager(unit))
    assert len(await eventually(quiet, within=4)) == 1
    measuring = [loads_in(each) for each in (queue, replica)]
    await core_of(queue).db.hot.execute(
        "UPDATE published_loads SET at_ms = at_ms - 60000 WHERE unit = $1", unit
    )
    for _ in range(5):
        await asyncio.gather(*(loads._measure() for loads in measuring))
    assert len(await quiet()) == 1
    overview = (await queue.get("/v1/queue/overview")).json()
    assert unit not in {item["unit"] for item in overview["items"]}


async def test_a_unit_that_went_quiet_while_nobody_measured_says_so_all_the_same(
    queue: httpx.AsyncClient, unit: str
) -> None:
    """The topic is compacted: what a process that stopped said last would stand for ever."""
    await core_of(queue).db.hot.execute(
        "INSERT INTO published_loads (unit, at_ms, figures) VALUES ($1, 0, '7 1 3840')", unit
    )
    told = await eventually(lambda: loads_of(queue, unit), within=4)
    assert [(load["waiting"], load["open_counters"]) for load in told] == [(0, 0)]


# Centres --------------------------------------------------------------------------------------


async def test_a_centre_that_plans_more_counters_gets_them_and_the_others_stay_as_they_are(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit, 1, series=["B"])
    await set_counter(queue, unit, 2, "paused", reason="lunch")
    await set_counter(queue, unit, 9)
    before = (await queue.get(f"/v1/units/{unit}/counters")).json()["items"]
    for version, planned, numbers in (
        (2, 7, [1, 2, 3, 4, 5, 6, 7, 9]),
        (2, 7, [1, 2, 3, 4, 5, 6, 7, 9]),
        (3, 2, [1, 2, 3, 4, 5, 6, 7, 9]),
    ):
        event = CentreChanged(
            unit=unit, version=version, hours=OFFICIAL_HOURS, counters_planned=planned
        )
        async with core_of(queue).db.sessions.begin() as session:
            await handlers.make_planned_counters(event, session)
        after = (await queue.get(f"/v1/units/{unit}/counters")).json()["items"]
        assert [row["number"] for row in after] == numbers
        assert [row for row in after if row["number"] not in (6, 7)] == before
    made = [row for row in after if row["number"] in (6, 7)]
    assert {(row["state"], tuple(row["series"])) for row in made} == {("closed", ())}


# Without the bus ------------------------------------------------------------------------------


async def test_people_are_called_while_the_bus_stands_still_and_it_is_told_afterwards(
    queue: httpx.AsyncClient, hall_url: str, unit: str
) -> None:
    await set_counter(queue, unit)
    connection = await asyncpg.connect(hall_url)
    try:
        stillness = connection.transaction()
        await stillness.start()
        await connection.execute("LOCK TABLE bus.log IN ACCESS EXCLUSIVE MODE")
        numbers = [(await take(queue, unit))["number"] for _ in range(20)]
        assert numbers == [f"A{n:03}" for n in range(1, 21)]
        assert len(await called_numbers(queue, unit)) == 20
        assert (await queue.get("/readyz")).status_code == 200
        assert (await queue.get("/livez")).status_code == 200
        board = await queue.get(f"/v1/units/{unit}/queue")
        assert (board.status_code, board.json()["waiting"]) == (200, 0)
        kept = await core_of(queue).db.hot.fetchval(
            "SELECT count(*) FROM outbox WHERE key = $1 AND topic = 'queue.tickets.v1'", unit
        )
        assert kept == 60, "nothing has left, nothing is lost"
        await stillness.rollback()
    finally:
        await connection.close()
    events = await announced(queue, unit)
    told: dict[str, list[int]] = {}
    for _, body in events:
        told.setdefault(body["number"], []).append(body["version"])
    assert told == {number: [1, 2, 3] for number in numbers}


async def test_events_leave_again_after_the_relay_has_lost_its_connection(
    queue: httpx.AsyncClient, hall_url: str, unit: str
) -> None:
    connection = await asyncpg.connect(hall_url)
    try:
        # The relay is who holds its advisory lock.
        cut = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE locktype = 'advisory' AND d.datname = current_database()"
            " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('relay:queue', 0)"
        )
        assert len(cut) == 1
    finally:
        await connection.close()
    for _ in range(10):
        await take(queue, unit)
    events = await announced(queue, unit)
    assert [body["number"] for _, body in events] == [f"A{n:03}" for n in range(1, 11)]

"""The queue goes on when registry, reporting or the bus are away; all is delivered afterwards."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

import libs.common.app
import libs.contracts.following
import services.registry.main
import services.reporting.main
from libs.common.bus.embedded import open_embedded_bus
from libs.common.db import connector, service_url
from services.queue.main import app
from tests.common.helpers import Wire, admin, wire_to
from tests.queue import hall
from tests.queue.hall import (
    MONDAY,
    announced,
    call,
    called_numbers,
    core_of,
    manager,
    seconds,
    set_counter,
    step,
    take,
)
from tests.support import FrozenClock, bearer, running, settings_for, started

UNIT = "H29.25747"
eventually = partial(hall.eventually, within=30)
BIRTH = "1.001193"
CITY = bearer("city")


@pytest.fixture
def quick_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a starting process give up on the bus soon."""
    monkeypatch.setattr(libs.contracts.following, "PATIENCE", 0.2)


@pytest.fixture
async def wire(city_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    """Lead every service's bus, and nothing else of it, over a wire that can be cut."""
    async with wire_to(city_url) as wire:

        @asynccontextmanager
        async def over_the_wire(settings: Any, service: str) -> AsyncIterator[Any]:
            url = service_url(settings_for(wire.url), service)
            async with open_embedded_bus(url, connector(url, service)) as bus:
                yield bus

        monkeypatch.setattr(libs.common.app, "open_bus", over_the_wire)
        yield wire


def starting(url: str, clock: FrozenClock | None = None) -> Any:
    """Start a queue, ready or not; its centres keep office hours."""
    return started(app, settings_for(url, hours="official"), clock or FrozenClock(MONDAY))


async def health(queue: httpx.AsyncClient) -> tuple[int, set[str]]:
    """Give the status of `readyz` and what it calls degraded."""
    answer = await queue.get("/readyz")
    return answer.status_code, set(answer.json().get("degraded", {}))


async def serve_some(queue: httpx.AsyncClient, people: int) -> list[str]:
    """Let people take tickets, see the board, and be called, started and finished."""
    await set_counter(queue, UNIT)
    numbers = []
    for _ in range(people):
        core_of(queue).clock.at += seconds(1)  # type: ignore[attr-defined]
        numbers.append((await take(queue, UNIT, procedure_codes=[BIRTH]))["number"])
    board = (await queue.get(f"/v1/units/{UNIT}/queue")).json()
    assert (board["waiting"], board["next"][0]["number"]) == (people, numbers[0])
    for number in numbers:
        ticket = (await call(queue, UNIT)).json()
        assert ticket["number"] == number
        held = (await queue.get(f"/v1/units/{UNIT}/queue")).json()["called"]
        assert [shown["number"] for shown in held] == [number]
        for name in ("start", "finish"):
            assert (await step(queue, ticket, name)).status_code == 200
    return numbers


async def delivered(queue: httpx.AsyncClient) -> dict[str, list[int]]:
    """Give the versions of each ticket on the bus, each event once, in their order."""
    told: dict[str, list[int]] = {}
    for _, body in await announced(queue, UNIT):
        told.setdefault(body["number"], []).append(body["version"])
    rows = await core_of(queue).db.hot.fetch("SELECT headers::jsonb ->> 'ce_id' AS id FROM bus.log")
    assert max(Counter(row["id"] for row in rows).values()) == 1, "an event stands there twice"
    return told


async def unsent(queue: httpx.AsyncClient) -> int:
    """Count the events of the tickets that have not left."""
    count = "SELECT count(*) FROM outbox WHERE topic = 'queue.tickets.v1'"
    return int(await core_of(queue).db.hot.fetchval(count))


async def test_the_queue_needs_no_registry_and_hears_of_its_changes_when_it_is_back(
    city_url: str,
) -> None:
    """No registry runs here until the end."""
    async with starting(city_url) as queue:

        async def ready() -> bool:
            return await health(queue) == (200, set())

        assert await eventually(ready)
        await serve_some(queue, 3)
        centre = {"hours": {"tuesday": [["09:00", "12:00"]]}, "counters_planned": 7}
        settings = settings_for(city_url)
        async with running(services.registry.main.app, settings, FrozenClock(MONDAY)) as registry:
            answer = await registry.put(f"/v1/centres/{UNIT}", json=centre, headers=CITY)
            assert answer.status_code == 200, answer.text

            async def heard() -> bool:
                refused = await queue.post("/v1/tickets", json={"unit": UNIT, "channel": "web"})
                listed = (await queue.get(f"/v1/units/{UNIT}/counters")).json()["items"]
                return refused.status_code == 409 and len(listed) == 7

            assert await eventually(heard), "Monday is not among its days any more"


async def test_the_queue_needs_no_reporting_which_counts_everything_when_it_is_back(
    city_url: str,
) -> None:
    clock = FrozenClock(MONDAY)
    async with starting(city_url, clock) as queue:
        assert await eventually(lambda: _answers(queue))
        numbers = await serve_some(queue, 4)
        clock.at += seconds(60)
        await take(queue, UNIT)
        settings = settings_for(city_url)
        async with running(services.reporting.main.app, settings, clock) as reporting:

            async def counted() -> Any:
                path = f"/v1/reports/weekly/2026-W47?unit={UNIT}"
                answer = await reporting.get(path, headers=CITY)
                assert answer.status_code == 200, answer.text
                figures = answer.json()["city"]["queue"]
                return (figures["tickets"], figures["called"], figures["finished"])

            wanted = (len(numbers) + 1, len(numbers), len(numbers))

            async def complete() -> bool:
                return bool(await counted() == wanted)

            assert await eventually(complete), await counted()


async def _answers(queue: httpx.AsyncClient) -> bool:
    return (await queue.get("/readyz")).status_code == 200


async def test_people_are_served_while_the_bus_is_away_and_it_is_all_told_once_afterwards(
    city_url: str, wire: Wire
) -> None:
    async with starting(city_url) as queue:

        async def well() -> bool:
            return await health(queue) == (200, set())

        async def cut_off() -> bool:
            status, degraded = await health(queue)
            return status == 200 and {"bus", "relay"} <= degraded

        assert await eventually(well)
        await wire.cut()
        first = await serve_some(queue, 5)
        assert await eventually(cut_off), await health(queue)
        second = await serve_some(queue, 5)
        assert (await queue.get("/livez")).status_code == 200
        assert await unsent(queue) == 4 * 10, "nothing has left, nothing is lost"

        async def seen_from_the_city() -> bool:
            overview = (await queue.get("/v1/queue/overview")).json()
            return UNIT in {item["unit"] for item in overview["items"]}

        assert await eventually(seen_from_the_city)
        await wire.mend()
        assert await eventually(well), await health(queue)
        assert await delivered(queue) == {number: [1, 2, 3, 4] for number in first + second}


@asynccontextmanager
async def away(city_url: str, wire: Wire, how: str) -> AsyncIterator[None]:
    """Keep the bus away: nobody answers its door, or somebody does and says no more."""
    if how == "refusing":
        await wire.cut()
        yield
        await wire.mend()
        return
    async with admin(city_url) as operator, operator.transaction():
        tables = "bus.topics, bus.log, bus.groups, bus.producers"
        await operator.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.parametrize("how", ["refusing", "silent"])
async def test_a_queue_that_starts_while_the_bus_is_away_goes_by_what_it_remembers(
    city_url: str, wire: Wire, quick_patience: None, how: str
) -> None:
    async with starting(city_url) as queue:
        directory = queue.state["directory"]

        async def remembered() -> bool:
            count = "SELECT count(*) FROM known_states"
            kept = await core_of(queue).db.hot.fetchval(count)
            states = (directory.units, directory.centres, directory.procedures)
            return bool(kept >= sum(map(len, states)) > 800 and await _answers(queue))

        assert await eventually(remembered)
    async with AsyncExitStack() as stack:
        async with away(city_url, wire, how):
            queue = await stack.enter_async_context(starting(city_url))
            assert await eventually(lambda: _answers(queue)), (await queue.get("/readyz")).text
            _, degraded = await health(queue)
            assert "directory-feed" in degraded
            numbers = await serve_some(queue, 3)
            unknown = await queue.post("/v1/tickets", json={"unit": "H29.1", "channel": "web"})
            assert unknown.status_code == 404
            assert (await queue.get("/livez")).status_code == 200

        async def well() -> bool:
            return await health(queue) == (200, set())

        assert await eventually(well), await health(queue)
        assert await delivered(queue) == {number: [1, 2, 3, 4] for number in numbers}


async def test_a_queue_that_has_nothing_to_remember_waits_for_the_bus(
    city_url: str, wire: Wire, quick_patience: None
) -> None:
    await wire.cut()
    async with starting(city_url) as queue:
        status, _ = await health(queue)
        assert status == 503
        refused = await queue.post("/v1/tickets", json={"unit": UNIT, "channel": "web"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        await wire.mend()
        assert await eventually(lambda: _answers(queue)), await health(queue)
        await take(queue, UNIT)


async def test_what_changed_during_the_outage_is_known_after_it_and_nothing_older_is_kept(
    city_url: str, wire: Wire, quick_patience: None
) -> None:
    async with starting(city_url) as queue:
        assert await eventually(lambda: _answers(queue))
        pool = core_of(queue).db.hot
        memory = "SELECT version FROM known_states WHERE topic = 'registry.centres.v1' AND key = $1"

        async def kept() -> Any:
            return await pool.fetchval(memory, UNIT)

        assert await eventually(kept)
        await pool.execute("UPDATE known_states SET version = 1000000 WHERE key = $1", UNIT)
    async with starting(city_url) as queue:
        assert await eventually(lambda: _answers(queue))
        await take(queue, UNIT)
        assert await core_of(queue).db.hot.fetchval(memory, UNIT) == 1000000


async def test_managers_open_counters_while_the_bus_is_away(city_url: str, wire: Wire) -> None:
    async with starting(city_url) as queue:
        assert await eventually(lambda: _answers(queue))
        await wire.cut()
        path = f"/v1/units/{UNIT}/counters/9"
        made = await queue.put(path, json={"state": "open"}, headers=manager(UNIT))
        assert made.status_code == 200
        await take(queue, UNIT)
        assert await called_numbers(queue, UNIT, 9) == ["A001"]

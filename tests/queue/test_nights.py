"""What is left of a day or of a closed unit is ended once, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from services.queue.domain.endings import Nights
from services.queue.main import app
from tests.queue.hall import (
    MONDAY,
    announced,
    call,
    close_unit,
    core_of,
    facts,
    seconds,
    set_counter,
    step,
    take,
)
from tests.queue.test_steps import problem, shown
from tests.support import FrozenClock, running, settings_for

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


def nights(queue: httpx.AsyncClient) -> Nights:
    """Give what a replica does in the background, to be done by the test."""
    return Nights(core_of(queue), queue.state["directory"])  # type: ignore[attr-defined]


async def looked_twice(queue: httpx.AsyncClient) -> None:
    """Let a replica see that a day is over, and see it again."""
    night = nights(queue)
    await night.look()
    await night.look()


@pytest.fixture(scope="module")
async def twin(
    queue: httpx.AsyncClient, hall_url: str, hall_clock: FrozenClock
) -> AsyncIterator[httpx.AsyncClient]:
    """Give another replica of the queue."""
    async with running(app, settings_for(hall_url, hours="official"), hall_clock) as client:
        yield client


async def statuses(queue: httpx.AsyncClient, *tickets: dict[str, Any]) -> list[str]:
    """Read what has become of tickets."""
    return [(await shown(queue, ticket))["status"] for ticket in tickets]


async def test_whoever_waited_or_was_put_aside_yesterday_is_ended_and_who_is_served_is_not(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for number in (1, 2):
        await set_counter(queue, unit, number)
    aside, served, left = [await take(queue, unit) for _ in range(3)]
    for number, ticket in ((1, aside), (2, served)):
        body = {"counter": number, "reason": "thứ tự"}
        await step(queue, ticket, "call", number, json=body)
    await step(queue, aside, "park")
    await step(queue, served, "start", 2)
    clock.at += DAY
    today = await take(queue, unit)
    await looked_twice(queue)
    assert await statuses(queue, aside, served, left, today) == [
        "cancelled", "serving", "cancelled", "waiting",
    ]  # fmt: skip
    told = await shown(queue, left)
    assert (told["cancel_cause"], told["ended_at"]) == ("day_over", "2026-11-17T08:00:00+07:00")
    ends = [body for type_, body in await announced(queue, unit) if type_ == "TicketCancelled"]
    assert {(body["ticket_id"], body["cause"]) for body in ends} == {
        (aside["id"], "day_over"), (left["id"], "day_over"),
    }  # fmt: skip
    assert [body["wait_seconds"] for body in ends] == [86_400] * 2
    assert problem(await step(queue, left, "cancel")) == (409, "not-allowed-now")
    assert (await step(queue, served, "finish", 2)).status_code == 200


async def test_nobody_who_may_still_be_called_is_ended(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    # Lunch, evening, and the last second of the day.
    for pause in (timedelta(hours=4), timedelta(hours=8), timedelta(hours=4) - seconds(1)):
        clock.at += pause
        await looked_twice(queue)
        assert await statuses(queue, ticket) == ["waiting"]
    assert (await shown(queue, ticket))["position"] == 1
    clock.at += seconds(1)
    assert (await call(queue, unit)).status_code == 204
    await looked_twice(queue)
    assert await statuses(queue, ticket) == ["cancelled"]


async def test_replicas_that_look_at_once_end_each_ticket_once(
    queue: httpx.AsyncClient, twin: httpx.AsyncClient, clock: FrozenClock, units: Iterator[str]
) -> None:
    mine = [next(units) for _ in range(3)]
    tickets = [await take(queue, unit) for unit in mine for _ in range(8)]
    clock.at += DAY
    await asyncio.gather(*(looked_twice(replica) for replica in (queue, twin, queue, twin)))
    assert set(await statuses(queue, *tickets)) == {"cancelled"}
    for unit in mine:
        kinds = [(type_, body["version"]) for type_, body in await announced(queue, unit)]
        assert kinds.count(("TicketCancelled", 2)) == 8
        assert len(kinds) == 16


async def test_a_call_and_the_end_of_the_day_at_once_leave_one_of_them(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """A caller whose clock is behind may still take whom another replica thinks is over."""
    for _ in range(10):
        clock.at = MONDAY
        await set_counter(queue, unit)
        ticket = await take(queue, unit)
        night = nights(queue)
        clock.at += DAY
        await night.look()
        ending = asyncio.create_task(night.look())
        await asyncio.sleep(0)
        clock.at = MONDAY
        called = await call(queue, unit)
        await ending
        status = (await statuses(queue, ticket))[0]
        assert (called.status_code, status) in ((200, "called"), (204, "cancelled"))
        if status == "called":
            await step(queue, ticket, "no-show")


async def test_a_clock_that_leaps_a_day_ahead_and_is_set_right_sends_nobody_home(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    before = await facts(queue, unit)
    night = nights(queue)
    await night.look()
    clock.at += 3 * DAY
    await night.look()
    assert (await call(queue, unit)).status_code == 204, "by that clock nobody of today waits"
    clock.at -= 3 * DAY
    for _ in range(3):
        await night.look()
    assert await facts(queue, unit) == before
    assert (await call(queue, unit)).json()["id"] == ticket["id"]


async def test_a_day_that_comes_a_second_time_goes_on_where_it_was(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """A clock set back over midnight: numbers go on without a twin, waits are not negative."""
    await set_counter(queue, unit)
    numbers = [(await take(queue, unit))["number"]]
    clock.at += DAY
    numbers.append((await take(queue, unit))["number"])
    clock.at -= DAY
    numbers.append((await take(queue, unit))["number"])
    assert numbers == ["A001", "A001", "A002"]
    waits = []
    while (answer := await call(queue, unit)).status_code == 200:
        waits.append(answer.json()["wait_seconds"])
        await step(queue, answer.json(), "no-show")
    assert waits == [0, 0, 0]


# Closed units ---------------------------------------------------------------------------------


async def test_a_unit_that_closes_ends_who_waits_and_closes_its_counters(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Iterator[str]
) -> None:
    unit, other = next(units), next(units)
    for number in (1, 2):
        await set_counter(queue, unit, number)
    await set_counter(queue, other)
    served, aside, left = [await take(queue, unit) for _ in range(3)]
    safe = await take(queue, other)
    for number, ticket in ((1, served), (2, aside)):
        body = {"counter": number, "reason": "thứ tự"}
        await step(queue, ticket, "call", number, json=body)
    await step(queue, aside, "park", 2)
    await close_unit(queue, unit)
    clock.at += seconds(60)
    await nights(queue).look()
    assert await statuses(queue, served, aside, left, safe) == [
        "called", "cancelled", "cancelled", "waiting",
    ]  # fmt: skip
    assert (await shown(queue, left))["cancel_cause"] == "unit_closed"
    counters = await core_of(queue).db.hot.fetch(
        "SELECT state FROM counters WHERE unit = $1 AND number <= 2", unit
    )
    assert [row["state"] for row in counters] == ["closed"] * 2
    for name in ("start", "finish"):
        assert (await step(queue, served, name)).status_code == 200
    before = await facts(queue, unit)
    await nights(queue).look()
    assert await facts(queue, unit) == before


async def test_a_counters_state_is_announced_with_a_rising_version(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit, 3, series=["B"])
    await set_counter(queue, unit, 3, "paused", reason="nghỉ")
    await set_counter(queue, unit, 3, "closed")
    events = await announced(queue, f"{unit}/3", "queue.counters.v1")
    assert [(body["version"], body["state"], body["series"]) for _, body in events] == [
        (1, "open", ["B"]), (2, "paused", []), (3, "closed", []),
    ]  # fmt: skip
    assert all("reason" not in body for _, body in events)

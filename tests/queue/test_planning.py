"""What is to come, over HTTP: waits foretold by series, counters advised for a day and at once."""

import asyncio
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from libs.common.worktime import business_day
from services.queue.erlang import share_over
from services.queue.load import Loads
from services.queue.sla import HOLD, Watchdog
from tests.queue.hall import (
    MONDAY,
    announced,
    call,
    core_of,
    manager,
    officer,
    seconds,
    set_counter,
    step,
    take,
)
from tests.support import FrozenClock, bearer, fields_of

NAMES = tuple(f"forecast_{name}_seconds" for name in ("wait", "low", "high"))


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


def own_loads(queue: httpx.AsyncClient) -> Loads:
    """Make one more process' loads, measured when the test says so."""
    return Loads(core_of(queue), queue.state["directory"])  # type: ignore[attr-defined]


async def forecast_of(queue: httpx.AsyncClient, unit: str) -> dict[str, Any]:
    """Let the service measure, then ask it what it foretells."""
    await queue.state["loads"]._measure()  # type: ignore[attr-defined]
    answer = await queue.get(f"/v1/units/{unit}/forecast")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def visited(
    queue: httpx.AsyncClient, unit: str, visits: Iterable[tuple[datetime, float, float]]
) -> None:
    """Store visits of the past: when they came, and how long they waited and took, in seconds."""
    rows: list[tuple[Any, ...]] = [
        (
            uuid4(), 1, unit, "A", business_day(at), 10_000 + number, f"X{uuid4().hex[:12]}",
            "finished", "normal", "web", [], at, at + timedelta(minutes=20), at + seconds(wait),
            at + seconds(wait), at + seconds(wait + 30), at + seconds(wait + 30 + took), 1, "o",
        )
        for number, (at, wait, took) in enumerate(visits)
    ]  # fmt: skip
    await core_of(queue).db.hot.executemany(
        "INSERT INTO tickets (id, version, unit, series, business_day, sequence, number, status,"
        " priority_class, channel, procedure_codes, issued_at, due_at, called_at, first_called_at,"
        " started_at, ended_at, counter, officer) VALUES"
        " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        rows,
    )


# The forecast ---------------------------------------------------------------------------------


async def test_a_unit_without_an_open_counter_foretells_nothing(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await take(queue, unit)
    told = await forecast_of(queue, unit)
    assert (told["waiting"], told["open_counters"], told["series"]) == (1, 0, [])
    assert [told[name] for name in NAMES] == [None] * 3
    await set_counter(queue, unit, 1, "paused")
    assert (await forecast_of(queue, unit))["forecast_wait_seconds"] is None, "paused is not open"


async def test_every_place_in_the_line_is_told_its_own_wait_within_bounds(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for number in (1, 2):
        await set_counter(queue, unit, number)
    for _ in range(8):
        clock.at += seconds(1)
        await take(queue, unit)
    told = await forecast_of(queue, unit)
    ticket = await take(queue, unit)
    assert [ticket[name] for name in NAMES] == [told[name] for name in NAMES]
    first = await take(queue, unit, priority_class="elderly")
    assert (first["position"], first["forecast_wait_seconds"]) == (1, 0), "counters are free"
    listed = (await queue.get(f"/v1/units/{unit}/tickets", headers=officer(unit))).json()["items"]
    shown = [(await queue.get(f"/v1/tickets/{row['id']}")).json() for row in listed]
    shown.sort(key=lambda row: row["position"])
    waits = [row["forecast_wait_seconds"] for row in shown]
    assert waits == sorted(waits)
    assert waits[-1] > waits[2] > 0
    assert all(row[NAMES[1]] <= row[NAMES[0]] <= row[NAMES[2]] for row in shown)


async def test_each_series_waits_for_the_counters_that_call_it(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit, 1, series=["A"])
    await set_counter(queue, unit, 2, series=["B"])
    for _ in range(5):
        clock.at += seconds(1)
        await take(queue, unit)
    told = await forecast_of(queue, unit)
    by_series = {line["series"]: line for line in told["series"]}
    assert by_series.keys() == {"A", "B"}
    assert [by_series[name]["waiting"] for name in "AB"] == [5, 0]
    assert [by_series[name]["open_counters"] for name in "AB"] == [1, 1]
    assert by_series["A"]["forecast_wait_seconds"] > 1200
    assert by_series["B"]["forecast_wait_seconds"] == 0
    assert told["forecast_wait_seconds"] == by_series["A"]["forecast_wait_seconds"]
    assert (await take(queue, unit, series="B"))["forecast_wait_seconds"] == 0
    nobody_calls = await take(queue, unit, series="C")
    assert nobody_calls["forecast_wait_seconds"] is None


async def test_who_waits_for_one_counter_alone_is_told_that_counters_wait(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for number in (1, 2):
        await set_counter(queue, unit, number)
    sent_on = await take(queue, unit)
    assert (await call(queue, unit, 1)).json()["id"] == sent_on["id"]
    await take(queue, unit)
    assert (await call(queue, unit, 2)).status_code == 200
    moved = await step(queue, sent_on, "transfer", json={"counter": 2})
    assert moved.status_code == 200, moved.text
    told = await forecast_of(queue, unit)
    assert told["forecast_wait_seconds"] == 0, "counter 1 is free"
    bound = (await queue.get(f"/v1/tickets/{sent_on['id']}")).json()
    assert bound["forecast_wait_seconds"] > 240, "counter 2 has somebody"


async def test_a_centre_whose_visits_take_longer_is_told_longer_waits(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Any
) -> None:
    slow, usual, forgetful = (next(units) for _ in range(3))
    days = [MONDAY - timedelta(days=back) for back in (3, 4)]
    took = {slow: [960.0] * 15, usual: [480.0] * 15, forgetful: [480.0] * 14 + [36_000.0]}
    for unit, each in took.items():
        await visited(
            queue,
            unit,
            [(day + n * seconds(600), 0, t) for day in days for n, t in enumerate(each)],
        )
        await set_counter(queue, unit)
        for _ in range(3):
            await take(queue, unit)
    loads = own_loads(queue)
    await loads._measure()
    waits = {unit: loads.forecast(unit) or 0 for unit in took}
    assert waits[slow] > 1.4 * waits[usual]
    assert waits[forgetful] < 1.25 * waits[usual], "a visit that nobody ended says little"


async def test_a_visit_is_learnt_once_however_often_it_is_read(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    loads = own_loads(queue)
    await loads._measure()
    await set_counter(queue, unit)
    for _ in range(4):
        await take(queue, unit)
        called = (await call(queue, unit)).json()
        await step(queue, called, "start")
        clock.at += seconds(1800)
        await step(queue, called, "finish")
        for _ in range(3):
            await loads._measure()
    seen = len(loads.times._ratios[unit]._values)
    assert seen == 4
    assert loads.times.factor(unit, clock.at) > 1.3


async def test_who_cannot_be_called_before_the_break_is_told_a_wait_across_it(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Any
) -> None:
    """Whether a centre serves those who wait when its break begins is seen from its past days."""
    stops, serves = next(units), next(units)
    days = [MONDAY.replace(hour=11, minute=20) - timedelta(days=back) for back in (3, 4, 5)]
    for unit, wait in ((stops, 6300), (serves, 1500)):
        await visited(queue, unit, [(day, wait, 480.0) for day in days])
    clock.at = MONDAY.replace(hour=11, minute=15)
    for unit in (stops, serves):
        await set_counter(queue, unit)
        for _ in range(5):
            await take(queue, unit)
    loads = own_loads(queue)
    await loads._measure()
    gap = 90 * 60
    assert (loads.forecast(stops) or 0) > gap
    outlook = loads.outlook(stops)
    now = outlook.now() if outlook else None
    assert now is not None
    assert now.wait < gap, "advice does not ask for counters that would shorten a break"
    assert 0 < (loads.forecast(serves) or 0) < gap


async def test_an_idle_counter_that_calls_nobody_is_not_counted_on(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    loads = own_loads(queue)
    await set_counter(queue, unit)
    await take(queue, unit)
    await loads._measure()
    at_once = loads.forecast(unit) or 0
    clock.at += seconds(1500)
    await loads._measure()
    assert (loads.forecast(unit) or 0) > at_once + 600


async def test_a_forecast_that_has_become_old_is_not_told(
    queue: httpx.AsyncClient, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_counter(queue, unit)
    loads = own_loads(queue)
    await loads._measure()
    assert loads.forecast(unit) == 0
    monkeypatch.setattr(Loads, "stale_after", -1.0)
    assert loads.forecast(unit) is None
    assert loads.waits(unit, "A") is None


# Counters for a day ---------------------------------------------------------------------------


async def staffing(queue: httpx.AsyncClient, unit: str, day: object) -> dict[str, Any]:
    """Ask as the manager how many counters a day needs."""
    answer = await queue.get(
        f"/v1/units/{unit}/staffing", params={"date": str(day)}, headers=manager(unit)
    )
    assert answer.status_code == 200, answer.text
    advice: dict[str, Any] = answer.json()
    return advice


def steady(part: dict[str, Any], advice: dict[str, Any], counters: int) -> float:
    """Give the share that waits too long in a half hour's steady state."""
    return share_over(
        counters, part["arrivals"] * 2, advice["service_seconds"], advice["promise_seconds"]
    )


async def test_staffing_is_for_the_units_manager_and_the_city(
    queue: httpx.AsyncClient, units: Any
) -> None:
    unit, other = next(units), next(units)
    path = f"/v1/units/{unit}/staffing"
    for headers, status in (
        ({}, 401), (officer(unit), 403), (manager(other), 403), (bearer("kiosk", unit), 403),
        (manager(unit), 200), (bearer("city"), 200),
    ):  # fmt: skip
        assert (await queue.get(path, headers=headers)).status_code == status, headers
    unknown = "/v1/units/H29.99999/staffing"
    assert (await queue.get(unknown, headers=bearer("city"))).status_code == 404
    for bad in ("tomorrow", "2026-02-30", "1763253600", "9999-12-31", "0001-01-01"):
        refused = await queue.get(path, params={"date": bad}, headers=manager(unit))
        assert (refused.status_code, fields_of(refused)) == (422, {"date"}), bad


async def test_a_centre_without_a_past_is_planned_by_the_citys_profile(
    queue: httpx.AsyncClient, unit: str
) -> None:
    advice = await staffing(queue, unit, MONDAY.date())
    items = advice["items"]
    assert (advice["basis"], advice["days"], advice["counters_planned"]) == ("profile", 0, 5)
    assert [items[0]["from"], items[-1]["to"]] == [
        "2026-11-16T07:30:00+07:00", "2026-11-16T17:00:00+07:00",
    ]  # fmt: skip
    assert len(items) == 16, "half hours of 7:30-11:30 and 13:00-17:00"
    assert sum(part["arrivals"] for part in items) == pytest.approx(80 * 1.2, abs=1)
    quiet = await staffing(queue, unit, date(2026, 11, 18))
    assert sum(part["arrivals"] for part in quiet["items"]) == pytest.approx(80 * 0.95, abs=1)


async def test_each_half_hour_gets_the_fewest_counters_that_keep_the_target(
    queue: httpx.AsyncClient, unit: str
) -> None:
    """Six past Tuesdays: 20 people in a half hour from 8:00, 6 from 14:00, nobody else."""
    tuesdays = [MONDAY + timedelta(days=1, weeks=-back) for back in range(1, 7)]
    await visited(
        queue,
        unit,
        [
            (day.replace(hour=hour) + n * seconds(1800 / people), 60, 480.0)
            for day in tuesdays
            for hour, people in ((8, 20), (14, 6))
            for n in range(people)
        ],
    )
    advice = await staffing(queue, unit, date(2026, 11, 17))
    assert (advice["basis"], advice["days"], advice["target_share"]) == ("own", 6, 0.02)
    by_time = {part["from"][11:16]: part for part in advice["items"]}
    assert [by_time[at]["arrivals"] for at in ("08:00", "14:00", "09:00")] == [20, 6, 0]
    for part in advice["items"]:
        counters = part["steady_counters"]
        assert part["counters"] >= counters
        assert steady(part, advice, counters) <= 0.02
        assert counters == 1 or steady(part, advice, counters - 1) > 0.02
        assert part["share_over_promise"] == pytest.approx(
            steady(part, advice, part["counters"]), abs=1e-4
        )
        assert part["share_on_the_day"] <= 0.02
    assert by_time["08:00"]["reason"].startswith("20 người, mỗi lượt ")
    assert by_time["08:00"]["reason_en"].startswith("20 people at ")
    assert by_time["09:30"]["reason_en"] == "Hardly anybody is expected: one counter is enough."
    monday = await staffing(queue, unit, date(2026, 11, 16))
    assert monday["basis"] != "own", "Tuesdays say nothing of Mondays but how many people come"
    assert sum(p["arrivals"] for p in monday["items"]) == pytest.approx(26 / 0.95 * 1.2, abs=1)


async def test_a_crowd_at_the_door_gets_more_counters_than_its_mean_rate_asks_for(
    queue: httpx.AsyncClient, unit: str
) -> None:
    """Six past Wednesdays on which 16 people stood there at 7:30, and 4 came after them."""
    days = [MONDAY.replace(hour=7, minute=30) + timedelta(days=2, weeks=-n) for n in range(1, 7)]
    came = [0] * 16 + [500, 800, 1100, 1400]
    await visited(queue, unit, [(day + seconds(at), 60, 480.0) for day in days for at in came])
    first = (await staffing(queue, unit, date(2026, 11, 18)))["items"][0]
    assert (first["arrivals"], first["from"][11:16]) == (20, "07:30")
    assert 14 < first["at_door"] <= 16
    assert first["share_on_the_day"] <= 0.02


async def test_a_closed_day_needs_no_counters_and_the_day_after_a_holiday_more(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for closed in (date(2026, 11, 21), date(2027, 1, 1)):
        assert (await staffing(queue, unit, closed))["items"] == [], "a Saturday, New Year"

    async def people(day: date) -> float:
        return float(sum(p["arrivals"] for p in (await staffing(queue, unit, day))["items"]))

    assert await people(date(2027, 1, 4)) > await people(date(2027, 1, 11)), "both Mondays"


# Counters at once -----------------------------------------------------------------------------


async def test_more_counters_are_advised_once_while_the_promise_is_about_to_break(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    state = queue.state  # type: ignore[attr-defined]
    dogs = [Watchdog(core_of(queue), state["directory"], own_loads(queue)) for _ in range(4)]

    async def look() -> list[tuple[str, Any]]:
        # The queue's own watchdog looks too: by what it measured before, all would be calm.
        for loads in (state["loads"], *(dog._loads for dog in dogs)):
            await loads._measure()
        await asyncio.gather(*(dog.look() for dog in dogs))
        events = await announced(queue, unit, "queue.sla.v1")
        return [event for event in events if event[0] == "CounterAdvised"]

    for number in (1, 2):
        await set_counter(queue, unit, number)
        await take(queue, unit)
        called = (await call(queue, unit, number)).json()
        await step(queue, called, "start", number)
    # Two people every five minutes where two counters serve one and a half.
    for _ in range(6):
        clock.at += seconds(300)
        for _ in range(2):
            await take(queue, unit)
    assert await look() == [], "advice must last before it is told"
    clock.at += HOLD
    ((_, advice),) = await look()
    assert (advice["unit"], advice["episode"], advice["open_counters"]) == (unit, 1, 2)
    assert advice["open_more"] >= 1
    at, by = (datetime.fromisoformat(advice[name]) for name in ("at", "by"))
    assert clock.at == at <= by <= at + timedelta(hours=1)
    assert advice["otherwise_wait_seconds"] > 1200
    for _ in range(3):
        clock.at += HOLD
        assert len(await look()) == 1, "once per episode, however many look"
    for number in range(3, 12):
        await set_counter(queue, unit, number)
    for _ in range(3):
        clock.at += seconds(1)
        await look()
        clock.at += HOLD
    standing = await core_of(queue).db.hot.fetchval(
        "SELECT level FROM episodes WHERE unit = $1 AND watch = 'counters'", unit
    )
    assert standing == 0, "enough are open"
    assert len(await look()) == 1

"""The clock of the promise: each episode told once, whoever looks, whatever the clock does."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from libs.common.clock import VirtualClock
from libs.common.events import Event
from libs.common.settings import Settings
from libs.contracts.queue import WaitAtRisk, WaitBreached, WaitEvent, WaitRecovered
from services.queue.load import Loads
from services.queue.main import app
from services.queue.sla import HOLD, Level, Sight, Standing, Turn, Watchdog, watch_wait
from tests.queue.hall import (
    MONDAY,
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

SLA = "queue.sla.v1"
SETTINGS = Settings()


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


# Decisions ------------------------------------------------------------------------------------


def walk(
    *sights: tuple[float, float, int | None], waiting: int = 1, settings: Settings = SETTINGS
) -> list[Event]:
    """Look at (second, oldest wait, forecast) one after the other; give what was told."""
    standing = Standing()
    told: list[Event] = []
    for second, oldest, forecast in sights:
        sight = Sight("H29.25747", MONDAY + seconds(second), waiting, oldest, forecast, 1)
        turn = watch_wait(standing, sight, settings)
        told += turn.events
        standing = stored(standing, turn)
    return told


def stored(before: Standing, turn: Turn) -> Standing:
    """Give the standing as the next look reads it."""
    if turn.standing == before:
        return before
    after = turn.standing
    return Standing(
        before.version + max(1, len(turn.events)),
        after.level,
        after.number,
        after.since,
        after.leaning_since,
    )


def kinds(events: Sequence[Event]) -> list[str]:
    """Name events."""
    return [event.type_name() for event in events]


def test_a_wait_at_the_threshold_is_within_it() -> None:
    assert kinds(walk((0, 900, 0), (1, 900.001, 0))) == ["WaitAtRisk"]
    assert kinds(walk((0, 1200, 0), (1, 1200.001, 0))) == ["WaitAtRisk", "WaitBreached"]
    assert walk((0, 900, 900), (100, 900, 900)) == []


def test_a_leap_past_the_promise_tells_both_in_order() -> None:
    risk, breach = walk((0, 5, 0), (1, 5000, 0))
    assert isinstance(risk, WaitAtRisk)
    assert isinstance(breach, WaitBreached)
    assert (risk.cause, risk.version, breach.version) == ("age", 1 + 0, 2)
    assert risk.since == breach.since == risk.at == MONDAY + seconds(1)
    assert breach.promise_seconds == 1200


def test_a_forecast_counts_only_when_it_lasts() -> None:
    assert walk((0, 10, 2000), (59, 10, 2000), (60, 10, 100), (61, 10, 2000), (120, 10, 2000)) == []
    (risk,) = walk((0, 10, 2000), (60, 10, 2000), (61, 10, 2000))
    assert isinstance(risk, WaitAtRisk)
    assert (risk.cause, risk.forecast_wait_seconds) == ("forecast", 2000)


def test_a_forecast_while_nobody_waits_puts_nobody_at_risk() -> None:
    assert walk(*((n, 0, 2000) for n in range(200)), waiting=0) == []


def test_waits_that_hover_about_the_threshold_are_one_episode() -> None:
    hovering = [(n, 905 if n % 2 else 800, 100) for n in range(600)]
    assert kinds(walk(*hovering)) == ["WaitAtRisk"]


def test_it_recovers_when_waits_have_been_short_for_a_while() -> None:
    start = [(0, 1300, 100), (10, 720, 720)]
    assert kinds(walk(*start, (69, 720, 720))) == ["WaitAtRisk", "WaitBreached"]
    *_, recovered = walk(*start, (70, 720, 720), (200, 100, 100))
    assert isinstance(recovered, WaitRecovered)
    assert (recovered.breached, recovered.lasted_seconds, recovered.episode) == (True, 70, 1)
    for relapse in ((40, 721, 100), (40, 100, 721), (40, 100, None)):
        assert "WaitRecovered" not in kinds(walk(*start, relapse, (70, 0, 0), (129, 0, 0)))


def test_nobody_waiting_is_short_whatever_is_foretold() -> None:
    standing = Standing(1, Level.at_risk, 1, MONDAY)
    sights = [Sight("U", MONDAY + seconds(n), 0, 0, None, 0) for n in (0, 60)]
    standing = stored(standing, watch_wait(standing, sights[0], SETTINGS))
    assert kinds(watch_wait(standing, sights[1], SETTINGS).events) == ["WaitRecovered"]


def test_a_second_breach_of_one_episode_is_not_told_again() -> None:
    told = walk((0, 1300, 0), (10, 800, 0), (20, 1300, 0), (30, 0, 0), (90, 0, 0), (91, 950, 0))
    assert kinds(told) == ["WaitAtRisk", "WaitBreached", "WaitRecovered", "WaitAtRisk"]
    assert [event.model_dump()["episode"] for event in told] == [1, 1, 1, 2]


def test_a_clock_set_back_starts_the_hold_anew_and_ends_nothing_before_it_began() -> None:
    told = walk((3600, 1300, 0), (3610, 0, 0), (0, 0, 0), (59, 0, 0))
    assert kinds(told) == ["WaitAtRisk", "WaitBreached"]
    *_, recovered = walk((3600, 1300, 0), (3610, 0, 0), (0, 0, 0), (60, 0, 0))
    assert isinstance(recovered, WaitRecovered)
    assert (recovered.at, recovered.lasted_seconds) == (recovered.since, 0)


_sights = st.lists(
    st.tuples(
        # A second on, or a leap of up to a day, forward or back.
        st.one_of(st.just(1.0), st.floats(-86400, 86400)),
        st.one_of(st.just(0.0), st.floats(0, 2000)),
        st.one_of(st.none(), st.integers(0, 2000)),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(_sights)
def test_whatever_is_seen_every_episode_is_told_once_and_in_order(
    sights: list[tuple[float, float, int | None, int]],
) -> None:
    standing, at = Standing(), MONDAY
    told: list[WaitEvent] = []
    for leap, oldest, forecast, waiting in sights:
        at += seconds(leap)
        sight = Sight("U", at, waiting, oldest if waiting else 0, forecast, 1)
        turn = watch_wait(standing, sight, SETTINGS)
        again = stored(standing, turn)
        # Who looks a second time at the same has nothing to add.
        assert watch_wait(again, sight, SETTINGS) == Turn(again)
        standing = again
        told += [event for event in turn.events if isinstance(event, WaitEvent)]
        if sight.oldest > 1200:
            assert standing.level == Level.breached
        elif sight.oldest > 900:
            assert standing.level >= Level.at_risk
    assert [event.version for event in told] == sorted({event.version for event in told})
    by_episode: dict[int, list[WaitEvent]] = {}
    for event in told:
        by_episode.setdefault(event.episode, []).append(event)
    assert list(by_episode) == list(range(1, len(by_episode) + 1))
    for number, events in by_episode.items():
        names = kinds(events)
        assert names[0] == "WaitAtRisk"
        assert len({event.since for event in events}) == 1
        if isinstance(last := events[-1], WaitRecovered):
            assert last.breached == ("WaitBreached" in names)
            names = names[:-1]
        else:
            assert number == len(by_episode)
        assert names in (["WaitAtRisk"], ["WaitAtRisk", "WaitBreached"])


# Looks ----------------------------------------------------------------------------------------


def watchdog(queue: httpx.AsyncClient) -> Watchdog:
    """Make one more process' watchdog, that looks when the test says so."""
    state = queue.state  # type: ignore[attr-defined]
    return Watchdog(core_of(queue), state["directory"], Loads(core_of(queue), state["directory"]))


async def look(dog: Watchdog) -> None:
    """Measure and look."""
    await dog._loads._measure()
    await dog.look()


async def told(queue: httpx.AsyncClient, unit: str) -> list[tuple[str, int]]:
    """Give what was announced of a unit's waits, in order, with its episode."""
    return [(type_, body["episode"]) for type_, body in await of_waits(queue, unit)]


async def of_waits(queue: httpx.AsyncClient, unit: str) -> list[Any]:
    """Give the events of a unit's waits, in order, without advice on counters."""
    events = await announced(queue, unit, SLA)
    return [(type_, body) for type_, body in events if type_ != "CounterAdvised"]


_counted: dict[str, float] = {}
"""What the process' counters, which no test can set back, showed of a unit before its test."""


def breaches(unit: str) -> float:
    """Tell how many were counted in this test."""
    return _shown_breaches().get(unit, 0) - _counted.get(unit, 0)


def _shown_breaches() -> dict[str, float]:
    """Read every unit's at once: each look goes through all metrics of the process."""
    name = "motcua_queue_sla_breaches"
    metric = next(metric for metric in REGISTRY.collect() if metric.name == name)
    return {s.labels["unit"]: s.value for s in metric.samples if s.name == f"{name}_total"}


@pytest.fixture(autouse=True)
def _counters_at_zero() -> None:
    _counted.update(_shown_breaches())


async def test_an_episode_is_told_from_risk_to_recovery(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    dog = watchdog(queue)
    await set_counter(queue, unit)
    await take(queue, unit)
    clock.at += seconds(900)
    await look(dog)
    assert await told(queue, unit) == []
    clock.at += seconds(1)
    await look(dog)
    clock.at += seconds(300)
    await look(dog)
    await called_numbers(queue, unit)
    await look(dog)
    clock.at += HOLD
    await look(dog)
    risk, breach, recovered = await announced(queue, unit, SLA)
    assert (risk[0], breach[0], recovered[0]) == ("WaitAtRisk", "WaitBreached", "WaitRecovered")
    assert (risk[1]["waiting"], risk[1]["oldest_wait_seconds"], risk[1]["cause"]) == (1, 901, "age")
    assert (breach[1]["oldest_wait_seconds"], breach[1]["open_counters"]) == (1201, 1)
    assert datetime.fromisoformat(risk[1]["at"]) == MONDAY + seconds(901)
    assert datetime.fromisoformat(recovered[1]["since"]) == MONDAY + seconds(901)
    assert (recovered[1]["breached"], recovered[1]["lasted_seconds"]) == (True, 360)
    versions = [body["version"] for _, body in (risk, breach, recovered)]
    assert versions == sorted(set(versions))


async def test_many_watchdogs_tell_each_step_once(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Any
) -> None:
    dogs, crowd = [watchdog(queue) for _ in range(8)], [next(units) for _ in range(6)]
    for unit in crowd:
        await set_counter(queue, unit)
    for episode in (1, 2):
        for unit in crowd:
            await take(queue, unit)
        for wait in (901, 300, 600):
            clock.at += seconds(wait)
            await asyncio.gather(*(look(dog) for dog in dogs))
        for unit in crowd:
            await called_numbers(queue, unit)
        for _ in range(2):
            await asyncio.gather(*(look(dog) for dog in dogs))
            clock.at += HOLD
        await asyncio.gather(*(look(dog) for dog in dogs))
        for unit in crowd:
            assert await told(queue, unit) == [
                (kind, number)
                for number in range(1, episode + 1)
                for kind in ("WaitAtRisk", "WaitBreached", "WaitRecovered")
            ]
            assert breaches(unit) == episode


async def test_a_decision_that_was_overtaken_changes_nothing(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """A process that stood still between looking and deciding finds the row moved on."""
    dog = watchdog(queue)
    sight = Sight(unit, MONDAY, 1, 950.0, None, 0)
    turn = watch_wait(Standing(), sight, SETTINGS)
    await dog._turn("wait", Standing(), turn, sight)
    for _ in range(3):
        await dog._turn("wait", Standing(), turn, sight)
    assert await told(queue, unit) == [("WaitAtRisk", 1)]


async def test_who_looks_after_a_restart_goes_on_where_the_others_were(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    for wait in (901, 300, 1, 1):
        clock.at += seconds(wait)
        await look(watchdog(queue))
    assert await told(queue, unit) == [("WaitAtRisk", 1), ("WaitBreached", 1)]
    assert breaches(unit) == 1
    await called_numbers(queue, unit)
    assert breaches(unit) == 1, "who was counted while waiting is not counted at the call"
    for wait in (0, 30, 30):
        clock.at += seconds(wait)
        await look(watchdog(queue))
    assert (await told(queue, unit))[2:] == [("WaitRecovered", 1)]


async def test_what_cannot_be_announced_has_not_happened(
    queue: httpx.AsyncClient, hall_url: str, clock: FrozenClock, unit: str
) -> None:
    dog = watchdog(queue)
    await take(queue, unit)
    await look(dog)
    sight = Sight(unit, MONDAY, 1, 950.0, None, 0)
    turn = watch_wait(Standing(), sight, SETTINGS)
    owner = await asyncpg.connect(hall_url)
    try:
        await owner.execute("REVOKE INSERT ON queue.outbox FROM queue")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await dog._turn("wait", Standing(), turn, sight)
    finally:
        await owner.execute("GRANT INSERT ON queue.outbox TO queue")
        await owner.close()
    rows = "SELECT count(*) FROM episodes WHERE unit = $1"
    assert await core_of(queue).db.hot.fetchval(rows, unit) == 0
    await dog._turn("wait", Standing(), turn, sight)
    assert await told(queue, unit) == [("WaitAtRisk", 1)]


async def test_a_leap_of_the_clock_and_back_is_one_episode(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    dog = watchdog(queue)
    await set_counter(queue, unit)
    await take(queue, unit)
    clock.at += timedelta(hours=1)
    await look(dog)
    clock.at = MONDAY
    for _ in range(90):
        await look(dog)
        clock.at += seconds(3)
    steps = ["WaitAtRisk", "WaitBreached", "WaitRecovered"]
    assert await told(queue, unit) == [(kind, 1) for kind in steps]
    assert breaches(unit) == 1, "counted once, when the clock said so, and not again"
    clock.at = MONDAY + seconds(1300)
    await look(dog)
    assert breaches(unit) == 1
    assert (await told(queue, unit))[3:] == [("WaitAtRisk", 2), ("WaitBreached", 2)]


async def test_a_long_forecast_opens_an_episode_before_anybody_has_waited_long(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    dog = watchdog(queue)
    await set_counter(queue, unit)
    for _ in range(20):
        await take(queue, unit)
    await look(dog)
    assert await told(queue, unit) == []
    # The queue's own watchdog may have looked before it measured those who came, and then the
    # forecast has not been long for long enough.
    for _ in range(5):
        clock.at += HOLD
        await look(dog)
    ((kind, body),) = await of_waits(queue, unit)
    assert (kind, body["cause"]) == ("WaitAtRisk", "forecast")
    assert body["oldest_wait_seconds"] <= 300
    assert body["forecast_wait_seconds"] > 900


async def test_only_who_waits_for_a_first_call_is_waited_for(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """Not who was called before, gave up, was set aside, or came on a day that is over."""
    dog, pool = watchdog(queue), core_of(queue).db.hot
    await set_counter(queue, unit)
    returned, parked, gone, yesterdays = [await take(queue, unit) for _ in range(4)]
    await step(queue, gone, "cancel", headers=manager(unit))
    changes = {
        returned["id"]: "first_called_at = issued_at, called_at = issued_at",
        parked["id"]: "status = 'parked', first_called_at = issued_at",
        yesterdays["id"]: "issued_at = issued_at - interval '1 day', "
        "due_at = due_at - interval '1 day'",
    }
    for ticket, change in changes.items():
        await pool.execute(f"UPDATE tickets SET {change} WHERE id = $1", ticket)
    clock.at += seconds(3000)
    await look(dog)
    assert await told(queue, unit) == []
    assert breaches(unit) == 0
    oldest = REGISTRY.get_sample_value("motcua_queue_oldest_wait_seconds", {"unit": unit})
    waiting = REGISTRY.get_sample_value("motcua_queue_waiting_tickets", {"unit": unit})
    assert (oldest, waiting) == (0, 1)


async def test_who_is_left_when_a_centre_has_closed_for_the_day_waits_no_more(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    dog = watchdog(queue)
    clock.at = MONDAY.replace(hour=16, minute=30)
    await set_counter(queue, unit)
    await take(queue, unit)
    clock.at = MONDAY.replace(hour=17, minute=5)
    await look(dog)
    expected = [("WaitAtRisk", 1), ("WaitBreached", 1)]
    assert await told(queue, unit) == expected, "a counter is open after hours"
    await set_counter(queue, unit, 1, "closed")
    await look(dog)
    clock.at += HOLD
    await look(dog)
    assert (await told(queue, unit))[2:] == [("WaitRecovered", 1)]
    gauges = [
        REGISTRY.get_sample_value(f"motcua_queue_{name}", {"unit": unit})
        for name in ("waiting_tickets", "oldest_wait_seconds")
    ]
    assert gauges == [0, 0]


async def test_who_waits_through_the_lunch_break_waits(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = MONDAY.replace(hour=11, minute=20)
    await take(queue, unit)
    clock.at = MONDAY.replace(hour=12, minute=0)
    await look(watchdog(queue))
    assert await told(queue, unit) == [("WaitAtRisk", 1), ("WaitBreached", 1)]


@pytest.mark.parametrize("ending", ["call", "cancel", "nothing"])
async def test_a_late_ticket_is_counted_once_however_its_wait_ends(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, ending: str
) -> None:
    await set_counter(queue, unit)
    for wait in (1200, 1200.5):
        ticket = await take(queue, unit)
        clock.at += seconds(wait)
        if ending == "call":
            await step(queue, (await call(queue, unit)).json(), "no-show")
        elif ending == "cancel":
            await step(queue, ticket, "cancel", headers=manager(unit))
        else:
            await look(watchdog(queue))
            if wait == 1200:
                await step(queue, ticket, "cancel", headers=manager(unit))
        for _ in range(3):
            await asyncio.gather(*(look(watchdog(queue)) for _ in range(2)))
    assert breaches(unit) == 1


# A running city -------------------------------------------------------------------------------


@pytest.fixture
async def fast_queue(hall_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a queue on the same tables whose minutes pass in a tenth of a second."""
    clock = VirtualClock(MONDAY, 600.0, time.time())
    async with running(app, settings_for(hall_url), clock) as client:
        yield client


async def test_on_a_fast_clock_an_episode_is_told_as_well(
    fast_queue: httpx.AsyncClient, queue: httpx.AsyncClient, clock: FrozenClock, units: Any
) -> None:
    unit = next(units)
    await set_counter(fast_queue, unit)
    await take(fast_queue, unit)

    async def breached() -> bool:
        clock.at = core_of(fast_queue).clock.now()
        return ("WaitBreached", 1) in await told(queue, unit)

    async def recovered() -> bool:
        clock.at = core_of(fast_queue).clock.now()
        return ("WaitRecovered", 1) in await told(queue, unit)

    assert await eventually(breached), await told(queue, unit)
    await called_numbers(fast_queue, unit)
    assert await eventually(recovered), await told(queue, unit)
    steps = ["WaitAtRisk", "WaitBreached", "WaitRecovered"]
    assert await told(queue, unit) == [(kind, 1) for kind in steps]

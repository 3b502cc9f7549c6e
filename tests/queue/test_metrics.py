"""What metrics tell of a centre beside its waits: name, doors, idle counters, and advice."""

import math
import time
from datetime import timedelta

import httpx
import pytest
from prometheus_client import REGISTRY

from services.queue import shown
from services.queue.load import Loads, show_advice
from services.queue.staffing import Advice
from tests.queue.hall import MONDAY, call, seconds, set_counter, take
from tests.support import FrozenClock


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


def shows(metric: str, unit: str, **labels: str) -> float | None:
    """Read a metric of a unit."""
    return REGISTRY.get_sample_value(metric, {"unit": unit, **labels})


async def measured(queue: httpx.AsyncClient) -> None:
    """Let the process measure once more."""
    loads: Loads = queue.state["loads"]  # type: ignore[attr-defined]
    await loads._measure()


async def test_a_counter_that_leaves_people_waiting_or_keeps_one_is_seen(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    idle, held = "motcua_queue_counter_idle_seconds", "motcua_queue_counter_held_seconds"
    await set_counter(queue, unit)
    await measured(queue)
    assert (shows(idle, unit), shows(held, unit)) == (0, 0), "nobody waits for it"
    await take(queue, unit)
    await measured(queue)
    clock.at += seconds(700)
    await measured(queue)
    assert (shows(idle, unit), shows(held, unit)) == (700, 0)
    await call(queue, unit)
    clock.at += seconds(60)
    await measured(queue)
    assert (shows(idle, unit), shows(held, unit)) == (0, 60)


async def test_doors_are_open_by_the_hours(queue: httpx.AsyncClient, unit: str) -> None:
    directory = queue.state["directory"]  # type: ignore[attr-defined]
    for hour, open_ in ((8, 1), (12, 0), (14, 1), (18, 0)):
        shown._doors(directory, unit, MONDAY.replace(hour=hour))
        assert shows("motcua_queue_doors_open", unit) == open_, hour


async def test_a_unit_that_is_renamed_goes_by_its_new_name_alone(
    queue: httpx.AsyncClient, unit: str
) -> None:
    directory = queue.state["directory"]  # type: ignore[attr-defined]
    before = directory.units[unit]
    assert shows("motcua_unit_info", unit, name=before.name) == 1
    names = {unit: before.name}
    directory.units[unit] = before.model_copy(update={"name": "Phường Tên Mới"})
    try:
        shown._name(directory, unit, names)
        assert shows("motcua_unit_info", unit, name=before.name) is None
        assert shows("motcua_unit_info", unit, name="Phường Tên Mới") == 1
    finally:
        directory.units[unit] = before
        shown._name(directory, unit, names)


def test_what_is_advised_is_shown_and_nothing_where_nothing_is() -> None:
    advice = Advice(2, MONDAY, MONDAY + timedelta(minutes=25), 1500)
    show_advice("H29.1", advice, MONDAY)
    assert shows("motcua_queue_breach_expected_seconds", "H29.1") == 1500
    assert shows("motcua_queue_counters_advised", "H29.1") == 2
    show_advice("H29.1", None, MONDAY)
    assert math.isnan(shows("motcua_queue_breach_expected_seconds", "H29.1") or 0)
    assert shows("motcua_queue_counters_advised", "H29.1") == 0


async def test_it_is_told_when_waits_were_last_measured(queue: httpx.AsyncClient) -> None:
    def at() -> float:
        return REGISTRY.get_sample_value("motcua_queue_measured_timestamp_seconds") or 0

    begun = time.time()
    await measured(queue)
    assert begun <= at() <= time.time(), "by the wall clock, whatever the city's says"

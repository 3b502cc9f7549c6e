"""What the routing rule does with queues not heard of: it says so, and answers what it can."""

import httpx
import pytest

from libs.contracts.queue import QueueLoad
from services.gateway import routing
from services.gateway.directory import City
from services.gateway.routing import elsewhere
from tests.gateway.city import ASKED, MONDAY, answer, change, copy_of, feed, record
from tests.gateway.test_routing import (
    FAR_AWAY,
    NEXT_DOOR,
    PROMISE,
    Spot,
    everywhere,
    nearest_to_asked,
)


def test_stale_loads_are_left_out_and_counted_while_others_are_fresh() -> None:
    asked = Spot("asked", forecast_seconds=5000)
    centres = [
        Spot("fresh", forecast_seconds=900),
        Spot("stale", forecast_seconds=None, load_age_seconds=31),
        Spot("staler", forecast_seconds=None, load_age_seconds=900),
        Spot("never", forecast_seconds=None, load_age_seconds=None),
        Spot("stale and closed", forecast_seconds=None, load_age_seconds=31, open=False),
        Spot("stale, elsewhere", forecast_seconds=None, load_age_seconds=31, offers=False),
    ]
    found = elsewhere(asked, centres, PROMISE)
    assert [place.unit for place in found.offered] == ["fresh"]
    assert (found.left_out, found.left_out_age_seconds) == (3, 31)


@pytest.mark.parametrize("age", [31, 7200, None])
def test_where_nobody_is_fresh_hours_and_distances_answer(age: int | None) -> None:
    closed = Spot("asked", open=False, load_age_seconds=age, forecast_seconds=None)
    centres = [
        Spot("far", (10.9, 106.0), None, age),
        Spot("near", (10.1, 106.0), None, age),
        Spot("nearer, but closed", (10.0, 106.0), None, age, open=False),
        Spot("nearer, but elsewhere", (10.0, 106.0), None, age, offers=False),
        Spot("fresh, but closed", (10.0, 106.0), 0, 0, open=False),
    ]
    found = elsewhere(closed, centres, PROMISE)
    assert [place.unit for place in found.offered] == ["near", "far"]
    assert all(place.forecast_seconds is None for place in found.offered)
    assert found.left_out == 0


async def test_with_the_bus_away_a_closed_centre_still_sends_people_to_the_nearest_open_one(
    gateway: httpx.AsyncClient, city: City
) -> None:
    hours = city.registry.centres[ASKED].hours.model_copy(update={"monday": ()})
    change(city, city.registry.centres[ASKED], hours=hours)
    silent = await answer(gateway, at_unit=ASKED)
    for unit in city.registry.centres:
        feed(city, unit, 0, age=570)
    outdated = await answer(gateway, at_unit=ASKED)
    for routed in (silent, outdated):
        assert len(routed["alternatives"]) == 5
        assert routed["alternatives"][0]["unit"] == nearest_to_asked(city)
        assert all(place["stale"] for place in routed["alternatives"])
        assert all(place["forecast_wait_seconds"] is None for place in routed["alternatives"])
        assert routed["left_out"] is None
    assert silent["alternatives"][0]["load_age_seconds"] is None
    assert silent["reason"].endswith("but nothing has been heard of their queues yet")
    assert 570 <= outdated["alternatives"][0]["load_age_seconds"] <= 600
    assert outdated["reason"].endswith("but their waits were last known 10 minutes ago")


async def test_a_centre_left_out_for_its_stale_load_is_told_of(
    gateway: httpx.AsyncClient, city: City
) -> None:
    everywhere(city, 60, but={ASKED: 5000})
    city._loads.pop(NEXT_DOOR)
    feed(city, NEXT_DOOR, 0, age=200)
    routed = await answer(gateway, at_unit=ASKED)
    assert NEXT_DOOR not in {place["unit"] for place in routed["alternatives"]}
    assert routed["left_out"]["centres"] == 1
    assert routed["left_out"]["load_age_seconds"] >= 200
    assert "1 more are open, but their waits were last known 4 minutes ago" in routed["reason"]


async def test_a_unit_told_of_as_quiet_or_never_is_still_quiet_while_the_queue_is_heard_of(
    gateway: httpx.AsyncClient, city: City
) -> None:
    quiet = QueueLoad(
        unit=ASKED, version=1, as_of=MONDAY, waiting=0, oldest_wait_seconds=0,
        forecast_wait_seconds=None, open_counters=0,
    )  # fmt: skip
    city.take_load(record(quiet))
    feed(city, FAR_AWAY, 60, age=8)
    for unit in (ASKED, NEXT_DOOR):
        routed = await answer(gateway, at_unit=unit)
        assert routed["receiving"]["stale"] is False
        assert 8 <= routed["receiving"]["load_age_seconds"] <= 30
        assert "no counter is open there yet" in routed["reason"]
    city = copy_of(city)
    city.take_load(record(quiet))
    assert city.load_age(ASKED) == city.load_age(NEXT_DOOR)
    assert routing.stale(city.load_age(ASKED))


async def test_a_fresh_load_says_how_old_it_is(gateway: httpx.AsyncClient, city: City) -> None:
    feed(city, ASKED, 60, age=12)
    receiving = (await answer(gateway, at_unit=ASKED))["receiving"]
    assert receiving["stale"] is False
    assert 12 <= receiving["load_age_seconds"] <= 30
    assert receiving["forecast_wait_seconds"] == 60

"""From a wait of more than twenty minutes to the message, through the real programs, and back."""

import time
from pathlib import Path

import pytest

from tests.support import reachable_folder
from tests.system.alerting import Pace, at_speed, watching
from tests.system.city import UNIT, embedded, key

pytestmark = pytest.mark.system

SPEED = 300
"""Twenty minutes of the city's clock are four seconds."""


def test_a_broken_promise_wakes_somebody_and_a_call_lets_them_sleep(
    city_url: str, tmp_path: Path
) -> None:
    clock = f"2026-11-16T08:00+07:00,x{SPEED},{time.time()}"
    with (
        reachable_folder() as data,
        embedded(data, database_url=city_url, clock=clock, hours="official") as city,
        watching(city.base.removeprefix("http://"), tmp_path, speed=SPEED, every="1s") as watch,
        city.client() as client,
    ):
        counter, officer = f"/v1/units/{UNIT}/counters/1", city.bearer("officer", UNIT)
        assert client.put(counter, json={"state": "open"}, headers=officer).is_success
        wish = {"unit": UNIT, "channel": "web"}
        ticket = client.post("/v1/tickets", json=wish, headers=key()).json()
        firing = watch.wait("MotcuaWaitBreached", "firing", UNIT, within=30)
        name = client.get(f"/v1/units/{UNIT}").json()["name"]
        assert firing.alert["annotations"]["summary"].startswith(f"{name}: somebody has waited 2")
        assert firing.alert["labels"]["severity"] == "critical"
        assert firing.at >= Pace.of(client).wall(ticket["issued_at"], 1200)

        assert client.post(f"{counter}/call-next", headers=officer | key()).is_success
        watch.wait("MotcuaWaitBreached", "resolved", UNIT, within=30)
        told = [each.alert["labels"] for each in watch.messages]
        assert {labels.get("unit", UNIT) for labels in told} == {UNIT}, "nobody else is named"
        broken = [
            each for each in watch.messages if each.tells("MotcuaWaitBreached", "firing", UNIT)
        ]
        assert {each.alert["startsAt"] for each in broken} == {firing.alert["startsAt"]}


def test_durations_are_divided_by_the_clocks_speed_and_nothing_else_is_changed() -> None:
    rules = {"groups": [{"rules": [{"for": "1m", "keep_firing_for": "3m"}, {"expr": "up"}]}]}
    changed = at_speed(rules, 60)
    assert changed == {
        "groups": [{"rules": [{"for": "1000ms", "keep_firing_for": "3000ms"}, {"expr": "up"}]}]
    }

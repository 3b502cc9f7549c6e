"""The clock of business facts: real, or virtual and the same in every process."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from libs.common.clock import SystemClock, VirtualClock, clock_from

ANCHOR = 1_763_252_700.0
START = datetime(2026, 11, 16, 0, 25, tzinfo=UTC)
SETTING = "2026-11-16T07:25+07:00,x60,1763252700"


def test_the_system_clock_shows_the_walls_instant_in_utc() -> None:
    with time_machine.travel(ANCHOR, tick=False):
        clock = clock_from("system")
        assert isinstance(clock, SystemClock)
        assert clock.now() == datetime.fromtimestamp(ANCHOR, UTC)
        assert clock.now().tzinfo is UTC
        assert clock.describe() == {"kind": "system", "now": clock.now().isoformat()}


def test_a_virtual_clock_runs_so_much_faster_from_where_it_is_anchored() -> None:
    clock = clock_from(SETTING)
    with time_machine.travel(ANCHOR, tick=False) as wall:
        assert clock.now() == START
        wall.shift(90)
        assert clock.now() == START + timedelta(minutes=90)
        wall.shift(-120)
        assert clock.now() == START - timedelta(minutes=30)


def test_processes_with_the_same_setting_agree() -> None:
    one, other = clock_from(SETTING), clock_from(SETTING)
    with time_machine.travel(ANCHOR + 12.5, tick=False):
        assert one.now() == other.now()


def test_speed_is_1_and_the_anchor_this_moment_unless_said() -> None:
    with time_machine.travel(ANCHOR, tick=False) as wall:
        clock = clock_from("2026-11-16T07:25+07:00")
        wall.shift(5)
        assert clock.now() == START + timedelta(seconds=5)
        assert clock_from("2026-11-16T07:25+07:00,x2").now() == START


def test_version_tells_all_that_a_client_needs_to_follow() -> None:
    told = clock_from(SETTING).describe()
    assert told["kind"] == "virtual"
    again = VirtualClock(
        datetime.fromisoformat(str(told["start"])), float(str(told["speed"])),
        float(str(told["anchor"])),
    )  # fmt: skip
    with time_machine.travel(ANCHOR + 7, tick=False):
        assert again.now() == clock_from(SETTING).now()


@given(
    start=st.datetimes(
        datetime(2000, 1, 1),  # noqa: DTZ001
        datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from(
            [UTC, timezone(timedelta(hours=7)), timezone(-timedelta(hours=3))]
        ),
    ),
    speed=st.floats(0.001, 100_000),
    anchor=st.floats(1, 4e9),
)
def test_a_clock_is_made_again_from_what_it_writes(
    start: datetime, speed: float, anchor: float
) -> None:
    clock = VirtualClock(start.astimezone(UTC), speed, anchor)
    assert clock_from(str(clock)) == clock


@pytest.mark.parametrize(
    "setting",
    ["", "now", "System", "2026-11-16T07:25", "2026-11-16",
     "2026-11-16T07:25+07:00,x0", "2026-11-16T07:25+07:00,x-1", "2026-11-16T07:25+07:00,x",
     "2026-11-16T07:25+07:00,x60,", "2026-11-16T07:25+07:00,x60,soon", "2026-13-16T07:25+07:00",
     "2026-11-16T07:25+07:00,x60,1763252700,1"],
)  # fmt: skip
def test_another_setting_is_refused_with_the_form_that_is_wanted(setting: str) -> None:
    with pytest.raises(ValueError, match="2026-11-16T07:25") as refused:
        clock_from(setting)
    assert repr(setting) in str(refused.value)


def test_a_virtual_clock_made_now_starts_now() -> None:
    before = time.time()
    assert before <= VirtualClock(START).anchor <= time.time()

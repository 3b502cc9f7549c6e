"""Slots of a day: inside the opening hours, never overlapping, as many people as were planned."""

from collections.abc import Mapping
from datetime import date, time, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.settings import Settings
from libs.common.worktime import (
    OFFICIAL_HOURS,
    ROUND_THE_CLOCK,
    WEEKDAYS,
    Calendar,
    DayOverride,
    OpeningHours,
    Period,
    is_open,
    local,
    periods,
)
from services.queue.slots import Plan, plan_of, slot_at, slots_of

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SETTINGS = Settings()
PLAN = plan_of(SETTINGS, 5, {})
PLAIN = Calendar()
SWAPPED = Calendar(
    [
        DayOverride(date=date(2026, 1, 2), kind="off", decision="1/QĐ"),
        DayOverride(
            date=date(2026, 1, 10), kind="work", decision="1/QĐ", in_lieu_of=date(2026, 1, 2)
        ),
    ]
)


def starts(day: date, plan: Plan = PLAN, calendar: Calendar = PLAIN) -> list[str]:
    """List when the slots of a day begin, on the clocks of Ho Chi Minh City."""
    slots = slots_of(day, plan, OFFICIAL_HOURS, calendar)
    return [f"{local(slot.starts_at):%H:%M}" for slot in slots]


MORNING = ["07:30", "08:00", "08:30", "09:00", "09:30", "10:00", "10:30", "11:00"]
AFTERNOON = ["13:00", "13:30", "14:00", "14:30", "15:00", "15:30", "16:00", "16:30"]


def test_an_ordinary_day_has_slots_but_none_at_lunch() -> None:
    assert starts(date(2026, 11, 16)) == MORNING + AFTERNOON


@pytest.mark.parametrize(
    ("day", "why"),
    [
        (date(2026, 11, 15), "Sunday"),
        (date(2026, 11, 14), "Saturday"),
        (date(2026, 9, 2), "National Day"),
        (date(2026, 2, 17), "Tết"),
        (date(2026, 1, 2), "swapped off"),
    ],
)
def test_a_day_off_has_none(day: date, why: str) -> None:
    assert starts(day, calendar=SWAPPED) == [], why


def test_a_saturday_that_is_worked_has_the_slots_of_the_day_it_replaces() -> None:
    assert starts(date(2026, 1, 10), calendar=SWAPPED) == MORNING + AFTERNOON
    assert starts(date(2026, 1, 10)) == []


def test_what_is_left_of_a_period_is_no_slot() -> None:
    plan = plan_of(SETTINGS, 5, {"slot_minutes": 90})
    assert starts(date(2026, 11, 16), plan) == ["07:30", "09:00", "13:00", "14:30"]


def test_nobody_is_told_to_check_in_while_the_door_is_shut() -> None:
    first, *_, last = slots_of(date(2026, 11, 16), PLAN, OFFICIAL_HOURS, PLAIN)
    assert first.check_in_from == first.starts_at
    assert last.check_in_from == last.starts_at - timedelta(minutes=15)
    assert last.check_in_until == last.starts_at + timedelta(minutes=15)
    short = plan_of(SETTINGS, 5, {"slot_minutes": 10})
    *_, closing = slots_of(date(2026, 11, 16), short, OFFICIAL_HOURS, PLAIN)
    assert closing.check_in_until == closing.ends_at


@pytest.mark.parametrize(
    ("counters", "own", "people", "by_web"),
    [
        (5, {}, 4, 3),  # 5 counters serve 18.75 people in half an hour, a quarter by appointment
        (15, {}, 14, 10),
        (1, {}, 1, 1),
        (0, {}, 0, 0),
        (5, {"capacity": 0}, 0, 0),
        (0, {"capacity": 7}, 7, 5),
        (5, {"slot_minutes": 60}, 9, 6),
    ],
)
def test_a_slot_takes_a_share_of_what_the_counters_can_serve(
    counters: int, own: Mapping[str, int | None], people: int, by_web: int
) -> None:
    plan = plan_of(SETTINGS, counters, own)
    assert (plan.capacity, plan.web_capacity) == (people, by_web)


def test_a_share_of_nothing_gives_no_appointments() -> None:
    assert plan_of(Settings(appointment_share=0), 5, {}).capacity == 0
    assert plan_of(Settings(appointment_web_share=0), 5, {}).web_capacity == 0


# Whatever the hours -------------------------------------------------------------------------------

_minutes = st.integers(0, 24 * 60 - 1)


@st.composite
def opening_hours(draw: st.DrawFn) -> OpeningHours:
    """Draw hours with up to three periods a day."""
    week: dict[str, Any] = {}
    for day in WEEKDAYS:
        edges = sorted(draw(st.sets(_minutes, max_size=6)))
        clock = [time(minute // 60, minute % 60) for minute in edges]
        week[day] = tuple(map(Period, clock[:-1:2], clock[1::2]))
    return OpeningHours(**week, holidays=draw(st.booleans()))


_days = st.dates(date(2026, 1, 1), date(2027, 12, 31))


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    """Draw a calendar with a few days declared off or worked."""
    days = draw(st.lists(_days, max_size=4, unique=True))
    return Calendar(
        DayOverride(
            date=day,
            kind=draw(st.sampled_from(("off", "work"))),
            decision="1/QĐ",
            in_lieu_of=draw(st.none() | _days),
        )
        for day in days
    )


_plans = st.builds(
    plan_of,
    st.just(SETTINGS),
    st.integers(0, 30),
    st.fixed_dictionaries({"slot_minutes": st.integers(10, 240)}),
)


@UNHURRIED
@given(_days, _plans, opening_hours(), calendars())
def test_slots_lie_in_the_opening_hours_and_fill_them(
    day: date, plan: Plan, hours: OpeningHours, calendar: Calendar
) -> None:
    slots = list(slots_of(day, plan, hours, calendar))
    for slot in slots:
        assert local(slot.starts_at).date() == day
        assert slot.ends_at - slot.starts_at == plan.length
        for at in (slot.starts_at, slot.ends_at - timedelta(minutes=1), slot.check_in_from):
            assert is_open(at, hours, calendar)
        assert slot.check_in_from <= slot.starts_at <= slot.check_in_until
        assert slot_at(slot.starts_at, plan, hours, calendar) == slot
        assert slot_at(slot.starts_at + timedelta(seconds=1), plan, hours, calendar) is None
    for earlier, later in pairwise(slots):
        assert earlier.ends_at <= later.starts_at
    for opens, closes in periods(day, hours, calendar):
        inside = [slot for slot in slots if opens <= slot.starts_at < closes]
        filled = inside[-1].ends_at if inside else opens
        assert filled - opens == len(inside) * plan.length, "one after another from the opening on"
        assert closes - filled < plan.length, "and no room for another"


def test_round_the_clock_means_round_the_clock() -> None:
    slots = list(slots_of(date(2026, 2, 17), PLAN, ROUND_THE_CLOCK, PLAIN))
    assert len(slots) == 48

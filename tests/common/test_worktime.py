"""Working time against a slow reference that walks minute by minute, and the rules as tables."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache
from math import lcm
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from libs.common.worktime import (
    OFFICIAL_HOURS,
    ROUND_THE_CLOCK,
    ZONE,
    Calendar,
    DayOverride,
    Limit,
    NoDeadlineError,
    OpeningHours,
    Pause,
    Period,
    add_working_time,
    appointment,
    business_day,
    closing,
    deadline,
    is_open,
    local,
    next_opening,
    periods,
    working_time,
)

PROFILE = settings(max_examples=200, deadline=None, derandomize=True)

OFF = DayOverride(date=date(2026, 1, 2), kind="off", decision="TB-1", note="Nghỉ hoán đổi")
WORKED = DayOverride(
    date=date(2026, 1, 10), kind="work", decision="TB-1", in_lieu_of=date(2026, 1, 2)
)
PLAIN, CALENDAR = Calendar(), Calendar([OFF, WORKED])

MORNING, AFTERNOON = ("07:30", "11:30"), ("13:00", "17:00")
FULL = [MORNING, AFTERNOON]
WEEK: dict[str, Any] = dict.fromkeys(["monday", "tuesday", "wednesday", "thursday", "friday"], FULL)
SATURDAYS = OpeningHours.model_validate({**WEEK, "saturday": [MORNING]})
SHORT_FRIDAY = OpeningHours.model_validate({**WEEK, "friday": [("08:00", "11:00")]})
EVENINGS = OpeningHours.model_validate(
    {"tuesday": [("09:00", "12:00"), ("12:00", "13:30")], "thursday": [("18:00", "24:00")]}
)
HOURS = [OFFICIAL_HOURS, SATURDAYS, SHORT_FRIDAY, EVENINGS, ROUND_THE_CLOCK]
WRITTEN = {hours: hours.model_dump(mode="json") for hours in HOURS}

# The days off of the two windows, written out by hand so that the reference shares nothing with
# the module: New Year, Tết, the swapped Friday.
DAYS_OFF = {
    *(date(2026, 1, day) for day in (1, 2)),
    *(date(2026, 2, day) for day in (16, 17, 18, 19, 20)),
    date(2027, 1, 1),
    *(date(2027, 2, day) for day in (4, 5, 6, 7, 8, 9, 10)),
}
WINDOWS = [datetime(2025, 12, 29, tzinfo=ZONE), datetime(2027, 1, 25, tzinfo=ZONE)]
DAYS = 70
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE)


def days(value: int) -> Limit:
    return Limit(value=value, unit="working_day")


# --- the slow reference ---------------------------------------------------------------------


def table(day: date, hours: OpeningHours, *, door: bool) -> list[list[str]]:
    """Look up what a day has written down, from the tables of this file alone."""
    weekday = day.weekday()
    if day == WORKED.date:
        weekday = 4
    elif not hours.holidays and (day in DAYS_OFF or (weekday >= 5 and not door)):
        return []
    written: list[list[str]] = WRITTEN[hours][list(WRITTEN[hours])[weekday]]
    return written


@cache
def minutes(window: int, hours: OpeningHours, *, door: bool) -> bytes:
    """Tell of each minute of a window whether it counts, one by one."""
    start = WINDOWS[window].date()
    clocks = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(1440)]
    tables = [table(start + timedelta(days=day), hours, door=door) for day in range(DAYS)]
    return bytes(
        any(opens <= clock < closes for opens, closes in spans)
        for spans in tables
        for clock in clocks
    )


def paused(window: int, row: bytes, pauses: list[Pause]) -> bytes:
    walked = bytearray(row)
    for since, until in pauses:
        first = max(0, (since - WINDOWS[window]) // MINUTE)
        last = len(row) if until is None else (until - WINDOWS[window]) // MINUTE
        for minute in range(first, min(last, len(row))):
            walked[minute] = 0
    return bytes(walked)


def walk(row: bytes, weights: list[int], start: int, amount: int) -> int | None:
    """Walk on from minute `start` until the amount is used up; None past the window."""
    left = amount
    for minute in range(start, len(row)):
        if row[minute]:
            left -= weights[minute // 1440]
            if left <= 0:
                return minute + 1
    return None


# --- strategies -----------------------------------------------------------------------------

some_hours = st.sampled_from(HOURS)
windows = st.sampled_from([0, 1])
# Instants gather around the minutes at which something changes.
edges = st.builds(
    lambda day, edge, shift: day * 1440 + edge + shift,
    st.integers(0, 30),
    st.sampled_from([0, 450, 690, 780, 900, 1020, 1080]),
    st.integers(-1, 1),
).filter(lambda minute: minute >= 0)
moments = st.one_of(st.integers(0, 30 * 1440), edges)
microseconds = st.integers(0, 60_000_000 - 1)


@st.composite
def pause_lists(draw: st.DrawFn, window: int, *, open_ended: bool = False) -> list[Pause]:
    """Draw intervals: unsorted, overlapping, empty, perhaps without end."""
    found: list[Pause] = []
    for _ in range(draw(st.integers(0, 4))):
        since = WINDOWS[window] + draw(moments) * MINUTE
        length = draw(st.one_of(st.integers(0, 900), st.integers(0, 8 * 1440)))
        endless = open_ended and draw(st.integers(0, 4)) == 0
        found.append((since, None if endless else since + length * MINUTE))
    return found


@st.composite
def cases(
    draw: st.DrawFn, *, open_ended: bool = False
) -> tuple[int, OpeningHours, int, list[Pause]]:
    window = draw(windows)
    pauses = draw(pause_lists(window, open_ended=open_ended))
    return window, draw(some_hours), draw(moments), pauses


# --- properties -----------------------------------------------------------------------------


@PROFILE
@given(cases(open_ended=True), moments)
def test_working_time_is_the_count_of_the_minutes_that_count(
    case: tuple[int, OpeningHours, int, list[Pause]], other: int
) -> None:
    window, hours, start, pauses = case
    row = paused(window, minutes(window, hours, door=False), pauses)
    found = working_time(
        WINDOWS[window] + start * MINUTE, WINDOWS[window] + other * MINUTE, hours, CALENDAR, pauses
    )
    assert found == sum(row[start:other]) * MINUTE


@PROFILE
@given(cases(), st.integers(1, 8000))
def test_added_working_time_ends_where_the_minute_walk_ends(
    case: tuple[int, OpeningHours, int, list[Pause]], amount: int
) -> None:
    window, hours, start, pauses = case
    row = paused(window, minutes(window, hours, door=False), pauses)
    end = walk(row, [1] * DAYS, start, amount)
    assume(end is not None)
    assert end is not None
    found = add_working_time(
        WINDOWS[window] + start * MINUTE, amount * MINUTE, hours, CALENDAR, pauses
    )
    assert found == WINDOWS[window] + end * MINUTE


@PROFILE
@given(cases(), st.integers(1, 15))
def test_working_days_end_where_a_walk_in_shares_of_days_ends(
    case: tuple[int, OpeningHours, int, list[Pause]], value: int
) -> None:
    window, hours, start, pauses = case
    row = minutes(window, hours, door=False)
    totals = [sum(row[day * 1440 : day * 1440 + 1440]) for day in range(DAYS)]
    whole = lcm(*(total for total in totals if total))
    weights = [whole // total if total else 0 for total in totals]
    end = walk(paused(window, row, pauses), weights, start, value * whole)
    assume(end is not None)
    assert end is not None
    found = deadline(WINDOWS[window] + start * MINUTE, days(value), hours, CALENDAR, pauses)
    expected = WINDOWS[window] + end * MINUTE
    # Between days of different length the end may fall within a minute, the walk's last one.
    assert expected - MINUTE < found <= expected


@PROFILE
@given(windows, some_hours, moments)
def test_doors_agree_with_the_minute_table(window: int, hours: OpeningHours, start: int) -> None:
    row, moment = minutes(window, hours, door=True), WINDOWS[window] + start * MINUTE
    assert is_open(moment, hours, CALENDAR) == bool(row[start])
    opening = next_opening(moment, hours, CALENDAR)
    assert opening == WINDOWS[window] + row.index(1, start) * MINUTE
    today = start - start % 1440
    last = row.rfind(1, today, today + 1440)
    closes = closing(moment, hours, CALENDAR)
    if last < 0:
        assert closes is None
    else:
        assert closes is not None
        if row[start]:
            assert moment < closes
            assert all(row[start : (closes - WINDOWS[window]) // MINUTE])
        else:
            assert closes == WINDOWS[window] + (last + 1) * MINUTE


@PROFILE
@given(cases(), microseconds, st.timedeltas(timedelta(), timedelta(hours=200)))
def test_what_was_added_is_measured_again(
    case: tuple[int, OpeningHours, int, list[Pause]], sub: int, amount: timedelta
) -> None:
    window, hours, start, pauses = case
    begin = WINDOWS[window] + start * MINUTE + timedelta(microseconds=sub)
    end = add_working_time(begin, amount, hours, CALENDAR, pauses)
    assert end >= begin
    assert working_time(begin, end, hours, CALENDAR, pauses) == amount
    if amount:
        just_before = end - timedelta(microseconds=1)
        assert working_time(begin, just_before, hours, CALENDAR, pauses) < amount


@PROFILE
@given(
    cases(),
    moments,
    st.sampled_from(["working_day", "working_hour", "calendar_day"]),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_a_deadline_never_falls_when_start_or_limit_rise(
    case: tuple[int, OpeningHours, int, list[Pause]], other: int, unit: Any, value: int, more: int
) -> None:
    window, hours, start, pauses = case
    sooner, later = sorted([start, other])

    def due(minute: int, amount: int) -> datetime:
        limit = Limit(value=amount, unit=unit)
        return deadline(WINDOWS[window] + minute * MINUTE, limit, hours, CALENDAR, pauses)

    assert due(sooner, value) <= due(later, value)
    assert due(sooner, value) <= due(sooner, value + more)
    if more and unit != "calendar_day":
        assert due(sooner, value) < due(sooner, value + more)


@PROFILE
@given(cases(), moments, st.booleans(), st.booleans(), st.integers(1, 10))
def test_an_appointment_never_falls_when_reception_is_later(
    case: tuple[int, OpeningHours, int, list[Pause]],
    other: int,
    same_day: bool,
    handed_over: bool,
    value: int,
) -> None:
    window, hours, start, _ = case
    first, second = (
        appointment(
            WINDOWS[window] + minute * MINUTE,
            days(value),
            same_day=same_day,
            handed_over=handed_over,
            hours=hours,
            calendar=CALENDAR,
        )
        for minute in sorted([start, other])
    )
    assert first <= second


@PROFILE
@given(
    cases(open_ended=True),
    st.sampled_from(
        [UTC, ZoneInfo("America/New_York"), timezone(timedelta(hours=-9, minutes=-30))]
    ),
)
def test_an_instant_in_another_zone_gives_the_same_answer(
    case: tuple[int, OpeningHours, int, list[Pause]], zone: ZoneInfo
) -> None:
    window, hours, start, pauses = case
    here = WINDOWS[window] + start * MINUTE
    there = here.astimezone(zone)
    moved = [(a.astimezone(zone), b and b.astimezone(zone)) for a, b in pauses]
    end = here + timedelta(days=12)
    assert business_day(there) == here.date()
    assert is_open(there, hours, CALENDAR) == is_open(here, hours, CALENDAR)
    assert next_opening(there, hours, CALENDAR) == next_opening(here, hours, CALENDAR)
    assert working_time(there, end.astimezone(zone), hours, CALENDAR, moved) == working_time(
        here, end, hours, CALENDAR, pauses
    )
    closed: list[Pause] = [(a, b) for a, b in moved if b]
    found = deadline(there, days(3), hours, CALENDAR, closed)
    assert found == deadline(here, days(3), hours, CALENDAR, [(a, b) for a, b in pauses if b])
    assert found.tzinfo is ZONE


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "value", "due"),
    [
        ("2026-03-03T10:00", 3, "2026-03-06T10:00"),
        ("2026-03-03T10:00", 4, "2026-03-09T10:00"),  # over a weekend
        ("2026-03-03T07:30", 1, "2026-03-03T17:00"),  # one day used up whole
        ("2026-03-03T05:00", 1, "2026-03-03T17:00"),  # before the doors open
        ("2026-03-03T12:10", 1, "2026-03-04T11:30"),  # in the lunch break
        ("2026-03-03T17:00", 1, "2026-03-04T17:00"),  # after hours: from the next opening
        ("2026-02-13T10:00", 1, "2026-02-23T10:00"),  # over Tết 2026
        ("2027-02-03T10:00", 1, "2027-02-11T10:00"),  # over Tết 2027
        ("2025-12-31T10:00", 1, "2026-01-05T10:00"),  # New Year and the swapped Friday
        ("2026-01-09T10:00", 1, "2026-01-10T10:00"),  # onto the worked Saturday
        ("2026-01-09T10:00", 2, "2026-01-12T10:00"),
    ],
)
def test_working_days_end_at_the_same_clock_time_so_many_working_days_later(
    start: str, value: int, due: str
) -> None:
    assert deadline(at(start), days(value), OFFICIAL_HOURS, CALENDAR) == at(due)


def test_between_days_alike_a_working_day_is_eight_hours() -> None:
    start = at("2026-03-03T10:00")
    hours = Limit(value=24, unit="working_hour")
    assert deadline(start, hours, OFFICIAL_HOURS, CALENDAR) == at("2026-03-06T10:00")


def test_a_day_that_closes_early_is_one_day_and_takes_the_same_share() -> None:
    # 10:00 is 5/16 of an ordinary day; of Friday's three hours from 8:00 that is 56.25 minutes.
    due = deadline(at("2026-03-05T10:00"), days(1), SHORT_FRIDAY, CALENDAR)
    assert due == at("2026-03-06T08:56:15")
    assert deadline(due, days(1), SHORT_FRIDAY, CALENDAR) == at("2026-03-09T10:00")


def test_a_saturday_with_open_doors_is_no_working_day_of_a_limit() -> None:
    saturday = at("2026-03-07T09:00")
    assert is_open(saturday, SATURDAYS, CALENDAR)
    assert deadline(at("2026-03-06T10:00"), days(1), SATURDAYS, CALENDAR) == at("2026-03-09T10:00")
    assert not working_time(saturday, at("2026-03-08T00:00"), SATURDAYS, CALENDAR)


@pytest.mark.parametrize(
    ("start", "value", "due"),
    [
        ("2026-03-03T10:00", 3, "2026-03-06T17:00"),
        ("2026-03-03T10:00", 5, "2026-03-09T17:00"),  # Sunday gives Monday
        ("2026-03-03T10:00", 6, "2026-03-09T17:00"),
        ("2026-02-10T10:00", 7, "2026-02-23T17:00"),  # the first day of Tết
        ("2026-03-07T10:00", 2, "2026-03-11T17:00"),  # a Saturday counts from Monday's opening
        ("2026-01-03T10:00", 5, "2026-01-12T17:00"),  # Monday 5th + 5 is the worked Saturday...
    ],
)
def test_calendar_days_end_with_the_last_day_or_the_next_working_day(
    start: str, value: int, due: str
) -> None:
    limit = Limit(value=value, unit="calendar_day")
    calendar = CALENDAR if start != "2026-01-03T10:00" else CALENDAR.without_override(WORKED.date)
    assert deadline(at(start), limit, OFFICIAL_HOURS, calendar) == at(due)


def test_calendar_days_may_end_on_a_worked_saturday() -> None:
    limit = Limit(value=5, unit="calendar_day")
    due = deadline(at("2026-01-05T08:00"), limit, OFFICIAL_HOURS, CALENDAR)
    assert due == at("2026-01-10T17:00")


def test_a_pause_puts_calendar_days_off_by_its_length() -> None:
    limit = Limit(value=3, unit="calendar_day")
    pauses: list[Pause] = [(at("2026-03-04T00:00"), at("2026-03-10T00:00"))]
    due = deadline(at("2026-03-03T10:00"), limit, OFFICIAL_HOURS, CALENDAR, pauses)
    assert due == at("2026-03-12T17:00")


def test_pauses_stop_the_clock_of_working_days() -> None:
    pauses: list[Pause] = [
        (at("2026-03-05T14:00"), at("2026-03-06T10:00")),
        (at("2026-03-04T10:00"), at("2026-03-05T14:00")),
        (at("2026-03-04T12:00"), at("2026-03-05T09:00")),
    ]
    due = deadline(at("2026-03-03T10:00"), days(2), OFFICIAL_HOURS, CALENDAR, pauses)
    assert due == at("2026-03-09T10:00")


def test_an_open_pause_gives_no_deadline_unless_it_begins_after_it() -> None:
    open_pause: list[Pause] = [(at("2026-03-04T10:00"), None)]
    start = at("2026-03-03T10:00")
    assert deadline(start, days(1), OFFICIAL_HOURS, CALENDAR, open_pause) == at("2026-03-04T10:00")
    for unit in ("working_day", "working_hour", "calendar_day"):
        limit = Limit.model_validate({"value": 30, "unit": unit})
        with pytest.raises(NoDeadlineError, match="open-ended pause"):
            deadline(start, limit, OFFICIAL_HOURS, CALENDAR, open_pause)
    with pytest.raises(NoDeadlineError):
        add_working_time(
            start, timedelta(hours=1), OFFICIAL_HOURS, CALENDAR, [(start - MINUTE, None)]
        )


def test_a_pause_that_begins_when_the_limit_ends_changes_nothing() -> None:
    start = at("2026-03-03T10:00")
    for unit, due in (("calendar_day", "2026-03-04T17:00"), ("working_day", "2026-03-04T10:00")):
        limit = Limit.model_validate({"value": 1, "unit": unit})
        pauses: list[Pause] = [(at("2026-03-04T10:00"), at("2026-03-12T10:00"))]
        assert deadline(start, limit, OFFICIAL_HOURS, CALENDAR, pauses) == at(due)


def test_shares_of_days_are_rounded_up_to_the_microsecond() -> None:
    # Three microseconds of an eight-hour day are the share of 1.125 in a day of three hours.
    due = deadline(at("2026-03-05T07:30:00.000003"), days(1), SHORT_FRIDAY, CALENDAR)
    assert due == at("2026-03-06T08:00:00.000002")


def test_a_pause_longer_than_the_search_does_not_end_it() -> None:
    pauses: list[Pause] = [(at("2026-03-03T10:00"), at("2026-09-03T10:00"))]
    due = deadline(at("2026-03-03T10:00"), days(1), OFFICIAL_HOURS, CALENDAR, pauses)
    assert due == at("2026-09-04T10:00")


def test_a_pause_cannot_end_before_it_begins() -> None:
    start = at("2026-03-03T10:00")
    with pytest.raises(ValueError, match="cannot end before"):
        working_time(start, start, OFFICIAL_HOURS, CALENDAR, [(start, start - MINUTE)])


def test_hours_that_never_open_are_told_and_not_searched_for_ever() -> None:
    start, never = at("2026-03-03T10:00"), OpeningHours()
    assert next_opening(start, never, CALENDAR) is None
    assert closing(start, never, CALENDAR) is None
    assert not working_time(start, start + timedelta(days=9), never, CALENDAR)
    for unit in ("working_day", "working_hour", "calendar_day"):
        with pytest.raises(NoDeadlineError):
            deadline(start, Limit.model_validate({"value": 1, "unit": unit}), never, CALENDAR)
    with pytest.raises(NoDeadlineError):
        appointment(start, days(1), same_day=True, hours=never, calendar=CALENDAR)


def test_time_is_not_added_backwards() -> None:
    with pytest.raises(ValueError, match="not taken away"):
        add_working_time(at("2026-03-03T10:00"), -MINUTE, OFFICIAL_HOURS, CALENDAR)


def test_nothing_added_is_the_start_and_an_end_before_the_start_is_no_time() -> None:
    sunday = at("2026-03-08T10:00")
    assert add_working_time(sunday, timedelta(), OFFICIAL_HOURS, CALENDAR) == sunday
    assert not working_time(at("2026-03-05T10:00"), at("2026-03-03T10:00"), OFFICIAL_HOURS, PLAIN)


def test_naive_datetimes_are_refused_everywhere() -> None:
    naive, aware = datetime(2026, 3, 3, 10), at("2026-03-03T10:00")  # noqa: DTZ001
    nothing: list[Pause] = [(naive, None)]

    def calls() -> Iterator[Any]:
        yield lambda: local(naive)
        yield lambda: business_day(naive)
        yield lambda: is_open(naive, OFFICIAL_HOURS, CALENDAR)
        yield lambda: next_opening(naive, OFFICIAL_HOURS, CALENDAR)
        yield lambda: closing(naive, OFFICIAL_HOURS, CALENDAR)
        yield lambda: add_working_time(naive, MINUTE, OFFICIAL_HOURS, CALENDAR)
        yield lambda: add_working_time(naive, timedelta(), OFFICIAL_HOURS, CALENDAR)
        yield lambda: working_time(naive, aware, OFFICIAL_HOURS, CALENDAR)
        yield lambda: working_time(aware, naive, OFFICIAL_HOURS, CALENDAR)
        yield lambda: working_time(aware, aware, OFFICIAL_HOURS, CALENDAR, nothing)
        yield lambda: deadline(naive, days(1), OFFICIAL_HOURS, CALENDAR)
        for same_day in (False, True):
            yield lambda same_day=same_day: appointment(
                naive, days(1), same_day=same_day, hours=OFFICIAL_HOURS, calendar=CALENDAR
            )

    for call in calls():
        with pytest.raises(ValueError, match="no time zone"):
            call()


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", True])
def test_a_limit_is_a_whole_number_above_nought(value: object) -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate({"value": value, "unit": "working_day"})


# --- appointments ---------------------------------------------------------------------------

SAME_DAY = [
    ("2026-03-03T08:00", "2026-03-03T17:00"),
    ("2026-03-03T06:00", "2026-03-03T17:00"),
    ("2026-03-03T12:15", "2026-03-03T17:00"),
    ("2026-03-03T14:59:59", "2026-03-03T17:00"),
    ("2026-03-03T15:00", "2026-03-04T17:00"),
    ("2026-03-03T20:00", "2026-03-04T17:00"),
    ("2026-03-06T15:00", "2026-03-09T17:00"),
    ("2026-03-07T09:00", "2026-03-09T17:00"),  # Saturday
    ("2026-03-08T16:00", "2026-03-09T17:00"),  # Sunday after 15:00
    ("2026-01-01T16:00", "2026-01-05T17:00"),
    ("2026-01-09T15:00", "2026-01-10T17:00"),  # the worked Saturday
    ("2026-02-13T15:30", "2026-02-23T17:00"),  # the last afternoon before Tết
]


@pytest.mark.parametrize(("received", "due"), SAME_DAY)
def test_same_day_procedures_are_due_today_before_15_00_and_else_tomorrow(
    received: str, due: str
) -> None:
    found = appointment(
        at(received), days(1), same_day=True, hours=OFFICIAL_HOURS, calendar=CALENDAR
    )
    assert found == at(due)


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-03-03T10:00", "2026-03-05T10:00"),
        ("2026-03-03T14:59", "2026-03-05T14:59"),
        ("2026-03-03T15:00", "2026-03-05T17:00"),  # from Wednesday 7:30, two days used up whole
        ("2026-03-03T16:59", "2026-03-05T17:00"),
        ("2026-03-06T15:00", "2026-03-10T17:00"),
        ("2026-03-07T09:00", "2026-03-10T17:00"),
        ("2026-03-03T06:00", "2026-03-04T17:00"),
    ],
)
def test_a_dossier_handed_over_starts_when_the_competent_body_has_it(
    received: str, due: str
) -> None:
    found = appointment(
        at(received),
        days(2),
        same_day=False,
        handed_over=True,
        hours=OFFICIAL_HOURS,
        calendar=CALENDAR,
    )
    assert found == at(due)


def test_other_dossiers_start_when_they_are_received_also_after_15_00() -> None:
    found = appointment(
        at("2026-03-03T16:00"), days(2), same_day=False, hours=OFFICIAL_HOURS, calendar=CALENDAR
    )
    assert found == at("2026-03-05T16:00")


def test_the_cut_off_is_a_setting_and_an_early_closing_comes_before_it() -> None:
    found = [
        appointment(
            at(received), days(1), same_day=True, hours=hours, calendar=CALENDAR, cut_off=cut_off
        )
        for received, hours, cut_off in [
            ("2026-03-03T14:30", OFFICIAL_HOURS, time(14)),
            ("2026-03-06T10:59", SHORT_FRIDAY, time(15)),
            ("2026-03-06T11:00", SHORT_FRIDAY, time(15)),
        ]
    ]
    assert found == [at("2026-03-04T17:00"), at("2026-03-06T11:00"), at("2026-03-09T17:00")]


# --- doors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "is_it", "opens", "closes"),
    [
        ("2026-03-03T07:29:59", False, "2026-03-03T07:30", "2026-03-03T17:00"),
        ("2026-03-03T07:30", True, "2026-03-03T07:30", "2026-03-03T11:30"),
        ("2026-03-03T11:30", False, "2026-03-03T13:00", "2026-03-03T17:00"),
        ("2026-03-03T16:59:59", True, "2026-03-03T16:59:59", "2026-03-03T17:00"),
        ("2026-03-03T17:00", False, "2026-03-04T07:30", "2026-03-03T17:00"),
        ("2026-02-14T09:00", False, "2026-02-23T07:30", None),
        ("2026-01-10T09:00", True, "2026-01-10T09:00", "2026-01-10T11:30"),
    ],
)
def test_doors_open_and_close_as_written(
    moment: str, is_it: bool, opens: str, closes: str | None
) -> None:
    assert is_open(at(moment), OFFICIAL_HOURS, CALENDAR) is is_it
    assert next_opening(at(moment), OFFICIAL_HOURS, CALENDAR) == at(opens)
    assert closing(at(moment), OFFICIAL_HOURS, CALENDAR) == (closes and at(closes))


def test_round_the_clock_is_open_at_every_moment_and_runs_through_midnight() -> None:
    tet = at("2026-02-17T23:59:59")
    assert is_open(tet, ROUND_THE_CLOCK, CALENDAR)
    assert is_open(at("2026-02-18T00:00"), ROUND_THE_CLOCK, CALENDAR)
    assert closing(tet, ROUND_THE_CLOCK, CALENDAR) == at("2026-02-18T00:00")
    assert working_time(tet, tet + timedelta(days=9), ROUND_THE_CLOCK, CALENDAR) == timedelta(9)
    assert deadline(tet, days(2), ROUND_THE_CLOCK, CALENDAR) == tet + timedelta(days=2)


def test_a_worked_saturday_follows_the_day_it_replaces_else_its_own_else_monday() -> None:
    saturday, friday = date(2026, 1, 10), (at("2026-01-10T08:00"), at("2026-01-10T11:00"))
    assert periods(saturday, SHORT_FRIDAY, CALENDAR) == (friday,)
    no_day_named = CALENDAR.with_override(WORKED.model_copy(update={"in_lieu_of": None}))
    morning = (at("2026-01-10T07:30"), at("2026-01-10T11:30"))
    assert periods(saturday, SATURDAYS, no_day_named) == (morning,)
    afternoon = (at("2026-01-10T13:00"), at("2026-01-10T17:00"))
    assert periods(saturday, OFFICIAL_HOURS, no_day_named) == (morning, afternoon)


def test_saturday_doors_stay_shut_on_a_holiday_and_on_a_day_declared_off() -> None:
    new_year = date(2028, 1, 1)
    assert new_year.weekday() == 5
    assert periods(new_year, SATURDAYS, CALENDAR) == ()
    saturday = date(2026, 3, 7)
    assert len(periods(saturday, SATURDAYS, CALENDAR)) == 1
    off = CALENDAR.with_override(DayOverride(date=saturday, kind="off", decision="QĐ 1"))
    assert periods(saturday, SATURDAYS, off) == ()
    assert len(periods(saturday, ROUND_THE_CLOCK, off)) == 1


# --- the calendar ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "working", "reason", "decision"),
    [
        (date(2026, 3, 3), True, None, None),
        (date(2026, 3, 7), False, "weekend", None),
        (date(2026, 2, 17), False, "Tết Nguyên Đán", None),
        (date(2027, 2, 10), False, "Mùng năm Tết Nguyên Đán", None),
        (date(2026, 1, 2), False, "Nghỉ hoán đổi", "TB-1"),
        (date(2026, 1, 10), True, "override", "TB-1"),
        (date(2026, 8, 22), True, "swapped weekend", None),
        (date(2019, 1, 5), True, "swapped weekend", None),  # for a day off in 2018
        (date(2026, 8, 31), False, "Ngày nghỉ (thay cho ngày 22/08/2026)", None),
    ],
)
def test_a_day_says_whether_it_is_worked_and_why(
    day: date, working: bool, reason: str | None, decision: str | None
) -> None:
    found = CALENDAR.day(day)
    assert (found.working, found.reason, found.decision) == (working, reason, decision)
    assert found.date == day
    assert CALENDAR.working_day(day) is working


def test_the_package_gives_tet_as_the_reference_has_it() -> None:
    for first, last in ((date(2026, 2, 1), 28), (date(2027, 2, 1), 28)):
        month = [first + timedelta(days=n) for n in range(last)]
        off = {day for day in month if PLAIN.day(day).reason not in (None, "weekend")}
        assert off == {day for day in DAYS_OFF if (day.year, day.month) == (first.year, 2)}


def test_no_library_knows_the_swap_of_january_2026() -> None:
    assert PLAIN.working_day(OFF.date)
    assert not PLAIN.working_day(WORKED.date)


def test_calendars_are_derived_without_changing_the_first() -> None:
    tet = date(2026, 2, 17)
    worked = PLAIN.with_override(DayOverride(date=tet, kind="work", decision="QĐ 2"))
    assert worked.working_day(tet)
    assert not PLAIN.working_day(tet)
    assert not worked.without_override(tet).working_day(tet)
    again = worked.with_override(DayOverride(date=tet, kind="off", decision="QĐ 3"))
    assert again.day(tet).decision == "QĐ 3"
    assert worked.override(tet) is not None
    assert PLAIN.without_override(tet).override(tet) is None


def test_a_calendar_takes_dates_and_not_instants() -> None:
    with pytest.raises(TypeError, match="business_day"):
        PLAIN.working_day(at("2026-02-17T10:00"))


def test_an_override_names_its_decision() -> None:
    with pytest.raises(ValidationError):
        DayOverride(date=date(2026, 1, 2), kind="off", decision="")


# --- opening hours as data ------------------------------------------------------------------


@pytest.mark.parametrize("hours", HOURS)
def test_hours_survive_json_and_python(hours: OpeningHours) -> None:
    assert OpeningHours.model_validate_json(hours.model_dump_json()) == hours
    assert OpeningHours.model_validate(hours.model_dump(mode="json")) == hours
    assert OpeningHours.model_validate(hours.model_dump()) == hours
    assert hash(OpeningHours.model_validate(hours.model_dump())) == hash(hours)


def test_hours_are_written_as_people_write_them() -> None:
    written = SATURDAYS.model_dump(mode="json")
    assert written["monday"] == [["07:30", "11:30"], ["13:00", "17:00"]]
    assert (written["saturday"], written["sunday"], written["holidays"]) == (
        [["07:30", "11:30"]],
        [],
        False,
    )
    assert ROUND_THE_CLOCK.model_dump(mode="json")["sunday"] == [["00:00", "24:00"]]


def test_hours_are_sorted_and_read_by_weekday() -> None:
    hours = OpeningHours.model_validate({"monday": [AFTERNOON, MORNING]})
    assert hours.on(0) == (Period(time(7, 30), time(11, 30)), Period(time(13), time(17)))
    assert hours.on(6) == ()


def test_hours_serve_as_a_field_of_another_model_with_a_schema() -> None:
    class Centre(BaseModel):
        hours: OpeningHours = OFFICIAL_HOURS

    assert Centre.model_validate_json(Centre(hours=SATURDAYS).model_dump_json()).hours == SATURDAYS
    for mode in ("validation", "serialization"):
        schema = OpeningHours.model_json_schema(mode=mode)
        assert schema["properties"]["monday"]["items"]["items"]["pattern"].endswith("24:00)$")
        assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"monday": [["08:00", "10:00"], ["09:00", "11:00"]]}, "overlap"),
        ({"monday": [["00:00", "24:00"], ["00:00", "01:00"]]}, "overlap"),
        ({"monday": [["08:00", "08:00"]]}, "must open before it closes"),
        ({"monday": [["17:00", "08:00"]]}, "must open before it closes"),
        ({"monday": [["22:00", "00:00"]]}, "write 24:00"),
        ({"monday": [["24:00", "24:00"]]}, "not a local time"),
        ({"monday": [["7:30", "11:30"]]}, "write HH:MM"),
        ({"monday": [["07:30", "11:60"]]}, "write HH:MM"),
        ({"monday": [[450, 690]]}, "write HH:MM"),
        ({"monday": [["07:30"]]}, "required"),
        ({"monday": [Period(time(7, 30, 5), time(9))]}, "whole minutes"),
        ({"monday": [Period(time(7, 30, tzinfo=UTC), time(9))]}, "whole minutes"),
        ({"mondey": []}, "mondey"),
    ],
)
def test_hours_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpeningHours.model_validate(bad)

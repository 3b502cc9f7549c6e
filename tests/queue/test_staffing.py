"""How many counters when: Erlang's formula, the way to its steady state, and what is advised."""

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from math import exp, factorial

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from libs.common.worktime import OFFICIAL_HOURS, ROUND_THE_CLOCK, Calendar, DayOverride
from services.queue.arrivals import (
    AFTER_HOLIDAY,
    Expected,
    PastDay,
    after_holiday,
    coming,
    expected,
    slot_of,
)
from services.queue.erlang import (
    MOST_COUNTERS,
    Stretch,
    counters_wanted,
    share_over,
    share_who_wait,
    shares_over,
    steady_counters,
)
from services.queue.staffing import Now, Part, Target, advise, plan, reasons
from tests.bench.staffing import KNOWN, MORNING, exponential, log_normal, simulated

SERVICE, PROMISE, TARGET = 480.0, 1200.0, 0.02
MONDAY = date(2026, 11, 16)
AT_EIGHT = datetime.fromisoformat("2026-11-16T08:00:00+07:00")

counters_of = st.integers(1, 99)
loads = st.floats(0.001, 500)

# The steady state -----------------------------------------------------------------------------


@pytest.mark.parametrize(("per_hour", "counters", "known"), KNOWN)
def test_the_known_answers_are_exact(per_hour: int, counters: int, known: float) -> None:
    assert round(share_over(counters, per_hour, SERVICE, PROMISE), 4) == known


@given(st.integers(1, 20), st.floats(0.01, 0.99))
def test_the_share_who_wait_is_that_of_the_textbook(counters: int, utilisation: float) -> None:
    load = counters * utilisation
    waiting = load**counters / factorial(counters) / (1 - utilisation)
    below = sum(load**n / factorial(n) for n in range(counters))
    assert share_who_wait(counters, load) == pytest.approx(waiting / (below + waiting))


@given(counters_of, loads, st.floats(1, 7200), st.floats(0, 14_400))
def test_shares_are_shares_for_any_counters_load_and_promise(
    counters: int, load: float, service: float, promise: float
) -> None:
    share = share_over(counters, load * 3600 / service, service, promise)
    assert 0 <= share <= 1
    assert share_over(counters, 0, service, promise) == 0
    assert share_over(counters, 1e12, service, promise) == 1


@given(st.integers(1, 98), loads, st.floats(0, 7200))
def test_more_counters_leave_fewer_waiting_and_more_people_more(
    counters: int, load: float, promise: float
) -> None:
    def share(counters: int, load: float) -> float:
        return share_over(counters, load * 3600 / SERVICE, SERVICE, promise)

    assert share(counters + 1, load) <= share(counters, load)
    assert share(counters, load * 1.01) >= share(counters, load)
    assert share_over(counters, load * 3600 / SERVICE, SERVICE, promise + 60) <= share(
        counters, load
    )


@given(st.floats(0, 700))
def test_the_fewest_counters_are_the_fewest(per_hour: float) -> None:
    stretch = Stretch(0, 1800, per_hour / 2)
    counters = steady_counters(stretch, SERVICE, PROMISE, TARGET)
    assert 1 <= counters <= MOST_COUNTERS
    if counters < MOST_COUNTERS:
        assert share_over(counters, per_hour, SERVICE, PROMISE) <= TARGET
    if counters > 1:
        assert share_over(counters - 1, per_hour, SERVICE, PROMISE) > TARGET


# On the way there -----------------------------------------------------------------------------


def day_of(*people: float, at_door: float = 0) -> list[Stretch]:
    """Make a morning of half hours."""
    return [
        Stretch(1800.0 * n, 1800.0 * (n + 1), each, at_door if n == 0 else 0)
        for n, each in enumerate(people)
    ]


def test_a_long_even_day_comes_to_the_steady_state() -> None:
    day = day_of(*[32.5] * 48)
    shares = shares_over(day, [10] * 48, SERVICE, PROMISE)
    assert shares[0] < 0.001, "it begins with an empty hall"
    assert all(earlier <= later + 1e-9 for earlier, later in pairwise(shares))
    assert shares[-1] == pytest.approx(share_over(10, 65, SERVICE, PROMISE), abs=1e-4)


def test_a_crowd_at_the_door_waits_one_after_the_other() -> None:
    """At one counter the n-th waits too long if fewer than n - 1 visits end within the promise."""

    def poisson(mean: float, number: int) -> float:
        return exp(-mean) * mean**number / factorial(number)

    def too_long(place: int) -> float:
        return sum(poisson(PROMISE / SERVICE, visits) for visits in range(place - 1))

    late = sum(
        poisson(3, crowd) * sum(too_long(place) for place in range(1, crowd + 1))
        for crowd in range(40)
    )
    shares = shares_over([Stretch(0, 1800, 0, at_door=3)], [1], SERVICE, PROMISE)
    assert shares == pytest.approx([late / 3], rel=1e-6)


def test_a_break_empties_the_hall() -> None:
    morning, afternoon = Stretch(0, 1800, 40), Stretch(7200, 9000, 10)
    alone = shares_over([Stretch(0, 1800, 10)], [4], SERVICE, PROMISE)
    assert shares_over([morning, afternoon], [3, 4], SERVICE, PROMISE)[1] == pytest.approx(alone[0])


@pytest.mark.parametrize("counters", ["too few", "advised"])
def test_the_chain_foretells_what_a_simulation_shows(counters: str) -> None:
    """The short form of the table in docs/queue.md: `python -m tests.bench.staffing`."""
    morning = MORNING[:5]
    if counters == "advised":
        planned = counters_wanted(morning, SERVICE, PROMISE, TARGET)
    else:
        planned = [13] * 5
    chain = shares_over(morning, planned, SERVICE, PROMISE)
    seen = simulated(morning, planned, exponential, days=100, seed=1)
    assert seen == pytest.approx(chain, abs=0.06)
    milder = simulated(morning, planned, log_normal, days=50, seed=2)
    assert sum(milder) <= sum(chain) + 0.02, "real visits vary less, so waits are shorter"


@given(st.lists(st.floats(0, 40), min_size=1, max_size=5), st.floats(0, 40))
@settings(max_examples=25, deadline=None)
def test_the_counters_advised_keep_the_target_and_one_less_than_steady_does_not(
    people: list[float], at_door: float
) -> None:
    day = day_of(*people, at_door=at_door)
    counters = counters_wanted(day, SERVICE, PROMISE, TARGET)
    for stretch, planned, share in zip(
        day, counters, shares_over(day, counters, SERVICE, PROMISE), strict=True
    ):
        assert share <= TARGET
        assert planned >= steady_counters(stretch, SERVICE, PROMISE, TARGET)


def test_after_a_peak_more_stay_open_than_the_steady_state_asks_for() -> None:
    day = day_of(50, 50, 50, 20)
    steady = [steady_counters(each, SERVICE, PROMISE, TARGET) for each in day]
    assert counters_wanted(day, SERVICE, PROMISE, TARGET)[-1] > steady[-1]


def test_what_no_number_of_counters_can_serve_gets_all_there_can_be() -> None:
    (counters,) = counters_wanted(day_of(600), SERVICE, PROMISE, TARGET)
    assert counters == MOST_COUNTERS


# Who is expected ------------------------------------------------------------------------------

CALENDAR = Calendar()


def past_day(day: date, **people: int) -> PastDay:
    """Make a day on which people came: `at_0800=12`."""
    at = {time.fromisoformat(name[3:5] + ":" + name[5:]): n for name, n in people.items()}
    return PastDay(day, {slot_of(moment): float(n) for moment, n in at.items()})


def by_half_hour(found: Expected) -> dict[str, float]:
    """Give the people expected by when the half hour begins."""
    return {
        f"{begins:%H:%M}": stretch.people
        for (begins, _), stretch in zip(found.parts, found.stretches, strict=True)
    }


def people_of(day: date, past: Sequence[PastDay], calendar: Calendar = CALENDAR) -> float:
    """Give how many are expected on a day."""
    found = expected(day, OFFICIAL_HOURS, calendar, past, {})
    return sum(each.people + each.at_door for each in found.stretches)


def test_a_centres_own_days_of_the_weekday_are_what_is_expected() -> None:
    past = [past_day(MONDAY - timedelta(weeks=n), at_0800=10 + n, at_1310=5) for n in range(1, 6)]
    past += [past_day(MONDAY - timedelta(days=n), at_0800=99) for n in (3, 4, 5)]
    found = expected(MONDAY, OFFICIAL_HOURS, CALENDAR, past, {})
    by_time = {
        f"{b:%H:%M}": s.people for (b, _), s in zip(found.parts, found.stretches, strict=True)
    }
    assert (found.basis, found.days) == ("own", 5)
    assert (by_time["08:00"], by_time["13:00"], by_time["09:00"]) == (13, 5, 0)


def test_a_day_off_among_the_past_ones_does_not_count_nor_does_the_rush_after_it() -> None:
    off = DayOverride(date=MONDAY - timedelta(days=7), kind="off", decision="1")
    calendar = Calendar([off])
    tuesday = MONDAY + timedelta(days=1)
    past = [past_day(tuesday - timedelta(weeks=n), at_0800=20) for n in range(2, 7)]
    rush = past_day(tuesday - timedelta(weeks=1), at_0800=60)
    assert after_holiday(rush.day, OFFICIAL_HOURS, calendar)
    assert not after_holiday(tuesday, OFFICIAL_HOURS, calendar)
    assert people_of(tuesday, [*past, rush], calendar) == pytest.approx(20)


def test_the_first_day_after_a_holiday_is_expected_to_be_busier() -> None:
    off = DayOverride(date=MONDAY, kind="off", decision="1")
    tuesday = MONDAY + timedelta(days=1)
    past = [past_day(tuesday - timedelta(weeks=n), at_0800=20) for n in range(1, 6)]
    usual = people_of(tuesday, past)
    assert people_of(tuesday, past, Calendar([off])) == pytest.approx(usual * AFTER_HOLIDAY / 0.95)
    assert people_of(tuesday, [], Calendar([off])) > people_of(tuesday, [])


def test_who_stands_at_the_door_is_seen_in_the_first_minutes() -> None:
    past = [
        past_day(MONDAY - timedelta(weeks=n), at_0730=20, at_0740=2, at_0750=2) for n in range(1, 6)
    ]
    first = expected(MONDAY, OFFICIAL_HOURS, CALENDAR, past, {}).stretches[0]
    assert first.at_door == pytest.approx(20 - 4 / 5)
    assert first.at_door + first.people == pytest.approx(24)


def test_too_few_days_are_spread_as_people_come_in_the_city() -> None:
    past = [past_day(MONDAY - timedelta(days=3), at_0800=95)]
    city = {slot_of(time(9)): 300.0, slot_of(time(14)): 300.0}
    found = expected(MONDAY, OFFICIAL_HOURS, CALENDAR, past, city)
    by_time = {
        f"{b:%H:%M}": s.people for (b, _), s in zip(found.parts, found.stretches, strict=True)
    }
    assert found.basis == "city"
    assert (by_time["09:00"], by_time["14:00"], by_time["08:00"]) == (60, 60, 0)


def test_odd_opening_hours_are_planned_in_half_hours_of_the_clock() -> None:
    hours = type(OFFICIAL_HOURS).model_validate(
        {"monday": [["07:45", "09:10"], ["23:00", "24:00"]]}
    )
    found = expected(MONDAY, hours, CALENDAR, [], {})
    written = [f"{b:%H:%M}-{e:%H:%M}" for b, e in found.parts]
    assert written == ["07:45-08:00", "08:00-08:30", "08:30-09:00", "09:00-09:10", "23:00-23:30",
                       "23:30-00:00"]  # fmt: skip
    assert len(expected(MONDAY, ROUND_THE_CLOCK, CALENDAR, [], {}).parts) == 48


# The sentence ---------------------------------------------------------------------------------


def test_a_reason_names_what_one_counter_less_would_mean() -> None:
    part = Part(AT_EIGHT, AT_EIGHT + timedelta(minutes=30), 32.5, 0, 11, 10, 0.00106, 0.0205, 0.001)
    vi, en = reasons(part, SERVICE, Target())
    assert vi == (
        "32,5 người, mỗi lượt 8 phút: 11 quầy thì 0,1 % chờ quá 20 phút, 10 quầy thì 2,1 %; "
        "1 quầy trong số đó vì đầu giờ đã có người chờ."
    )
    assert en == (
        "32.5 people at 8 minutes each: with 11 open, 0.1 % wait longer than 20 minutes; with 10, "
        "2.1 %; 1 of them because people wait already when the half hour begins."
    )


def test_a_plan_holds_every_half_hour_and_its_shares() -> None:
    parts = plan(expected(MONDAY, OFFICIAL_HOURS, CALENDAR, [], {}), SERVICE, Target())
    assert len(parts) == 16
    for part in parts:
        assert part.share_over <= 0.02
        assert part.share_on_the_day <= 0.02
        assert part.counters == 1 or (part.share_with_one_less or 0) > part.share_over


# Within the hour ------------------------------------------------------------------------------


def now(wait: float, counters: int, per_hour: float, at: datetime = AT_EIGHT) -> Now:
    """See a hall in which people go on coming at a rate."""
    return Now(at, wait, counters, SERVICE, ((3600.0, per_hour / 3600),))


def test_nothing_is_advised_while_counters_keep_up() -> None:
    assert advise(now(0, 9, 60), PROMISE) is None
    assert advise(now(1199, 9, 67), PROMISE) is None


def test_one_more_by_twenty_to_nine() -> None:
    """Eight counters serve 60 an hour; 75 come, so the wait grows by 2 minutes every 8."""
    advice = advise(now(600, 8, 75), PROMISE)
    assert advice is not None
    assert advice.more == 1
    assert advice.otherwise_at == AT_EIGHT + timedelta(minutes=41)
    assert advice.by == AT_EIGHT + timedelta(minutes=40), "the last five minutes' mark before that"
    assert advice.otherwise_seconds == pytest.approx(1500, abs=1)


def test_a_rush_that_one_cannot_stop_asks_for_more() -> None:
    advice = advise(now(600, 4, 60), PROMISE)
    assert advice is not None
    assert advice.more > 1


def test_a_promise_that_is_broken_is_mended_at_once() -> None:
    advice = advise(now(1500, 8, 60), PROMISE)
    assert advice is not None
    assert (advice.by, advice.otherwise_at) == (AT_EIGHT, AT_EIGHT)
    assert advice.more >= 1


@given(st.floats(0, 3000), st.integers(1, 40), st.floats(0, 400))
def test_advice_is_enough_and_one_counter_less_is_not(
    wait: float, counters: int, per_hour: float
) -> None:
    state = now(wait, counters, per_hour)
    advice = advise(state, PROMISE)
    assume(advice is not None)
    assert advice is not None
    assert 1 <= advice.more <= MOST_COUNTERS - counters
    assert state.at <= advice.by <= state.at + timedelta(hours=1)
    assert advice.by <= max(advice.otherwise_at, state.at)
    # Opened now, that many suffice: nothing more is advised once they are.
    backlog = wait * counters / (counters + advice.more)
    after = advise(now(backlog, counters + advice.more, per_hour), PROMISE)
    assert after is None or wait > PROMISE


def test_mornings_rise_and_nobody_comes_when_the_door_is_closed() -> None:
    at = AT_EIGHT.replace(hour=7, minute=55)
    rates = coming(at, 0.01, 4 * 3600.0)
    assert len(rates) == 8
    assert max(rate for _, rate in rates) > 0.01
    soon = coming(AT_EIGHT, 0.01, 1000.0)
    assert [until for until, _ in soon] == [900.0, 1000.0]
    assert advise(Now(AT_EIGHT, 1100, 2, SERVICE, coming(AT_EIGHT, 0.1, 0.0)), PROMISE) is None

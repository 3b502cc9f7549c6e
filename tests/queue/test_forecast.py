"""The forecast: what must hold whatever goes on in a hall, and that it beats simpler rules."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.queue.forecast import (
    BEYOND,
    MOST_AHEAD,
    Ahead,
    Desk,
    Overtaking,
    Pace,
    Wait,
    line_of,
    waits,
)
from services.queue.pace import Traffic, pace_of, service_on_a_day
from services.queue.service_times import ServiceTimes, Visit, robust_mean
from tests.bench import forecast as bench
from tests.bench.hall import Kind
from tests.queue.hall import MONDAY, seconds

PROMISE = 1200.0
STAYING = Pace(patience=1e9)
"""Nobody gives up: with more counters somebody ahead may stay who would have left."""

seconds_of = st.floats(0, 4000)
desks_busy = st.builds(
    lambda service, since, on_the_way: Desk(
        service=service, called_since=since, serving_since=None if on_the_way else since
    ),
    st.floats(60, 1800),
    st.floats(0, 20_000),
    st.booleans(),
)
some_desks = st.lists(st.one_of(st.just(Desk()), desks_busy), min_size=1, max_size=12)
some_people = st.lists(
    st.builds(Ahead, st.just("A"), st.floats(60, 1800), st.floats(-600, PROMISE), seconds_of),
    max_size=25,
).map(lambda people: sorted(people, key=lambda each: each.due_in))
paces = st.builds(
    Pace,
    service=st.floats(60, 1800),
    spread=st.floats(0.2, 1.0),
    no_shows=st.floats(0, 0.3),
    patience=st.floats(1000, 1e6),
    overtaking=st.sampled_from([(), (Overtaking("A", 600, 1 / 300), Overtaking("A", 900, 0.001))]),
    pause=st.sampled_from([None, (900.0, 6300.0)]),
)


def newcomer(found: list[Wait]) -> Wait:
    """Give the wait of somebody who comes now."""
    return found[-BEYOND]


# Whatever goes on -----------------------------------------------------------------------------


@given(some_desks, some_people, paces)
def test_a_wait_lies_within_its_bounds_and_grows_with_the_people_ahead(
    desks: list[Desk], people: list[Ahead], pace: Pace
) -> None:
    found = waits(desks, people, "A", pace, PROMISE)
    assert len(found) == len(people) + BEYOND
    for wait in found:
        assert 0 <= wait.low <= wait.seconds <= wait.high < inf
    for earlier, later in pairwise(found):
        assert all(before <= after for before, after in zip(earlier, later, strict=True))


@given(some_desks, some_people, paces, st.floats(60, 1800))
def test_one_more_person_ahead_never_shortens_the_wait(
    desks: list[Desk], people: list[Ahead], pace: Pace, service: float
) -> None:
    pace = replace(pace, patience=1e9)
    before = waits(desks, people, "A", pace, PROMISE)
    after = waits(desks, [*people, Ahead("A", service, PROMISE)], "A", pace, PROMISE)
    assert newcomer(after) >= newcomer(before)


@given(some_desks, some_people, paces, st.one_of(st.just(Desk()), desks_busy))
def test_one_more_counter_never_lengthens_the_wait(
    desks: list[Desk], people: list[Ahead], pace: Pace, another: Desk
) -> None:
    pace = replace(pace, patience=1e9)
    before = waits(desks, people, "A", pace, PROMISE)
    after = waits([*desks, another], people, "A", pace, PROMISE)
    for fewer, more in zip(before, after, strict=True):
        assert all(a <= b for a, b in zip(more, fewer, strict=True))


@given(some_desks, some_people, paces)
def test_who_comes_with_a_head_start_only_makes_waits_longer(
    desks: list[Desk], people: list[Ahead], pace: Pace
) -> None:
    pace = replace(pace, patience=1e9, overtaking=())
    rush = replace(pace, overtaking=(Overtaking("A", 600.0, 1 / 120),))
    alone = newcomer(waits(desks, people, "A", pace, PROMISE))
    assert newcomer(waits(desks, people, "A", rush, PROMISE)) >= alone


@given(st.integers(1, 99), st.integers(0, 400))
@settings(max_examples=20)
def test_any_number_of_counters_and_people_can_be_foretold(counters: int, people: int) -> None:
    ahead = [Ahead("A", 480.0, float(n)) for n in range(people)]
    found = waits([Desk(number=n) for n in range(counters)], ahead, "A", Pace(), PROMISE)
    assert 0 < len(found) <= MOST_AHEAD
    assert (newcomer(found).seconds == 0) == (people < counters)


def test_the_same_is_foretold_whoever_does_it_and_however_often() -> None:
    desks = [Desk(service=480.0, serving_since=60.0 * n) for n in range(3)]
    ahead = [Ahead("A", 300.0 + n, 100.0 * n) for n in range(5)]
    assert waits(desks, ahead, "A", Pace(), PROMISE) == waits(desks, ahead, "A", Pace(), PROMISE)


# What is to be expected -----------------------------------------------------------------------


def test_a_free_counter_calls_at_once_and_without_one_nothing_is_foretold() -> None:
    assert newcomer(waits([Desk()], [], "A", Pace(), PROMISE)) == (0, 0, 0)
    assert waits([], [], "A", Pace(), PROMISE) == []
    assert waits([Desk(series=frozenset("B"))], [], "A", Pace(), PROMISE) == []


def test_a_long_line_moves_by_one_visit_per_counter() -> None:
    ahead = [Ahead("A", 480.0, float(n)) for n in range(100)]
    desks = [Desk(service=480.0, serving_since=48.0 * n) for n in range(10)]
    expected = 100 * STAYING.cycle / 10
    assert newcomer(waits(desks, ahead, "A", STAYING, PROMISE)).seconds == pytest.approx(
        expected, rel=0.06
    )


def test_a_visit_that_has_lasted_long_is_nearly_over_or_a_long_one() -> None:
    def left(since: float) -> int:
        return newcomer(
            waits([Desk(service=480.0, serving_since=since)], [], "A", Pace(), 1)
        ).seconds

    assert left(0) > left(120) > left(300)
    assert left(10 * 3600) < 900, "one that nobody has ended is not taken to last for hours more"


def test_priority_is_overtaken_only_by_more_of_it() -> None:
    desks = [Desk(service=480.0, serving_since=10.0)]
    pace = replace(STAYING, overtaking=(Overtaking("A", 600.0, 1 / 60),))
    normal = [Ahead("A", 480.0, PROMISE)]
    elderly = [Ahead("A", 480.0, PROMISE - 600)]
    first = waits(desks, elderly, "A", pace, PROMISE)[0]
    assert first == waits(desks, elderly, "A", STAYING, PROMISE)[0]
    assert waits(desks, normal, "A", pace, PROMISE)[0] > first


def test_people_of_a_series_wait_only_for_those_whom_their_counters_call() -> None:
    a, b = Desk(series=frozenset("A"), number=1), Desk(series=frozenset("B"), number=2)
    line = [Ahead("A", 480.0, float(n)) for n in range(6)]
    assert newcomer(waits([a, b], line, "B", Pace(), PROMISE)).seconds == 0
    shared = Desk(number=3)
    assert len(waits([a, b], line, "B", Pace(), PROMISE)) == BEYOND, "nobody is ahead in B"
    assert len(waits([a, shared], line, "B", Pace(), PROMISE)) == BEYOND + 6, "now they are"
    assert newcomer(waits([a, shared], line, "B", Pace(), PROMISE)).seconds > 480


def test_who_waits_for_one_counter_alone_waits_for_that_one() -> None:
    desks = [Desk(number=1), Desk(number=2, service=480.0, serving_since=0.0)]
    bound = Ahead(line_of("A", 2), 480.0, 0.0)
    assert newcomer(waits(desks, [bound], "A", Pace(), PROMISE)).seconds == 0
    assert waits(desks, [bound], line_of("A", 2), Pace(), PROMISE)[0].seconds > 300
    assert waits(desks, [bound], line_of("A", 3), Pace(), PROMISE) == []


def test_a_break_that_comes_before_the_call_is_waited_through() -> None:
    desks = [Desk(service=480.0, serving_since=0.0)]
    line = [Ahead("A", 480.0, float(n)) for n in range(5)]
    on = waits(desks, line, "A", STAYING, PROMISE)
    off = waits(desks, line, "A", replace(STAYING, pause=(1500.0, 6900.0)), PROMISE)
    assert off[0] == on[0]
    assert off[5].seconds == pytest.approx(on[5].seconds + 5400, abs=1)
    assert all(not 1500 <= wait.seconds < 6900 for wait in off)


def test_a_counter_whose_officer_is_away_counts_for_less_the_longer_it_is() -> None:
    line = [Ahead("A", 480.0, float(n)) for n in range(8)]

    def wait(*more: Desk) -> int:
        return newcomer(waits([Desk(), *more], line, "A", STAYING, PROMISE)).seconds

    assert wait() >= wait(Desk(away=7200.0)) >= wait(Desk(away=600.0)) > wait(Desk())


# What is learnt -------------------------------------------------------------------------------


def visit(took: float, *, unit: str = "U", at: float = 0, codes: tuple[str, ...] = ("1",)) -> Visit:
    """Make a visit that began `at` seconds after Monday 8:00, 40 seconds after the call."""
    began = MONDAY + seconds(at)
    return Visit(
        unit, 1, codes, began - seconds(100), began - seconds(40), began, began + seconds(took)
    )


def test_few_visits_say_little_and_many_say_all() -> None:
    times = ServiceTimes()
    assert times.service(("1",), 1.0) == 480
    found = []
    for number in range(400):
        times.note(visit(960, at=number * 1000))
        factor = times.factor("U", MONDAY + seconds(number * 1000 + 960))
        found.append(times.service(("1",), factor))
    assert 480 < found[0] < 640
    assert found[-1] == pytest.approx(960, rel=0.03)


@given(st.lists(st.floats(1, 1e6), max_size=60), st.floats(60, 3600), st.integers(1, 30))
def test_no_value_moves_a_mean_by_more_than_four_medians(
    values: list[float], prior: float, weight: int
) -> None:
    mean = robust_mean(values, prior, weight)
    assert 0.999 * min([prior, *values]) <= mean <= 1.001 * max([prior, *values])
    if len(values) < weight:
        assert mean <= 4.001 * prior, "most of what is known is the prior"


def test_procedures_differ_and_a_visit_for_several_takes_each() -> None:
    times = ServiceTimes()
    for number in range(200):
        times.note(visit(300, at=number * 1000, codes=("1",)))
        times.note(visit(900, at=number * 1000 + 500, codes=("2",)))
    short, long = (times.service((code,), 1.0) for code in ("1", "2"))
    assert long > 2 * short
    assert times.service(("1", "2"), 1.0) == pytest.approx(short + long)


def test_visits_that_nobody_ended_make_bounds_no_wider_than_odd_ones_do() -> None:
    times = ServiceTimes()
    for number in range(200):
        times.note(visit(36_000 if number % 20 == 0 else 480, at=number * 40_000))
    assert 0.2 < times.spread < 0.55


def test_a_button_pressed_by_mistake_is_no_visit() -> None:
    times = ServiceTimes()
    for number in range(50):
        times.note(visit(1, at=number * 100))
    assert times.service(("1",), times.factor("U", MONDAY)) == 480


def test_an_officer_who_was_away_between_visits_was_not_slow() -> None:
    times = ServiceTimes()
    for number in range(20):
        times.note(visit(300, at=number * 360))  # 20 seconds between end and call
    assert times.turnaround("U") == pytest.approx(20, abs=3)
    # Nobody waited when the last visit ended: who came an hour later was called at once.
    times.note(visit(300, at=20 * 360 + 3600))
    assert times.turnaround("U") < 25


def test_pace_is_put_together_from_what_was_counted() -> None:
    times = ServiceTimes()
    assert pace_of(times, "U", Traffic(), 1.0) == Pace()
    assert service_on_a_day(times, "U") == pytest.approx(Pace().cycle, abs=2.5)
    busy = Traffic(
        seconds=1800.0,
        came={("A", 0.0): 50, ("A", 600.0): 9, ("B", 900.0): 3},
        called=100,
        no_shows=30,
        no_show_seconds=30 * 90.0,
    )
    pace = pace_of(times, "U", busy, 1.5)
    assert pace.service == 720
    assert pace.overtaking == (Overtaking("A", 600.0, 0.005), Overtaking("B", 900.0, 3 / 1800))
    assert 0.2 < pace.no_shows < 0.3
    assert pace.no_show == pytest.approx(90, abs=5)


def test_a_slow_day_is_noticed_and_is_not_tomorrows() -> None:
    times = ServiceTimes()
    for number in range(100):
        times.note(visit(480, at=(number - 200) * 600))
    usual = times.factor("U", MONDAY)
    for number in range(12):
        times.note(visit(960, at=number * 500))
    slow = times.factor("U", MONDAY + seconds(12 * 500))
    assert slow > usual + 0.25
    assert times.factor("U", MONDAY + timedelta(days=1)) < slow - 0.15


# Against what then happened -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bench.BUSY, bench.SURGE, bench.LUNCH, bench.SERIES])
def test_the_forecast_beats_both_simple_rules(kind: Kind) -> None:
    """The short form of the table in docs/queue.md: `python -m tests.bench.forecast`."""
    row = bench.Row(kind.name, bench.play(kind, seed=1))
    assert len(row.told) > 300
    assert row.mae("forecast") < row.mae("mean times ahead")
    assert row.mae("forecast") < row.mae("last wait")
    assert abs(row.bias("forecast")) < 0.25 * row.mean_wait
    assert 0.65 < row.within < 0.95

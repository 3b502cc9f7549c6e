"""The order of calling: what a head start may do, and what it may never do."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.settings import Settings
from services.queue.policy import HEAD_START, PRIORITY_CLASSES, Promise
from tests.queue.hall import call, seconds, set_counter, step, take
from tests.queue.order import LONGEST, Person, a_day, by_arrival, by_class, by_turn, called, served
from tests.queue.test_steps import shown
from tests.support import FrozenClock

SLA = 1200.0
MANY = settings(deadline=None, max_examples=300)

_people = st.lists(
    st.builds(Person, st.integers(0, 3600).map(float), st.sampled_from(PRIORITY_CLASSES)),
    min_size=1,
    max_size=14,
)
_calls = st.lists(st.integers(0, 7200).map(float), max_size=16)


def can_all_be_called_in_turn(people: list[Person], calls: list[float]) -> bool:
    """Tell whether some order gives everybody a call between arrival and turn: a matching."""
    taken: dict[int, int] = {}

    def find(person: int, seen: set[int]) -> bool:
        for place, at in enumerate(calls):
            if place in seen or not people[person].arrival <= at <= people[person].due:
                continue
            seen.add(place)
            if place not in taken or find(taken[place], seen):
                taken[place] = person
                return True
        return False

    return all(find(person, set()) for person in range(len(people)))


@MANY
@given(_people, _calls)
def test_where_capacity_suffices_nobody_waits_past_the_promise_for_anothers_priority(
    people: list[Person], calls: list[float]
) -> None:
    """Capacity suffices: some order calls everybody in turn. Then the queue's order does so too."""
    found = called(people, calls, by_turn)
    if can_all_be_called_in_turn(people, calls):
        assert len(found) == len(people)
        assert all(found[place] <= person.due for place, person in enumerate(people))
        assert all(found[place] - p.arrival <= SLA for place, p in enumerate(people))
    else:
        late = [p for place, p in enumerate(people) if found.get(place, 1e9) > p.due]
        assert late, "no order calls all of them in turn, so this one does not"


@st.composite
def _enough(draw: st.DrawFn) -> tuple[list[Person], list[float]]:
    """Draw people, and at least one call for each between arrival and turn, in some order."""
    people = draw(_people)
    calls = [draw(st.integers(int(p.arrival), int(p.due))) for p in people]
    more = draw(st.lists(st.integers(0, 7200), max_size=5))
    return people, [float(at) for at in draw(st.permutations(calls + more))]


@MANY
@given(_enough())
def test_enough_calls_are_enough_for_everybody(case: tuple[list[Person], list[float]]) -> None:
    people, calls = case
    found = called(people, calls, by_turn)
    for place, person in enumerate(people):
        assert person.arrival <= found[place] <= person.due <= person.arrival + SLA


@MANY
@given(_people, _calls)
def test_nobody_is_passed_by_who_came_later_than_the_head_start_allows(
    people: list[Person], calls: list[float]
) -> None:
    """Whatever the load: a newcomer passes within the difference of head starts, never after."""
    found = called(people, calls, by_turn)
    for place, waiting in enumerate(people):
        until = found.get(place, 1e9)
        for other, newcomer in enumerate(people):
            passed = found.get(other, 1e9) < until and newcomer.arrival > waiting.arrival
            if passed and found[other] >= waiting.arrival:
                gained = newcomer.head_start - waiting.head_start
                assert newcomer.arrival - waiting.arrival <= gained
                assert newcomer.arrival - waiting.arrival <= LONGEST < SLA


@MANY
@given(
    st.integers(1, 6).map(float),
    st.sampled_from([name for name in PRIORITY_CLASSES if HEAD_START[name]]),
    st.integers(20, 120),
)
def test_no_class_starves_though_another_alone_is_more_than_can_be_served(
    calls_a_minute: float, flood: str, extra: int
) -> None:
    """People with a head start come faster than anybody can be called, for ever."""
    pause = 60 / calls_a_minute
    calls = [pause * n for n in range(1, 700)]
    more = pause * extra / (extra + 60)
    people = [Person(0.5), *(Person(1 + more * n, flood) for n in range(1000))]
    found = called(people, calls, by_turn)
    before = sum(1 for person in people[1:] if person.due < people[0].due)
    assert before <= HEAD_START[flood].total_seconds() / more + 1
    assert found[0] == calls[before], "called as soon as those with an earlier turn are"
    assert 0 not in called(people, calls, by_class), "absolute priority would never call"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_day_with_counters_enough_nobody_waits_past_the_promise(seed: int) -> None:
    """Nor would anybody first come, first served: the head starts cost nobody the promise."""
    people, services = a_day(seed, 2000)
    fair, turns = (served(people, services, 12, order) for order in (by_arrival, by_turn))
    assert 300 < max(fair) <= SLA
    assert max(turns) <= SLA
    gained = [a - b for a, b, p in zip(fair, turns, people, strict=True) if p.head_start]
    assert sum(gained) > 0, "a head start is worth something"


# Settings -------------------------------------------------------------------------------------


def test_head_starts_are_read_from_the_environment_and_the_others_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOTCUA_HEAD_START_SECONDS", '{"elderly": 300, "merit": 0}')
    promise = Promise.of(Settings.from_environment())
    assert promise.head_starts["elderly"] == timedelta(minutes=5)
    assert promise.head_starts["merit"] == timedelta(0)
    assert promise.head_starts["appointment"] == HEAD_START["appointment"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"head_start_seconds": {"elderly": 1201}}, "between 0 and the promise of 1200"),
        ({"head_start_seconds": {"elderly": -1}}, "between 0 and the promise"),
        ({"head_start_seconds": {"elderly": 700}, "sla_seconds": 600}, "promise of 600"),
        ({"recall_interval_seconds": -1}, "greater than or equal to 0"),
        ({"no_show_grace_seconds": 20_000}, "less than or equal to"),
        ({"last_ticket_margin_seconds": -5}, "greater than or equal to 0"),
    ],
)
def test_settings_that_would_break_the_promise_are_refused(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**values)


def test_a_class_that_does_not_exist_has_no_head_start() -> None:
    with pytest.raises(ValueError, match=r"names vip: the priority classes are normal, elderly"):
        Promise.of(Settings(head_start_seconds={"vip": 60}))


# Position -------------------------------------------------------------------------------------


@pytest.fixture
def _monday_morning(clock: FrozenClock) -> None:
    """Begin a test at the same time."""


@pytest.mark.usefixtures("_monday_morning")
async def test_a_position_counts_who_is_really_ahead(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """With counters that call some series only, others are not ahead."""
    a = await take(queue, unit)
    clock.at += seconds(1)
    b = await take(queue, unit, series="B")
    assert [a["position"], b["position"]] == [1, 2], "nothing is open: everybody counts"
    await set_counter(queue, unit, 1, series=["A"])
    await set_counter(queue, unit, 2, series=["B", "C"])

    async def positions(*tickets: dict[str, Any]) -> list[int | None]:
        return [(await shown(queue, ticket))["position"] for ticket in tickets]

    assert await positions(a, b) == [1, 1]
    clock.at += seconds(1)
    c = await take(queue, unit, series="C")
    clock.at += seconds(1)
    d = await take(queue, unit, series="D")
    assert [c["position"], d["position"]] == [2, 4], "no counter calls D: everybody is ahead"
    await set_counter(queue, unit, 3, "paused")
    assert await positions(a, b, c, d) == [1, 2, 3, 4], "a counter that calls all may call any"
    await set_counter(queue, unit, 3, "closed")
    await step(queue, c, "transfer", json={"counter": 1})
    assert await positions(a, b, c) == [1, 1, 2], "who waits for one counter counts there"
    assert (await call(queue, unit, 1)).json()["id"] == a["id"]
    assert await positions(a, c) == [None, 1]

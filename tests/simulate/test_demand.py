"""Who comes, when and what for: the published loads, drawn from a seed."""

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.worktime import OFFICIAL_HOURS, ZONE
from services.intake.applicants import check_born, id_number, phone
from services.reporting.periods import week_containing
from services.simulate.demand import (
    Rate,
    arrivals,
    daily_tickets,
    draws,
    in_order,
    moment,
    rates,
)
from services.simulate.people import Offer, applicant, offer, person
from services.simulate.scene import everybody
from services.simulate.staffing import counters_wanted, plan
from services.simulate.week import week_of

CITY = [f"H29.{number}" for number in range(26000, 26168)]
MONDAY, TUESDAY = date(2026, 11, 16), date(2026, 11, 17)
OFFICE_DAY = OFFICIAL_HOURS.on(0)


def procedure(code: str, field: str, **more: Any) -> dict[str, Any]:
    """Make a procedure as the catalogue shows it."""
    return {
        "code": code,
        "field": field,
        "competent_level": "commune",
        "territorial": False,
        "same_day": True,
        "components": [{"code": f"{code}-1", "required": True, "reusable_from": None}],
    } | more


CATALOGUE = [
    procedure("2.000815", "Chứng thực"),
    procedure("1.000001", "Thành lập và hoạt động doanh nghiệp (hộ kinh doanh)", same_day=False),
    procedure("1.001193", "Hộ tịch", territorial=True),
    procedure("1.000002", "Đất đai", same_day=False, territorial=True),
    procedure("1.000003", "Đất đai", competent_level="province"),
]


def centre() -> Offer:
    """Make a centre that offers every commune-level procedure."""
    return offer(CITY[0], CATALOGUE, None, CITY)


def test_a_third_of_a_day_comes_between_eight_and_ten_and_all_while_doors_are_open() -> None:
    day = rates(10_000, OFFICE_DAY, TUESDAY)
    come = list(arrivals(draws(1, "test"), day))
    assert len(come) == pytest.approx(9_500, rel=0.05)
    early = sum(time(8) <= at.time() < time(10) for at in come)
    assert early / len(come) == pytest.approx(1 / 3, abs=0.02)
    assert come == sorted(come)
    spans = [period.on(TUESDAY) for period in OFFICE_DAY]
    assert all(any(opens <= at < closes for opens, closes in spans) for at in come)


def test_mondays_are_heavier_and_the_working_week_keeps_its_mean() -> None:
    def expected(day: date) -> float:
        found = rates(100, OFFICE_DAY, day)
        return sum((r.ends - r.begins).total_seconds() * r.per_second for r in found)

    assert expected(MONDAY) == pytest.approx(120)
    assert expected(TUESDAY) == pytest.approx(95)
    week = [MONDAY + timedelta(days=number) for number in range(5)]
    assert sum(map(expected, week)) == pytest.approx(500)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_city_has_the_published_loads_and_any_few_units_have_all_kinds(seed: int) -> None:
    daily = daily_tickets(CITY, seed)
    heavy = [unit for unit, tickets in daily.items() if tickets >= 300]
    busy = [unit for unit, tickets in daily.items() if 150 < tickets < 300]
    assert (len(heavy), len(busy)) == (3, 17)
    assert max(daily.values()) <= 500
    usual = [tickets for tickets in daily.values() if tickets <= 150]
    assert sum(usual) / len(usual) == pytest.approx(80, rel=0.05)
    few = in_order(CITY, seed)[:5]
    assert set(few) & set(heavy)
    assert set(few) & set(busy)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1_000))
def test_one_seed_gives_one_day(seed: int) -> None:
    day = rates(80, OFFICE_DAY, MONDAY)
    assert everybody(seed, centre(), day) == everybody(seed, centre(), day)
    assert in_order(reversed(CITY), seed) == in_order(CITY, seed)


def test_another_seed_gives_another_day() -> None:
    day = rates(80, OFFICE_DAY, MONDAY)
    assert everybody(1, centre(), day) != everybody(2, centre(), day)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.tuples(st.integers(1, 7200), st.floats(0, 0.05)), max_size=6),
)
def test_arrivals_stay_within_their_stretches_and_none_come_at_rate_nought(
    seed: int, lengths: list[tuple[int, float]]
) -> None:
    at = datetime(2026, 11, 16, tzinfo=UTC)
    stretches = []
    for seconds, rate in lengths:
        stretches.append(Rate(at, at + timedelta(seconds=seconds), rate))
        at += timedelta(seconds=seconds)
    come = list(arrivals(draws(seed, "test"), stretches))
    assert come == sorted(come)
    for when in come:
        (stretch,) = [r for r in stretches if r.begins <= when < r.ends]
        assert stretch.per_second > 0


def test_people_come_for_what_people_come_for() -> None:
    chance = draws(1, "test")
    at = moment(MONDAY, time(8))
    people = [person(chance, at, centre()) for _ in range(6_000)]
    fields = Counter(p["field"] for person in people for p in CATALOGUE
                     if p["code"] == person.procedure)  # fmt: skip
    shares = {name: count / len(people) for name, count in fields.items()}
    assert shares["Chứng thực"] == pytest.approx(0.60, abs=0.03)
    assert shares["Thành lập và hoạt động doanh nghiệp (hộ kinh doanh)"] == pytest.approx(
        0.19, abs=0.03
    )
    assert shares["Hộ tịch"] == pytest.approx(0.13, abs=0.03)
    assert "1.000003" not in {p.procedure for p in people}
    mean = sum(p.service for p in people) / len(people)
    assert mean == pytest.approx(480, rel=0.05)
    papers = [paper for p in people for paper in p.papers]
    assert {paper.steps for paper in papers if paper.body["channel"] == "direct"} == {
        (), ("assign",), ("assign", "complete"), ("assign", "complete", "return"),
    }  # fmt: skip
    territorial = [paper.body for paper in papers if paper.body["procedure_code"] == "1.001193"]
    elsewhere = sum(body["subject_unit"] != CITY[0] for body in territorial)
    assert 0 < elsewhere < len(territorial) / 4
    assert all("subject_unit" not in p.body for p in papers
               if p.body["procedure_code"] == "2.000815")  # fmt: skip


@settings(deadline=None)
@given(seed=st.integers(0, 100_000), organisation=st.booleans())
def test_applicants_are_made_up_and_well_formed(seed: int, organisation: bool) -> None:
    made = applicant(draws(seed, "test"), organisation=organisation)
    assert "Thử Nghiệm" in made["name"]
    assert phone(made["phone"]) == made["phone"]
    if not organisation:
        check_born(id_number(made["id_number"]), date(2020, 1, 1))


def test_a_centre_that_offers_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"H29\.1"):
        offer("H29.1", CATALOGUE, [], CITY)


# Counters -------------------------------------------------------------------------------------


def test_ten_counters_where_nine_would_break_the_promise() -> None:
    assert counters_wanted(65 / 3600, 480) == 10
    assert counters_wanted(0) == 0
    assert counters_wanted(1 / 3600) == 1


@settings(deadline=None)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_more_people_never_mean_fewer_counters(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert counters_wanted(low) <= counters_wanted(high)


def test_counters_close_for_lunch_and_are_most_in_the_morning() -> None:
    openings = list(plan(rates(210, OFFICE_DAY, MONDAY)))
    closed = [opening.at for opening in openings if opening.counters == 0]
    assert closed == [moment(MONDAY, time(11, 30)), moment(MONDAY, time(17))]
    most = max(openings, key=lambda opening: opening.counters)
    assert time(8) <= most.at.time() < time(10)
    assert openings == sorted(openings, key=lambda opening: opening.at)


# Weeks ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(ZONE))  # noqa: DTZ001
)
def test_weeks_are_those_of_reporting(at: datetime) -> None:
    ours, theirs = week_of(at), week_containing(at)
    assert (ours.name, ours.begins, ours.ends) == (theirs.name, theirs.begins, theirs.ends)

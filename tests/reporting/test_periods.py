"""Reporting weeks: names, bounds, deadlines."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.reporting.periods import week_containing, week_named
from tests.reporting.support import at

PROFILE = settings(max_examples=300, deadline=None)
INSTANTS = st.datetimes(
    datetime(2001, 1, 1), datetime(2999, 12, 1), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "begins", "ends"),
    [
        ("2026-W47", "2026-11-13", "2026-11-20"),
        ("2026-W01", "2025-12-26", "2026-01-02"),
        ("2026-W53", "2026-12-25", "2027-01-01"),
        ("2027-W01", "2027-01-01", "2027-01-08"),
        ("2020-W53", "2020-12-25", "2021-01-01"),
        ("2025-W52", "2025-12-19", "2025-12-26"),
    ],
)
def test_a_week_runs_from_friday_to_the_friday_on_which_its_report_is_due(
    name: str, begins: str, ends: str
) -> None:
    week = week_named(name)
    assert week.begins == at(f"{begins} 00:00")
    assert week.ends == at(f"{ends} 00:00")
    assert week.due_at == at(f"{ends} 16:00")


@pytest.mark.parametrize(
    "name",
    ["2026-47", "2026-W7", "2026-w47", "2026-W00", "2026-W54", "2025-W53", "1999-W10",
     "2026-W47 ", "2026-W47\n", "２０２６-W47", "", "W47"],
)  # fmt: skip
def test_what_is_no_week_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"week"):
        week_named(name)


def test_the_last_instant_before_friday_belongs_to_the_week_that_ends() -> None:
    friday = at("2026-11-20 00:00")
    assert week_containing(friday - timedelta(microseconds=1)).name == "2026-W47"
    assert week_containing(friday).name == "2026-W48"


@PROFILE
@given(INSTANTS)
def test_every_instant_lies_in_the_week_it_is_given(moment: datetime) -> None:
    week = week_containing(moment)
    assert week.begins <= moment < week.ends < week.due_at


@PROFILE
@given(INSTANTS)
def test_weeks_tile_time_also_where_a_year_has_53(moment: datetime) -> None:
    week = week_containing(moment)
    assert week_containing(week.begins) == week == week_named(week.name)
    following = week_containing(week.ends)
    assert following.begins == week.ends
    assert following.name > week.name
    assert following.ends - following.begins == timedelta(days=7)

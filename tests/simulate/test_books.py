"""The ledger, its counting against a slow reference, and the comparison that finds any figure."""

import copy
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.worktime import ZONE
from services.simulate import count
from services.simulate.compare import compare, differences
from services.simulate.count import nearest_rank
from services.simulate.ledger import Dossier, Ledger, Ticket, seconds
from tests.simulate.books import SLA, UNITS, WEEK, instants, ledgers, report_of

UNHURRIED = settings(deadline=None, max_examples=60)
LATER = WEEK.ends + timedelta(days=5)


@UNHURRIED
@given(
    st.lists(st.floats(0, 10_000), min_size=1, max_size=300), st.sampled_from([1, 50, 95, 99, 100])
)
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: int) -> None:
    ascending = sorted(values)
    found = nearest_rank(ascending, percent)
    assert found == ascending[ceil(Fraction(percent, 100) * len(values)) - 1]
    assert sum(value <= found for value in values) >= Fraction(percent, 100) * len(values)
    assert sum(value < found for value in values) < Fraction(percent, 100) * len(values)


def test_nobody_has_no_percentile() -> None:
    assert nearest_rank([], 50) is None


@UNHURRIED
@given(st.integers(0, 10**12))
def test_seconds_are_those_the_database_writes(microseconds: int) -> None:
    written = f"{microseconds // 10**6}.{microseconds % 10**6:06d}"
    assert seconds(timedelta(microseconds=microseconds)) == float(written)


# Counting -------------------------------------------------------------------------------------


def late(dossier: Dossier, at: datetime) -> int:
    """Tell -1, 0, 1 for early, on time, late, if it ended at an instant."""
    if dossier.supplement_requests > 1:
        return 1
    if dossier.appointment_at is None:
        return 0
    day, due = at.astimezone(ZONE).date(), dossier.appointment_at.astimezone(ZONE).date()
    return (day > due) - (day < due)


ALL = ("online", "direct", "carried_over", "early", "on_time", "late", "in_time", "overdue",
       "returned", "received_for_others", "received_elsewhere", "boundary_independent",
       "components", "digitised", "reused")  # fmt: skip


def slow_dossiers(ledger: Ledger, at: datetime, **row: str) -> dict[str, int]:
    """Count one row by walking through every dossier with every definition in turn."""
    found = [
        name
        for dossier in ledger.dossiers.values()
        if dossier.received_at is not None and dossier.status not in (1, 3)
        if row.get("field", dossier.field) == dossier.field
        for name in columns_of(dossier, dossier.received_at, at, row.get("unit"))
    ]
    return {name: found.count(name) for name in ALL}


def columns_of(d: Dossier, received: datetime, at: datetime, unit: str | None) -> Iterator[str]:
    """Name the columns a dossier counts in, each as often as it counts there."""
    came, away = WEEK.begins <= received < WEEK.ends, d.receiving_unit != d.competent_unit
    if came and away and unit in (None, d.receiving_unit):
        yield "received_for_others"
    if unit in (None, d.competent_unit):
        if came:
            yield from columns_of_reception(d)
        yield from columns_of_state(d, received, at)


def columns_of_reception(d: Dossier) -> Iterator[str]:
    """Name the columns of a dossier that came in the week."""
    yield "online" if d.channel == "online" else "direct"
    yield from ["received_elsewhere"] * (d.receiving_unit != d.competent_unit)
    yield from ["boundary_independent"] * d.boundary_independent
    for name in ("components", "digitised", "reused"):
        yield from [name] * getattr(d, name)


def columns_of_state(d: Dossier, received: datetime, at: datetime) -> Iterator[str]:
    """Name the columns that tell what became of a dossier."""
    if received < WEEK.begins and (d.ended_at is None or d.ended_at >= WEEK.begins):
        yield "carried_over"
    if d.ended_at is not None and WEEK.begins <= d.ended_at < WEEK.ends:
        yield ("on_time", "late", "early")[late(d, d.ended_at)]
    if received < WEEK.ends and (d.ended_at is None or d.ended_at >= WEEK.ends):
        yield "overdue" if late(d, min(at, WEEK.ends)) > 0 else "in_time"
    if d.returned_at is not None and WEEK.begins <= d.returned_at < WEEK.ends:
        yield "returned"


def flat_counts(row: dict[str, Any]) -> dict[str, int]:
    """Take the counts of a row out of their groups."""
    groups = ("received", "resolved", "pending", "digitisation")
    inner = {name: value for group in groups for name, value in row[group].items()}
    outer = {name: value for name, value in row.items() if isinstance(value, int)}
    found = inner | outer
    for name in ("total", "identity_holds"):
        del found[name]
    return found


@UNHURRIED
@given(ledgers(), instants)
def test_dossiers_are_counted_as_the_form_says(ledger: Ledger, at: datetime) -> None:
    told = count.report(ledger, WEEK, as_of=at, sla_seconds=SLA)
    nothing = count.empty(WEEK, at)
    assert flat_counts(told["city"]) == slow_dossiers(ledger, at)
    for unit in UNITS:
        row = told["units"].get(unit, nothing)
        assert flat_counts(row) == slow_dossiers(ledger, at, unit=unit)
    for field, row in told["fields"].items():
        assert flat_counts(row) == slow_dossiers(ledger, at, field=field)
    for row in (told["city"], *told["units"].values(), *told["fields"].values()):
        for group, parts in (
            ("received", ("online", "direct", "carried_over")),
            ("resolved", ("early", "on_time", "late")),
            ("pending", ("in_time", "overdue")),
        ):
            assert row[group]["total"] == sum(row[group][part] for part in parts)


def slow_queue(tickets: list[Ticket], at: datetime) -> Iterator[tuple[str, Any]]:
    """Count the queue's figures one by one."""
    cohort = [t for t in tickets if WEEK.begins <= t.issued_at < WEEK.ends]
    waits = [t.first_called_at - t.issued_at for t in cohort if t.first_called_at is not None]
    left = [t for t in cohort if t.first_called_at is None]
    beyond = [t for t in left if (t.ended_at or at) - t.issued_at > timedelta(seconds=SLA)]
    within = [wait for wait in waits if wait <= timedelta(seconds=SLA)]
    linked = [t for t in cohort if t.transferred_from is not None]
    yield "tickets", len(cohort) - len(linked)
    yield "transferred_in", len(linked)
    yield "called", len(waits)
    for status in ("finished", "no_show", "cancelled"):
        yield status, len([t for t in cohort if t.status == status])
    yield "within_sla", len(within)
    yield "uncalled_beyond_sla", len(beyond)
    decided = len(waits) + len(beyond)
    yield "share_within_sla", len(within) / decided if decided else None
    yield "wait_max_seconds", max(waits).total_seconds() if waits else None


@UNHURRIED
@given(ledgers(), instants)
def test_tickets_are_counted_as_the_definitions_say(ledger: Ledger, at: datetime) -> None:
    told = count.report(ledger, WEEK, as_of=at, sla_seconds=SLA)
    everybody = list(ledger.tickets.values())
    for name, value in slow_queue(everybody, at):
        assert told["city"]["queue"][name] == value, name
    for unit in UNITS:
        row = told["units"].get(unit, count.empty(WEEK, at))["queue"]
        for name, value in slow_queue([t for t in everybody if t.unit == unit], at):
            assert row[name] == value, name


# Comparing ------------------------------------------------------------------------------------


@UNHURRIED
@given(ledgers(), instants)
def test_books_and_the_report_made_of_them_agree(ledger: Ledger, at: datetime) -> None:
    lines = compare(ledger, WEEK, report_of(ledger, at))
    assert not differences(lines)
    assert len(lines) > 30


def figures_of(report: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """List every figure of a report by the place it stands in."""
    found: list[tuple[dict[str, Any], str]] = []

    def walk(row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, dict):
                walk(value)
            elif name not in ("unit", "name", "field"):
                found.append((row, name))

    for row in (report["city"], *report["units"], *report["fields"]):
        walk(row)
    return found


@UNHURRIED
@given(ledger=ledgers(), data=st.data())
def test_any_single_figure_that_was_changed_is_found(ledger: Ledger, data: st.DataObject) -> None:
    told = copy.deepcopy(report_of(ledger, LATER))
    row, name = data.draw(st.sampled_from(figures_of(told)))
    before = row[name]
    row[name] = data.draw(
        st.sampled_from([None, 0, 1, 0.5, (before or 0) + 1, (before or 0) + 1e-6]).filter(
            lambda value: value != before
        )
    )
    (found,) = differences(compare(ledger, WEEK, told))
    assert found.name.rpartition(".")[2] == name
    assert (found.ours, found.theirs) == (before, row[name])


@UNHURRIED
@given(ledgers())
def test_a_row_that_is_missing_is_a_row_of_zeros(ledger: Ledger) -> None:
    told = report_of(ledger, LATER)
    told["units"].append({"unit": "H29.9", "name": "?"} | count.empty(WEEK, LATER))
    assert not differences(compare(ledger, WEEK, told))
    told["units"] = [row for row in told["units"] if row["unit"] != UNITS[0]]
    blank = compare(Ledger(), WEEK, report_of(Ledger(), LATER))
    assert not differences(blank)
    own = count.report(ledger, WEEK, as_of=LATER, sla_seconds=SLA)["units"].get(UNITS[0])
    found = differences(compare(ledger, WEEK, told))
    assert bool(found) == (own is not None and own != count.empty(WEEK, LATER))


def test_a_figure_the_report_lacks_is_a_difference() -> None:
    told = copy.deepcopy(report_of(Ledger(), LATER))
    del told["city"]["returned"]
    (found,) = differences(compare(Ledger(), WEEK, told))
    assert found.theirs == "absent"


# Entering -------------------------------------------------------------------------------------


def answer(version: int, status: str, **more: Any) -> dict[str, Any]:
    """Answer a ticket as the queue does."""
    return {
        "id": "t", "unit": "H29.1", "number": "A001", "version": version, "status": status,
        "issued_at": "2026-11-16T08:00:00.5+07:00", "business_day": "2026-11-16",
        "called_at": None, "wait_seconds": None, "ended_at": None, "for_counter": None,
        "transferred_from": None,
    } | more  # fmt: skip


CALL = {"called_at": "2026-11-16T08:01:00.500001+07:00", "wait_seconds": 60.000001}
LATER_CALL = CALL | {"called_at": "2026-11-16T08:30:00+07:00"}
END = {"ended_at": "2026-11-16T08:39:00+07:00"}

Step = tuple[str, str, dict[str, Any]]
ISSUED: Step = ("issue", "waiting", {})
CALLED: Step = ("call-next", "called", CALL)
LIVES: list[list[Step]] = [
    [ISSUED, CALLED, ("start", "serving", CALL), ("finish", "finished", CALL | END)],
    [
        ISSUED, CALLED, ("recall", "called", LATER_CALL), ("no-show", "no_show", LATER_CALL | END),
        ("recall", "called", LATER_CALL), ("start", "serving", LATER_CALL),
        ("park", "parked", LATER_CALL), ("return", "waiting", LATER_CALL),
        ("call-next", "called", LATER_CALL), ("no-show", "no_show", LATER_CALL | END),
        ("return", "waiting", LATER_CALL), ("cancel", "cancelled", LATER_CALL | END),
    ],
    [
        ISSUED, ("print-failed", "cancelled", END), ("reissue", "waiting", {}), CALLED,
        ("transfer", "waiting", CALL), ("call-next", "called", LATER_CALL),
        ("transfer", "transferred", LATER_CALL | END),
    ],
]  # fmt: skip


def written(steps: list[Step], order: list[int]) -> Ledger:
    """Enter the answers to a life's steps in the order in which they came."""
    ledger = Ledger()
    for place in order:
        step, status, more = steps[place]
        ledger.note_ticket(answer(place + 1, status, **more), step)
    return ledger


@UNHURRIED
@given(st.sampled_from(LIVES), st.data())
def test_a_ticket_is_kept_as_its_newest_answer_showed_it_whatever_came_first(
    steps: list[Step], data: st.DataObject
) -> None:
    ledger = written(steps, data.draw(st.permutations(range(len(steps)))))
    ledger.check()
    assert not ledger.violations
    (ticket,) = ledger.tickets.values()
    assert (ticket.status, ticket.version) == (steps[-1][1], len(steps))
    assert ticket.wait == timedelta(seconds=60, microseconds=1), "the first call ends the wait"
    assert (ticket.ended_at is not None) == ("ended_at" in steps[-1][2])


@UNHURRIED
@given(st.sampled_from(LIVES), st.data())
def test_a_step_that_was_left_out_or_came_twice_is_a_broken_promise(
    steps: list[Step], data: st.DataObject
) -> None:
    gone = data.draw(st.integers(0, len(steps) - 2))
    ledger = written(steps, [place for place in range(len(steps)) if place != gone])
    ledger.check()
    assert any(" took A001 from " in words for words in ledger.violations)
    twice = data.draw(st.integers(1, len(steps) - 1))
    ledger = written(steps, [*range(len(steps)), twice])
    assert [words for words in ledger.violations if f"version {twice + 1}, as it" in words]


def test_a_ticket_called_twice_is_a_broken_promise() -> None:
    ledger = written([ISSUED, CALLED, ("call-next", "called", LATER_CALL)], [0, 1, 2])
    ledger.check()
    assert ledger.violations == [
        "H29.1 took A001 from called (version 2) to called (version 3) by call-next"
    ]


def test_a_counter_that_closes_lets_who_waits_for_it_go_without_an_answer() -> None:
    bound: Step = ("transfer", "waiting", {"for_counter": 3})
    for gap in (0, 1, 2):
        ledger = written([ISSUED, bound], [0, 1])
        ledger.note_ticket(answer(3 + gap, "called", **CALL), "call-next")
        ledger.check()
        assert bool(ledger.violations) == (gap == 2)


def test_a_wait_that_its_own_instants_contradict_is_a_broken_promise() -> None:
    ledger = written([ISSUED, ("call-next", "called", CALL | {"wait_seconds": 60.000002})], [0, 1])
    ledger.check()
    assert "60.000002" in ledger.violations[0]


def test_a_ticket_nobody_asked_for_is_a_broken_promise() -> None:
    ledger = Ledger()
    ledger.note_ticket(answer(2, "called", **CALL), "call-next")
    ledger.check()
    assert "issued to nobody" in ledger.violations[0]


def test_a_gap_in_the_numbers_is_a_broken_promise() -> None:
    ledger = Ledger()
    for number in ("A001", "A003"):
        ledger.note_ticket(answer(1, "waiting", id=number, number=number), "issue")
    ledger.check()
    assert "gaps" in ledger.violations[0]

"""The directory: what a code stands for, now and on a day, whatever the order of arrival."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.bus.base import Received
from libs.common.events import Event
from libs.common.worktime import OFFICIAL_HOURS, ROUND_THE_CLOCK, Limit
from libs.contracts.directory import (
    Directory,
    UnitNotActive,
    UnitSplit,
    UnknownProcedure,
    UnknownUnit,
    short_code,
)
from libs.contracts.registry import (
    CalendarDayChanged,
    CentreChanged,
    Level,
    ProcedureChanged,
    ProcedureVersion,
    Successor,
    UnitChanged,
    UnitStatus,
)

NEW, OLD = date(2025, 7, 1), date(2025, 6, 30)
AT = datetime(2026, 11, 20, 3, tzinfo=UTC)


def unit(
    code: str, status: str = "active", version: int = 1, *, heirs: Sequence[str] = (), **more: Any
) -> UnitChanged:
    """Make a unit's state; closed ones ended with the old order."""
    life = {"valid_to": OLD} if status == "closed" else {"valid_from": NEW}
    relation = "whole" if len(heirs) == 1 else "part"
    successors = tuple(Successor(code=heir, relation=relation) for heir in heirs)
    values = {
        "code": code, "version": version, "name": f"Unit {code}", "type": "ward",
        "status": UnitStatus(status), "successors": successors,
    }  # fmt: skip
    return UnitChanged.model_validate(values | life | more)


def directory(*events: Event, round_the_clock: bool = False) -> Directory:
    """Fill a directory as the bus would."""
    filled = Directory(round_the_clock=round_the_clock)
    for offset, event in enumerate(events):
        body = event.model_dump_json().encode()
        filled.take(Received(event.topic, event.key, body, {}, 0, offset))
    return filled


CITY = directory(
    unit("H29.1", gso_code="26734", aliases=("000.00.01.H29", "000.00.09.H29")),
    unit("H29.2", gso_code="26740"),
    unit("H29.3", gso_code="26743"),
    unit("H29.7", "planned", gso_code="26750", valid_from=None),
    # Wholly merged, split, split under a number that is a current one too, and a chain.
    unit("H29.C01.26731", "closed", gso_code="26731", heirs=["H29.1"]),
    unit("H29.C01.26737", "closed", gso_code="26737", heirs=["H29.1", "H29.2"]),
    unit("H29.C01.26740", "closed", gso_code="26740", heirs=["H29.2", "H29.3"]),
    unit("H29.C01", "closed", aliases=("000.00.77.H29",), heirs=["H29.C01.26731", "H29.3"]),
    unit("H29.C02", "closed", heirs=[]),
    unit("H29.C03", "closed", heirs=["H29.7"]),
    unit("H29.C04", "closed", heirs=["H29.C05"]),
    unit("H29.C05", "closed", heirs=["H29.C04", "H29.C05"]),
    unit("H29.C06", "closed", heirs=["H29.99"]),
)


@pytest.mark.parametrize(
    ("query", "at", "expected"),
    [
        # Current units, by each of their names.
        ("H29.1", None, ["H29.1"]),
        ("gso:26734", None, ["H29.1"]),
        ("000.00.01.H29", None, ["H29.1"]),
        ("000.00.09.H29", None, ["H29.1"]),
        # Closed ones lead to their successors.
        ("H29.C01.26731", None, ["H29.1"]),
        ("gso:26731", None, ["H29.1"]),
        ("H29.C01.26737", None, ["H29.1", "H29.2"]),
        ("gso:26737", None, ["H29.1", "H29.2"]),
        ("H29.C01", None, ["H29.1", "H29.3"]),
        ("000.00.77.H29", None, ["H29.1", "H29.3"]),
        # Fifteen split old GSO codes are also current ones: the current one wins.
        ("gso:26740", None, ["H29.2"]),
        ("H29.C01.26740", None, ["H29.2", "H29.3"]),
        # Planned, unknown, without an heir, with an heir that is planned, lost, or in a ring.
        ("H29.7", None, []),
        ("H29.404", None, []),
        ("gso:99999", None, []),
        ("", None, []),
        ("H29.C02", None, []),
        ("H29.C03", None, []),
        ("H29.C04", None, []),
        ("H29.C05", None, []),
        ("H29.C06", None, []),
        # On a day it is who went by the code then, never an heir.
        ("H29.1", NEW, ["H29.1"]),
        ("H29.1", OLD, []),
        ("gso:26740", NEW, ["H29.2"]),
        ("gso:26740", OLD, ["H29.C01.26740"]),
        ("gso:26731", OLD, ["H29.C01.26731"]),
        ("gso:26731", NEW, []),
        ("000.00.77.H29", date(1999, 1, 1), ["H29.C01"]),
        ("H29.7", NEW, []),
    ],
)
def test_what_a_code_stands_for(query: str, at: date | None, expected: list[str]) -> None:
    assert [found.code for found in CITY.resolve(query, at)] == expected


@pytest.mark.parametrize(
    ("query", "code"),
    [("H29.1", "H29.1"), ("gso:26740", "H29.2"), ("gso:26731", "H29.1"),
     ("000.00.01.H29", "H29.1")],
)  # fmt: skip
def test_a_write_goes_to_the_one_unit_that_a_code_stands_for(query: str, code: str) -> None:
    assert CITY.current(query).code == code


@pytest.mark.parametrize("query", ["H29.C01.26740", "gso:26737", "H29.C01"])
def test_a_write_to_a_split_unit_is_asked_which_successor_is_meant(query: str) -> None:
    with pytest.raises(UnitSplit) as refused:
        CITY.current(query)
    listed = [candidate["unit"] for candidate in refused.value.members["candidates"]]
    assert listed == [found.code for found in CITY.resolve(query)]
    assert refused.value.status == 409


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [("H29.404", UnknownUnit, "no unit"), ("gso:99999", UnknownUnit, "no unit"),
     ("H29.7", UnitNotActive, "planned"), ("H29.C02", UnitNotActive, "no successor"),
     ("H29.C04", UnitNotActive, "no successor")],
)  # fmt: skip
def test_a_write_to_no_unit_in_service_is_refused(
    query: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        CITY.current(query)


def test_a_unit_takes_over_from_one_that_closes() -> None:
    known = directory(unit("H29.1"), unit("H29.2", aliases=("X1",)))
    assert known.current("X1").code == "H29.2"
    known.put_unit(unit("H29.2", "closed", 2, aliases=("X1",), heirs=["H29.1"]))
    assert known.current("X1").code == known.current("H29.2").code == "H29.1"


# Any order ------------------------------------------------------------------------------------


@cache
def life() -> Sequence[Event]:
    """Tell a life of several versions of units, centres, a procedure and the calendar."""
    version = ProcedureVersion(
        valid_from=NEW, name="Khai sinh", field="Hộ tịch", competent_level=Level.commune,
        territorial=True, boundary_independent=True, same_day=True,
        limit=Limit(value=1, unit="working_day"),
    )  # fmt: skip
    later = version.model_copy(update={"valid_from": date(2026, 1, 1), "fee_vnd": 8000})
    day = date(2026, 1, 2)
    return (
        unit("H29.1", "planned", 1, gso_code="26734"),
        unit("H29.1", "active", 2, gso_code="26735", aliases=("X1", "X2")),
        unit("H29.1", "active", 3, gso_code="26734", aliases=("X2",)),
        unit("H29.2", "active", 1, gso_code="26735"),
        # An alias moves from one unit to another; their events come on different partitions.
        unit("H29.2", "active", 2, gso_code="26735", aliases=("X1",)),
        unit("H29.3", "active", 1, gso_code="26736"),
        unit("H29.3", "closed", 2, gso_code="26736", heirs=["H29.1", "H29.2"]),
        CentreChanged(unit="H29.1", version=1, hours=OFFICIAL_HOURS, counters_planned=5),
        CentreChanged(unit="H29.1", version=2, hours=ROUND_THE_CLOCK, counters_planned=6),
        ProcedureChanged(code="1.001193", version=1, versions=(version,)),
        ProcedureChanged(code="1.001193", version=2, versions=(version, later)),
        CalendarDayChanged(day=day, version=1, kind="off", decision="TB-1"),
        CalendarDayChanged(day=day, version=2, kind=None),
        CalendarDayChanged(day=day, version=3, kind="off", decision="TB-2"),
        CalendarDayChanged(
            day=date(2026, 1, 10), version=1, kind="work", decision="TB-1", in_lieu_of=day
        ),
    )


NAMES = ["H29.1", "H29.2", "H29.3", "X1", "X2", "gso:26734", "gso:26735", "gso:26736"]


def seen_in(known: Directory) -> Any:
    """Say all that a directory answers."""
    return (
        known.units, known.centres, known.procedures,
        [(name, known.resolve(name), known.named(name), known.named(name, NEW)) for name in NAMES],
        [known.calendar.day(date(2026, 1, day)) for day in range(1, 12)],
        known.office_hours("H29.1"), known.procedure("1.001193", AT),
    )  # fmt: skip


@given(st.permutations(life()), st.lists(st.sampled_from(life()), max_size=10))
@settings(max_examples=150, deadline=None)
def test_any_order_of_arrival_with_repetitions_gives_the_same_directory(
    order: list[Event], again: list[Event]
) -> None:
    assert seen_in(directory(*order, *again)) == seen_in(directory(*life()))


def test_the_newest_of_each_is_what_counts() -> None:
    known = directory(*life())
    assert [found.code for found in known.resolve("X1")] == ["H29.2"]
    assert [found.code for found in known.resolve("X2")] == ["H29.1"]
    assert [found.code for found in known.resolve("gso:26735")] == ["H29.2"]
    assert [found.code for found in known.resolve("gso:26736")] == ["H29.1", "H29.2"]
    assert known.centre("H29.1").counters_planned == 6
    assert not known.calendar.day(date(2026, 1, 2)).working
    assert known.calendar.day(date(2026, 1, 10)).working


def test_tombstones_and_topics_of_others_change_nothing() -> None:
    known = directory(*life())
    before = seen_in(known)
    known.take(Received(UnitChanged.topic, "H29.1", None, {}))
    known.take(Received("queue.tickets.v1", "H29.1", b"{}", {}))
    assert seen_in(known) == before


def test_a_record_that_cannot_be_read_is_refused_and_nothing_is_noted() -> None:
    known = directory(*life())
    before = seen_in(known)
    for body in (b"", b"{", b"{}", b"[]", b'{"code": "H29.1", "version": 9}'):
        with pytest.raises(ValueError):
            known.take(Received(UnitChanged.topic, "H29.1", body, {}))
    assert seen_in(known) == before


def test_a_day_that_cannot_be_kept_does_not_spoil_those_that_come_after() -> None:
    known = directory(*life())
    nameless = CalendarDayChanged(day=date(2026, 1, 5), version=1, kind="off")
    with pytest.raises(ValueError):
        known.take(Received(nameless.topic, nameless.key, nameless.model_dump_json().encode(), {}))
    later = CalendarDayChanged(day=date(2026, 1, 6), version=1, kind="off", decision="TB-3")
    known.take(Received(later.topic, later.key, later.model_dump_json().encode(), {}))
    assert not known.calendar.day(date(2026, 1, 6)).working
    assert known.calendar.day(date(2026, 1, 5)).working


# Centres and procedures -----------------------------------------------------------------------


def test_demo_hours_are_for_taking_people_and_never_for_working_time() -> None:
    centre = CentreChanged(unit="H29.1", version=1, hours=OFFICIAL_HOURS, counters_planned=5)
    demo = directory(unit("H29.1"), centre, round_the_clock=True)
    assert demo.hours("H29.1") == ROUND_THE_CLOCK
    assert demo.office_hours("H29.1") == OFFICIAL_HOURS
    assert directory(unit("H29.1"), centre).hours("H29.1") == OFFICIAL_HOURS
    assert directory(unit("H29.1")).office_hours("H29.1") == OFFICIAL_HOURS


def test_a_unit_without_a_centre_receives_nobody() -> None:
    known = directory(unit("H29.1"))
    with pytest.raises(UnitNotActive, match="no one-stop centre"):
        known.centre("H29.1")
    assert not known.offers("H29.1", "1.001193", AT)


def procedure(level: Level = Level.commune, first: date = NEW) -> ProcedureChanged:
    """Make a procedure of one version."""
    version = ProcedureVersion(
        valid_from=first, name="Khai sinh", field="Hộ tịch", competent_level=level,
        territorial=False, boundary_independent=True, same_day=True,
        limit=Limit(value=1, unit="working_day"),
    )  # fmt: skip
    return ProcedureChanged(code="1.001193", version=1, versions=(version,))


@pytest.mark.parametrize(
    ("level", "offered", "expected"),
    [
        (Level.commune, None, True),
        (Level.province, None, False),
        (Level.commune, ("1.001193",), True),
        (Level.province, ("1.001193",), True),
        (Level.commune, ("2.000815",), False),
        (Level.commune, (), False),
    ],
)
def test_which_procedures_a_centre_offers(
    level: Level, offered: tuple[str, ...] | None, expected: bool
) -> None:
    centre = CentreChanged(
        unit="H29.1", version=1, hours=OFFICIAL_HOURS, counters_planned=5, procedures=offered
    )
    known = directory(unit("H29.1"), centre, procedure(level))
    assert known.offers("H29.1", "1.001193", AT) is expected
    assert known.offers("H29.1", "1.001193.000.00.00.H29", AT) is expected


def test_a_procedure_is_the_version_in_force_on_the_local_day() -> None:
    known = directory(procedure(first=date(2026, 1, 1)))
    assert known.procedure("1.001193", datetime(2025, 12, 31, 17, tzinfo=UTC)).name == "Khai sinh"
    with pytest.raises(UnknownProcedure):
        known.procedure("1.001193", datetime(2025, 12, 31, 16, 59, tzinfo=UTC))
    with pytest.raises(UnknownProcedure):
        known.procedure("2.000815", AT)


def test_the_older_suffix_of_a_procedure_code_is_dropped() -> None:
    assert short_code("1.001193.000.00.00.H29") == short_code("1.001193") == "1.001193"
    assert directory(procedure()).procedure("1.001193.000.00.00.H29", AT).name == "Khai sinh"

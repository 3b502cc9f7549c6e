"""The routing rule, line by line: as pure functions, and asked through the door."""

import itertools
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.worktime import Limit
from libs.contracts.competence import competent_unit
from libs.contracts.registry import Level, ProcedureChanged, ProcedureVersion, Successor, UnitStatus
from services.gateway import routing
from services.gateway.api import RouteIn
from services.gateway.directory import City
from services.gateway.routing import Position, alternatives, distance_km, nearest
from tests.gateway.city import (
    ASKED,
    MINISTERIAL,
    NOT_TERRITORIAL,
    PROVINCIAL,
    TERRITORIAL,
    answer,
    ask,
    change,
    feed,
    record,
)
from tests.support import FrozenClock, fields_of

PROMISE = 1200
HERE = {"latitude": 10.7805, "longitude": 106.704}
NEXT_DOOR = "H29.26743"
FAR_AWAY = "H29.26732"
"""Côn Đảo, an island."""

SPLIT = "H29.C01.27625"
HEIRS = ["H29.27424", "H29.27637"]
WHOLE = "H29.C01.27595"
SPLIT_WHOSE_NUMBER_IS_CURRENT = "H29.C02.27673"


def at(time: str) -> datetime:
    """Name an instant of Ho Chi Minh City."""
    return datetime.fromisoformat(f"{time}+07:00")


@dataclass(frozen=True)
class Spot:
    """A centre as plain values."""

    unit: str
    position: Position | None = (10.0, 106.0)
    forecast_seconds: int | None = 0
    load_age_seconds: int | None = 0
    offers: bool = True
    open: bool = True


# Reception ------------------------------------------------------------------------------------


async def test_every_centre_receives_a_commune_level_dossier(
    gateway: httpx.AsyncClient, city: City
) -> None:
    for unit in city.registry.centres:
        routed = await answer(gateway, at_unit=unit)
        assert routed["receiving"] == {
            "unit": unit,
            "name": city.registry.units[unit].name,
            "open": True,
            "opens_at": None,
            "forecast_wait_seconds": None,
            "stale": True,
            "load_age_seconds": None,
            "distance_km": None,
            "travel_seconds": None,
        }
        assert routed["boundary_independent"] is True


@pytest.mark.parametrize("name", ["residence", "home_unit", "id_number", "resident_of"])
async def test_residence_is_no_input(gateway: httpx.AsyncClient, name: str) -> None:
    refused = await ask(gateway, at_unit=ASKED, **{name: FAR_AWAY})
    assert refused.status_code == 422
    assert fields_of(refused) == {name}


async def test_a_centre_that_does_not_offer_the_procedure_does_not_receive_it(
    gateway: httpx.AsyncClient, city: City
) -> None:
    change(city, city.registry.centres[ASKED], procedures=(TERRITORIAL,))
    refused = await ask(gateway, at_unit=ASKED)
    assert refused.status_code == 409
    assert refused.json()["detail"] == f"{ASKED} does not receive dossiers of {NOT_TERRITORIAL}"
    old_style = f"{TERRITORIAL}.000.00.00.H29"
    routed = await answer(gateway, at_unit=ASKED, procedure_code=old_style, subject_unit=ASKED)
    assert routed["receiving"]["unit"] == ASKED


@pytest.mark.parametrize("where", [{"at_unit": ASKED}, {"position": HERE}])
async def test_what_no_centre_receives_is_refused(
    gateway: httpx.AsyncClient, where: dict[str, Any]
) -> None:
    refused = await ask(gateway, procedure_code=PROVINCIAL, **where)
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:motcua:problem:nobody-receives"


async def test_a_unit_without_a_centre_receives_nothing(gateway: httpx.AsyncClient) -> None:
    refused = await ask(gateway, at_unit="H29.S01")
    assert refused.status_code == 409
    assert refused.json()["detail"] == "H29.S01 keeps no one-stop centre"


# Competence -----------------------------------------------------------------------------------


def procedure(level: Level, *, territorial: bool, department: str | None) -> ProcedureVersion:
    """Make a procedure of which only competence matters."""
    return ProcedureVersion(
        valid_from=date(2025, 7, 1),
        name="Thủ tục",
        field="Hộ tịch",
        competent_level=level,
        department=department,
        territorial=territorial,
        boundary_independent=True,
        same_day=False,
        limit=Limit(value=3, unit="working_day"),
    )


COMPETENT = {
    "commune level, not territorial: who received": (Level.commune, False, None, ASKED),
    "commune level, territorial: where the subject lies": (Level.commune, True, None, NEXT_DOOR),
    "province level: the department": (Level.province, False, "H29.S01", "H29.S01"),
    "province level, territorial: the department": (Level.province, True, "H29.S01", "H29.S01"),
    "province level, department unnamed: the city": (Level.province, False, None, "H29"),
    "ministry: the national system": (Level.ministry, False, None, "national"),
    "ministry, territorial: the national system": (Level.ministry, True, None, "national"),
}


@pytest.mark.parametrize("line", COMPETENT)
async def test_competence_follows_the_procedure(
    gateway: httpx.AsyncClient, city: City, line: str
) -> None:
    level, territorial, department, expected = COMPETENT[line]
    version = procedure(level, territorial=territorial, department=department)
    found = competent_unit(version, receiving=ASKED, subject=NEXT_DOOR, directory=city.registry)
    assert found == expected

    city.registry.take(record(ProcedureChanged(code=MINISTERIAL, version=1, versions=(version,))))
    change(city, city.registry.centres[ASKED], procedures=(MINISTERIAL,))
    routed = await answer(
        gateway, at_unit=ASKED, procedure_code=MINISTERIAL, subject_unit=NEXT_DOOR
    )
    assert routed["competent_unit"] == expected


async def test_the_version_in_force_on_the_day_decides(
    gateway: httpx.AsyncClient, city: City, clock: FrozenClock
) -> None:
    known = city.registry.procedures[NOT_TERRITORIAL]
    later = known.versions[-1].model_copy(
        update={"valid_from": date(2026, 11, 17), "territorial": True}
    )
    change(city, known, versions=(*known.versions, later))
    asked = {"at_unit": ASKED, "subject_unit": NEXT_DOOR}
    clock.at = at("2026-11-16T16:59:59")
    assert (await answer(gateway, **asked))["competent_unit"] == ASKED
    clock.at = at("2026-11-17T07:30:00")
    assert (await answer(gateway, **asked))["competent_unit"] == NEXT_DOOR


async def test_a_territorial_procedure_without_its_subject_names_the_field(
    gateway: httpx.AsyncClient,
) -> None:
    refused = await ask(gateway, procedure_code=TERRITORIAL, at_unit=ASKED)
    assert refused.status_code == 422
    assert fields_of(refused) == {"subject_unit"}


async def test_an_unknown_procedure_or_unit_is_not_found(gateway: httpx.AsyncClient) -> None:
    for question in (
        {"procedure_code": "1.000000", "at_unit": ASKED},
        {"at_unit": "H29.99999"},
        {"at_unit": "gso:99999"},
        {"procedure_code": TERRITORIAL, "at_unit": ASKED, "subject_unit": "H29.99999"},
    ):
        assert (await ask(gateway, **question)).status_code == 404


# Old codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ASKED, ASKED),
        ("gso:26740", ASKED),
        (WHOLE, "H29.27595"),
        ("gso:27595", "H29.27595"),
        ("gso:27673", "H29.27673"),
    ],
    ids=["current", "current GSO", "taken over whole", "its GSO", "split, but a current one too"],
)
async def test_a_code_of_any_time_leads_to_the_unit_of_today(
    gateway: httpx.AsyncClient, query: str, expected: str
) -> None:
    assert (await answer(gateway, at_unit=query))["receiving"]["unit"] == expected
    routed = await answer(gateway, at_unit=ASKED, procedure_code=TERRITORIAL, subject_unit=query)
    assert routed["competent_unit"] == expected


@pytest.mark.parametrize("query", [SPLIT, "gso:27625"])
async def test_a_split_code_asks_which_successor(
    gateway: httpx.AsyncClient, city: City, query: str
) -> None:
    routed = await answer(gateway, at_unit=query)
    assert routed["receiving"] is None
    assert routed["competent_unit"] is None
    assert routed["alternatives"] == []
    assert routed["candidates"] == [
        {"unit": heir, "name": city.registry.units[heir].name} for heir in HEIRS
    ]
    assert query in routed["reason"]


async def test_a_split_code_whose_number_lives_on_still_asks_when_written_in_full(
    gateway: httpx.AsyncClient,
) -> None:
    routed = await answer(gateway, at_unit=SPLIT_WHOSE_NUMBER_IS_CURRENT)
    assert routed["receiving"] is None
    assert len(routed["candidates"]) > 1


async def test_all_fifteen_split_numbers_that_are_current_again_mean_the_current_unit(
    gateway: httpx.AsyncClient, city: City
) -> None:
    registry = city.registry
    twice = [
        unit
        for unit in registry.units.values()
        if unit.type == "former"
        and len(registry.heirs(unit)) > 1
        and any(other.active for other in registry.named(f"gso:{unit.gso_code}"))
    ]
    assert len(twice) == 15
    for unit in twice:
        routed = await answer(gateway, at_unit=f"gso:{unit.gso_code}")
        assert routed["receiving"]["unit"] == f"H29.{unit.gso_code}"


async def test_a_split_subject_is_refused_with_its_successors(gateway: httpx.AsyncClient) -> None:
    refused = await ask(gateway, procedure_code=TERRITORIAL, at_unit=ASKED, subject_unit=SPLIT)
    assert refused.status_code == 409
    assert [heir["unit"] for heir in refused.json()["candidates"]] == HEIRS


async def test_a_unit_closed_today_hands_over_to_its_successor(
    gateway: httpx.AsyncClient, city: City
) -> None:
    heir = Successor(code=NEXT_DOOR, relation="whole")
    change(city, city.registry.units[ASKED], status=UnitStatus.closed, successors=(heir,))
    assert (await answer(gateway, at_unit=ASKED))["receiving"]["unit"] == NEXT_DOOR
    assert (await answer(gateway, position=HERE))["receiving"]["unit"] != ASKED


@pytest.mark.parametrize("status", [UnitStatus.closed, UnitStatus.planned])
async def test_a_unit_out_of_service_without_successor_is_refused(
    gateway: httpx.AsyncClient, city: City, status: UnitStatus
) -> None:
    change(city, city.registry.units[ASKED], status=status)
    refused = await ask(gateway, at_unit=ASKED)
    assert refused.status_code == 409
    assert status.value in refused.json()["detail"]


# Closed centres -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-11-16T22:00:00", "2026-11-17T07:30:00+07:00"),
        ("2026-11-16T07:29:59", "2026-11-16T07:30:00+07:00"),
        ("2026-11-16T12:00:00", "2026-11-16T13:00:00+07:00"),
        ("2026-11-14T09:00:00", "2026-11-16T07:30:00+07:00"),
    ],
    ids=["night", "a second before", "noon", "Saturday"],
)
async def test_a_closed_centre_says_when_it_opens(
    gateway: httpx.AsyncClient, city: City, clock: FrozenClock, now: str, opens: str
) -> None:
    clock.at = at(now)
    for unit in city.registry.centres:
        feed(city, unit, 60)
    routed = await answer(gateway, at_unit=ASKED)
    assert routed["receiving"]["open"] is False
    assert f"it opens at {opens}" in routed["reason"]
    assert routed["alternatives"] == []
    assert routed["competent_unit"] == ASKED


async def test_a_closed_centre_offers_those_that_are_open(
    gateway: httpx.AsyncClient, city: City, clock: FrozenClock
) -> None:
    clock.at = at("2026-11-14T09:00:00")
    weekday = city.registry.centres[NEXT_DOOR].hours
    change(
        city,
        city.registry.centres[NEXT_DOOR],
        hours=weekday.model_copy(update={"saturday": weekday.monday}),
    )
    for unit in city.registry.centres:
        feed(city, unit, 60)
    routed = await answer(gateway, at_unit=ASKED)
    assert [other["unit"] for other in routed["alternatives"]] == [NEXT_DOOR]
    assert "1 other centre(s)" in routed["reason"]


# Overload -------------------------------------------------------------------------------------


def everywhere(city: City, wait: int | None, *, but: dict[str, int | None]) -> None:
    """Tell one wait for all centres, and others for some."""
    for unit in city.registry.centres:
        feed(city, unit, but.get(unit, wait))


async def test_an_overloaded_centre_offers_at_most_five_under_the_promise_nearest_first(
    gateway: httpx.AsyncClient, city: City
) -> None:
    everywhere(city, 300, but={ASKED: PROMISE + 1})
    routed = await answer(gateway, at_unit=ASKED)
    assert routed["receiving"]["unit"] == ASKED
    assert routed["receiving"]["forecast_wait_seconds"] == PROMISE + 1
    assert "over the promised 20" in routed["reason"]
    offered = routed["alternatives"]
    assert len(offered) == 5
    assert ASKED not in {other["unit"] for other in offered}
    assert FAR_AWAY not in {other["unit"] for other in offered}
    times = [other["forecast_wait_seconds"] + other["travel_seconds"] for other in offered]
    assert times == sorted(times)
    distances = [other["distance_km"] for other in offered]
    assert distances == sorted(distances)


@pytest.mark.parametrize("wait", [0, PROMISE])
async def test_a_centre_that_keeps_the_promise_offers_no_other(
    gateway: httpx.AsyncClient, city: City, wait: int
) -> None:
    everywhere(city, 0, but={ASKED: wait})
    assert (await answer(gateway, at_unit=ASKED))["alternatives"] == []


async def test_wait_and_way_are_weighed_together(gateway: httpx.AsyncClient, city: City) -> None:
    near = nearest_to_asked(city)
    everywhere(city, None, but={ASKED: 5000, near: PROMISE, FAR_AWAY: 0, "H29.26758": 0})
    offered = [other["unit"] for other in (await answer(gateway, at_unit=ASKED))["alternatives"]]
    assert offered == ["H29.26758", near, FAR_AWAY]


def nearest_to_asked(city: City) -> str:
    """Name the centre next to the one asked for."""
    place = city.registry.centres[ASKED]
    assert place.latitude is not None
    assert place.longitude is not None
    start = (place.latitude, place.longitude)
    return min(
        (unit for unit in city.registry.centres if unit != ASKED),
        key=lambda unit: distance_km(
            start,
            (
                city.registry.centres[unit].latitude or 0,
                city.registry.centres[unit].longitude or 0,
            ),
        ),
    )


async def test_no_centre_is_offered_that_would_not_help(
    gateway: httpx.AsyncClient, city: City
) -> None:
    closed, overloaded, unknown, stale, gone, elsewhere = sorted(set(city.registry.centres))[:6]
    everywhere(city, None, but={ASKED: PROMISE + 1, closed: 0, gone: 0, elsewhere: 0})
    change(
        city,
        city.registry.centres[closed],
        hours=city.registry.centres[closed].hours.model_copy(update={"monday": ()}),
    )
    feed(city, overloaded, PROMISE + 1)
    assert city.load(unknown) is not None
    city._loads.pop(stale)
    feed(city, stale, 0, age=31)
    change(city, city.registry.units[gone], status=UnitStatus.closed)
    change(city, city.registry.centres[elsewhere], procedures=(TERRITORIAL,))
    routed = await answer(gateway, at_unit=ASKED)
    assert routed["alternatives"] == []
    assert "no other centre" in routed["reason"]


async def test_a_stale_load_is_told_with_its_age_and_not_relied_on(
    gateway: httpx.AsyncClient, city: City
) -> None:
    feed(city, ASKED, 5000, age=95)
    routed = await answer(gateway, at_unit=ASKED)
    assert routed["receiving"]["forecast_wait_seconds"] is None
    assert "last known 95 s ago" in routed["reason"]
    assert routed["alternatives"] == []


async def test_an_older_load_does_not_replace_a_newer_one(city: City) -> None:
    feed(city, ASKED, 300)
    feed(city, ASKED, 5000, age=5)
    known = city.load(ASKED)
    assert known is not None
    assert known.forecast_wait_seconds == 300


async def test_a_wait_nobody_knows_is_said_to_be_unknown(
    gateway: httpx.AsyncClient, city: City
) -> None:
    feed(city, ASKED, None)
    routed = await answer(gateway, at_unit=ASKED)
    assert routed["receiving"]["forecast_wait_seconds"] is None
    assert "the wait is unknown" in routed["reason"]


# Position -------------------------------------------------------------------------------------


async def test_a_position_alone_leads_to_the_nearest_centre(
    gateway: httpx.AsyncClient, city: City
) -> None:
    assert (await answer(gateway, position=HERE))["receiving"]["unit"] == ASKED
    island = city.registry.centres[FAR_AWAY]
    on_it = {"latitude": island.latitude, "longitude": island.longitude}
    assert (await answer(gateway, position=on_it))["receiving"]["unit"] == FAR_AWAY


async def test_an_open_centre_comes_before_a_nearer_closed_one(
    gateway: httpx.AsyncClient, city: City
) -> None:
    hours = city.registry.centres[ASKED].hours.model_copy(update={"monday": ()})
    change(city, city.registry.centres[ASKED], hours=hours)
    routed = await answer(gateway, position=HERE)
    assert routed["receiving"]["open"] is True
    assert routed["receiving"]["unit"] == nearest_to_asked(city)


async def test_at_night_the_nearest_closed_centre_is_named_with_its_opening(
    gateway: httpx.AsyncClient, clock: FrozenClock
) -> None:
    clock.at = at("2026-11-16T23:00:00")
    routed = await answer(gateway, position=HERE)
    assert routed["receiving"]["unit"] == ASKED
    assert "it opens at 2026-11-17T07:30:00+07:00" in routed["reason"]


async def test_alternatives_are_near_to_where_the_person_is(
    gateway: httpx.AsyncClient, city: City
) -> None:
    everywhere(city, 0, but={ASKED: 5000})
    island = city.registry.centres[FAR_AWAY]
    on_it = {"latitude": island.latitude, "longitude": island.longitude}
    offered = (await answer(gateway, at_unit=ASKED, position=on_it))["alternatives"]
    assert offered[0]["unit"] == FAR_AWAY
    assert offered[0]["distance_km"] == 0


@pytest.mark.parametrize("latitude", [91, -90.5, "10.7", True, None, "NaN", [10.7], 1e308])
async def test_a_position_that_is_none_is_refused(
    gateway: httpx.AsyncClient, latitude: object
) -> None:
    refused = await ask(gateway, position={"latitude": latitude, "longitude": 106.7})
    assert refused.status_code == 422
    assert fields_of(refused) == {"position.latitude"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "-1e400"])
async def test_a_number_that_is_none_is_refused(gateway: httpx.AsyncClient, number: str) -> None:
    body = f'{{"procedure_code":"2.000815","position":{{"latitude":{number},"longitude":106}}}}'
    refused = await gateway.post(
        "/v1/route", content=body, headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 422


async def test_the_other_side_of_the_world_has_a_nearest_centre_too(
    gateway: httpx.AsyncClient, city: City
) -> None:
    for centre in city.registry.centres.values():
        assert centre.latitude is not None
        assert centre.longitude is not None
        antipode = {"latitude": -centre.latitude, "longitude": centre.longitude - 180}
        assert (await ask(gateway, position=antipode)).status_code == 200


async def test_three_wrong_fields_are_told_at_once(gateway: httpx.AsyncClient) -> None:
    refused = await ask(gateway, procedure_code="x", at_unit="?", subject_unit="?")
    assert refused.status_code == 422
    assert fields_of(refused) == {"procedure_code", "at_unit", "subject_unit"}


async def test_a_question_without_a_place_is_refused(gateway: httpx.AsyncClient) -> None:
    refused = await ask(gateway)
    assert refused.status_code == 422
    assert "say where: at_unit or position" in refused.text


async def test_a_question_of_megabytes_is_refused(gateway: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        for _ in itertools.repeat(None, 100):
            yield b" " * 65_536

    answered = await gateway.post(
        "/v1/route", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert answered.status_code == 413


# Properties -----------------------------------------------------------------------------------

UNITS = [f"U{number:02}" for number in range(12)]
positions = st.tuples(st.floats(-90, 90, allow_nan=False), st.floats(-180, 180, allow_nan=False))
spots = st.lists(
    st.builds(
        Spot,
        unit=st.sampled_from(UNITS),
        position=st.none() | positions,
        forecast_seconds=st.none() | st.integers(0, 3000),
        offers=st.booleans(),
        open=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda spot: spot.unit,
)


async def test_where_the_subject_lies_changes_nothing_but_who_decides(
    gateway: httpx.AsyncClient, city: City
) -> None:
    everywhere(city, 100, but={ASKED: 5000})
    answers = []
    for subject in (ASKED, NEXT_DOOR, FAR_AWAY, WHOLE, "gso:27595"):
        routed = await answer(
            gateway, procedure_code=TERRITORIAL, at_unit=ASKED, subject_unit=subject
        )
        decides = city.registry.current(subject)
        assert routed.pop("competent_unit") == decides.code
        routed["reason"] = routed["reason"].removesuffix(f"; {decides.name} decides")
        answers.append(routed)
    assert all(routed == answers[0] for routed in answers)
    assert answers[0]["alternatives"]


@given(st.dictionaries(st.text(min_size=1), st.text() | st.integers(), min_size=1))
def test_nothing_but_the_four_fields_is_taken(extra: dict[str, Any]) -> None:
    unknown = {name: value for name, value in extra.items() if name not in RouteIn.model_fields}
    question = {"procedure_code": NOT_TERRITORIAL, "at_unit": ASKED}
    RouteIn.model_validate(question)
    if unknown:
        with pytest.raises(ValidationError) as refused:
            RouteIn.model_validate(question | unknown)
        assert {str(entry["loc"][0]) for entry in refused.value.errors()} == set(unknown)


@given(spots, st.none() | positions, st.randoms())
def test_alternatives_depend_on_what_is_true_and_not_on_its_order(
    centres: list[Spot], start: Position | None, random: Any
) -> None:
    asked, *_ = centres
    offered = alternatives(asked, centres, PROMISE, start)
    shuffled = list(centres)
    random.shuffle(shuffled)
    assert alternatives(asked, shuffled, PROMISE, start) == offered
    known = {centre.unit: centre for centre in centres}
    assert len(offered) <= 5
    for other in offered:
        centre = known[other.unit]
        assert other.unit != asked.unit
        assert centre.open
        assert centre.offers
        assert centre.forecast_seconds is not None
        assert centre.forecast_seconds <= PROMISE
    eligible = [
        centre
        for centre in centres
        if centre is not asked
        and centre.open
        and centre.offers
        and centre.forecast_seconds is not None
        and centre.forecast_seconds <= PROMISE
    ]
    assert len(offered) == min(5, len(eligible))


@given(spots, positions, st.randoms())
def test_the_nearest_is_the_same_in_any_order(
    centres: list[Spot], start: Position, random: Any
) -> None:
    found = nearest(centres, start)
    shuffled = list(centres)
    random.shuffle(shuffled)
    assert nearest(shuffled, start) == found
    able = [centre for centre in centres if centre.offers and centre.position]
    if found is None:
        assert not able
    elif not found.open:
        assert not any(centre.open for centre in able)
    else:
        assert found.position is not None
        reach = distance_km(start, found.position)
        assert all(
            distance_km(start, centre.position) >= reach
            for centre in able
            if centre.open and centre.position
        )


def test_equal_waits_and_ways_are_told_in_the_order_of_codes() -> None:
    centres = [Spot(unit) for unit in reversed(UNITS)]
    assert [other.unit for other in alternatives(centres[0], centres, PROMISE)] == UNITS[:5]
    assert nearest(centres, (10.0, 106.0)) == Spot("U00")


def test_a_centre_whose_place_is_unknown_comes_last() -> None:
    lost, near, far = Spot("lost", position=None), Spot("near"), Spot("far", position=(12, 108))
    offered = alternatives(Spot("asked"), [lost, far, near], PROMISE)
    assert [other.unit for other in offered] == ["near", "far", "lost"]
    assert offered[-1].distance_km is None
    assert nearest([lost], (10, 106)) is None


@given(positions, positions)
def test_distances_are_symmetric_and_bounded(a: Position, b: Position) -> None:
    assert distance_km(a, a) == 0
    assert distance_km(a, b) == pytest.approx(distance_km(b, a))
    assert 0 <= distance_km(a, b) <= 20_016


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((10.7769, 106.7009), (21.0278, 105.8342), 1143.6),
        ((10.7769, 106.7009), (10.7769, 106.7009), 0),
        ((0, 0), (0, 1), 111.195),
        ((0, 0), (1, 0), 111.195),
        ((0, 179.5), (0, -179.5), 111.195),
        ((90, 0), (-90, 0), 20_015.09),
        ((51.5074, -0.1278), (48.8566, 2.3522), 343.56),
    ],
    ids=["Saigon-Hanoi", "nowhere", "a degree east", "a degree north", "date line", "poles",
         "London-Paris"],
)  # fmt: skip
def test_known_distances(a: Position, b: Position, km: float) -> None:
    assert distance_km(a, b) == pytest.approx(km, rel=1e-3)


def test_the_way_takes_three_minutes_and_more_for_a_kilometre() -> None:
    assert routing.travel_seconds(0) == 0
    assert routing.travel_seconds(1) == 234
    assert routing.travel_seconds(10) == 2340

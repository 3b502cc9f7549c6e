"""Centres, procedures and the calendar."""

from typing import Any

import httpx

from tests.support import bearer, fields_of

CITY = bearer("city")
UNIT = "H29.26740"


async def test_every_unit_has_a_centre_with_official_hours(registry: httpx.AsyncClient) -> None:
    centre = (await registry.get(f"/v1/centres/{UNIT}")).json()
    assert centre["counters_planned"] == 5
    assert centre["hours"]["monday"] == [["07:30", "11:30"], ["13:00", "17:00"]]
    assert centre["hours"]["saturday"] == []
    assert centre["procedures"] is None
    assert 10 < centre["latitude"] < 12
    assert (await registry.get("/v1/centres/H29.S01")).status_code == 404


def centre(**changes: Any) -> dict[str, Any]:
    """Describe a centre that opens on Saturday mornings."""
    hours = {"monday": [["07:30", "11:30"]], "saturday": [["07:30", "11:00"]]}
    return {"hours": hours, "counters_planned": 7, "hotlines": ["1022"]} | changes


async def test_a_manager_describes_the_centre_of_the_unit_and_no_other(
    registry: httpx.AsyncClient,
) -> None:
    path = f"/v1/centres/{UNIT}"
    answer = await registry.put(path, json=centre(), headers=bearer("manager", UNIT))
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == 2
    assert (await registry.get(path)).json()["hours"]["saturday"] == [["07:30", "11:00"]]
    stranger = await registry.put(path, json=centre(), headers=bearer("manager", "H29.26743"))
    assert stranger.status_code == 403
    assert (await registry.put(path, json=centre(), headers=bearer("officer", UNIT))).is_error
    assert (await registry.put(path, json=centre(), headers=CITY)).json()["version"] == 3


async def test_a_centre_that_cannot_be_is_refused_by_field(registry: httpx.AsyncClient) -> None:
    path = f"/v1/centres/{UNIT}"
    bad = centre(latitude=91, counters_planned=0, hours={"monday": [["11:00", "10:00"]]})
    answer = await registry.put(path, json=bad, headers=CITY)
    assert answer.status_code == 422
    named = fields_of(answer)
    assert {"latitude", "counters_planned"} <= named
    assert any(field.startswith("hours") for field in named)
    for position in (True, "10.77"):
        coerced = await registry.put(path, json=centre(latitude=position), headers=CITY)
        assert fields_of(coerced) == {"latitude"}
    unknown = await registry.put(path, json=centre(procedures=["1.999999"]), headers=CITY)
    assert fields_of(unknown) == {"procedures"}
    assert (await registry.get(path)).json()["version"] == 1


async def test_the_catalogue_is_listed_searched_and_filtered(registry: httpx.AsyncClient) -> None:
    async def codes(**params: Any) -> list[str]:
        answer = await registry.get("/v1/procedures", params={"limit": 200} | params)
        return [row["code"] for row in answer.json()["items"]]

    assert len(await codes()) == 102
    assert len(await codes(level="commune")) == 88
    assert "1.001193" in await codes(q="khai sinh")
    assert "1.001193" in await codes(q="birth registration")
    assert await codes(q="1.001193") == ["1.001193"]
    assert len(await codes(field="Chứng thực")) == 12
    assert await codes(at="2025-06-30") == []


async def test_a_procedure_shows_its_papers_limit_and_flags(registry: httpx.AsyncClient) -> None:
    shown = (await registry.get("/v1/procedures/1.001193.000.00.00.H29")).json()
    assert shown["code"] == "1.001193"
    assert shown["competent_level"] == "commune"
    assert shown["territorial"]
    assert shown["boundary_independent"]
    assert shown["same_day"]
    assert shown["limit"] == {"value": 1, "unit": "working_day"}
    assert shown["fee_vnd"] is None
    assert any(paper["required"] for paper in shown["components"])
    assert (await registry.get("/v1/procedures/9.999999")).status_code == 404
    assert (await registry.get("/v1/procedures/abc")).status_code == 422


async def test_a_provincial_procedure_names_its_department(registry: httpx.AsyncClient) -> None:
    shown = (await registry.get("/v1/procedures/2.001583")).json()
    assert shown["competent_level"] == "province"
    assert shown["department"] == "H29.S01"
    assert not shown["boundary_independent"]


async def test_a_version_is_in_force_from_its_day_on(registry: httpx.AsyncClient) -> None:
    path = "/v1/procedures/2.000815/versions/2026-12-01"
    body = {
        "name": "Chứng thực bản sao",
        "field": "Chứng thực",
        "competent_level": "commune",
        "territorial": False,
        "boundary_independent": True,
        "same_day": False,
        "limit": {"value": 2, "unit": "working_day"},
        "fee_vnd": 2000,
    }
    assert (await registry.put(path, json=body, headers=CITY)).status_code == 200
    assert (await registry.put(path, json=body, headers=CITY)).status_code == 200

    async def limit(**params: str) -> int:
        answer = await registry.get("/v1/procedures/2.000815", params=params)
        value: int = answer.json()["limit"]["value"]
        return value

    assert await limit() == 1
    assert await limit(at="2026-11-30") == 1
    assert await limit(at="2026-12-01") == 2
    assert (await registry.put(path, json=body)).status_code == 401


async def test_coverage_is_the_share_that_is_boundary_independent(
    registry: httpx.AsyncClient,
) -> None:
    shown = (await registry.get("/v1/procedures/coverage")).json()
    assert (shown["procedures"], shown["boundary_independent"]) == (102, 88)
    assert shown["share"] == round(88 / 102, 4)


async def test_the_calendar_knows_weekends_holidays_and_swapped_days(
    registry: httpx.AsyncClient,
) -> None:
    async def working(day: str) -> bool:
        answer: bool = (await registry.get(f"/v1/calendar/{day}")).json()["working"]
        return answer

    assert not await working("2026-01-02")  # Friday, swapped
    assert await working("2026-01-10")  # Saturday, worked instead
    assert not await working("2026-11-21")  # Saturday
    assert not await working("2026-09-02")  # National Day
    assert await working("2026-11-16")


async def test_an_exception_is_made_and_taken_back(registry: httpx.AsyncClient) -> None:
    path = "/v1/calendar/overrides/2026-12-24"
    assert (await registry.get(path)).status_code == 404
    body = {"kind": "off", "decision": "7/QĐ"}
    assert (await registry.put(path, json=body)).status_code == 401
    assert (await registry.put(path, json=body, headers=CITY)).status_code == 200
    assert not (await registry.get("/v1/calendar/2026-12-24")).json()["working"]
    assert (await registry.delete(path, headers=CITY)).status_code == 204
    assert (await registry.delete(path, headers=CITY)).status_code == 404
    assert (await registry.get("/v1/calendar/2026-12-24")).json()["working"]
    assert (await registry.put(path, json={"kind": "party"}, headers=CITY)).status_code == 422
    assert (await registry.get("/v1/calendar/2026-13-01")).status_code == 422


async def test_a_day_is_written_as_a_day_and_in_no_other_way(registry: httpx.AsyncClient) -> None:
    body = {"kind": "off", "decision": "7/QĐ"}
    for day in ("0", "1762041600", "2026-12-24T00:00:00", "2026-12-24T00:00:00Z", "２０２６-12-24"):
        refused = await registry.put(f"/v1/calendar/overrides/{day}", json=body, headers=CITY)
        assert refused.status_code == 422
        assert fields_of(refused) == {"day"}
        assert (await registry.get("/v1/units", params={"at": day})).status_code == 422


async def test_the_note_of_an_exception_is_text_that_can_be_kept(
    registry: httpx.AsyncClient,
) -> None:
    body = {"kind": "off", "decision": "7/QĐ", "note": "a\0b"}
    refused = await registry.put("/v1/calendar/overrides/2026-12-24", json=body, headers=CITY)
    assert refused.status_code == 422
    assert fields_of(refused) == {"note"}

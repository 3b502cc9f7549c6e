"""Units: search, resolution, life cycle, succession."""

from typing import Any

import httpx
import pytest

from libs.contracts.directory import Directory
from libs.contracts.registry import UnitChanged
from tests.support import bearer, fields_of, wait_until

CITY = bearer("city")


async def items(registry: httpx.AsyncClient, **params: Any) -> list[dict[str, Any]]:
    """List units."""
    answer = await registry.get("/v1/units", params={"limit": 200} | params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_without_filters_the_168_units_that_receive_citizens_are_listed(
    registry: httpx.AsyncClient,
) -> None:
    units = await items(registry)
    assert len(units) == 168
    types = [unit["type"] for unit in units]
    assert (types.count("ward"), types.count("commune"), types.count("special_zone")) == (
        113,
        54,
        1,
    )
    assert all(unit["synthetic"] and unit["gso_code"] and unit["level"] == 2 for unit in units)


async def test_pages_join_to_the_whole_without_a_gap(registry: httpx.AsyncClient) -> None:
    codes: list[str] = []
    cursor = None
    while True:
        params = {"limit": 50} | ({"cursor": cursor} if cursor else {})
        page = (await registry.get("/v1/units", params=params)).json()
        codes += [unit["code"] for unit in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(codes) == len(set(codes)) == 168
    assert codes == sorted(codes)


@pytest.mark.parametrize("written", ["Sài Gòn", "sai gon", "SAI  GON", "Sài Gòn "])
async def test_search_forgives_accents_case_and_spaces(
    registry: httpx.AsyncClient, written: str
) -> None:
    assert [unit["name"] for unit in await items(registry, q=written)] == ["Phường Sài Gòn"]


async def test_search_forgives_where_the_tone_mark_stands(registry: httpx.AsyncClient) -> None:
    one = {unit["code"] for unit in await items(registry, q="Hòa")}
    other = {unit["code"] for unit in await items(registry, q="Hoà")}
    assert one
    assert one == other


async def test_search_takes_percent_and_underscore_literally(registry: httpx.AsyncClient) -> None:
    assert await items(registry, q="%") == []
    assert await items(registry, q="_") == []


async def test_filters_by_type_status_level_parent_and_day(registry: httpx.AsyncClient) -> None:
    assert len(await items(registry, type="department")) == 6
    assert [unit["code"] for unit in await items(registry, level=1)] == ["H29"]
    closed = await items(registry, level=1, status="closed")
    assert [unit["code"] for unit in closed] == ["H06", "H09"]
    former = await items(registry, parent="H06.C02", status="closed")
    assert all(unit["parent"] == "H06.C02" for unit in former)
    before = {unit["code"] for unit in await items(registry, at="2025-06-30", q="ben nghe")}
    assert before == {"H29.C06.26740"}


async def test_a_former_commune_leads_to_its_successor(registry: httpx.AsyncClient) -> None:
    shown = (await registry.get("/v1/units/H29.C06.26740")).json()
    assert shown["status"] == "closed"
    assert shown["valid_to"] == "2025-06-30"
    assert shown["successors"] == [{"code": "H29.26740", "relation": "whole"}]
    heir = (await registry.get("/v1/units/H29.26740")).json()
    assert {"code": "H29.C06.26740", "relation": "whole"} in heir["predecessors"]


async def test_resolution_tells_the_one_unit_or_the_candidates(
    registry: httpx.AsyncClient,
) -> None:
    async def resolved(query: str, **params: str) -> list[str]:
        answer = await registry.get(f"/v1/units/{query}/resolve", params=params)
        assert answer.json()["query"] == query
        return [unit["code"] for unit in answer.json()["units"]]

    assert await resolved("gso:26734") == ["H29.26737"]  # whole
    assert await resolved("gso:27625") == ["H29.27424", "H29.27637"]  # split
    assert await resolved("gso:26740") == ["H29.26740"]  # old and current: the current one wins
    assert await resolved("gso:26740", at="2025-01-01") == ["H29.C06.26740"]
    assert await resolved("H09") == ["H29"]
    assert await resolved("000.00.00.H06") == ["H29"]
    assert (await registry.get("/v1/units/gso:99999/resolve")).status_code == 404


async def test_old_codes_open_the_current_record(registry: httpx.AsyncClient) -> None:
    assert (await registry.get("/v1/units/gso:26734")).json()["code"] == "H29.26737"
    split = (await registry.get("/v1/units/gso:27625")).json()
    assert split["status"] == "closed"
    assert {heir["code"] for heir in split["successors"]} == {"H29.27424", "H29.27637"}
    assert (await registry.get("/v1/units/H29.9999")).status_code == 404
    assert (await registry.get("/v1/units/h29;drop")).status_code == 422


DRAFT = {"code": "H29.88001", "name": "Phường Thử Nghiệm", "type": "ward", "gso_code": "88001"}


async def test_a_units_life_is_planned_active_closed_and_never_again(
    registry: httpx.AsyncClient,
) -> None:
    made = await registry.post("/v1/units", json=DRAFT, headers=CITY)
    assert made.status_code == 201
    assert (made.json()["status"], made.json()["parent"]) == ("planned", "H29")
    active = await registry.post("/v1/units/H29.88001/activate", headers=CITY)
    assert active.json()["status"] == "active"
    assert active.json()["valid_from"] == "2026-11-16"
    again = await registry.post("/v1/units/H29.88001/activate", headers=CITY)
    assert again.status_code == 409
    assert again.json()["allowed"] == ["close"]
    closing = {
        "decision": "12/QĐ-UBND",
        "date": "2026-11-16",
        "successors": [{"code": "H29.26740"}],
    }
    closed = await registry.post("/v1/units/H29.88001/close", json=closing, headers=CITY)
    assert closed.json()["status"] == "closed"
    assert closed.json()["decision"] == "12/QĐ-UBND"
    reissued = await registry.post("/v1/units", json=DRAFT, headers=CITY)
    assert reissued.status_code == 409
    assert reissued.json()["title"] == "A unit code is issued once and never again."
    directory: Directory = registry.state["directory"]  # type: ignore[attr-defined]
    await wait_until(lambda: [u.version for u in directory.named("H29.88001")] == [3])
    assert directory.current("H29.88001").code == "H29.26740"


@pytest.mark.parametrize(
    ("closing", "status", "word"),
    [
        ({"date": "2027-01-01"}, 422, "date"),
        ({"date": "2025-01-01"}, 422, "date"),
        ({"successors": [{"code": "H29.26743"}]}, 422, "successors"),
        ({"successors": [{"code": "H29.77777"}]}, 422, "successors"),
        ({"successors": [{"code": "H29.26740"}, {"code": "H29.26740"}]}, 422, "successors"),
        ({"successors": [{"code": "H09"}]}, 422, "successors"),
    ],
)
async def test_a_closing_that_cannot_be_is_refused_by_field(
    registry: httpx.AsyncClient, closing: dict[str, Any], status: int, word: str
) -> None:
    body = {"decision": "1/QĐ", "date": "2026-11-16", "successors": []} | closing
    answer = await registry.post("/v1/units/H29.26743/close", json=body, headers=CITY)
    assert answer.status_code == status, answer.text
    assert word in fields_of(answer)
    assert (await registry.get("/v1/units/H29.26743")).json()["status"] == "active"


async def test_every_bad_field_of_a_draft_is_named(registry: httpx.AsyncClient) -> None:
    body = {"code": "H2", "name": "", "type": "village", "gso_code": "12a", "more": 1}
    answer = await registry.post("/v1/units", json=body, headers=CITY)
    assert answer.status_code == 422
    assert fields_of(answer) == {"code", "name", "type", "gso_code", "more"}


async def test_a_draft_needs_its_parent_and_a_free_alias(registry: httpx.AsyncClient) -> None:
    orphan = DRAFT | {"code": "H29.55.1"}
    answer = await registry.post("/v1/units", json=orphan, headers=CITY)
    assert fields_of(answer) == {"code"}
    taken = DRAFT | {"aliases": ["000.00.00.H29"]}
    assert (await registry.post("/v1/units", json=taken, headers=CITY)).status_code == 409


async def test_two_active_units_never_share_a_gso_code(registry: httpx.AsyncClient) -> None:
    twin = DRAFT | {"gso_code": "26740"}
    assert (await registry.post("/v1/units", json=twin, headers=CITY)).status_code == 201
    answer = await registry.post("/v1/units/H29.88001/activate", headers=CITY)
    assert answer.status_code == 409
    assert "H29.26740" in answer.json()["detail"]


async def test_only_the_city_writes_units(registry: httpx.AsyncClient) -> None:
    assert (await registry.post("/v1/units", json=DRAFT)).status_code == 401
    for role in ("officer", "manager", "kiosk", "ops", "portal"):
        headers = bearer(role, "H29.26740")
        answer = await registry.post("/v1/units", json=DRAFT, headers=headers)
        assert answer.status_code == 403, role


async def test_each_state_is_announced_with_a_rising_version(registry: httpx.AsyncClient) -> None:
    await registry.post("/v1/units", json=DRAFT, headers=CITY)
    await registry.post("/v1/units/H29.88001/activate", headers=CITY)
    told: list[UnitChanged] = []
    async with registry.state["bus"].follow([UnitChanged.topic]) as follower:  # type: ignore[attr-defined]
        while len(told) < 2:
            told += [
                UnitChanged.model_validate_json(record.value)
                for record in await follower.fetch(1000, 1)
                if record.key == "H29.88001"
            ]
    assert [(event.version, event.status) for event in told] == [(1, "planned"), (2, "active")]

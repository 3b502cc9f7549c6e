"""The audit: what is done, read and refused leaves one row, and no row can be changed."""

import asyncio
import importlib
import json
import pkgutil
import re
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import asyncpg
import httpx
import pytest

import services.queue
from libs.common.audit import with_entry
from libs.common.db import connector, service_url
from libs.common.routes import _outcome_of
from libs.common.settings import SERVICES
from libs.contracts.roles import RULES
from services.embedded import city
from services.queue import statements
from services.queue.domain import moves
from tests.conftest import _copy
from tests.support import bearer, settings_for
from tests.system.city import APPLICANT

HERE = "H29.26740"
THERE = "H29.25747"
OFFICER = bearer("officer", HERE, subject="lan")
OPS = bearer("ops")


@pytest.fixture(scope="module")
async def url(server_url: str, seeded: str) -> AsyncIterator[str]:
    """Give an account on a database of the module's own that holds the city."""
    async for url in _copy(server_url, seeded):
        yield url


@pytest.fixture(scope="module")
async def whole(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Call the whole city in process."""
    async with city(settings_for(url)) as embedded:
        transport = httpx.ASGITransport(app=embedded)
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            yield client


async def entries(whole: httpx.AsyncClient, answer: httpx.Response) -> list[dict[str, Any]]:
    """Search for what one call left."""
    trace = answer.headers["x-trace-id"]
    found = await whole.get("/v1/audit", params={"trace_id": trace}, headers=OPS)
    assert found.status_code == 200, found.text
    items: list[dict[str, Any]] = found.json()["items"]
    return items


async def entry(whole: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    """Give the one row that a call left, without what differs each time."""
    [found] = await entries(whole, answer)
    return {name: value for name, value in found.items() if name not in ("id", "at", "trace_id")}


async def ticket(whole: httpx.AsyncClient, **headers: str) -> httpx.Response:
    """Take a ticket on the web."""
    wish = {"unit": HERE, "channel": "web"}
    answer = await whole.post("/v1/tickets", json=wish, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer


async def dossier(whole: httpx.AsyncClient) -> httpx.Response:
    """Hand a dossier in."""
    body = {
        "procedure_code": "2.000815", "receiving_unit": HERE, "channel": "direct",
        "components": [], "applicant": APPLICANT,
    }  # fmt: skip
    answer = await whole.post("/v1/dossiers", json=body, headers=OFFICER)
    assert answer.status_code == 201, answer.text
    return answer


async def test_what_is_done_on_a_hot_path_is_noted_with_who_what_and_where(
    whole: httpx.AsyncClient,
) -> None:
    taken = await ticket(whole)
    ticket_id = taken.json()["id"]
    assert await entry(whole, taken) == {
        "service": "queue", "subject": "nobody", "role": "nobody", "method": "POST",
        "route": "/v1/tickets", "unit": HERE, "object": ticket_id, "outcome": "done", "status": 201,
    }  # fmt: skip
    counter = f"/v1/units/{HERE}/counters/1"
    opened = await whole.put(counter, json={"state": "open"}, headers=OFFICER)
    assert (await entry(whole, opened))["route"] == "/v1/units/{unit}/counters/{number}"
    called = await whole.post(f"{counter}/call-next", headers=OFFICER)
    assert await entry(whole, called) == {
        "service": "queue", "subject": "lan", "role": "officer", "method": "POST",
        "route": "/v1/units/{unit}/counters/{number}/call-next", "unit": HERE,
        "object": called.json()["id"], "outcome": "done", "status": 200,
    }  # fmt: skip
    moved = await whole.post(f"/v1/tickets/{called.json()['id']}/start", headers=OFFICER)
    assert (await entry(whole, moved))["route"] == "/v1/tickets/{ticket_id}/start"


async def test_what_is_done_on_an_ordinary_route_is_noted_in_its_transaction(
    whole: httpx.AsyncClient,
) -> None:
    taken_in = await dossier(whole)
    code = taken_in.json()["code"]
    assert await entry(whole, taken_in) == {
        "service": "intake", "subject": "lan", "role": "officer", "method": "POST",
        "route": "/v1/dossiers", "unit": HERE, "object": code, "outcome": "done", "status": 201,
    }  # fmt: skip
    assigned = await whole.post(f"/v1/dossiers/{code}/assign", headers=OFFICER)
    assert (await entry(whole, assigned))["object"] == code


async def test_reading_what_is_personal_is_noted_and_reading_what_is_not_is_not(
    whole: httpx.AsyncClient,
) -> None:
    code = (await dossier(whole)).json()["code"]
    for path in (f"/v1/dossiers/{code}", f"/v1/dossiers/{code}/history"):
        read = await whole.get(path, headers=OFFICER)
        noted = await entry(whole, read)
        assert (noted["method"], noted["object"], noted["status"]) == ("GET", code, 200)
    for path in (f"/v1/dossiers?unit={HERE}", "/v1/units", f"/v1/units/{HERE}/queue"):
        assert await entries(whole, await whole.get(path, headers=OFFICER)) == []


async def test_a_repeated_call_is_noted_as_a_replay(whole: httpx.AsyncClient) -> None:
    wish = {"unit": HERE, "channel": "web"}
    kiosk = {"kind": "kiosk", "name": "Sảnh", "units": [HERE]}
    for path, body, who in (("/v1/tickets", wish, {}), ("/v1/clients", kiosk, bearer("city"))):
        headers = who | {"Idempotency-Key": str(uuid4())}
        first, again = [await whole.post(path, json=body, headers=headers) for _ in range(2)]
        assert (await entry(whole, first))["outcome"] == "done"
        assert (await entry(whole, again))["outcome"] == "replayed"


async def test_refusals_of_callers_with_a_name_are_noted(whole: httpx.AsyncClient) -> None:
    stranger = bearer("officer", THERE, subject="minh")
    held = (await ticket(whole)).json()["id"]
    for method, path, body, status in (
        ("PUT", f"/v1/units/{HERE}/counters/1", {"state": "open"}, 403),
        ("POST", f"/v1/tickets/{held}/cancel", None, 403),
        ("POST", "/v1/units", {}, 403),
        ("POST", "/v1/tickets", {"unit": HERE}, 422),
        ("POST", f"/v1/tickets/{uuid4()}/start", None, 404),
    ):
        refused = await whole.request(method, path, json=body, headers=stranger)
        assert refused.status_code == status
        noted = await entry(whole, refused)
        assert (noted["subject"], noted["outcome"], noted["status"]) == ("minh", "refused", status)
    foreign = await whole.put(
        f"/v1/units/{HERE}/counters/1", json={"state": "open"}, headers=stranger
    )
    assert (await entry(whole, foreign))["unit"] == HERE


async def test_what_nobody_is_refused_and_what_changes_nothing_leaves_nothing(
    whole: httpx.AsyncClient,
) -> None:
    empty = bearer("officer", THERE)
    counter = f"/v1/units/{THERE}/counters/1"
    await whole.put(counter, json={"state": "open"}, headers=empty)
    for answer, status in (
        (await whole.post("/v1/units", json={}), 401),
        (await whole.post("/v1/tickets", json={}), 422),
        (await whole.post("/v1/tickets", json={}, headers={"Authorization": "Bearer x"}), 401),
        (await whole.post(f"{counter}/call-next", headers=empty), 204),
        (await whole.post("/v1/route", json={"procedure_code": "2.000815", "at_unit": HERE}), 200),
    ):
        assert answer.status_code == status
        assert await entries(whole, answer) == []


async def test_an_effect_that_is_not_committed_leaves_no_row(
    whole: httpx.AsyncClient, url: str
) -> None:
    """The commit comes after everything else, and the row went in before it."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "CREATE FUNCTION registry.fail() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'no'; END$$;"
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON registry.clients "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry.fail()"
        )
        body = {"kind": "kiosk", "name": "Sảnh", "units": [HERE]}
        failed = await whole.post("/v1/clients", json=body, headers=bearer("city"))
        assert failed.status_code == 500
        assert await entries(whole, failed) == []
    finally:
        await connection.execute("DROP FUNCTION IF EXISTS registry.fail() CASCADE")
        await connection.close()


async def test_a_hot_statement_that_is_undone_leaves_no_row(whole: httpx.AsyncClient) -> None:
    """A key that is there already undoes the whole statement, the entry too."""
    headers = {"Idempotency-Key": str(uuid4())}
    answers = await asyncio.gather(*(ticket(whole, **headers) for _ in range(8)))
    outcomes = [(await entry(whole, answer))["outcome"] for answer in answers]
    assert sorted(outcomes) == ["done", *["replayed"] * 7]


def hot_statements() -> dict[str, str]:
    """Find every statement of the queue that keeps its answer, which is what those of hot paths do.

    The door to them is a constant of a module, or a step of a ticket's life.
    """
    found = {f"step {move.name}": move.statement for move in moves.MOVES}
    for module in pkgutil.walk_packages(services.queue.__path__, "services.queue."):
        if ".migrations" not in module.name:
            constants = vars(importlib.import_module(module.name)).items()
            texts = {name: value for name, value in constants if isinstance(value, str)}
            found |= {name: text for name, text in texts.items() if text.startswith("\nWITH")}
    return {name: text for name, text in found.items() if "INTO idempotency_keys" in text}


@pytest.mark.parametrize("name", hot_statements())
def test_every_hot_statement_carries_its_entry(name: str) -> None:
    audited = with_entry(hot_statements()[name])
    assert audited is not None
    assert audited.count("INSERT INTO audit.entries") == 1


def test_a_statement_without_effect_carries_none() -> None:
    assert with_entry(statements.SHOW) is None
    assert with_entry(statements.WHY_NOBODY) is None


async def test_a_hot_path_of_another_form_is_noted_right_after(whole: httpx.AsyncClient) -> None:
    with patch("libs.common.audit.with_entry", lambda _: None):
        taken = await ticket(whole)
    assert (await entry(whole, taken))["object"] == taken.json()["id"]


def test_a_value_that_the_database_refuses_is_refused_and_no_failure() -> None:
    assert _outcome_of(asyncpg.CharacterNotInRepertoireError("NUL")) == ("refused", 422)
    assert _outcome_of(asyncpg.UndefinedTableError("a defect")) == ("failed", 500)


# Append-only ----------------------------------------------------------------------------------

INSERT = (
    "INSERT INTO audit.entries ({}subject, role, method, route, outcome, status) "
    "VALUES ({}'x', 'city', 'POST', '/', 'done', 200)"
)
CHANGES = [
    "UPDATE audit.entries SET subject = 'x'",
    "DELETE FROM audit.entries",
    "TRUNCATE audit.entries",
    INSERT.format("service, ", "'intake', "),
    INSERT.format("at, ", "now(), "),
    "ALTER TABLE audit.entries DISABLE TRIGGER ALL",
    "DROP TABLE audit.entries",
    "CREATE TABLE audit.more (one int)",
]


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_may_add_and_read_and_nothing_else(url: str, service: str) -> None:
    connection = await connector(service_url(settings_for(url), service), service)()
    try:
        for statement in CHANGES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        await connection.execute(INSERT.format("", ""))
        row = await connection.fetchrow("SELECT service FROM audit.entries ORDER BY id DESC")
        assert row["service"] == service
    finally:
        await connection.close()


async def test_the_owner_is_stopped_too(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET ROLE motcua_owner")
        for statement in CHANGES[:3]:
            with pytest.raises(asyncpg.RaiseError, match="only added to"):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_gateway_has_no_part_in_it(url: str) -> None:
    connection = await connector(service_url(settings_for(url), "gateway"), "gateway")()
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT * FROM audit.entries")
    finally:
        await connection.close()


# Searching ------------------------------------------------------------------------------------


async def test_it_is_searched_by_whom_what_and_when_in_pages(whole: httpx.AsyncClient) -> None:
    who = bearer("officer", HERE, subject=f"officer-{uuid4()}")
    counter = f"/v1/units/{HERE}/counters/2"
    for state in ("open", "paused", "closed"):
        await whole.put(counter, json={"state": state}, headers=who)
    me = (await whole.get("/v1/audit", params={"limit": 1}, headers=OPS)).json()["items"][0]
    assert me["unit"] == HERE

    async def found(**params: Any) -> list[int]:
        answer = await whole.get(
            "/v1/audit", params={"subject": me["subject"]} | params, headers=OPS
        )
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    ids = await found()
    assert len(ids) == 3
    assert ids == sorted(ids, reverse=True)
    assert await found(unit="gso:26740", service="queue", role="officer", outcome="done") == ids
    elsewhere = {
        "unit": THERE, "service": "intake", "role": "city", "outcome": "refused", "object": "x",
        "to": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    for name, value in elsewhere.items():
        assert await found(**{name: value}) == []
    first = await whole.get("/v1/audit", params={"subject": me["subject"], "limit": 2}, headers=OPS)
    assert [item["id"] for item in first.json()["items"]] == ids[:2]
    assert await found(cursor=first.json()["next_cursor"]) == ids[2:]


@pytest.mark.parametrize(
    "params",
    [{"to": "yesterday"}, {"to": "2026-01-01T00:00:00"}, {"cursor": "x"}, {"cursor": "9" * 19},
     {"trace_id": "x"}, {"service": "gateway"}, {"to": "0001-01-01T00:00:00Z"},
     {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}],
    ids=str,
)  # fmt: skip
async def test_a_search_that_makes_no_sense_is_refused(
    whole: httpx.AsyncClient, params: dict[str, str]
) -> None:
    assert (await whole.get("/v1/audit", params=params, headers=OPS)).status_code == 422


async def test_nothing_personal_stands_in_it(whole: httpx.AsyncClient, url: str) -> None:
    """Neither what was handed in, nor what people write where a code belongs."""
    code = (await dossier(whole)).json()["code"]
    await whole.get(f"/v1/dossiers/{code}", headers=OFFICER)
    await whole.post("/v1/clients/079190001234/revoke", headers=bearer("city"))
    await whole.post("/v1/dossiers/0903123456/assign", headers=OFFICER)
    numbered = bearer("officer", HERE, subject="079190001234")
    await whole.put(f"/v1/units/{HERE}/counters/3", json={"state": "open"}, headers=numbered)
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT * FROM audit.entries")
    finally:
        await connection.close()
    text = json.dumps([dict(row) for row in rows], default=str, ensure_ascii=False)
    for personal in (APPLICANT["name"], APPLICANT["id_number"], APPLICANT["phone"]):
        assert personal not in text
    assert {row["route"] for row in rows} <= {path for _, path in RULES} | {"/"}
    assert any(re.fullmatch(r"sha256:[0-9a-f]{32}", row["subject"]) for row in rows)

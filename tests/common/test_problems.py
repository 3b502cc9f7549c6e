"""Errors as clients see them: RFC 9457, every status of the contract, never a stack trace."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, HTTPException, Query
from pydantic import Field
from sqlalchemy import text

from libs.common import problems
from libs.common.app import Service, create_app
from libs.common.db import Session, service_url
from libs.common.fields import In, Limit, Line
from libs.common.problems import (
    Conflict,
    Forbidden,
    Malformed,
    MethodNotAllowed,
    NotFound,
    NotHttp,
    Problem,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unexpected,
    UnsupportedMediaType,
)
from tests.common.helpers import admin, eventually, logged_by, wire_to
from tests.support import fields_of, running, settings_for

KINDS: dict[str, type[Problem]] = {
    kind.__name__: kind
    for kind in (
        NotHttp, Unauthenticated, Forbidden, NotFound, MethodNotAllowed, Conflict, TooLarge,
        UnsupportedMediaType, Malformed, TooManyRequests, Unavailable, Unexpected,
    )
}  # fmt: skip

router = APIRouter(prefix="/v1/things")


class Part(In):
    """A part of a thing."""

    weight: float
    label: Line


class ThingIn(In):
    """A thing."""

    name: Line
    size: int = 0
    parts: list[Part] = Field(default_factory=list)
    anything: dict[str, Any] | None = None


@router.post("")
async def take(body: ThingIn, session: Session, limit: Limit = 50) -> dict[str, Any]:
    """Store a name and a size in passing."""
    await session.execute(
        text("SELECT CAST(:name AS text), CAST(:size AS bigint), CAST(:more AS jsonb)"),
        {"name": body.name, "size": body.size, "more": json.dumps(body.anything)},
    )
    return {"name": body.name, "size": body.size, "limit": limit}


@router.get("")
async def find(session: Session, q: Annotated[str, Query()] = "") -> dict[str, Any]:
    """Ask the database for a text."""
    return {"found": await session.scalar(text("SELECT CAST(:q AS text)"), {"q": q})}


@router.get("/refusals/{kind}")
async def refuse(kind: str) -> None:
    """Refuse in some way."""
    raise KINDS[kind](f"because of {kind}")


@router.get("/http/{status}")
async def refuse_plainly(status: int) -> None:
    """Refuse as the framework does."""
    raise HTTPException(status)


@router.get("/broken")
async def broken() -> None:
    """Have a defect."""
    raise RuntimeError("the secret plan of /srv/motcua.py, line 7")


@router.get("/numbers/{number}")
async def number(number: int, session: Session) -> dict[str, Any]:
    """Ask the database for a number."""
    value = await session.scalar(text("SELECT CAST(:n AS bigint)"), {"n": number})
    return {"number": value}


@router.get("/texts/{words:path}")
async def words(words: str, session: Session) -> dict[str, Any]:
    """Ask the database for a text of the path."""
    return {"words": await session.scalar(text("SELECT CAST(:w AS text)"), {"w": words})}


@pytest.fixture(scope="module")
async def client(counting: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a small service."""
    app = create_app(Service("queue", "Refuses.", routers=[router]))
    async with running(app, settings_for(counting)) as client:
        yield client


JSON = {"content-type": "application/json"}


async def post(client: httpx.AsyncClient, body: bytes | str) -> httpx.Response:
    """Send a body as JSON."""
    return await client.post("/v1/things", content=body, headers=JSON)


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check the shape that all problems have; give the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:motcua:problem:")
    assert document["title"].endswith(".")
    assert document["detail"]
    assert document["trace_id"] == answer.headers["x-trace-id"]
    assert "Traceback" not in answer.text
    return document


@pytest.mark.parametrize("kind", KINDS)
async def test_each_problem_of_the_contract_has_its_status_type_and_title(
    client: httpx.AsyncClient, kind: str
) -> None:
    expected = KINDS[kind]
    answer = await client.get(f"/v1/things/refusals/{kind}")
    document = is_problem(answer, expected.status)
    assert document["type"] == expected.type_uri()
    assert document["title"] == (expected.__doc__ or "").splitlines()[0]
    assert document["detail"] == f"because of {kind}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503])
async def test_refusals_of_the_framework_are_problems_too(
    client: httpx.AsyncClient, status: int
) -> None:
    is_problem(await client.get(f"/v1/things/http/{status}"), status)


@pytest.mark.parametrize("kind", ["TooManyRequests", "Unavailable"])
async def test_who_is_asked_to_wait_is_told_how_long(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.get(f"/v1/things/refusals/{kind}")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_401_tells_which_scheme_would_be_taken(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/things/refusals/Unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_problem_of_ones_own_is_named_after_its_class_and_carries_members() -> None:
    class CodeReissued(Conflict):
        """A code is issued once."""

    body = CodeReissued("H29 was issued", allowed=["close"]).body()
    assert body["type"] == "urn:motcua:problem:code-reissued"
    assert body["title"] == "A code is issued once."
    assert body["allowed"] == ["close"]
    assert "errors" not in body


# Malformed ------------------------------------------------------------------------------------


async def test_every_bad_field_is_named_at_once(client: httpx.AsyncClient) -> None:
    body = {
        "name": 7,
        "size": "3",
        "parts": [{"weight": 1.5, "label": "x"}, {"weight": "heavy"}],
        "colour": "red",
    }
    answer = await client.post("/v1/things", json=body, params={"limit": 201})
    document = is_problem(answer, 422)
    bad = {"limit", "name", "size", "parts.1.weight", "parts.1.label", "colour"}
    assert fields_of(answer) == bad
    assert all(entry["message"] for entry in document["errors"])
    assert all(field in document["detail"] for field in bad)


@pytest.mark.parametrize("limit", ["0", "-1", "201", "1e2", "many", "9" * 5000, "", "1.5"])
async def test_a_limit_beyond_200_or_no_number_is_malformed(
    client: httpx.AsyncClient, limit: str
) -> None:
    answer = await client.post("/v1/things", json={"name": "a"}, params={"limit": limit})
    is_problem(answer, 422)
    assert fields_of(answer) == {"limit"}


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"nothing", b"{'name': 'a'}", b'{"name": "a",}', b"\xff\xfe", b'{"name": "\xc3"}',
        b"[" * 100_000, b'{"name":' * 5_000, b'{"name": "a", "size": ' + b"9" * 5_000 + b"}",
        b"\x00", b'{"name": "a"} {"name": "b"}',
    ],
    ids=[
        "open", "bare word", "single quotes", "comma", "not UTF-8", "half a letter",
        "deep lists", "deep objects", "endless number", "NUL", "two values",
    ],
)  # fmt: skip
async def test_what_is_not_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await post(client, body)
    is_problem(answer, 422)
    assert fields_of(answer) == {"body"}


@pytest.mark.parametrize("body", ["null", "7", '"a"', "[]", "true", ""])
async def test_another_kind_of_value_than_an_object_is_malformed(
    client: httpx.AsyncClient, body: str
) -> None:
    answer = await post(client, body)
    is_problem(answer, 422)
    assert fields_of(answer) == {"body"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_numbers_that_are_none_are_malformed(client: httpx.AsyncClient, value: str) -> None:
    part = f'{{"weight": {value}, "label": "x"}}'
    is_problem(await post(client, f'{{"name": "a", "parts": [{part}]}}'), 422)
    is_problem(await post(client, f'{{"name": "a", "size": {value}}}'), 422)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30, 10**4000])
async def test_numbers_too_large_to_store_are_malformed(
    client: httpx.AsyncClient, value: int
) -> None:
    is_problem(await post(client, f'{{"name": "a", "size": {value}}}'), 422)
    if value < 10**100:
        is_problem(await client.get(f"/v1/things/numbers/{value}"), 422)


@pytest.mark.parametrize("letter", ["\\u0000", "\\ud800", "\\udfff", "\\u001b"])
async def test_text_that_cannot_be_stored_is_malformed(
    client: httpx.AsyncClient, letter: str
) -> None:
    is_problem(await post(client, f'{{"name": "a{letter}"}}'), 422)
    is_problem(await post(client, f'{{"name": "a", "colour{letter}": 1}}'), 422)


@pytest.mark.parametrize("letter", ["\\u0000", "\\ud800"])
async def test_text_within_free_content_that_cannot_be_stored_is_malformed(
    client: httpx.AsyncClient, letter: str
) -> None:
    is_problem(await post(client, f'{{"name": "a", "anything": {{"x": "{letter}"}}}}'), 422)
    is_problem(await post(client, f'{{"name": "a", "anything": {{"{letter}": 1}}}}'), 422)


async def test_nul_in_path_and_query_is_malformed(client: httpx.AsyncClient) -> None:
    is_problem(await client.get("/v1/things/texts/a%00b"), 422)
    is_problem(await client.get("/v1/things?q=a%00b"), 422)


async def test_half_letters_in_path_and_query_do_no_harm(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.get("/v1/things/texts/a%ED%A0%80b%FF"),
        await client.get("/v1/things?q=a%ED%A0%80b%FF"),
    ):
        assert answer.status_code in (200, 422)
        if answer.status_code == 422:
            is_problem(answer, 422)


async def test_ordinary_vietnamese_text_passes(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/things", json={"name": "  Phường Bến Thành  "})
    assert answer.json() == {"name": "Phường Bến Thành", "size": 0, "limit": 50}


# Media types and sizes ------------------------------------------------------------------------

MEDIA_TYPES = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", ""]


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
async def test_another_media_type_is_not_taken(client: httpx.AsyncClient, media_type: str) -> None:
    answer = await client.post(
        "/v1/things", content=b'{"name": "a"}', headers={"content-type": media_type}
    )
    assert "application/json" in is_problem(answer, 415)["detail"]


async def test_another_media_type_is_not_taken_in_chunks_either(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"name": "a"}'

    answer = await client.post(
        "/v1/things", content=chunks(), headers={"content-type": "text/plain"}
    )
    is_problem(answer, 415)


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8",
     "application/merge-patch+json"],
)  # fmt: skip
async def test_json_by_any_of_its_names_is_taken(
    client: httpx.AsyncClient, media_type: str
) -> None:
    headers = {"content-type": media_type}
    good = await client.post("/v1/things", content=b'{"name": "a"}', headers=headers)
    assert good.status_code == 200
    bad = await client.post("/v1/things", content=b'{"name": 1}', headers=headers)
    is_problem(bad, 422)
    assert fields_of(bad) == {"name"}


async def test_a_missing_body_is_malformed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/things")
    is_problem(answer, 422)
    assert fields_of(answer) == {"body"}


async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient) -> None:
    is_problem(await post(client, json.dumps({"name": "a" * 1_100_000})), 413)


async def test_a_body_too_large_is_refused_however_it_comes(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield b" " * 100_000

    answer = await client.post("/v1/things", content=chunks(), headers=JSON)
    is_problem(answer, 413)


# Methods and addresses ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_a_method_that_is_not_taken_lists_those_that_are(
    client: httpx.AsyncClient, method: str
) -> None:
    answer = await client.request(method, "/v1/things")
    is_problem(answer, 405)
    allowed = {name.strip() for name in answer.headers["allow"].split(",")}
    assert {"GET", "POST"} <= allowed
    assert method not in allowed


async def test_head_is_answered_and_never_with_a_defect(client: httpx.AsyncClient) -> None:
    answer = await client.head("/v1/things")
    assert answer.status_code in (200, 405)
    assert answer.status_code == 200 or "GET" in answer.headers["allow"]


async def test_an_unknown_address_is_not_found(client: httpx.AsyncClient) -> None:
    for path in ("/v1/nothing", "/v1/things/a/b/c", "/", "//", "/v1/things/%2e%2e/x"):
        is_problem(await client.get(path), 404)


# What nobody expected -------------------------------------------------------------------------


async def test_a_defect_shows_nothing_and_is_logged_once_with_the_trace_of_the_answer(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = logged_by(problems, monkeypatch)
    answer = await client.get("/v1/things/broken")
    document = is_problem(answer, 500)
    assert "secret plan" not in answer.text
    assert "RuntimeError" not in answer.text
    [entry] = logged
    assert (entry["event"], entry["level"]) == ("request.failed", "error")
    assert isinstance(entry["exc_info"], RuntimeError)
    assert entry["trace_id"] == document["trace_id"]


async def test_a_refusal_is_not_logged(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = logged_by(problems, monkeypatch)
    await client.get("/v1/things/refusals/Conflict")
    await client.get("/v1/nothing")
    await post(client, b"{")
    await post(client, json.dumps({"name": "a" * 1_100_000}))
    assert logged == []


async def test_while_the_database_is_away_the_answer_is_503_and_later_200(counting: str) -> None:
    async with wire_to(service_url(settings_for(counting), "queue")) as wire:
        app = create_app(Service("queue", "Refuses.", routers=[router]))
        # The URL already names the service's login, so it is taken as it is.
        async with running(app, settings_for(wire.url)) as client:
            assert (await client.get("/v1/things?q=a")).status_code == 200
            await wire.cut()
            for _ in range(3):
                answer = await client.get("/v1/things?q=a")
                is_problem(answer, 503)
                assert int(answer.headers["retry-after"]) >= 1
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert set(ready.json()["not_ready"]) == {"database", "migrations"}
            assert (await client.get("/livez")).status_code == 200
            await wire.mend()
            answer = await client.get("/v1/things?q=a")
            assert answer.json() == {"found": "a"}

            async def ready_again() -> bool:
                return bool((await client.get("/readyz")).json()["status"] == "ready")

            await eventually(ready_again)


async def test_a_connection_that_the_server_ended_is_replaced_without_an_error(
    counting: str, client: httpx.AsyncClient
) -> None:
    await client.get("/v1/things?q=a")
    async with admin(counting) as operator:
        await operator.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
            "WHERE application_name = 'motcua-queue' AND pid <> pg_backend_pid() "
            "AND datname = current_database()"
        )
    for _ in range(4):
        assert (await client.get("/v1/things?q=a")).status_code == 200


async def test_a_body_of_ten_thousand_wrong_fields_gets_a_short_answer(
    client: httpx.AsyncClient,
) -> None:
    body = {f"unknown{number}": number for number in range(10_000)}
    answer = await client.post("/v1/things", json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert len(answer.content) < 20_000

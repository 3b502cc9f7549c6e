"""Idempotency keys at the edge: one effect and one answer, however often a call is made."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Path, status
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import text

from libs.common.app import Service, create_app
from libs.common.auth import Caller, Principal
from libs.common.db import Session
from libs.common.fields import In
from libs.common.idempotency import KeepingRoute, Once
from libs.common.problems import Conflict
from tests.common.helpers import execute_as_owner
from tests.support import bearer, fields_of, running, settings_for

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"

router = APIRouter(prefix="/v1/things", route_class=KeepingRoute)


class ThingIn(In):
    """A thing to note."""

    name: Annotated[str, Field(max_length=40)]
    size: int = 0
    more: dict[str, int] | None = None


async def _note(session: Session, name: str) -> int:
    row = await session.execute(
        text("INSERT INTO noted (name) VALUES (:name) RETURNING place"), {"name": name}
    )
    return int(row.scalar_one())


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[Once])
async def note(body: ThingIn, session: Session, who: Caller) -> dict[str, Any]:
    """Note a thing; names that begin with `taken` are refused while a row of that name exists."""
    if body.name.startswith("taken"):
        found = await session.scalar(
            text("SELECT count(*) FROM noted WHERE name = :name"), {"name": body.name}
        )
        if found:
            raise Conflict(f"{body.name} is taken")
    place = await _note(session, body.name)
    if body.name == "late":
        # A deferred constraint: the refusal comes with the commit.
        await session.execute(text("INSERT INTO late VALUES (1), (1)"))
    if body.name == "broken":
        raise RuntimeError("a defect after the effect")
    return {"place": place, "name": body.name, "by": _name(who)}


def _name(who: Principal) -> str:
    return who.subject


@router.post("/{name}/next", dependencies=[Once])
async def take_next(name: Annotated[str, Path()], session: Session) -> Response:
    """Take what was noted first under a name: 204 when there is nothing."""
    row = await session.scalar(
        text(
            "DELETE FROM noted WHERE place = (SELECT min(place) FROM noted WHERE name = :name) "
            "RETURNING place"
        ),
        {"name": name},
    )
    if row is None:
        return Response(status_code=204)
    return Response(b'{"took": %d}' % row, media_type="application/json")


@pytest.fixture(scope="module")
async def service(counting: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a small service that notes things."""
    await execute_as_owner(
        counting,
        "CREATE TABLE queue.noted (place bigint GENERATED ALWAYS AS IDENTITY, name text NOT NULL)",
    )
    app = create_app(Service("queue", "Notes things.", routers=[router]))
    async with running(app, settings_for(counting)) as client:
        yield client


@pytest.fixture
async def client(service: httpx.AsyncClient) -> httpx.AsyncClient:
    """Give the service with nothing noted and nothing kept; Ann of the city office calls."""
    await _hot(service).execute("DELETE FROM noted")
    await _hot(service).execute("DELETE FROM idempotency_keys")
    service.headers.update(bearer("city", subject="ann"))
    return service


async def noted(client: httpx.AsyncClient) -> int:
    """Count what has been noted."""
    return int(await _hot(client).fetchval("SELECT count(*) FROM noted"))


async def kept(client: httpx.AsyncClient) -> int:
    """Count the answers that are kept."""
    return int(await _hot(client).fetchval("SELECT count(*) FROM idempotency_keys"))


def _hot(client: httpx.AsyncClient) -> Any:
    return client.state["hot"]  # type: ignore[attr-defined]


async def post(
    client: httpx.AsyncClient, key: str | None = None, path: str = "/v1/things", **body: Any
) -> httpx.Response:
    """Call with a key."""
    headers = {HEADER: key} if key is not None else {}
    return await client.post(path, json=body or None, headers=headers)


async def test_the_same_call_twice_has_one_effect_and_one_answer(
    client: httpx.AsyncClient,
) -> None:
    first = await post(client, "k", name="a")
    again = await post(client, "k", name="a")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert again.headers["content-type"] == "application/json"
    assert await noted(client) == 1


async def test_without_a_key_every_call_has_its_effect(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert REPLAYED not in (await post(client, name="a")).headers
    assert await noted(client) == 2
    assert await kept(client) == 0


async def test_twins_in_flight_wait_for_the_first_and_get_its_answer(
    client: httpx.AsyncClient,
) -> None:
    for turn in range(25):
        answers = await asyncio.gather(*(post(client, f"k{turn}", name="a") for _ in range(4)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert sum(REPLAYED in answer.headers for answer in answers) == 3
    assert await noted(client) == 25


async def test_of_twins_whose_first_is_refused_each_is_judged_by_itself(
    client: httpx.AsyncClient,
) -> None:
    for turn in range(10):
        names = [f"taken{turn}", f"taken{turn}"]
        answers = await asyncio.gather(
            *(post(client, f"{turn}-{n}", name=name) for n, name in enumerate(names * 2))
        )
        assert {answer.status_code for answer in answers} <= {201, 409}
        broken = await asyncio.gather(*(post(client, f"b{turn}", name="broken") for _ in range(3)))
        assert {answer.status_code for answer in broken} == {500}
    assert await kept(client) == await noted(client)


async def test_another_body_under_the_same_key_is_refused(client: httpx.AsyncClient) -> None:
    await post(client, "k", name="a")
    answer = await post(client, "k", name="b")
    assert answer.status_code == 422
    assert fields_of(answer) == {HEADER}
    assert await noted(client) == 1


async def test_another_query_under_the_same_key_is_refused(client: httpx.AsyncClient) -> None:
    await post(client, "k", name="a")
    assert (await post(client, "k", path="/v1/things?x=1", name="a")).status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a", "size": 1, "more": {"x": 1, "y": 2}}',
        b'{"more":{"y":2,"x":1},"size":1,"name":"a"}',
        b'\n{\t"size": 1,\r\n "name" : "\\u0061", "more": {"x": 1, "y": 2}}  ',
    ],
)
async def test_equal_json_is_the_same_body_however_it_is_written(
    client: httpx.AsyncClient, body: bytes
) -> None:
    await post(client, "k", name="a", size=1, more={"x": 1, "y": 2})
    answer = await client.post(
        "/v1/things", content=body, headers={HEADER: "k", "content-type": "application/json"}
    )
    assert answer.status_code == 201
    assert REPLAYED in answer.headers


async def test_a_refused_call_keeps_nothing_and_may_be_tried_again_with_its_key(
    client: httpx.AsyncClient,
) -> None:
    assert (await post(client, name="taken")).status_code == 201
    assert (await post(client, "k", name="taken")).status_code == 409
    assert await kept(client) == 0
    await _hot(client).execute("DELETE FROM noted")
    assert (await post(client, "k", name="taken")).status_code == 201
    # What would now be refused finds its earlier answer first.
    again = await post(client, "k", name="taken")
    assert again.status_code == 201
    assert REPLAYED in again.headers


async def test_a_malformed_call_keeps_nothing(client: httpx.AsyncClient) -> None:
    assert (await post(client, "k", name=1)).status_code == 422
    assert await kept(client) == 0
    assert (await post(client, "k", name="a")).status_code == 201


async def test_a_defect_keeps_nothing_and_undoes_the_effect(client: httpx.AsyncClient) -> None:
    assert (await post(client, "k", name="broken")).status_code == 500
    assert await kept(client) == await noted(client) == 0


async def test_a_commit_that_fails_answers_an_error_and_keeps_nothing(
    client: httpx.AsyncClient,
) -> None:
    answer = await post(client, "k", name="late")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert await kept(client) == await noted(client) == 0


async def test_an_answer_without_effect_is_not_kept(client: httpx.AsyncClient) -> None:
    path = "/v1/things/a/next"
    assert (await post(client, "k", path)).status_code == 204
    assert await kept(client) == 0
    await post(client, name="a")
    took = await post(client, "k", path)
    assert took.status_code == 200
    again = await post(client, "k", path)
    assert (again.status_code, again.content) == (200, took.content)
    assert REPLAYED in again.headers


async def test_the_key_counts_for_one_path(client: httpx.AsyncClient) -> None:
    for name in ("a", "b"):
        await post(client, name=name)
        answer = await post(client, "k", f"/v1/things/{name}/next")
        assert REPLAYED not in answer.headers
        assert answer.status_code == 200


async def test_principals_do_not_share_keys(client: httpx.AsyncClient) -> None:
    answers = []
    for role, subject in (("city", "ann"), ("city", "bob"), ("officer", "ann")):
        client.headers.update(bearer(role, subject=subject))
        answers.append(await post(client, "k", name="a"))
    assert [answer.json()["by"] for answer in answers] == ["ann", "bob", "ann"]
    assert not any(REPLAYED in answer.headers for answer in answers)
    assert await noted(client) == 3


async def test_a_new_token_of_the_same_principal_finds_the_answer(
    client: httpx.AsyncClient,
) -> None:
    client.headers.update(bearer("officer", "H29.1", subject="ann"))
    await post(client, "k", name="a")
    client.headers.update(bearer("officer", "H29.1", "H29.2", subject="ann"))
    assert REPLAYED in (await post(client, "k", name="a")).headers


async def test_without_credentials_the_key_must_be_a_uuid(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    answer = await post(client, "guessable", name="a")
    assert answer.status_code == 422
    assert fields_of(answer) == {HEADER}
    key = str(uuid4())
    assert (await post(client, key, name="a")).status_code == 201
    assert REPLAYED in (await post(client, key, name="a")).headers
    assert await noted(client) == 1


@pytest.mark.parametrize(("length", "expected"), [(0, 422), (1, 201), (255, 201), (256, 422)])
async def test_a_key_has_1_to_255_characters(
    client: httpx.AsyncClient, length: int, expected: int
) -> None:
    answer = await post(client, "k" * length, name="a")
    assert answer.status_code == expected
    if expected == 422:
        assert fields_of(answer) == {HEADER}


async def test_any_bytes_that_http_lets_into_a_header_make_a_key(
    client: httpx.AsyncClient,
) -> None:
    headers = [(HEADER.encode(), "khoá".encode()), (b"content-type", b"application/json")]
    for expected in (False, True):
        answer = await client.post("/v1/things", content=b'{"name": "a"}', headers=headers)
        assert answer.status_code == 201
        assert (REPLAYED in answer.headers) is expected


async def test_of_two_keys_none_is_taken(client: httpx.AsyncClient) -> None:
    twice = [(HEADER, "a"), (HEADER, "a")]
    refused = await client.post("/v1/things", json={"name": "a"}, headers=twice)
    assert refused.status_code == 422
    assert fields_of(refused) == {HEADER}
    assert await noted(client) == 0


async def test_many_different_keys_at_once_all_have_their_effect(
    client: httpx.AsyncClient,
) -> None:
    answers = await asyncio.gather(*(post(client, f"k{n}", name="a") for n in range(40)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["place"] for answer in answers}) == 40

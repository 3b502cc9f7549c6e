"""Forwarding: what must hold over both carriers, and what can only go wrong over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import services.registry.main
from services.gateway.clients import InProcess, over_http
from services.gateway.main import app
from tests.gateway.stub import Stub
from tests.serving import HOST, serving, talk, with_state, written
from tests.support import running, settings_for, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@dataclass
class Front:
    """The gateway on a port of its own; `/v1/tickets` leads to the stub."""

    port: int
    client: httpx.AsyncClient
    """A client of the gateway over that port."""
    stub: Stub

    @property
    def seen(self) -> Any:
        """Give the one request that reached the stub."""
        (seen,) = self.stub.requests
        return seen


@dataclass
class House:
    """A gateway before the registry, a stub that plays queue and intake, and nobody for reports."""

    state: dict[str, Any]
    stub: Stub
    registry: FastAPI
    registry_state: Any


@pytest.fixture(scope="module")
async def house(gateway_url: str) -> AsyncIterator[House]:
    """Start the real registry, the stub and the gateway."""
    stub = Stub()
    registry = services.registry.main.app
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        client = await enter(running(registry, settings_for(gateway_url)))
        registry_state = client.state  # type: ignore[attr-defined]
        ports = {
            "registry": await enter(serving(with_state(registry, registry_state))),
            "queue": await enter(serving(stub)),
            "reporting": 1,
        }
        urls = {f"{service}_url": f"http://{HOST}:{port}" for service, port in ports.items()}
        urls["intake_url"] = urls["queue_url"]
        settings = settings_for(gateway_url, **urls, trusted_proxies="none")
        gateway = await enter(running(app, settings))
        state = gateway.state  # type: ignore[attr-defined]
        yield House(state, stub, registry, registry_state)


@pytest.fixture(scope="module")
async def fronts(house: House) -> AsyncIterator[dict[str, Front]]:
    """Open the gateway twice: handing scopes over in process, and forwarding over HTTP."""
    stub = cast("FastAPI", house.stub)
    apps = {"registry": house.registry, "queue": stub, "intake": stub}
    states = {"registry": house.registry_state, "queue": {}, "intake": {}}
    in_process = house.state | {"forwarder": InProcess(apps, states)}
    async with AsyncExitStack() as stack:
        found = {}
        for carrier, state in (("in process", in_process), ("over HTTP", house.state)):
            port = await stack.enter_async_context(serving(with_state(app, state)))
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=10)
            )
            found[carrier] = Front(port, client, house.stub)
        yield found


@pytest.fixture(params=["in process", "over HTTP"])
def front(fronts: dict[str, Front], request: pytest.FixtureRequest) -> Front:
    """Give the gateway with each carrier."""
    chosen = fronts[request.param]
    chosen.stub.begin()
    return chosen


@pytest.fixture
def over(fronts: dict[str, Front]) -> Front:
    """Give the gateway that forwards over HTTP."""
    chosen = fronts["over HTTP"]
    chosen.stub.begin()
    return chosen


# Answers --------------------------------------------------------------------------------------


async def test_the_registry_answers_through_the_door(front: Front) -> None:
    answered = await front.client.get("/v1/units", params={"q": "sài gòn", "limit": 1})
    assert answered.status_code == 200
    assert [unit["code"] for unit in answered.json()["items"]] == ["H29.26740"]


async def test_status_and_headers_come_back_as_they_were(front: Front) -> None:
    answered = await talk(front.port, written("GET", "/v1/tickets/cookies"))
    assert answered.status == 418
    assert answered.body == b"teapot"
    assert answered.all("set-cookie") == ["a=1", "b=2"]
    assert answered.all("x-motcua")[0].encode("latin-1") == "Một".encode()
    assert len(answered.all("date")) == 1


async def test_a_head_has_a_length_and_no_body(front: Front) -> None:
    answered = await talk(front.port, written("HEAD", "/v1/tickets/head"))
    assert (answered.status, answered.body) == (200, b"")
    assert answered.all("content-length") == ["12345"]


async def test_a_204_is_empty(front: Front) -> None:
    answered = await talk(front.port, written("POST", "/v1/tickets/nothing", body=b"{}"))
    assert (answered.status, answered.body) == (204, b"")
    assert answered.all("transfer-encoding") == []


async def test_hop_headers_of_a_service_end_at_the_door(over: Front) -> None:
    answered = await talk(over.port, written("GET", "/v1/tickets/hops"))
    assert answered.all("x-private") == []
    assert answered.all("keep-alive") == []


# Requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/tickets/x?q=%C3%A9%20%2B+a%26b&x=%e1%BA%A1&&y&z=",
        b"/v1/tickets/x?a=%2F..%2f%00&b=http://x/?y#",
        b"/v1/tickets/%E1%BA%A1%20b;c=d,e@f:g",
        b"/v1/tickets/x?",
    ],
)
async def test_path_and_query_go_on_unchanged(front: Front, target: bytes) -> None:
    assert (await talk(front.port, written("GET", target))).status == 200
    path, _, query = target.partition(b"?")
    assert front.seen.raw_path == path
    assert front.seen.query == query.rstrip(b"#")


async def test_headers_that_end_here_go_no_further(front: Front) -> None:
    sent = (
        "Connection: close, X-Private",
        "X-Private: 1",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Proxy-Authorization: Basic eA==",
        "X-Public: 1",
    )
    await talk(front.port, written("GET", "/v1/tickets/x", *sent))
    names = {name for name, _ in front.seen.headers}
    assert b"x-public" in names
    ended = {b"x-private", b"keep-alive", b"te", b"proxy-authorization", b"proxy-connection"}
    assert not names & ended


async def test_nobody_tells_a_service_where_he_comes_from(front: Front) -> None:
    sent = (
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-For: 203.0.113.10",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "X-Real-IP: 203.0.113.9",
        "Forwarded: for=203.0.113.9",
        "Connection: close, X-Forwarded-For, traceparent",
    )
    await talk(front.port, written("GET", "/v1/tickets/x", *sent))
    assert front.seen.all(b"x-forwarded-for") == [HOST.encode()]
    assert front.seen.all(b"x-forwarded-proto") == [b"http"]
    assert len(front.seen.all(b"traceparent")) == 1
    for name in (b"x-forwarded-host", b"x-real-ip", b"forwarded"):
        assert front.seen.all(name) == []


async def test_the_host_that_was_asked_for_goes_on(front: Front) -> None:
    await talk(front.port, written("GET", "/v1/tickets/x"))
    assert front.seen.all(b"host") == [b"motcua.test"]


async def test_a_header_goes_on_byte_for_byte(front: Front) -> None:
    key = "Một cửa ✓".encode()
    await talk(front.port, written("GET", "/v1/tickets/x", b"Idempotency-Key: " + key))
    assert front.seen.all(b"idempotency-key") == [key]


async def test_a_header_that_is_no_text_is_no_error(front: Front) -> None:
    answered = await talk(front.port, written("GET", "/v1/tickets/x", b"X-Odd: \xff\xfe"))
    assert answered.status == 200


async def test_a_trace_goes_on_into_the_service_and_comes_back_once(front: Front) -> None:
    parent = f"00-{TRACE}-b7ad6b7169203331-01"
    answered = await talk(front.port, written("GET", "/v1/tickets/x", f"traceparent: {parent}"))
    assert answered.all("x-trace-id") == [TRACE]
    (onward,) = front.seen.all(b"traceparent")
    assert onward.decode().split("-")[1] == TRACE
    assert onward.decode() != parent
    answered = await talk(front.port, written("GET", "/v1/units?limit=1", f"traceparent: {parent}"))
    assert answered.all("x-trace-id") == [TRACE]
    refused = await talk(front.port, written("GET", "/v1/units/?", f"traceparent: {parent}"))
    assert refused.all("x-trace-id") == [TRACE]


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.builds(lambda some, times: some * times, st.binary(min_size=1, max_size=64),
                  st.integers(1, 4096)),
        max_size=4,
    )
)  # fmt: skip
async def test_bodies_are_equal_byte_for_byte_in_both_directions(
    front: Front, pieces: list[bytes]
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    answered = await front.client.post("/v1/tickets/echo", content=body())
    assert answered.content == b"".join(pieces)
    sized = await front.client.post("/v1/tickets/echo", content=b"".join(pieces))
    assert sized.content == b"".join(pieces)


async def test_a_body_of_many_megabytes_streams_through(front: Front) -> None:
    whole = bytes(range(256)) * 4096 * 20
    answered = await front.client.post("/v1/files?act=echo", content=whole)
    assert answered.content == whole


async def test_a_service_hears_the_first_piece_before_the_last_was_sent(front: Front) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.wait_for(front.stub.heard.wait(), 5)
        yield b"last"

    answered = await front.client.post("/v1/files?act=echo", content=body())
    assert answered.content == b"firstlast"


async def test_who_expects_100_continue_gets_it(front: Front) -> None:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(HOST, front.port)
        head = written("POST", "/v1/tickets/echo", "Expect: 100-continue", "Content-Length: 5")
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"hello")
        assert (await reader.read(-1)).endswith(b"\r\nhello\r\n0\r\n\r\n")
        writer.close()
    assert front.seen.all(b"expect") == []


async def test_an_answer_may_come_before_the_body_was_read(front: Front) -> None:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(HOST, front.port)
        writer.write(written("POST", "/v1/files?act=early", "Content-Length: 1000000") + b"x" * 9)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        writer.close()


# Streams --------------------------------------------------------------------------------------


async def test_a_stream_arrives_piece_by_piece_while_the_service_still_sends(front: Front) -> None:
    async with front.client.stream("GET", "/v1/tickets/stream") as answered:
        pieces = answered.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        assert not front.stub.go_on.is_set()
        front.stub.go_on.set()
        assert await anext(pieces) == b"data: 2\n\n"
        assert [piece async for piece in pieces] == []
    assert not front.stub.left.is_set()


async def test_a_client_that_leaves_a_stream_ends_it_in_the_service(front: Front) -> None:
    async with front.client.stream("GET", "/v1/tickets/stream") as answered:
        await anext(answered.aiter_raw())
        assert not front.stub.left.is_set()
    await asyncio.wait_for(front.stub.left.wait(), 5)


async def test_a_client_that_sent_a_body_and_leaves_its_stream_ends_it_too(front: Front) -> None:
    async with front.client.stream("POST", "/v1/tickets/stream", content=b"{}") as answered:
        await anext(answered.aiter_raw())
    await asyncio.wait_for(front.stub.left.wait(), 5)


async def test_a_client_that_leaves_in_mid_upload_ends_the_call(front: Front) -> None:
    _, writer = await asyncio.open_connection(HOST, front.port)
    writer.write(written("POST", "/v1/files?act=echo", "Content-Length: 100") + b"half")
    await asyncio.wait_for(front.stub.heard.wait(), 5)
    writer.close()
    await asyncio.wait_for(front.stub.left.wait(), 5)
    assert (await front.client.get("/v1/tickets/x")).status_code == 200


async def test_many_open_streams_keep_nobody_else_out(front: Front) -> None:
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=200)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=front.client.base_url, limits=limits, timeout=10)
        )
        for _ in range(120):
            await stack.enter_async_context(client.stream("GET", "/v1/tickets/stream"))
        assert front.stub.streams == 120
        assert (await client.get("/v1/tickets/x")).status_code == 200
    await wait_until(lambda: front.stub.streams == 0)


# Failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/tickets/dies", "/v1/tickets/short"])
async def test_half_an_answer_is_never_taken_for_a_whole_one(front: Front, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await front.client.get(path)
    assert (await front.client.get("/v1/tickets/x")).status_code == 200


async def test_a_service_that_is_away_is_named_and_the_others_answer(over: Front) -> None:
    for method in ("GET", "POST"):
        away = await over.client.request(method, "/v1/reports/weekly/2026-W47")
        assert away.status_code == 503
        assert away.headers["retry-after"] == "1"
        problem = away.json()
        assert problem["type"] == "urn:motcua:problem:upstream-away"
        assert problem["service"] == "reporting"
        assert problem["trace_id"] == away.headers["x-trace-id"]
    assert (await over.client.get("/v1/tickets/x")).status_code == 200
    assert (await over.client.get("/v1/units")).status_code == 200


async def test_readiness_names_the_service_that_is_out_and_stays_200(over: Front) -> None:
    ready = await over.client.get("/readyz")
    assert ready.status_code == 200
    body = ready.json()
    assert body["status"] == "degraded"
    assert body["degraded"].keys() == {"reporting"}
    assert {body["checks"][up] for up in ("registry", "queue", "intake")} == {"ok"}


@pytest.fixture
async def hasty(house: House) -> AsyncIterator[Front]:
    """Open a gateway that waits no longer than a fifth of a second for a service."""
    house.stub.begin()
    known = house.state["settings"]
    settings = known.model_copy(
        update={"upstream_answer_seconds": 0.2, "upstream_silence_seconds": 0.2}
    )
    async with (
        over_http(settings, stopping=asyncio.Event()) as forwarder,
        serving(with_state(app, house.state | {"forwarder": forwarder})) as port,
        httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=5) as client,
    ):
        yield Front(port, client, house.stub)


async def test_a_service_that_never_answers_is_given_up(hasty: Front) -> None:
    away = await hasty.client.get("/v1/tickets/silent")
    assert away.status_code == 503
    assert away.json()["service"] == "queue"
    await asyncio.wait_for(hasty.stub.left.wait(), 5)


async def test_a_stream_that_falls_silent_is_broken_off(hasty: Front) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await hasty.client.get("/v1/tickets/stream")
    await asyncio.wait_for(hasty.stub.left.wait(), 5)


@pytest.fixture(autouse=True)
def _nothing_is_left_running(house: House) -> Iterator[None]:
    yield
    house.stub.go_on.set()

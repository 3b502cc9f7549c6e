"""Sizes, times and places at the door, each at its edge, on the raw socket of a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import orjson
import pytest

from tests.gateway.front import Front, front
from tests.gateway.stub import Stub
from tests.serving import HOST, Answer, serving, talk, written
from tests.support import wait_until

BOUNDS: dict[str, Any] = {
    "url_bytes": 256, "head_fields": 20, "head_bytes": 2000, "body_bytes": 1024,
    "file_bytes": 4096, "head_seconds": 0.3, "body_seconds": 0.4, "caller_silence_seconds": 0.2,
    "upstream_answer_seconds": 0.3, "upstream_silence_seconds": 1,
    "rate_anonymous_writes": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def stub() -> Stub:
    """Give a service that plays queue and intake."""
    return Stub()


@pytest.fixture(scope="module")
async def small(stub: Stub) -> AsyncIterator[Front]:
    """Give a gateway with little room and little patience."""
    async with serving(stub) as port, front({"queue": port, "intake": port}, **BOUNDS) as door:
        yield door


@pytest.fixture
def door(small: Front, stub: Stub) -> Front:
    """Give it to one test."""
    stub.begin()
    return small


def kind(answered: Answer) -> str:
    """Name the problem that an answer is."""
    assert answered.all("content-type") == ["application/problem+json"]
    problem = orjson.loads(answered.body)
    assert problem["status"] == answered.status
    assert answered.all("x-trace-id") == [problem["trace_id"]]
    return str(problem["type"]).removeprefix("urn:motcua:problem:")


# Heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 414)])
async def test_an_address_may_be_so_long(door: Front, more: int, status: int) -> None:
    for start in ("/v1/tickets/", "/v1/tickets/x?q=", "/nothing/"):
        length = 256 + more - len(start) + ("?" in start)
        answered = await talk(door.port, written("GET", start + "a" * length))
        if status == 414:
            assert (answered.status, kind(answered)) == (414, "url-too-long")
        else:
            assert answered.status == (200 if start.startswith("/v1") else 404)


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_there_may_be_so_many_headers(door: Front, more: int, status: int) -> None:
    own = [f"X-{number}: 1" for number in range(18 + more)]  # and Host, and Connection
    answered = await talk(door.port, written("GET", "/v1/tickets/x", *own))
    assert answered.status == status
    if status == 431:
        assert kind(answered) == "head-too-large"


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
async def test_headers_may_be_so_large_together(door: Front, more: int, status: int) -> None:
    others = len("host" + "motcua.test" + "connection" + "close" + "x-a")
    answered = await talk(
        door.port, written("GET", "/v1/tickets/x", "X-A: " + "a" * (2000 - others + more))
    )
    assert answered.status == status


async def test_a_head_without_end_is_ended(door: Front, stub: Stub) -> None:
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(b"GET /v1/tickets/x HTTP/1.1\r\nHost: motcua.test\r\nX-A: ")
    said = asyncio.create_task(to_the_end(reader))
    sent = 0
    async with asyncio.timeout(5):
        while not said.done():
            writer.write(b"a" * 100)
            sent += 100
            await asyncio.sleep(0.001)
    assert (await said).startswith(b"HTTP/1.1 431 ")
    assert sent < 50_000
    assert stub.requests == []
    writer.close()


async def test_a_head_may_take_so_long(door: Front, stub: Stub) -> None:
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(b"GET /v1/tickets/x HTTP/1.1\r\nHost: motcua.test\r\n")
    said = asyncio.create_task(reader.read(-1))
    async with asyncio.timeout(5):
        while not said.done():
            writer.write(b"X-A: a\r\n")
            await asyncio.sleep(0.05)
    head, _, body = (await said).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in head
    assert orjson.loads(body)["type"] == "urn:motcua:problem:too-slow"
    assert stub.requests == []
    writer.close()


@pytest.mark.parametrize("first", [b"", b"\r\n", written("GET", "/livez", "Connection: x")])
async def test_who_says_nothing_more_is_let_go(door: Front, first: bytes) -> None:
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(first)
    if b"GET" in first:
        await reader.readuntil(b"[]}")
    over = asyncio.create_task(reader.read(-1))
    async with asyncio.timeout(5):
        while not over.done():
            writer.write(b"\r\n")  # says nothing either
            await asyncio.wait([over], timeout=0.05)
    with suppress(ConnectionError):  # what was sent last may meet a closed door
        assert await over == b""
    writer.close()


async def test_a_second_head_on_a_connection_has_its_time_too(door: Front) -> None:
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"[]}")
    writer.write(b"GET /livez HTTP/1.1\r\n")
    assert (await asyncio.wait_for(reader.read(-1), 5)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_call_that_takes_longer_than_a_head_may_is_answered(
    door: Front, stub: Stub
) -> None:
    asked = asyncio.create_task(door.client.get("/v1/tickets/stream"))
    await wait_until(lambda: stub.streams == 1)
    await asyncio.sleep(BOUNDS["head_seconds"] + 0.1)
    stub.go_on.set()
    assert (await asked).text == "data: 1\n\ndata: 2\n\n"


# What two programs could read in two ways -----------------------------------------------------


HOST_LINE = b"Host: motcua.test"


@pytest.mark.parametrize(
    "lines",
    [
        [HOST_LINE, b"Host: motcua.test"],
        [HOST_LINE, b"host: evil.example"],
        [],
        [HOST_LINE, b"Content-Length: 2", b"Content-Length: 2"],
        [HOST_LINE, b"Content-Length: 2", b"Content-Length: 3"],
        [HOST_LINE, b"Content-Length: 2, 2"],
        [HOST_LINE, b"Content-Length: +2"],
        [HOST_LINE, b"Content-Length: -2"],
        [HOST_LINE, b"Content-Length: 0x2"],
        [HOST_LINE, b"Content-Length:"],
        [HOST_LINE, b"Content-Length: 99999999999999999999999"],
        [HOST_LINE, b"Content-Length: 2", b"Transfer-Encoding: chunked"],
        [HOST_LINE, b"Transfer-Encoding: chunked", b"Content-Length: 2"],
        [HOST_LINE, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [HOST_LINE, b"Transfer-Encoding: chunked, identity"],
        [HOST_LINE, b"Transfer-Encoding: gzip"],
        [HOST_LINE, b"Transfer-Encoding: xchunked"],
        [HOST_LINE, b"Content-Length : 2"],
        [HOST_LINE, b"Transfer-Encoding : chunked"],
        [HOST_LINE, b"X-A: 1\0"],
        [HOST_LINE, b"X A: 1"],
        [HOST_LINE, b": 1"],
        [HOST_LINE, b" folded: 1"],
        [HOST_LINE, b"X-A: 1", b" folded"],
        [HOST_LINE, b"X-A: 1\rX-B: 2"],
        [HOST_LINE, b"Content-Type: application/json", b"Content-Type: text/plain"],
        [HOST_LINE, b"Idempotency-Key: a", b"Idempotency-Key: b"],
        [HOST_LINE, b"Authorization: Bearer a", b"Authorization: Bearer b"],
    ],
)
async def test_a_head_with_two_meanings_is_refused(
    door: Front, stub: Stub, lines: list[bytes]
) -> None:
    head = b"\r\n".join([b"POST /v1/tickets/x HTTP/1.1", *lines, b"Connection: close"])
    body = b"2\r\n{}\r\n0\r\n\r\n" if b"hunked" in head else b"{}"
    answered = await talk(door.port, head + b"\r\n\r\n" + body)
    assert answered.status == 400
    assert kind(answered) == "not-http"
    assert stub.requests == []


@pytest.mark.parametrize(
    "line", [b"GET /v1/tickets/x", b"GET /v1/tickets/x HTTP/9.9",
             b"GET /v1/tickets/x HTTP/1.1 x", b"G\0T /v1/tickets/x HTTP/1.1", b"\x16\x03\x01\x02"]
)  # fmt: skip
async def test_a_first_line_that_is_no_http_is_refused(
    door: Front, stub: Stub, line: bytes
) -> None:
    answered = await talk(door.port, line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answered.status == 400
    assert kind(answered) == "not-http"
    assert stub.requests == []


@pytest.mark.parametrize(
    "target", [b"/v1/tickets/a%2fb", b"/v1/tickets/%2F", b"/v1/files%2f..%2ftickets",
               b"/v1%2ftickets/x", b"/v1/tickets%5cx", b"/v1/tickets/%252f"]
)  # fmt: skip
async def test_an_encoded_slash_is_no_slash(door: Front, stub: Stub, target: bytes) -> None:
    answered = await talk(door.port, written("GET", target))
    if target.endswith(b"%252f"):  # an encoded per cent sign is just that
        assert [seen.raw_path for seen in stub.requests] == [target]
    else:
        assert answered.status == 400
        assert stub.requests == []


async def test_a_second_request_hidden_in_a_body_is_none(door: Front, stub: Stub) -> None:
    hidden = b"GET /v1/tickets/hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    answered = await talk(door.port, written("POST", "/v1/tickets/echo", body=hidden))
    assert answered.status == 200
    assert [seen.raw_path for seen in stub.requests] == [b"/v1/tickets/echo"]


# Bodies ---------------------------------------------------------------------------------------


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """Give so many bytes without saying how many."""
    for start in range(0, size, 100):
        yield b"x" * min(100, size - start)


@pytest.mark.parametrize(
    ("path", "most"), [("/v1/tickets/echo", 1024), ("/v1/files?act=echo", 4096)]
)
async def test_a_body_may_be_so_large_whether_its_length_is_told_or_not(
    door: Front, path: str, most: int
) -> None:
    for content in (b"x" * most, in_pieces(most)):
        answered = await door.client.post(path, content=content)
        assert (answered.status_code, len(answered.content)) == (200, most)
    for content in (b"x" * (most + 1), in_pieces(most + 1)):
        refused = await door.client.post(path, content=content)
        assert refused.status_code == 413
        assert refused.json()["type"] == "urn:motcua:problem:too-large"
        assert str(most) in refused.json()["detail"]


async def test_a_body_that_is_too_large_reaches_no_service(door: Front, stub: Stub) -> None:
    await door.client.post("/v1/tickets/echo", content=b"x" * 1025)
    await door.client.post("/v1/tickets/echo", content=in_pieces(1025))
    assert stub.requests == []


async def test_who_was_answered_early_is_heard_out_for_so_long(door: Front) -> None:
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(written("POST", "/v1/tickets/x", "Content-Length: 5000", "Connection: x"))
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 413 ")
    over = asyncio.create_task(reader.read(-1))
    async with asyncio.timeout(5):
        while not over.done():
            writer.write(b"x")
            await asyncio.wait([over], timeout=0.02)
    with suppress(ConnectionError):
        assert await over == b""
    writer.close()
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(written("POST", "/v1/tickets/x", "Content-Length: 5000", "Connection: x"))
    await reader.readuntil(b"}")
    writer.write(b"x" * 5000 + written("GET", "/livez"))
    assert (await asyncio.wait_for(reader.read(-1), 5)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """Read all; who still sends to a server that has answered and hung up is told by a reset."""
    told = b""
    with suppress(ConnectionResetError):
        while block := await reader.read(65_536):
            told += block
    return told


async def dribbled(door: Front, path: str, pause: float, stop: int | None = None) -> bytes:
    """Send a body a byte at a time and give what is answered."""
    reader, writer = await asyncio.open_connection(HOST, door.port)
    writer.write(written("POST", path, "Content-Length: 1000", "Connection: x"))
    said = asyncio.create_task(to_the_end(reader))
    sent = 0
    async with asyncio.timeout(5):
        while not said.done():
            if stop is None or sent < stop:
                writer.write(b"x")
                sent += 1
            await asyncio.wait([said], timeout=pause)
    writer.close()
    return await said


@pytest.mark.parametrize("path", ["/v1/tickets/echo", "/v1/files?act=echo"])
async def test_who_sends_nothing_of_a_body_any_more_is_let_go(
    door: Front, stub: Stub, path: str
) -> None:
    answered = await dribbled(door, path, 0.02, stop=5)
    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answered.lower()
    if "files" in path:
        await asyncio.wait_for(stub.left.wait(), 5)
    else:
        assert stub.requests == []


async def test_a_small_body_may_take_so_long_in_all_and_a_file_longer(
    door: Front, stub: Stub
) -> None:
    assert (await dribbled(door, "/v1/tickets/count", 0.02)).startswith(b"HTTP/1.1 408 ")
    assert stub.requests == []

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x"
            await asyncio.sleep(BOUNDS["body_seconds"] / 6)

    answered = await door.client.post("/v1/files?act=count", content=slowly())
    assert (answered.status_code, answered.text) == (200, "8")


# Places ---------------------------------------------------------------------------------------


@asynccontextmanager
async def crowded(stub: Stub, **bounds: int) -> AsyncIterator[Front]:
    """Open a gateway with few places."""
    stub.begin()
    async with (
        serving(stub) as port,
        front({"queue": port, "intake": port, "registry": port}, **bounds) as door,
    ):
        yield door


async def leave(stack: AsyncExitStack, door: Front, path: str, times: int, **who: str) -> None:
    """Open calls that stay open, and wait until they are under way."""
    for _ in range(times):
        head = written("GET", path, *(f"{name}: {value}" for name, value in who.items()))
        _, writer = await asyncio.open_connection(HOST, door.port)
        stack.callback(writer.close)
        writer.write(head)


def refused_for(answered: httpx.Response) -> tuple[int, str, str]:
    """Tell what an answer says of a place."""
    assert answered.headers["retry-after"] == "1"
    problem = answered.json()
    assert problem["type"] == "urn:motcua:problem:busy"
    return answered.status_code, problem["limit"], problem["service"]


async def test_one_call_too_many_is_told_so_at_once_and_the_others_are_answered() -> None:
    stub = Stub()
    async with crowded(stub, upstream_calls=3) as door, AsyncExitStack() as stack:
        await leave(stack, door, "/v1/tickets/silent", 3)
        await wait_until(lambda: len(stub.requests) == 3)
        busy = await door.client.get("/v1/tickets/x")
        assert refused_for(busy) == (503, "upstream-calls", "queue")
        assert (await door.client.get("/v1/units")).status_code == 200
        assert (await door.client.get("/v1/dossiers/x")).status_code == 200
        assert 'motcua_gateway_open{what="queue"} 3.0' in (await door.client.get("/metrics")).text
        await stack.aclose()
        await wait_until(lambda: door.state["gates"]._open.total() == 0)
        assert (await door.client.get("/v1/tickets/x")).status_code == 200


async def test_all_services_together_have_so_many_places() -> None:
    stub = Stub()
    async with (
        crowded(stub, upstream_calls=3, door_calls=4) as door,
        AsyncExitStack() as stack,
    ):
        await leave(stack, door, "/v1/tickets/silent", 3)
        await leave(stack, door, "/v1/dossiers/silent", 1)
        await wait_until(lambda: len(stub.requests) == 4)
        busy = await door.client.get("/v1/units")
        assert refused_for(busy) == (503, "door-calls", "registry")


async def test_boards_keep_nobody_from_the_queue_and_one_address_not_all_from_boards() -> None:
    stub = Stub()
    async with (
        crowded(stub, upstream_calls=1, door_calls=1, door_streams=3, address_streams=2) as door,
        AsyncExitStack() as stack,
    ):
        one, other = {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "198.51.100.2"}
        await leave(stack, door, "/v1/queue/overview/stream", 2, **one)
        await wait_until(lambda: stub.streams == 2)
        busy = await door.client.get("/v1/queue/overview/stream", headers=one)
        assert refused_for(busy) == (503, "address-streams", "queue")
        await leave(stack, door, "/v1/units/x/queue/stream", 1, **other)
        await wait_until(lambda: stub.streams == 3)
        busy = await door.client.get("/v1/queue/overview/stream", headers=other)
        assert refused_for(busy) == (503, "door-streams", "queue")
        for _ in range(3):
            assert (await door.client.get("/v1/tickets/x")).status_code == 200


async def test_slow_uploads_keep_nobody_from_intake() -> None:
    stub = Stub()
    async with crowded(stub, upstream_calls=1, door_uploads=2) as door, AsyncExitStack() as stack:
        for _ in range(2):
            _, writer = await asyncio.open_connection(HOST, door.port)
            stack.callback(writer.close)
            writer.write(written("POST", "/v1/files?act=count", "Content-Length: 100") + b"half")
        await wait_until(lambda: len(stub.requests) == 2)
        busy = await door.client.post("/v1/files?act=count", content=b"x")
        assert refused_for(busy) == (503, "door-uploads", "intake")
        assert (await door.client.get("/v1/dossiers/x")).status_code == 200

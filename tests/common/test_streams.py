"""Live streams: what a reader buffers, and how a stream ends."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.common.streams import LiveStream, Reader, written
from tests.serving import HOST, serving
from tests.support import wait_until


@given(rounds=st.lists(st.integers(0, 2 * Reader.limit), max_size=6))
def test_a_reader_gets_everything_in_order_or_the_whole_anew(rounds: list[int]) -> None:
    """Between two takes so many pieces are offered."""

    async def play() -> None:
        offered = 0
        reader = Reader(lambda: b"all %d;" % offered)
        for count in rounds:
            for _ in range(count):
                offered += 1
                reader.offer(b"%d;" % offered)
            if not count:
                continue
            taken = await reader.take()
            expected = b"".join(b"%d;" % n for n in range(offered - count + 1, offered + 1))
            assert taken == (expected if count <= Reader.limit else b"all %d;" % offered)

    asyncio.run(play())


def test_an_event_is_written_as_the_standard_says() -> None:
    assert written("change", {"a": "Một\ncửa"}, "7-1") == (
        'event: change\ndata: {"a":"Một\\ncửa"}\nid: 7-1\n\n'.encode()
    )


def slow(what: str) -> float:
    """Count the readers that fell behind."""
    return REGISTRY.get_sample_value("motcua_stream_slow_readers_total", {"what": what}) or 0


class Fan:
    """An app whose every answer is a stream of what is offered."""

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self.patience = LiveStream.patience

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Reader]:
        """Keep a reader while its stream is open."""
        reader = Reader(lambda: b"data: whole\n\n")
        self.readers.add(reader)
        yield reader
        self.readers.discard(reader)

    def offer(self, piece: bytes) -> None:
        """Offer a piece to everybody."""
        for reader in self.readers:
            reader.offer(piece)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        stream = LiveStream(self.opened())
        stream.patience = self.patience
        await stream(scope, receive, send)


@pytest.fixture
def fan() -> Fan:
    """Give an app to stream from."""
    return Fan()


@asynccontextmanager
async def client(
    app: ASGIApp, port: int, room: int | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """Open a stream; with `room` the client's side takes hardly more bytes than that."""
    raw = socket.socket()
    if room:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (HOST, port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=room or 2**16)
    writer.write(b"GET / HTTP/1.1\r\nHost: motcua.test\r\n\r\n")
    try:
        assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
        yield reader
    finally:
        writer.transport.abort()


async def test_a_client_that_takes_nothing_delays_nobody_and_is_dropped_in_the_end(
    fan: Fan,
) -> None:
    fan.patience = 0.3
    dropped = slow("dropped")
    piece = b"data: " + b"x" * 32_768 + b"\n\n"
    async with serving(fan) as port, client(fan, port, 4096), client(fan, port) as lively:
        await wait_until(lambda: len(fan.readers) == 2)
        taken = 0
        for _ in range(500):
            fan.offer(piece)
            await lively.readuntil(b"\n\n")
            taken += 1
        assert taken == 500
        await wait_until(lambda: len(fan.readers) == 1)
    assert slow("dropped") == dropped + 1


async def test_a_client_that_falls_behind_is_given_the_whole(fan: Fan) -> None:
    async with serving(fan) as port, client(fan, port) as lagging:
        await wait_until(lambda: len(fan.readers) == 1)
        for _ in range(Reader.limit + 1):  # without a turn for the stream in between
            fan.offer(b"data: piece\n\n")
        assert b"data: whole\n\n" in await lagging.readuntil(b"\n\n")
        fan.offer(b"data: next\n\n")
        assert b"data: next\n\n" in await lagging.readuntil(b"next\n\n")


async def test_a_client_that_goes_away_frees_its_stream(fan: Fan) -> None:
    async with serving(fan) as port:
        async with client(fan, port):
            await wait_until(lambda: len(fan.readers) == 1)
        await wait_until(lambda: not fan.readers)


async def test_a_reader_that_is_ended_ends_its_stream_as_a_whole_answer(fan: Fan) -> None:
    async with serving(fan) as port, client(fan, port) as reading:
        await wait_until(lambda: len(fan.readers) == 1)
        for reader in fan.readers:
            reader.end()
        assert await reading.readuntil(b"0\r\n\r\n")
        await wait_until(lambda: not fan.readers)

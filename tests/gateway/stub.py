"""A little service that does what it is told by the last part of the path, or `?act=`."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send


@dataclass(frozen=True)
class Seen:
    """A request as the service saw it."""

    method: str
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]

    def all(self, name: bytes) -> list[bytes]:
        """Give every value of a header, in order."""
        return [value for known, value in self.headers if known == name]


@dataclass
class Stub:
    """An ASGI app that notes what came in; each test takes up the events it waits on."""

    requests: list[Seen] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """A first piece of a body has come in."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """The test lets the answer go on."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The caller has gone."""
    streams: int = 0

    def begin(self) -> None:
        """Forget the last test."""
        self.requests.clear()
        for event in (self.heard, self.go_on, self.left):
            event.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the path says."""
        if scope["path"] == "/readyz":
            await _whole(send, 200)
            return
        seen = Seen(scope["method"], scope["raw_path"], scope["query_string"], scope["headers"])
        self.requests.append(seen)
        told = scope["query_string"].partition(b"act=")[2].decode()
        act = getattr(self, "on_" + (told or scope["path"].rpartition("/")[2]), _fine)
        await act(receive, send)

    async def on_cookies(self, receive: Receive, send: Send) -> None:
        """Answer with headers that stand there more than once."""
        headers = [(b"set-cookie", b"a=1"), (b"x-motcua", "Một".encode()), (b"set-cookie", b"b=2")]
        await _whole(send, 418, b"teapot", headers)

    async def on_nothing(self, receive: Receive, send: Send) -> None:
        """Answer 204."""
        await _whole(send, 204)

    async def on_head(self, receive: Receive, send: Send) -> None:
        """Answer HEAD: a length, and no body."""
        await _start(send, 200, [(b"content-length", b"12345")])
        await send({"type": "http.response.body", "body": b""})

    async def on_echo(self, receive: Receive, send: Send) -> None:
        """Take the body in pieces and give it back in pieces."""
        pieces = await self._body(receive)
        await _start(send, 200, [])
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def on_count(self, receive: Receive, send: Send) -> None:
        """Take the body, keep nothing of it, and tell how long it was."""
        size, more = 0, True
        while more:
            message: Any = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await _whole(send, 200, str(size).encode())

    async def on_stuck(self, receive: Receive, send: Send) -> None:
        """Take the first piece of the body, and nothing more until the caller has gone."""
        await receive()
        self.heard.set()
        await self.go_on.wait()
        await self._until_left(receive)

    async def on_flood(self, receive: Receive, send: Send) -> None:
        """Answer with 50 MB, as fast as somebody takes them."""
        await _start(send, 200, [(b"content-length", b"%d" % (50 * 1_048_576))])
        for _ in range(800):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def on_early(self, receive: Receive, send: Send) -> None:
        """Answer without reading the body."""
        await _whole(send, 413, b"too much")

    async def on_stream(self, receive: Receive, send: Send) -> None:
        """Send a piece, and the next when the test says so; note whether the caller left."""
        await _start(send, 200, [(b"content-type", b"text/event-stream")])
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        self.streams += 1
        listening = asyncio.create_task(self._until_left(receive))
        waiting = asyncio.create_task(self.go_on.wait())
        try:
            await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.streams -= 1
            listening.cancel()
            waiting.cancel()
        if not self.left.is_set():
            await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    async def on_silent(self, receive: Receive, send: Send) -> None:
        """Never answer, or not before the caller has gone."""
        await self._until_left(receive)

    async def on_dies(self, receive: Receive, send: Send) -> None:
        """Break down in the middle of an answer of unknown length."""
        await _start(send, 200, [])
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionAbortedError("the service dies here")

    async def on_short(self, receive: Receive, send: Send) -> None:
        """Break down in the middle of an answer whose length was told."""
        await _start(send, 200, [(b"content-length", b"100")])
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ConnectionAbortedError("the service dies here")

    async def on_hops(self, receive: Receive, send: Send) -> None:
        """Answer with headers that are meant for one hop."""
        headers = [(b"connection", b"x-private"), (b"x-private", b"1"), (b"keep-alive", b"max=9")]
        await _whole(send, 200, b"", headers)

    async def _until_left(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _body(self, receive: Receive) -> list[bytes]:
        pieces: list[bytes] = []
        while True:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return pieces
            pieces.append(message.get("body", b""))
            self.heard.set()
            if not message.get("more_body"):
                return pieces


async def _fine(receive: Receive, send: Send) -> None:
    await _whole(send, 200, b"fine")


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _whole(
    send: Send, status: int, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await _start(send, status, [*(headers or []), *length])
    await send({"type": "http.response.body", "body": body})

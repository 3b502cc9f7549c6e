"""A client that costs so little that the servers are what is measured: one connection, one call."""

import asyncio
from typing import Any, Final, Self

import httptools

HOST: Final = "127.0.0.1"


class Line(asyncio.Protocol):
    """A connection that is kept, on which one call follows the other."""

    def __init__(self) -> None:
        """Start with no call under way."""
        self._transport: Any = None
        self._parser: Any = None
        self._body = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect to a port of the loopback."""
        _, line = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return line

    async def ask(self, method: str, path: str, headers: bytes, body: bytes = b"") -> Any:
        """Make a call; answer its status and body. `headers` are whole lines, as on the wire."""
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n"
        self._transport.write(b"%b%b\r\n%b" % (head.encode(), headers, body))
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    # What asyncio and the parser call.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._answer is not None
        self._answer.set_result((self._parser.get_status_code(), self._body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("hung up"))

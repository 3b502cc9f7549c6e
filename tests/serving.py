"""Real sockets: a server in the test's loop, and clients of raw bytes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support import wait_until

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(app: ASGIApp, **changes: Any) -> AsyncIterator[int]:
    """Serve an app on a free port of the loopback; its lifespan is somebody else's.

    `changes` are uvicorn's own settings.
    """
    # Only a socket that names its protocol is served without Nagle's delay, 40 ms to an answer.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind((HOST, 0))
        usual: dict[str, Any] = {
            "lifespan": "off",
            "log_config": None,
            "access_log": False,
            "proxy_headers": False,
            "server_header": False,
            "timeout_graceful_shutdown": 1,
        }
        config = uvicorn.Config(app, **(usual | changes))
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await wait_until(lambda: server.started or task.done())
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


def with_state(app: ASGIApp, state: Mapping[str, Any]) -> ASGIApp:
    """Give an app the state of its lifespan with every request; what it holds may be changed."""

    async def stated(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return stated


@dataclass(frozen=True)
class Answer:
    """An answer as it stood on the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Give every value of a header, in order."""
        return [value for known, value in self.headers if known == name]


async def talk(port: int, request: bytes, within: float = 10) -> Answer:
    """Send bytes as they are and read one answer to the end of the connection."""
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(request)
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(status.split()[1]), [(n.lower(), v) for n, _, v in pairs], body)


def written(method: str, target: bytes | str, *headers: bytes | str, body: bytes = b"") -> bytes:
    """Write a request that closes its connection."""
    raw = [part.encode() if isinstance(part, str) else part for part in (target, *headers)]
    if body:
        raw.append(b"Content-Length: %d" % len(body))
    start = b"%s %s HTTP/1.1\r\nHost: motcua.test\r\n" % (method.encode(), raw[0])
    closing = [] if any(b"onnection:" in header for header in raw) else [b"Connection: close"]
    return start + b"\r\n".join([*raw[1:], *closing]) + b"\r\n\r\n" + body

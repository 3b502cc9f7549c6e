"""Forwarding, behind one small interface: in process for the embedded city, else over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import structlog
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from libs.common.observability import is_event_stream
from libs.common.problems import Unavailable
from libs.common.settings import SERVICES, Settings
from libs.common.trace import current_traceparent

log = structlog.get_logger()

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection", b"expect", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Meant for the next hop only (RFC 9110 §7.6.1), or settled by the server before us."""

OURS = frozenset(
    {
        b"forwarded", b"traceparent", b"x-forwarded-for", b"x-forwarded-host",
        b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip",
    }
)  # fmt: skip
"""What only the door may tell a service; a caller's own words are dropped."""


class UpstreamAway(Unavailable):
    """The service behind this address is away; the others answer as before."""


class Forwarder(Protocol):
    """Hands a request to a service and its answer back, both as streams."""

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request by the service.

        Raises:
            UpstreamAway: nothing of an answer had come yet.
        """
        ...

    async def openapi(self, service: str) -> dict[str, Any]:
        """Give the service's own description.

        Raises:
            UpstreamAway.
        """
        ...

    async def alive(self, service: str) -> str | None:
        """Say what is wrong with a service, or None."""
        ...


def end_to_end(headers: Headers) -> Headers:
    """Leave out the headers that end at this hop, those that `Connection` names among them."""
    dropped = HOP_BY_HOP
    for name, value in headers:
        if name == b"connection":
            dropped |= {token.strip() for token in value.lower().split(b",")}
    return [(name, value) for name, value in headers if name not in dropped]


def onward(scope: Scope) -> Headers:
    """Give the request's headers for a service: with our span as the parent of what comes next."""
    headers = [(name, value) for name, value in end_to_end(scope["headers"]) if name not in OURS]
    headers.append((b"traceparent", current_traceparent().encode()))
    headers.append((b"x-forwarded-proto", scope["scheme"].encode()))
    if client := scope.get("client"):
        headers.append((b"x-forwarded-for", client[0].encode()))
    return headers


class InProcess:
    """Hands the ASGI scope straight to a service's app: no client in between."""

    def __init__(
        self, apps: Mapping[str, FastAPI], states: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Take the apps and their lifespan states, by service."""
        self._apps = apps
        self._states = states

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app with a scope of its own, so that nothing of the gateway's leaks in."""
        own = {name: value for name, value in scope.items() if name in _ASGI}
        own["state"] = dict(self._states[service])
        own["headers"] = onward(scope)
        await self._apps[service](own, receive, send)

    async def openapi(self, service: str) -> dict[str, Any]:
        """Ask the app, beside the loop: the first time takes a moment, and others wait."""
        return await asyncio.to_thread(self._apps[service].openapi)

    async def alive(self, service: str) -> str | None:  # noqa: ARG002  (one process, one life)
        """Say nothing: the service's own checks stand beside the gateway's."""
        return None


_ASGI = frozenset(
    {
        "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string",
        "root_path", "client", "server", "extensions",
    }
)  # fmt: skip


class OverHttp:
    """Forwards with aiohttp's client, many times faster here than httpx's (see the decision)."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        bases: Mapping[str, str],
        stopping: asyncio.Event,
        patience: float,
    ) -> None:
        """Take an open session, each service's base address, what tells that the process stops,
        and for how many seconds a caller may take nothing of an answer."""
        self._session = session
        self._bases = bases
        self._stopping = stopping
        self._patience = patience

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request on and stream the answer back."""
        path = scope.get("raw_path") or scope["path"].encode()
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        url = URL(self._bases[service] + (path + query).decode("latin-1"), encoded=True)
        client = _Client(receive, send, sends=_has_body(scope), patience=self._patience)
        started = False
        try:
            async with self._session.request(
                scope["method"],
                url,
                headers=_as_text(onward(scope)),
                data=client.body() if client.sends else None,
                allow_redirects=False,
            ) as answer:
                started = True
                await _give_back(answer, client, self._stopping)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if client.left:
                return  # nobody is there to be told anything
            if client.stopped:
                await client.take(_END)
                return
            if started:
                raise  # half an answer is out: only a broken connection tells the client so
            log.warning("upstream.away", upstream=service, error=type(error).__name__)
            raise UpstreamAway(f"the {service} service does not answer", service=service) from None

    async def openapi(self, service: str) -> dict[str, Any]:
        """Fetch the service's description."""
        try:
            url = self._bases[service] + "/openapi.json"
            async with self._session.get(url, timeout=_DESCRIBED_WITHIN) as answer:
                answer.raise_for_status()
                description: dict[str, Any] = await answer.json()
                return description
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise UpstreamAway(f"the {service} service does not answer") from None

    async def alive(self, service: str) -> str | None:
        """Ask whether the service would serve."""
        try:
            async with self._session.get(self._bases[service] + "/readyz") as answer:
                return None if answer.status == 200 else f"readyz answers {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"away: {type(error).__name__}"


_DESCRIBED_WITHIN = aiohttp.ClientTimeout(total=5)


class _Client:
    """The caller's side of a request: its body, and whether somebody still waits for an answer."""

    def __init__(self, receive: Receive, send: Send, *, sends: bool, patience: float) -> None:
        self._receive = receive
        self._send = send
        self._patience = patience
        self._heard = asyncio.Event()
        """Set when the body is in: only then may somebody else listen for the end."""
        if not sends:
            self._heard.set()
        self.sends = sends
        self.left = False
        self.stopped = False

    async def body(self) -> AsyncIterator[bytes]:
        """Give the body as it comes in."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                raise ConnectionResetError("the client went away")
            if message.get("body"):
                yield message["body"]
            more = message.get("more_body", False)
        self._heard.set()

    async def take(self, message: Message) -> None:
        """Pass a part of the answer on; a caller that takes nothing for long has left."""
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            self.left = True
            raise

    async def leaves(self) -> None:
        """Wait until nobody is there any more."""
        await self._heard.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True


def _as_text(headers: Headers) -> list[tuple[str, str]]:
    # aiohttp writes UTF-8: read as such, every header that is text goes on byte for byte.
    return [(name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in headers]


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _give_back(
    answer: aiohttp.ClientResponse, client: _Client, stopping: asyncio.Event
) -> None:
    headers = [
        (name, value)
        for name, value in end_to_end([(n.lower(), v) for n, v in answer.raw_headers])
        if name not in (b"date", b"server")
    ]
    await client.take({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.content_length is not None:
        await _pour(answer, client)
        return
    # A stream may be silent for long and has no end of its own: whoever left must end it.
    endings = [asyncio.create_task(client.leaves())]
    if is_event_stream(headers):
        # Its reader resumes elsewhere; half an answer of any other kind must be waited for.
        endings.append(asyncio.create_task(_stops(stopping, client)))
    for ending in endings:
        ending.add_done_callback(lambda task: None if task.cancelled() else answer.close())
    try:
        await _pour(answer, client)
    finally:
        for ending in endings:
            ending.cancel()


async def _stops(stopping: asyncio.Event, client: _Client) -> None:
    await stopping.wait()
    client.stopped = True


async def _pour(answer: aiohttp.ClientResponse, client: _Client) -> None:
    async for chunk in answer.content.iter_any():
        await client.take({"type": "http.response.body", "body": chunk, "more_body": True})
    await client.take(_END)


_END: Message = {"type": "http.response.body", "body": b""}


@asynccontextmanager
async def over_http(
    settings: Settings, *, stopping: asyncio.Event, patience: float = 60
) -> AsyncIterator[OverHttp]:
    """Open the proxy's client: kept connections, bounded waits, nothing decoded on the way.

    `patience` is how many seconds a service may be silent, also in mid-stream, where heartbeats
    come more often, and for how many a caller may take nothing of its answer. The number of
    connections is not bounded here, or a hundred open boards would keep everybody else from the
    queue; an idle one is closed before the service would close it, which could cross with a request
    that nobody may repeat.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=patience),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        bases = {service: settings.upstream(service) for service in SERVICES}
        yield OverHttp(session, bases, stopping, patience)

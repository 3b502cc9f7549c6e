"""Forwarding, behind one small interface: in process for the embedded city, else over HTTP."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import structlog
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from libs.common.problems import Unavailable
from libs.common.settings import SERVICES, Settings
from libs.common.trace import current_traceparent

log = structlog.get_logger()

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Meant for the next hop only (RFC 9110 §7.6.1)."""


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


def traced(scope: Scope) -> Headers:
    """Give the request's headers with our span as the parent of what comes next."""
    kept = [(name, value) for name, value in scope["headers"] if name != b"traceparent"]
    return [*kept, (b"traceparent", current_traceparent().encode())]


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
        own["headers"] = traced(scope)
        await self._apps[service](own, receive, send)

    async def openapi(self, service: str) -> dict[str, Any]:
        """Ask the app."""
        return self._apps[service].openapi()

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

    def __init__(self, session: aiohttp.ClientSession, bases: Mapping[str, str]) -> None:
        """Take an open session and each service's base address."""
        self._session = session
        self._bases = bases

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request on and stream the answer back."""
        path = scope.get("raw_path") or scope["path"].encode()
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        url = URL(self._bases[service] + (path + query).decode("latin-1"), encoded=True)
        started = False
        try:
            async with self._session.request(
                scope["method"],
                url,
                headers=_onward(scope),
                data=_body(receive) if _has_body(scope) else None,
                allow_redirects=False,
            ) as answer:
                started = True
                await _give_back(answer, send)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if started:
                raise  # half an answer is out: only a broken connection tells the client so
            log.warning("upstream.away", upstream=service, error=type(error).__name__)
            raise UpstreamAway(f"the {service} service does not answer", service=service) from None

    async def openapi(self, service: str) -> dict[str, Any]:
        """Fetch the service's description."""
        try:
            async with self._session.get(self._bases[service] + "/openapi.json") as answer:
                answer.raise_for_status()
                description: dict[str, Any] = await answer.json()
                return description
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise UpstreamAway(f"the {service} service does not answer") from None

    async def alive(self, service: str) -> str | None:
        """Ask whether the service would serve."""
        try:
            async with self._session.get(self._bases[service] + "/readyz") as answer:
                return None if answer.status == 200 else f"readyz answers {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"away: {type(error).__name__}"


def _onward(scope: Scope) -> list[tuple[str, str]]:
    client = scope.get("client")
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in traced(scope)
        if name not in HOP_BY_HOP and name not in (b"host", b"x-forwarded-for")
    ]
    if client:
        headers.append(("x-forwarded-for", client[0]))
    return headers


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def _give_back(answer: aiohttp.ClientResponse, send: Send) -> None:
    headers: Headers = [
        (name.lower(), value)
        for name, value in answer.raw_headers
        if name.lower() not in HOP_BY_HOP | {b"date", b"server"}
    ]
    start: Message = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": headers,
    }
    await send(start)
    async for chunk in answer.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def over_http(settings: Settings) -> AsyncIterator[OverHttp]:
    """Open the proxy's client: kept connections, bounded waits, nothing decoded on the way."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=200, limit_per_host=100, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=60),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield OverHttp(session, {service: settings.upstream(service) for service in SERVICES})

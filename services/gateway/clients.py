"""Forwarding, behind one small interface: in process for the embedded city, else over HTTP."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import structlog
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from yarl import URL

from libs.common.observability import is_event_stream
from libs.common.problems import Unavailable
from libs.common.settings import SERVICES, Settings
from libs.common.trace import current_traceparent
from services.gateway.bodies import is_bulk
from services.gateway.caller import END, Caller
from services.gateway.circuit import RETRIES, Attempt, Circuit, RetryBudget
from services.gateway.words import say

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
        self, session: aiohttp.ClientSession, settings: Settings, stopping: asyncio.Event
    ) -> None:
        """Take an open session, where the services are and how long to wait for them, and what
        tells that the process stops."""
        self._session, self._settings, self._stopping = session, settings, stopping
        self._bases = {service: settings.upstream(service) for service in SERVICES}
        self._budgets = {service: RetryBudget(settings.retry_share) for service in SERVICES}
        self._circuits = {
            service: Circuit(
                service, failures=settings.circuit_failures, seconds=settings.circuit_seconds
            )
            for service in SERVICES
        }

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the request on and stream the answer back; once more if nothing can come of that."""
        client = Caller(scope, receive, send, patience=self._settings.caller_silence_seconds)
        budget = self._budgets[service]
        budget.earn()
        with client.watched():
            failure = await self._tried(service, scope, client)
            if failure and client.may_repeat(unsent=_unsent(failure)) and budget.spend():
                RETRIES.labels(service).inc()
                await asyncio.sleep(random.uniform(0.02, 0.08))  # noqa: S311  (no secret)
                failure = await self._tried(service, scope, client)
            if failure and not client.left:
                raise _away(service, failure)

    async def _tried(self, service: str, scope: Scope, client: Caller) -> Exception | None:
        """Try once; give what went wrong before anything of an answer was passed on.

        Raises:
            CircuitOpen: the service is left alone.
            Problem: the caller's body was refused.
            Exception: half an answer is out; only a broken connection tells the caller so.
        """
        with self._circuits[service].attempt() as attempt:
            try:
                await self._exchange(service, scope, client, attempt)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if client.refused is not None:
                    raise client.refused from None
                if client.stopped:
                    await client.take(END)
                    return None
                if not client.left:
                    attempt.failed(type(error).__name__)
                    if client.answered:
                        raise
                return error
        return None

    async def _exchange(self, service: str, scope: Scope, client: Caller, attempt: Attempt) -> None:
        path = scope.get("raw_path") or scope["path"].encode()
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        url = URL(self._bases[service] + (path + query).decode("latin-1"), encoded=True)
        async with (
            client.within(self._settings.upstream_answer_seconds) as time,
            self._session.request(
                scope["method"],
                url,
                headers=_as_text(onward(scope)),
                data=client.body(),
                allow_redirects=False,
            ) as answer,
        ):
            attempt.answered(answer.status)
            headers = [
                (name, value)
                for name, value in end_to_end([(n.lower(), v) for n, v in answer.raw_headers])
                if name not in (b"date", b"server")
            ]
            stream = is_event_stream(headers)
            time.left(None if stream or is_bulk(scope) else self._settings.upstream_total_seconds)
            await client.take(
                {"type": "http.response.start", "status": answer.status, "headers": headers}
            )
            # The reader of a stream resumes elsewhere; half an answer of any other kind must be
            # waited for.
            with client.ended_by(self._stopping if stream else None):
                async for chunk in answer.content.iter_any():
                    await client.take(
                        {"type": "http.response.body", "body": chunk, "more_body": True}
                    )
            await client.take(END)

    async def openapi(self, service: str) -> dict[str, Any]:
        """Fetch the service's description."""
        try:
            url = self._bases[service] + "/openapi.json"
            async with self._session.get(url, timeout=_DESCRIBED_WITHIN) as answer:
                answer.raise_for_status()
                description: dict[str, Any] = await answer.json()
                return description
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise UpstreamAway(
                say("the {service} service does not answer", service=service)
            ) from None

    async def alive(self, service: str) -> str | None:
        """Ask whether the service would serve, and tell whether it is left alone."""
        if problem := self._circuits[service].problem:
            return problem
        try:
            url = self._bases[service] + "/readyz"
            async with self._session.get(url, timeout=_ALIVE_WITHIN) as answer:
                return None if answer.status == 200 else f"readyz answers {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"away: {type(error).__name__}"


_ALIVE_WITHIN = aiohttp.ClientTimeout(total=1)
"""A probe of the gateway itself has little patience: a service that hangs must not hang it."""

_DESCRIBED_WITHIN = aiohttp.ClientTimeout(total=5)


def _as_text(headers: Headers) -> list[tuple[str, str]]:
    # aiohttp writes UTF-8: read as such, every header that is text goes on byte for byte.
    return [(name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in headers]


def _unsent(failure: Exception) -> bool:
    """Tell whether the service cannot have heard of the call: no connection was made for it."""
    return isinstance(failure, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _away(service: str, failure: Exception) -> UpstreamAway:
    log.warning("upstream.away", upstream=service, error=type(failure).__name__)
    return UpstreamAway(
        say("the {service} service does not answer", service=service), service=service
    )


@asynccontextmanager
async def over_http(settings: Settings, *, stopping: asyncio.Event) -> AsyncIterator[OverHttp]:
    """Open the proxy's client: kept connections, bounded waits, nothing decoded on the way.

    The number of connections is not bounded here but by the gates, or a hundred open boards would
    keep everybody else from the queue; an idle one is closed before the service would close it,
    which could cross with a request that nobody may repeat.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
        timeout=aiohttp.ClientTimeout(
            total=None,
            sock_connect=settings.upstream_connect_seconds,
            sock_read=settings.upstream_silence_seconds,
        ),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        # It would send a PUT again whose connection broke, without asking us or the budget.
        session._retry_connection = False  # noqa: SLF001
        yield OverHttp(session, settings, stopping)

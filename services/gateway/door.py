"""The door: who comes in, and to which service a request goes."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.common.app import Core
from libs.common.auth import Principal, bearer
from libs.common.consumer import Broadcast
from libs.common.issuers import TokenSigner, gateway_key
from libs.common.problems import NotHttp
from libs.common.settings import SERVICES
from libs.contracts.following import following_registry
from libs.contracts.queue import QueueLoad
from libs.contracts.registry import ClientChanged
from services.gateway.api_keys import ApiKeys
from services.gateway.clients import Headers, UpstreamAway, over_http
from services.gateway.directory import City
from services.gateway.openapi import Union

_BY_FIRST_SEGMENT: Final = {
    **dict.fromkeys(
        ("units", "centres", "readiness", "officials", "procedures", "clients", "calendar"),
        "registry",
    ),
    "audit": "registry",
    **dict.fromkeys(("tickets", "appointments", "queue", "kiosks"), "queue"),
    **dict.fromkeys(("dossiers", "files", "applicants", "track", "feedback", "portal"), "intake"),
    **dict.fromkeys(("reports", "indices"), "reporting"),
}

_QUEUE_OF_A_UNIT: Final = frozenset(
    {"counters", "tickets", "day", "satisfaction", "queue", "forecast", "staffing"}
)
"""What stands below `/v1/units/{unit}/` and belongs to the queue."""

_TRICKS: Final = re.compile(rb"%2f|%5c|%00|\\|//|/\.{1,2}(/|$)|%2e", re.IGNORECASE)
"""Ways to write a path that two programs may read as two different ones."""


class TwoMeanings(NotHttp):
    """The path can be read in more than one way.

    Write the path without dot segments, double or encoded slashes.
    """


REFUSALS: Final = (TwoMeanings, UpstreamAway)
"""What the door may answer to any call, whichever service it is for."""


def service_of(path: str) -> tuple[str, str] | None:
    """Name the service that answers a path, and the label it is counted under."""
    parts = path.split("/")
    if len(parts) < 3 or parts[1] != "v1":
        return None
    first = parts[2]
    service = _BY_FIRST_SEGMENT.get(first)
    if service is None:
        return None
    if first == "units" and len(parts) > 4 and parts[4] in _QUEUE_OF_A_UNIT:
        return "queue", f"/v1/units/{{unit}}/{parts[4]}"
    return service, f"/v1/{first}"


class Door:
    """Pure ASGI: what belongs to a service is checked and forwarded, the rest is the gateway's."""

    def __init__(self, app: ASGIApp, fastapi: FastAPI) -> None:  # noqa: ARG002
        """Stand before the gateway's own routes."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _check_path(scope)
        if scope["path"].startswith("/v1/"):
            scope["headers"] = await _admitted(scope)
        found = service_of(scope["path"])
        if found is None:
            await self._app(scope, receive, send)
            return
        service, scope["route_template"] = found
        await scope["state"]["forwarder"].forward(service, scope, receive, send)


def _check_path(scope: Scope) -> None:
    path: str = scope["path"]
    if _TRICKS.search(scope.get("raw_path") or path.encode()):
        raise TwoMeanings("write the path without dot segments, double or encoded slashes")
    if "\ufffd" in path:  # what the server puts where percent-encoded bytes are no UTF-8
        raise TwoMeanings("encode the path as UTF-8")


async def _admitted(scope: Scope) -> Headers:
    """Check who calls before it costs a service anything; give the headers that tell the service.

    A bearer token goes on as it is. An API key stays here: for its holder, as for citizens, who
    show nothing, the gateway signs a token of its own.
    """
    state = scope["state"]
    tokens = [value for name, value in scope["headers"] if name == b"authorization"]
    keys = [value for name, value in scope["headers"] if name == b"x-api-key"]
    if len(tokens) > 1 or len(keys) > 1:
        raise NotHttp("credentials were sent more than once")
    token = bearer(tokens[0].decode("latin-1") if tokens else None)
    principal = state["api_keys"].holder(keys[0]) if keys else Principal()
    if token:
        await state["verifier"].identify(token)
        if keys:
            raise NotHttp("send a token or an API key, not both")
        headers: Headers = scope["headers"]
        return headers
    signed = b"Bearer " + state["signer"].token(principal).encode()
    others = [pair for pair in scope["headers"] if pair[0] != b"x-api-key"]
    return [*others, (b"authorization", signed)]


@asynccontextmanager
async def resources(core: Core) -> AsyncIterator[dict[str, Any]]:
    """Open what only the gateway has: the city it knows and the way to the services."""
    signer = TokenSigner(gateway_key(core.settings), core.settings.oidc_audience)
    async with (
        following_registry(core) as state,
        over_http(core.settings, stopping=core.stopping) as forwarder,
    ):
        api_keys = _follow_clients(core)
        city = City(state["directory"])
        loads = Broadcast("gateway-loads", core.bus, [QueueLoad.topic], city.take_load)
        core.tasks.start("loads", loads.run())
        own = state | {
            "city": city, "forwarder": forwarder, "api_keys": api_keys, "signer": signer,
            "union": Union(),
        }  # fmt: skip
        for service in SERVICES:
            core.health.wanted[service] = _asks(own, service)
        yield own


def _follow_clients(core: Core) -> ApiKeys:
    api_keys = ApiKeys()
    reader = Broadcast("gateway-clients", core.bus, [ClientChanged.topic], api_keys.take)
    api_keys.complete = reader.loaded.is_set

    async def loaded() -> str | None:
        if api_keys.complete() or reader.missing:
            return None  # a topic that is missing shows as degraded; API keys wait for it
        return f"still reading who may call ({reader.problem or 'a moment'})"

    async def following() -> str | None:
        return reader.problem

    core.health.needed["clients"] = loaded
    core.health.wanted["clients-feed"] = following
    core.tasks.start("clients", reader.run())
    return api_keys


def _asks(state: dict[str, Any], service: str) -> Any:
    async def check() -> str | None:
        wrong: str | None = await state["forwarder"].alive(service)
        return wrong

    return check

"""API keys at the door: whose they are, what a service sees of them, how soon they end."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import time_machine
from starlette.types import Receive, Scope, Send

from libs.common.auth import Principal, Verifier
from libs.common.problems import Unauthenticated, Unavailable
from libs.contracts.registry import ClientChanged, ClientKey, ClientKind
from services.embedded import city
from services.gateway.api_keys import ApiKeys
from services.gateway.main import app
from services.registry.clients import hash_of
from tests.gateway.city import record
from tests.serving import serving, talk, with_state, written
from tests.support import bearer, settings_for, token

KEY = "motcua_one"
HERE = "H29.26740"
THERE = "H29.25747"


def client(version: int = 1, *keys: str | ClientKey, **changes: Any) -> ClientChanged:
    """Announce a kiosk with some keys."""
    known = tuple(
        key if isinstance(key, ClientKey) else ClientKey(sha256=hash_of(key)) for key in keys
    )
    state = {"id": "kiosk-7", "kind": ClientKind.kiosk, "units": (HERE,), "keys": known} | changes
    return ClientChanged(version=version, **state)


def holder(keys: ApiKeys, key: str) -> Principal | None:
    """Tell whose a key is."""
    try:
        return keys.holder(key.encode())
    except Unauthenticated:
        return None


def test_a_key_is_its_holders_until_the_registry_says_otherwise() -> None:
    keys = ApiKeys()
    assert holder(keys, "a") is None
    keys.take(record(client(1, "a")))
    assert holder(keys, "a") == Principal("kiosk-7", "kiosk", frozenset({HERE}))
    ends = datetime.now(UTC) + timedelta(seconds=60)
    keys.take(record(client(2, ClientKey(sha256=hash_of("a"), not_after=ends), "b")))
    assert holder(keys, "a") == holder(keys, "b") is not None
    with time_machine.travel(time.time() + 61):
        assert (holder(keys, "a"), holder(keys, "b") is not None) == (None, True)
    keys.take(record(client(3)))
    assert (holder(keys, "a"), holder(keys, "b")) == (None, None)
    # An older state, read again after an outage, brings nothing back.
    keys.take(record(client(2, "b")))
    assert holder(keys, "b") is None


def test_what_stands_in_no_record_is_nobodys() -> None:
    keys = ApiKeys()
    keys.take(record(client(1, "a")))
    for wrong in ("", "A", "a ", hash_of("a"), "é", "\0"):
        assert holder(keys, wrong) is None
    with pytest.raises(ValueError):
        keys.take(replace(record(client(2, "b")), value=b"{"))


def test_before_all_clients_are_read_nobody_is_refused_for_good() -> None:
    keys = ApiKeys()
    keys.complete = lambda: False
    # The record that was read may be followed by the one that revokes it.
    keys.take(record(client(1, "a")))
    for key in (b"a", b"b"):
        with pytest.raises(Unavailable):
            keys.holder(key)


# What goes on to a service --------------------------------------------------------------------


@dataclass
class Noting:
    """A way to the services that notes the headers they would have been sent."""

    seen: list[list[tuple[bytes, bytes]]] = field(default_factory=list)

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Note and answer."""
        self.seen.append(list(scope["headers"]))
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"0")],
        }
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    @property
    def tokens(self) -> list[str]:
        """Give the bearer tokens that the last request went on with."""
        values = [value for name, value in self.seen[-1] if name == b"authorization"]
        return [value.decode().removeprefix("Bearer ") for value in values]


@pytest.fixture
async def door(gateway: httpx.AsyncClient) -> AsyncIterator[tuple[int, Noting, Verifier]]:
    """Serve the gateway, which knows one kiosk, before services that only note."""
    noting, keys = Noting(), ApiKeys()
    keys.take(record(client(1, KEY)))
    own = gateway.state  # type: ignore[attr-defined]
    async with serving(with_state(app, own | {"forwarder": noting, "api_keys": keys})) as port:
        yield port, noting, own["verifier"]


async def test_a_service_sees_a_short_lived_token_and_never_the_key(
    door: tuple[int, Noting, Verifier],
) -> None:
    port, noting, verifier = door
    for headers, expected in (
        ([f"X-API-Key: {KEY}"], Principal("kiosk-7", "kiosk", frozenset({HERE}))),
        ([], Principal()),
    ):
        assert (await talk(port, written("GET", "/v1/tickets/7", *headers))).status == 200
        assert b"x-api-key" not in dict(noting.seen[-1])
        [forwarded] = noting.tokens
        assert verifier.verify(forwarded) == expected


async def test_a_callers_own_token_goes_on_as_it_is(door: tuple[int, Noting, Verifier]) -> None:
    port, noting, _ = door
    mine = token("officer", HERE)
    await talk(port, written("GET", "/v1/units", f"Authorization: Bearer {mine}"))
    assert noting.tokens == [mine]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["X-API-Key: motcua_two"], 401),
        (["X-API-Key:"], 401),
        ([f"X-API-Key: {hash_of(KEY)}"], 401),
        ([f"X-API-Key: {KEY}", f"X-API-Key: {KEY}"], 400),
        ([f"X-API-Key: {KEY}", f"Authorization: Bearer {token('city')}"], 400),
        ([f"X-API-Key: {KEY}", "Authorization: Bearer x"], 401),
    ],
)
async def test_credentials_that_are_wrong_or_two_reach_no_service(
    door: tuple[int, Noting, Verifier], headers: list[str], status: int
) -> None:
    port, noting, _ = door
    for path in ("/v1/units", "/v1/route"):
        answered = await talk(port, written("GET", path, *headers))
        assert answered.status == status
        assert KEY.encode() not in answered.body
    assert noting.seen == []


# In the whole city ----------------------------------------------------------------------------


@pytest.fixture
async def whole(city_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Call the whole city in process."""
    async with city(settings_for(city_url)) as embedded:
        transport = httpx.ASGITransport(app=embedded)
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            yield client


async def status_of(whole: httpx.AsyncClient, key: str, unit: str = HERE) -> int:
    """Take a ticket with a key."""
    wish = {"unit": unit, "channel": "kiosk"}
    return (await whole.post("/v1/tickets", json=wish, headers={"X-API-Key": key})).status_code


async def becomes(whole: httpx.AsyncClient, key: str, status: int) -> None:
    """Wait until a key is answered so."""
    async with asyncio.timeout(10):
        while await status_of(whole, key) != status:
            await asyncio.sleep(0.01)


async def test_a_kiosk_is_registered_calls_rotates_and_is_revoked(
    whole: httpx.AsyncClient,
) -> None:
    body = {"kind": "kiosk", "name": "Sảnh", "units": [HERE]}
    kiosk = (await whole.post("/v1/clients", json=body, headers=bearer("city"))).json()
    first = kiosk["api_key"]
    await becomes(whole, first, 201)
    assert await status_of(whole, first, THERE) == 403
    assert await status_of(whole, first, "H29.99999") == 404
    path = f"/v1/clients/{kiosk['id']}"
    second = (await whole.post(f"{path}/rotate", headers=bearer("ops"))).json()["api_key"]
    await becomes(whole, second, 201)
    assert await status_of(whole, first) == 201
    await whole.post(f"{path}/revoke", headers=bearer("ops"))
    await becomes(whole, second, 401)
    assert await status_of(whole, first) == 401


async def test_a_repeated_call_is_answered_again_whatever_token_the_door_signed(
    whole: httpx.AsyncClient,
) -> None:
    body = {"kind": "kiosk", "name": "Sảnh", "units": [HERE]}
    kiosk = (await whole.post("/v1/clients", json=body, headers=bearer("city"))).json()
    await becomes(whole, kiosk["api_key"], 201)
    rotated = await whole.post(f"/v1/clients/{kiosk['id']}/rotate", headers=bearer("city"))
    await becomes(whole, rotated.json()["api_key"], 201)
    for channel, ways in (
        ("kiosk", [{"X-API-Key": kiosk["api_key"]}, {"X-API-Key": rotated.json()["api_key"]}]),
        ("web", [{}, {}]),
    ):
        key = str(uuid4())
        tickets = []
        for number, way in enumerate(ways):
            with time_machine.travel(time.time() + 90 * number):  # the door signs anew after 60 s
                answer = await whole.post(
                    "/v1/tickets",
                    json={"unit": HERE, "channel": channel},
                    headers=way | {"Idempotency-Key": key},
                )
            assert answer.status_code == 201
            tickets.append(answer.json()["id"])
        assert len(set(tickets)) == 1
    no_uuid = await whole.post(
        "/v1/tickets", json={"unit": HERE, "channel": "web"}, headers={"Idempotency-Key": "mine"}
    )
    assert no_uuid.status_code == 422

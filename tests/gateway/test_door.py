"""The door: which service a path leads to, and what is turned away before one is asked."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import Receive, Scope, Send

import services.registry.main
from libs.common.auth import DEVELOPMENT_ISSUER, DevelopmentIssuer
from libs.common.observability import REQUEST_SECONDS
from services.gateway.clients import InProcess
from services.gateway.door import service_of
from services.gateway.main import app
from tests.serving import Answer, serving, talk, with_state, written
from tests.support import DATA_DIR, bearer, running, settings_for, token

BELONGS_TO = {
    "registry": """
        /v1/units /v1/units/H29.26740 /v1/units/H29.26740/resolve /v1/units/H29.26740/activate
        /v1/units/H29.26740/close /v1/units/import /v1/units/H29.26740/officials
        /v1/centres/H29.26740 /v1/centres/H29.26740/readiness/staff /v1/readiness
        /v1/officials/vacancies /v1/procedures /v1/procedures/1.001193 /v1/procedures/coverage
        /v1/procedures/1.001193/versions/2026-01-01 /v1/clients /v1/clients/7/rotate
        /v1/calendar/2026-11-20 /v1/calendar/overrides/2026-11-20
    """,
    "queue": """
        /v1/tickets /v1/tickets/7 /v1/tickets/7/recall /v1/tickets/7/satisfaction
        /v1/units/H29.26740/counters /v1/units/H29.26740/counters/1
        /v1/units/H29.26740/counters/1/call-next /v1/units/H29.26740/counters/1/hand-back
        /v1/units/H29.26740/tickets /v1/units/H29.26740/day /v1/units/H29.26740/queue
        /v1/units/H29.26740/queue/stream /v1/units/H29.26740/forecast
        /v1/units/H29.26740/staffing /v1/units/gso:26740/queue /v1/appointments
        /v1/appointments/7/check-in /v1/queue/overview /v1/queue/overview/stream
        /v1/kiosks/7/lease /v1/kiosks/7/reconcile
    """,
    "intake": """
        /v1/dossiers /v1/dossiers/H29.26740-261120-0001 /v1/dossiers/H29.26740-261120-0001/receive
        /v1/dossiers/H29.26740-261120-0001/slips/01.pdf /v1/files /v1/files/abc
        /v1/applicants/7/documents /v1/track/H29.26740-261120-0001 /v1/feedback
        /v1/feedback/7/accept /v1/portal/dossiers /v1/portal/sync
    """,
    "reporting": """
        /v1/reports/weekly/2026-W47 /v1/reports/weekly/2026-W47.xlsx
        /v1/reports/weekly/2026-W47/units/H29.26740/narrative /v1/reports/ad-hoc /v1/indices/766
    """,
}


@pytest.mark.parametrize(
    ("path", "service"),
    [(path, service) for service, paths in BELONGS_TO.items() for path in paths.split()],
)
def test_every_path_of_the_api_belongs_to_its_service(path: str, service: str) -> None:
    found = service_of(path)
    assert found is not None
    assert found[0] == service


@pytest.mark.parametrize(
    "path",
    ["", "/", "/v1", "/v1/", "/v1/route", "/v1/unit", "/v1/unitsx", "/V1/units", "/v2/units",
     "/x/v1/units", "v1/units", "/v1//units", "/docs", "/openapi.json", "/readyz", "*"],
)  # fmt: skip
def test_other_paths_are_the_gateways_own(path: str) -> None:
    assert service_of(path) is None


@dataclass
class Recording:
    """A way to the services that notes what would have been asked of them."""

    asked: list[str] = field(default_factory=list)

    async def forward(self, service: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Note and answer."""
        self.asked.append(service)
        length = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
async def recorded(gateway: httpx.AsyncClient) -> AsyncIterator[tuple[int, Recording]]:
    """Serve the gateway before services that only note."""
    recording = Recording()
    state = gateway.state | {"forwarder": recording}  # type: ignore[attr-defined]
    async with serving(with_state(app, state)) as port:
        yield port, recording


@pytest.fixture
def port(recorded: tuple[int, Recording]) -> int:
    """Give the port of that gateway."""
    recorded[1].asked.clear()
    return recorded[0]


@pytest.fixture
def asked(recorded: tuple[int, Recording]) -> list[str]:
    """Give the services that were asked."""
    recorded[1].asked.clear()
    return recorded[1].asked


# Paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/units/a%2fb", "/v1/units/a%2Fb", "/v1/units%2f..%2fclients", "/v1/units/a%5cb",
        "/v1/units/a\\b", "/v1/units\\x", "/v1/units/../clients", "/v1/../v1/units",
        "/v1/./units", "/v1/units/.", "/v1/units/..", "/../../etc/passwd", "/v1/units/x/..",
        "//v1/units", "/v1//units", "/v1/units//", "/v1/units/%00", "/v1/units/a%00b",
        "/v1/%2e%2e/units", "/v1/%2E/units", "/v1/units/H29%2e26740", "/v1/units/.%2e/x",
        "/v1/units/%c0%af", "/v1/units/%c0%ae%c0%ae/x", "/v1/units/%e0%80%af",
        "/v1/units/%ff", "/v1/units/%ed%a0%80", "/v1/tickets/%F0%80%80%AF", "/%2e/readyz",
        "/docs/../readyz", "/readyz/..", "http://motcua.test/v1//units",
    ],
)  # fmt: skip
async def test_a_path_with_two_meanings_is_refused(port: int, asked: list[str], path: str) -> None:
    answered = await talk(port, written("GET", path))
    assert answered.status == 400
    assert b"urn:motcua:problem:two-meanings" in answered.body
    assert asked == []


@pytest.mark.parametrize("path", [b"/v1/units/\0", b"/v1/units/\xff", b"/v1/units/\xc0\xaf"])
async def test_a_path_that_is_no_ascii_is_refused(port: int, asked: list[str], path: bytes) -> None:
    assert (await talk(port, written("GET", path))).status == 400
    assert asked == []


@pytest.mark.parametrize(
    "path",
    ["/v1/units/H29.26740", "/v1/units/gso:26740", "/v1/units/.hidden", "/v1/units/a..b",
     "/v1/units/%E1%BA%A1", "/v1/units?at=/../%2f//", "/v1/units/x;y", "/v1/units/"],
)  # fmt: skip
async def test_an_honest_path_is_let_in(port: int, asked: list[str], path: str) -> None:
    assert (await talk(port, written("GET", path))).status == 200
    assert asked == ["registry"]


async def test_an_unknown_path_is_a_problem(port: int, asked: list[str]) -> None:
    for path in ("/v1/nothing", "/nothing", "/v1", "/V1/units", "/favicon.ico"):
        answered = await talk(port, written("GET", path))
        assert answered.status == 404
        assert answered.all("content-type") == ["application/problem+json"]
        assert b"urn:motcua:problem:not-found" in answered.body
    assert asked == []


async def test_an_own_path_refuses_other_methods(port: int, asked: list[str]) -> None:
    answered = await talk(port, written("GET", "/v1/route"))
    assert answered.status == 405
    assert b"urn:motcua:problem:method-not-allowed" in answered.body
    assert asked == []


async def test_a_wrong_method_is_refused_by_the_service_itself(
    gateway: httpx.AsyncClient, gateway_url: str
) -> None:
    registry = services.registry.main.app
    async with running(registry, settings_for(gateway_url)) as inner:
        states = {"registry": inner.state}  # type: ignore[attr-defined]
        forwarder = InProcess({"registry": registry}, states)
        state = gateway.state | {"forwarder": forwarder}  # type: ignore[attr-defined]
        transport = httpx.ASGITransport(with_state(app, state))
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            refused = await client.delete("/v1/units")
    assert refused.status_code == 405
    assert refused.json()["type"] == "urn:motcua:problem:method-not-allowed"
    assert "GET" in refused.headers["allow"]


# Credentials ----------------------------------------------------------------------------------


def forged(key: Any, algorithm: str = "EdDSA", **changes: Any) -> str:
    """Write a token as the development issuer would, but with another key or other claims."""
    kid, _ = DevelopmentIssuer(DATA_DIR).public
    claims = {
        "iss": DEVELOPMENT_ISSUER, "aud": "motcua", "sub": "x", "role": "city", "exp": 99999999999,
    }  # fmt: skip
    return jwt.encode(claims | changes, key, algorithm=algorithm, headers={"kid": kid})


def foreign_tokens() -> dict[str, str]:
    """Make tokens that nobody here would have signed."""
    issuer = DevelopmentIssuer(DATA_DIR)
    other = Ed25519PrivateKey.generate()
    good = issuer.token("officer", subject="x", units=["H29.26740"])
    head, body, signature = good.split(".")
    deep = jwt.utils.base64url_encode(b'{"a":' * 1900 + b"1" + b"}" * 1900).decode()
    odd = jwt.utils.base64url_encode(b'{"iss":{}}').decode()
    public = issuer.public[0].encode() * 4
    return {
        "nothing like a token": "abc",
        "three dots": "...",
        "not ASCII": "é.é.é",
        "expired": issuer.token("officer", subject="x", hours=-1),
        "signed by another key": forged(other),
        "unsigned": forged(None, "none"),
        "unsigned, signature kept": forged(None, "none") + signature,
        "signed with the public key as a secret": forged(public, "HS256"),
        "of an unknown issuer": forged(other, iss="https://evil.example"),
        "of an issuer that is no text": f"{head}.{odd}.{signature}",
        "without signature": f"{head}.{body}.",
        "with another's signature": f"{head}.{body[:-4]}AAAA.{signature}",
        "a payload far too many levels deep": f"{head}.{deep}.{signature}",
        "a head far too many levels deep": f"{deep}.{body}.{signature}",
        "for somebody else": forged(issuer._key, aud="another"),
        "without an end": forged(issuer._key, exp=None),
        "without a role": forged(issuer._key, role=None),
        "of nobody": forged(issuer._key, role="nobody"),
        "units that are no list": forged(issuer._key, units="H29.26740"),
    }


@pytest.mark.parametrize("kind", foreign_tokens())
async def test_a_token_no_service_would_take_costs_none_anything(
    port: int, asked: list[str], kind: str
) -> None:
    sent = f"Authorization: Bearer {foreign_tokens()[kind]}"
    answered = await talk(port, written("GET", "/v1/units", sent))
    assert answered.status == 401, answered.body
    assert answered.all("www-authenticate") == ["Bearer"]
    assert asked == []


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer ", "Basic eDp5", "eDp5", "Bearer, x"])
async def test_an_authorization_of_another_kind_is_refused(
    port: int, asked: list[str], sent: str
) -> None:
    answered = await talk(port, written("GET", "/v1/units", f"Authorization: {sent}"))
    assert answered.status == 401
    assert asked == []


async def test_two_authorizations_are_one_too_many(port: int, asked: list[str]) -> None:
    good = f"Authorization: Bearer {token('city')}"
    for second in (good, "authorization: Bearer x", "AUTHORIZATION:"):
        answered = await talk(port, written("GET", "/v1/units", good, second))
        assert answered.status == 400
    assert asked == []


async def test_an_unknown_api_key_is_refused(port: int, asked: list[str]) -> None:
    for sent in ("X-API-Key: abc", "x-api-key:"):
        answered = await talk(port, written("GET", "/v1/units", sent))
        assert answered.status == 401
    good = f"Authorization: Bearer {token('city')}"
    assert (await talk(port, written("GET", "/v1/units", good, "X-API-Key: abc"))).status == 401
    assert asked == []


async def test_good_tokens_and_nobody_are_let_in(port: int, asked: list[str]) -> None:
    for role in ("kiosk", "officer", "manager", "city", "portal", "ops"):
        sent = f"Authorization: {bearer(role)['Authorization']}"
        assert (await talk(port, written("GET", "/v1/tickets/7", sent))).status == 200
    lower = f"authorization: bearer   {token('city')}"
    assert (await talk(port, written("GET", "/v1/tickets/7", lower))).status == 200
    assert (await talk(port, written("GET", "/v1/tickets/7"))).status == 200
    assert asked == ["queue"] * 8


async def test_a_refusal_does_not_repeat_the_token(port: int) -> None:
    answered = await talk(port, written("GET", "/v1/units", "Authorization: Bearer s3cr3t.a.b"))
    assert b"s3cr3t" not in answered.body


async def test_the_issuer_of_another_folder_is_a_stranger(tmp_path: Path, port: int) -> None:
    foreign = DevelopmentIssuer(tmp_path).token("city", subject="x")
    answered = await talk(port, written("GET", "/v1/units", f"Authorization: Bearer {foreign}"))
    assert answered.status == 401


# Traces and metrics ---------------------------------------------------------------------------


async def test_a_refusal_carries_the_callers_trace(port: int) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"traceparent: 00-{trace}-b7ad6b7169203331-01"
    answered = await talk(port, written("GET", "/v1//units", parent))
    assert answered.all("x-trace-id") == [trace]
    assert trace.encode() in answered.body


@pytest.mark.parametrize(
    "parent",
    ["", "x", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-" + "G" * 32 + "-b7ad6b7169203331-01"],
)
async def test_a_trace_that_is_none_begins_a_new_one(port: int, parent: str) -> None:
    answered: Answer = await talk(port, written("GET", "/v1/units", f"traceparent: {parent}"))
    (trace,) = answered.all("x-trace-id")
    assert len(trace) == 32
    assert trace not in (parent, "0" * 32)


def routes_counted() -> set[str]:
    """List the route labels under which the gateway has counted requests."""
    (family,) = REQUEST_SECONDS.collect()
    return {
        sample.labels["route"] for sample in family.samples if sample.labels["service"] == "gateway"
    }


async def test_hostile_paths_make_no_new_labels(gateway: httpx.AsyncClient, port: int) -> None:
    chance = random.Random(20261116)  # noqa: S311
    state = gateway.state | {"forwarder": Recording()}  # type: ignore[attr-defined]
    transport = httpx.ASGITransport(with_state(app, state))
    for path in ("/v1/units", "/nothing", "/v1/units/x/queue"):
        await talk(port, written("GET", path))
    before = routes_counted()

    def word() -> str:
        return "".join(chance.choices(ascii_letters + digits + "%._~-", k=12)).replace("%", "%41")

    async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
        for _ in range(200):
            start = chance.choice(["", "/v1", "/v1/units", f"/v1/units/{word()}", "/v1/x"])
            method = chance.choice(["GET", "POST", "DELETE", "BREW"])
            await client.request(method, f"{start}/{word()}/{word()}")
            await client.request(method, f"/v1/units/{word()}/queue/{word()}")
    assert routes_counted() - before == set()

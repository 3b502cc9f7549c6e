"""What browsers are told: who may read an answer, frame it, keep it, and only over TLS."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import ValidationError

from services.embedded import city
from services.gateway.browsers import ALLOWED, EXPOSED
from tests.support import bearer, settings_for

BOARD = "https://board.example.org"
STRANGER = "https://elsewhere.example"
UNIT = "H29.26740"


@pytest.fixture(scope="module")
async def shared(gateway_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a whole city that lets the pages of one origin call it, over TLS."""
    settings = settings_for(gateway_url, cors_origins=f"{BOARD}, https://kiosk.example.org:8443")
    async with city(settings) as whole:
        transport = httpx.ASGITransport(whole)
        async with httpx.AsyncClient(transport=transport, base_url="https://door") as client:
            async with asyncio.timeout(20):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
            yield client


def preflight(origin: str, method: str = "POST", *headers: str) -> dict[str, str]:
    """Write what a browser asks before it lets a page call."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    return asked | ({"Access-Control-Request-Headers": ",".join(headers)} if headers else {})


# Every answer -----------------------------------------------------------------------------------

ANSWERS = {
    "a forwarded answer": ("GET", f"/v1/units/{UNIT}", 200),
    "an answer with personal data": ("GET", "/v1/dossiers", 200),
    "a service's refusal": ("GET", "/v1/units/H29.99999", 404),
    "the door's own refusal": ("GET", "/v1/units//x", 400),
    "an address that is nobody's": ("GET", "/nothing", 404),
    "a method that is not taken": ("DELETE", "/v1/route", 405),
    "a body that is too large": ("POST", "/v1/route", 413),
    "a page": ("GET", "/overview", 200),
    "the start page": ("GET", "/", 200),
    "what a page is made of": ("GET", "/web/live.js", 200),
    "the docs": ("GET", "/docs", 200),
    "the description": ("GET", "/openapi.json", 200),
    "health": ("GET", "/livez", 200),
    "metrics": ("GET", "/metrics", 200),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_every_answer_of_the_door_says_how_a_browser_may_treat_it(
    shared: httpx.AsyncClient, what: str
) -> None:
    method, path, status = ANSWERS[what]
    content = b" " * 2_000_000 if status == 413 else None
    headers = bearer("city") if path == "/v1/dossiers" else {}
    answer = await shared.request(method, path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    told = answer.headers
    assert told["x-content-type-options"] == "nosniff"
    assert told["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in told["content-security-policy"]
    assert "unsafe" not in told["content-security-policy"]
    assert told["strict-transport-security"] == "max-age=31536000"
    pages = ("/", "/overview", "/web/live.js", "/docs", "/openapi.json")
    assert told["cache-control"] == ("no-cache" if path in pages else "no-store")
    for name in told:
        assert len(told.get_list(name)) == 1 or name == "vary", name
    if told["content-type"].startswith("text/html"):
        assert "script-src 'self'" in told["content-security-policy"]
    elif "javascript" not in told["content-type"]:
        assert told["content-security-policy"].startswith("default-src 'none'")


async def test_browsers_are_bound_to_tls_only_where_there_is_some(
    gateway: httpx.AsyncClient,
) -> None:
    plain = await gateway.get("/livez")
    assert "strict-transport-security" not in plain.headers
    state = gateway.state  # type: ignore[attr-defined]
    before = state["settings"]
    state["settings"] = before.model_copy(update={"only_tls": True})
    try:
        assert "strict-transport-security" in (await gateway.get("/livez")).headers
    finally:
        state["settings"] = before


async def test_a_service_that_is_away_is_told_with_the_same_headers(
    gateway: httpx.AsyncClient,
) -> None:
    answer = await gateway.get(f"/v1/units/{UNIT}")
    assert answer.status_code == 503
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


# Pages from elsewhere ---------------------------------------------------------------------------


async def test_no_page_from_elsewhere_may_read_anything_unless_its_origin_is_named(
    gateway: httpx.AsyncClient,
) -> None:
    answer = await gateway.get("/livez", headers={"Origin": BOARD})
    asked = await gateway.options("/v1/route", headers=preflight(BOARD))
    assert asked.status_code == 405
    for told in (answer.headers, asked.headers):
        assert not [name for name in told if name.startswith("access-control-")]


async def test_a_page_of_a_named_origin_may_call_and_read_what_it_needs(
    shared: httpx.AsyncClient,
) -> None:
    asked = await shared.options("/v1/tickets", headers=preflight(BOARD, "POST", *ALLOWED))
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == BOARD
    assert "access-control-allow-credentials" not in asked.headers
    wish = {"unit": UNIT, "channel": "web"}
    answer = await shared.post("/v1/tickets", json=wish, headers={"Origin": BOARD})
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == BOARD
    assert answer.headers["access-control-expose-headers"].split(", ") == list(EXPOSED)
    assert "Origin" in answer.headers["vary"]
    refused = await shared.get("/v1/units/H29.99999", headers={"Origin": BOARD})
    assert refused.headers["access-control-allow-origin"] == BOARD  # or it could not read why


@pytest.mark.parametrize("origin", [STRANGER, "null", f"{BOARD}.evil.example", "http" + BOARD[5:]])
async def test_another_origin_learns_nothing(shared: httpx.AsyncClient, origin: str) -> None:
    asked = await shared.options("/v1/tickets", headers=preflight(origin))
    answer = await shared.get(f"/v1/units/{UNIT}", headers={"Origin": origin})
    assert asked.status_code == 400
    for told in (asked.headers, answer.headers):
        assert "access-control-allow-origin" not in told
    assert "Origin" in answer.headers["vary"]  # no cache may give it to a page that is allowed


async def test_a_method_or_header_that_is_not_ours_is_not_allowed(
    shared: httpx.AsyncClient,
) -> None:
    for asked in (preflight(BOARD, "TRACE"), preflight(BOARD, "POST", "X-Forwarded-For")):
        assert (await shared.options("/v1/tickets", headers=asked)).status_code == 400


@pytest.mark.parametrize(
    "origins", ["board.example.org", "https://board.example.org/", f"{BOARD} {STRANGER}", "ftp://x"]
)
def test_what_is_no_origin_is_refused_at_the_start(origins: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        settings_for("postgresql://x/y", cors_origins=origins)


def test_credentials_are_not_sent_along_to_everybody() -> None:
    with pytest.raises(ValidationError, match="name their origins"):
        settings_for("postgresql://x/y", cors_origins="*", cors_credentials=True)
    assert settings_for("postgresql://x/y", cors_origins="*").shared_with == ("*",)

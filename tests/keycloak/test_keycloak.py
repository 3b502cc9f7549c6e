"""Sign-in at a real Keycloak, its keys changed, and the provider killed while people work."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from libs.common.issuers import OidcProvider
from services.embedded import city
from tests.conftest import _copy
from tests.keycloak.server import UNIT, Keycloak, key_of, require_tools
from tests.support import bearer, reachable_folder, settings_for

pytestmark = pytest.mark.keycloak

COUNTER = f"/v1/units/{UNIT}/counters/1"
FOREIGN = "/v1/units/H29.25747/counters/1"


@pytest.fixture(scope="module")
def keycloak() -> Iterator[Keycloak]:
    """Run a Keycloak that these tests change, kill and start again, in their order."""
    require_tools()
    with reachable_folder() as folder:
        provider = Keycloak(folder)
        provider.start()
        try:
            provider.wait()
            provider.make_realm()
            yield provider
        finally:
            provider.close()


@pytest.fixture(scope="module")
async def url(server_url: str, seeded: str) -> AsyncIterator[str]:
    """Give an account on a database of the module's own that holds the city."""
    async for url in _copy(server_url, seeded):
        yield url


@asynccontextmanager
async def believing(keycloak: Keycloak, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the city, which is told of the provider as docs/security.md says."""
    settings = settings_for(
        url,
        oidc_issuer=keycloak.issuer,
        oidc_role_claim="realm_access.roles",
        oidc_role_prefix="motcua-",
        oidc_units_claim="groups",
        oidc_units_prefix="/units/",
    )
    async with city(settings) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            yield client


@pytest.fixture(scope="module")
async def whole(keycloak: Keycloak, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the city once for all tests here; it looks for keys as often as tokens name new ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OidcProvider, "asked_for_at_most_every", 0.0)
        async with believing(keycloak, url) as client:
            while "issuer" in (await client.get("/readyz")).json().get("degraded", {}):
                await asyncio.sleep(0.05)
            yield client


async def put(whole: httpx.AsyncClient, token: str, path: str = COUNTER) -> int:
    """Open a counter with a token."""
    headers = {"Authorization": f"Bearer {token}"}
    return (await whole.put(path, json={"state": "open"}, headers=headers)).status_code


async def test_who_signs_in_may_do_what_their_role_may_in_their_units(
    keycloak: Keycloak, whole: httpx.AsyncClient
) -> None:
    tokens = keycloak.sign_in()
    assert await put(whole, tokens["access_token"]) == 200
    assert await put(whole, tokens["access_token"], FOREIGN) == 403
    # A manager is an officer too, and makes counters.
    manager = keycloak.sign_in("hoa")["access_token"]
    assert await put(whole, manager, f"/v1/units/{UNIT}/counters/77") == 200


async def test_tokens_that_are_not_meant_for_us_do_not_let_in(
    keycloak: Keycloak, whole: httpx.AsyncClient
) -> None:
    tokens = keycloak.sign_in()
    for wrong in (
        tokens["id_token"],
        tokens["refresh_token"],
        tokens["access_token"][:-4] + "AAAA",
        keycloak.sign_in(client="elsewhere")["access_token"],  # of no audience of ours
        keycloak.sign_in("binh")["access_token"],  # no role
        keycloak.sign_in("minh")["access_token"],  # two roles
    ):
        assert await put(whole, wrong) == 401


# Before the keys are changed: a provider that is killed may forget what it was told just before.
async def test_killing_the_provider_under_load_locks_nobody_out(
    keycloak: Keycloak, whole: httpx.AsyncClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OidcProvider, "every_seconds", 0.5)
    monkeypatch.setattr(OidcProvider, "longest_pause", 0.5)
    token = keycloak.sign_in()["access_token"]
    answers: Counter[Any] = Counter()
    working = True

    async def officer() -> None:
        while working:
            answers[await put(whole, token)] += 1
            await asyncio.sleep(0.01)

    officers = [asyncio.create_task(officer()) for _ in range(4)]
    try:
        await asyncio.to_thread(keycloak.kill)
        before = answers.total()
        async with believing(keycloak, url) as late:
            # Who starts while the provider is away serves, says so, and refuses for later only.
            assert "issuer" in (await late.get("/readyz")).json()["degraded"]
            assert await put(late, token) == 503
            assert await put(late, bearer("officer", UNIT)["Authorization"][7:]) == 200
            assert (await late.get("/v1/units")).status_code == 200
            assert answers.total() > before
            await asyncio.to_thread(keycloak.start)
            await asyncio.to_thread(keycloak.wait)
            while await put(late, token) == 503:
                await asyncio.sleep(0.1)
            assert await put(late, token) == 200
        again = keycloak.sign_in()["access_token"]
        assert again != token
        assert await put(whole, again) == 200
    finally:
        working = False
        await asyncio.gather(*officers)
    print(f"\n{answers[200]} calls while the provider was killed and came back: {dict(answers)}")
    assert set(answers) == {200}


async def test_a_new_key_is_taken_at_once_and_a_dropped_one_is_not(
    keycloak: Keycloak, whole: httpx.AsyncClient
) -> None:
    before = keycloak.sign_in()
    keycloak.add_key("rsa-generated")
    after = keycloak.sign_in()
    assert key_of(after)[0] != key_of(before)[0]
    assert await put(whole, after["access_token"]) == 200
    assert await put(whole, before["access_token"]) == 200
    # Another algorithm, with a key of its own.
    keycloak.add_key("ecdsa-generated", ecdsaEllipticCurveKey="P-256")
    keycloak.sign_with("ES256")
    other = keycloak.sign_in()
    assert key_of(other)[1] == "ES256"
    assert await put(whole, other["access_token"]) == 200
    keycloak.drop_key("rsa-generated")
    keycloak.add_key("ecdsa-generated", ecdsaEllipticCurveKey="P-256", priority="300")
    newest = keycloak.sign_in()
    assert await put(whole, newest["access_token"]) == 200  # for which the keys are asked again
    assert await put(whole, before["access_token"]) == 401
    assert await put(whole, other["access_token"]) == 200

"""Whose tokens are taken: an OIDC provider that changes keys, is away or lies, and the gateway."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from libs.common.app import Service, create_app
from libs.common.auth import GATEWAY_ISSUER, ClaimNames, Principal, Verifier, load_or_make_key
from libs.common.issuers import (
    OidcProvider,
    TokenSigner,
    gateway_key,
    gateway_public_keys,
    trust_issuers,
)
from libs.common.problems import Unauthenticated, Unavailable
from libs.common.settings import Settings
from libs.contracts.roles import INCLUDES
from tests.common.helpers import eventually
from tests.support import settings_for, started

ISSUER = "https://id.example.org/realms/city"
KEY = Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)


class Provider(httpx.AsyncBaseTransport):
    """An OIDC provider whose addresses answer what a test wants."""

    def __init__(self) -> None:
        """Publish one key."""
        self.answer: Any = jwks(k1=KEY)
        self.about: Any = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/certs"}
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, once the gate is open."""
        self.asked.append(request.url.path)
        answer = self.about if request.url.path.endswith("openid-configuration") else self.answer
        await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            return httpx.Response(200, content=answer, request=request)
        return httpx.Response(200, json=answer, request=request)


def jwk(key: Any, kid: str, **changes: Any) -> dict[str, Any]:
    """Publish a key."""
    of_rsa = isinstance(key, rsa.RSAPrivateKey)
    kind = jwt.algorithms.RSAAlgorithm if of_rsa else jwt.algorithms.OKPAlgorithm
    document: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return document | {"kid": kid, "alg": "RS256" if of_rsa else "EdDSA", "use": "sig"} | changes


def jwks(**keys: Any) -> dict[str, Any]:
    """Publish keys by their ids."""
    return {"keys": [jwk(key, kid) for kid, key in keys.items()]}


def signed(key: Any = KEY, kid: str = "k1", algorithm: str = "EdDSA", **changes: Any) -> str:
    """Sign good claims, or changed ones."""
    claims = {
        "iss": ISSUER, "aud": "motcua", "sub": "ann", "role": "officer", "units": ["H29.1"],
        "exp": int(time.time()) + 600,
    }  # fmt: skip
    return jwt.encode(claims | changes, key, algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def provider() -> Provider:
    """Give a provider."""
    return Provider()


@pytest.fixture
def verifier() -> Verifier:
    """Trust nobody yet."""
    return Verifier("motcua", roles=INCLUDES)


@pytest.fixture
async def followed(provider: Provider, verifier: Verifier) -> AsyncIterator[OidcProvider]:
    """Follow the provider, impatiently."""
    async with following(provider, verifier) as followed:
        yield followed


class following:  # noqa: N801  (reads as a statement)
    """Follow a provider for a while."""

    def __init__(self, provider: Provider, verifier: Verifier, **changes: Any) -> None:
        """Describe the follower."""
        options: dict[str, Any] = {"jwks_url": f"{ISSUER}/certs", "names": ClaimNames()}
        self.follower = OidcProvider(verifier, ISSUER, transport=provider, **(options | changes))
        self.follower.every_seconds = self.follower.longest_pause = 0.002

    async def __aenter__(self) -> OidcProvider:
        """Start."""
        self._task = asyncio.create_task(self.follower.run())
        return self.follower

    async def __aexit__(self, *_: object) -> None:
        """Stop; it must not have ended by itself."""
        assert not self._task.done()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


NONSENSE: list[Any] = [
    httpx.ConnectError("away"), b"<html>", b"[" * 50_000, None, [], {}, {"keys": None},
    {"keys": [1]}, {"keys": [{"kty": "OKP"}]}, {"keys": {"a": 1}}, {"keys": []},
    {"keys": [{"kty": "new", "kid": "k1"}]}, b'{"keys": []}' + b" " * 1_000_001,
]  # fmt: skip


async def test_keys_are_kept_while_the_provider_is_away_or_answers_nonsense(
    provider: Provider, verifier: Verifier, followed: OidcProvider
) -> None:
    await eventually(lambda: followed.problem is None)
    for nonsense in NONSENSE:
        provider.answer = nonsense
        enough = len(provider.asked) + 2
        await eventually(lambda: len(provider.asked) > enough)  # noqa: B023
        assert followed.problem is not None, nonsense
        assert verifier.verify(signed()).subject == "ann"
    other = Ed25519PrivateKey.generate()
    provider.answer = jwks(k2=other)
    await eventually(lambda: followed.problem is None)
    assert verifier.verify(signed(other, "k2")).subject == "ann"
    with pytest.raises(Unauthenticated):
        verifier.verify(signed())


async def test_looking_again_at_the_same_keys_forgets_no_token(
    provider: Provider, verifier: Verifier, followed: OidcProvider
) -> None:
    await eventually(lambda: followed.problem is None)
    verifier.verify(signed())
    enough = len(provider.asked) + 3
    await eventually(lambda: len(provider.asked) > enough)
    assert len(verifier._seen) == 1


async def test_only_keys_for_signing_are_taken_and_each_for_its_own_algorithm(
    provider: Provider, verifier: Verifier
) -> None:
    provider.answer = {
        "keys": [
            jwk(RSA, "r"),
            jwk(RSA, "enc", use="enc", alg="RSA-OAEP"),
            jwk(RSA, "ps", alg="PS256"),
            jwk(KEY, "k1"),
            {
                "kty": "oct",
                "kid": "secret",
                "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
                "alg": "HS256",
            },
        ]
    }
    async with following(provider, verifier) as followed:
        await eventually(lambda: followed.problem is None)
        assert {kid for _, kid in verifier._keys} == {"r", "k1"}
        assert verifier.verify(signed(RSA, "r", "RS256")).subject == "ann"
        for key, kid, algorithm in (
            (RSA, "r", "RS512"), (RSA, "r", "PS256"), (RSA, "enc", "RS256"), (RSA, "k1", "RS256"),
            (KEY, "r", "EdDSA"), (b"secretsecretsecretsecretsecretsecret", "secret", "HS256"),
        ):  # fmt: skip
            with pytest.raises(Unauthenticated):
                await verifier.identify(signed(key, kid, algorithm))


# A key that is new ----------------------------------------------------------------------------


async def asleep(provider: Provider, verifier: Verifier) -> OidcProvider:
    """Give a follower that looks only when a token makes it."""
    follower = following(provider, verifier).follower
    await follower.look_for("")
    follower._not_before = 0
    return follower


async def test_a_token_with_a_new_key_makes_one_look_however_many_come_with_it(
    provider: Provider, verifier: Verifier
) -> None:
    await asleep(provider, verifier)
    other = Ed25519PrivateKey.generate()
    provider.answer = jwks(k1=KEY, k2=other)
    asked = len(provider.asked)
    provider.gate.clear()
    calls = [
        asyncio.create_task(verifier.identify(signed(other, "k2", sub=f"s{number}")))
        for number in range(50)
    ]
    await eventually(lambda: len(provider.asked) > asked)
    provider.gate.set()
    assert {who.subject for who in await asyncio.gather(*calls)} == {f"s{n}" for n in range(50)}
    assert len(provider.asked) == asked + 1


async def test_made_up_keys_cannot_make_us_ask_for_ever(
    provider: Provider, verifier: Verifier
) -> None:
    follower = await asleep(provider, verifier)
    asked = len(provider.asked)
    for number in range(20):
        with pytest.raises(Unauthenticated):
            await verifier.identify(signed(kid=f"made-up-{number}"))
    assert len(provider.asked) == asked + 1
    assert (await verifier.identify(signed())).subject == "ann"
    # Once that time is over, the next one is looked for again.
    follower._not_before = 0
    with pytest.raises(Unauthenticated):
        await verifier.identify(signed(kid="made-up"))
    assert len(provider.asked) == asked + 2


async def test_a_stranger_s_token_makes_us_ask_nobody(
    provider: Provider, verifier: Verifier
) -> None:
    await asleep(provider, verifier)
    asked = len(provider.asked)
    for issuer in ("https://evil.example.org", "", GATEWAY_ISSUER):
        with pytest.raises(Unauthenticated):
            await verifier.identify(signed(kid="new", iss=issuer))
    assert len(provider.asked) == asked


async def test_while_no_key_could_be_had_the_answer_is_later_and_not_no(
    provider: Provider, verifier: Verifier
) -> None:
    provider.answer = httpx.ConnectError("away")
    follower = following(provider, verifier).follower
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await verifier.identify(signed())
        assert refused.value.headers["Retry-After"]
    assert follower.problem is not None
    provider.answer = jwks(k1=KEY)
    follower._not_before = 0
    assert (await verifier.identify(signed())).subject == "ann"
    assert follower.problem is None


async def test_a_service_starts_without_its_issuer_and_says_so(counting: str) -> None:
    app = create_app(Service("queue", "Has nobody to ask."))
    settings = settings_for(counting, oidc_issuer=ISSUER, oidc_jwks_url="http://127.0.0.1:1/certs")
    async with started(app, settings) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        assert "keys" in answer.json()["degraded"]["issuer"]


# Discovery ------------------------------------------------------------------------------------


async def test_the_providers_own_description_tells_where_its_keys_are(
    provider: Provider, verifier: Verifier
) -> None:
    async with following(provider, verifier, jwks_url=None) as followed:
        await eventually(lambda: followed.problem is None)
        assert provider.asked[:2] == [
            "/realms/city/.well-known/openid-configuration", "/realms/city/certs",
        ]  # fmt: skip
        assert verifier.verify(signed()).subject == "ann"


@pytest.mark.parametrize("about", [{"issuer": "https://evil.example.org"}, {}, [], b"x", None])
async def test_another_issuers_description_is_not_believed(
    provider: Provider, verifier: Verifier, about: Any
) -> None:
    if isinstance(about, dict):
        about |= {"jwks_uri": f"{ISSUER}/certs"}
    provider.about = about
    follower = following(provider, verifier, jwks_url=None).follower
    with pytest.raises(Unavailable):
        await verifier.identify(signed())
    assert follower.problem is not None
    assert provider.asked == ["/realms/city/.well-known/openid-configuration"]


# Claims ---------------------------------------------------------------------------------------

KEYCLOAK = ClaimNames("realm_access.roles", "motcua-", "groups", "/units/")
OTHERS = ["default-roles-city", "offline_access", "uma_authorization", "motcua-gardener", "officer"]


@pytest.mark.parametrize(
    ("names", "claims", "expected"),
    [
        (KEYCLOAK, {"realm_access": {"roles": [*OTHERS, "motcua-officer"]},
                    "groups": ["/units/H29.1", "/staff", "/units/H29.2"]},
         Principal("ann", "officer", frozenset({"H29.1", "H29.2"}))),
        (KEYCLOAK, {"realm_access": {"roles": ["motcua-manager", "motcua-officer"]}},
         Principal("ann", "manager")),
        (ClaimNames("resource_access.motcua.roles"), {"resource_access": {"motcua": {
            "roles": ["city"]}}, "units": []}, Principal("ann", "city")),
        (ClaimNames("https://motcua.example/role", units="https://motcua.example/units"),
         {"https://motcua.example/role": "kiosk", "https://motcua.example/units": ["H29.3"]},
         Principal("ann", "kiosk", frozenset({"H29.3"}))),
        (ClaimNames(role_prefix="x-"), {"role": "x-ops", "units": None}, Principal("ann", "ops")),
    ],
)  # fmt: skip
def test_claims_are_found_where_the_provider_puts_them(
    verifier: Verifier, names: ClaimNames, claims: dict[str, Any], expected: Principal
) -> None:
    verifier.trust(ISSUER, [("k1", KEY.public_key())], names)
    claims = {"role": None, "units": None} | claims
    assert verifier.verify(signed(**claims)) == expected


@pytest.mark.parametrize(
    "claims",
    [
        {}, {"realm_access": None}, {"realm_access": []}, {"realm_access": {"roles": "officer"}},
        {"realm_access": {"roles": OTHERS}}, {"realm_access": {"roles": [7, None, {}]}},
        {"realm_access": {"roles": ["motcua-nobody"]}},
        {"realm_access": {"roles": ["motcua-city", "motcua-officer"]}},
        {"realm_access": {"roles": ["motcua-manager", "motcua-ops"]}},
        {"realm_access": {"roles": ["motcua-officer"]}, "groups": "/units/H29.1"},
        {"realm_access": {"roles": ["motcua-officer"]}, "groups": [7]},
    ],
)  # fmt: skip
def test_claims_that_name_no_role_or_more_than_one_do_not_let_in(
    verifier: Verifier, claims: dict[str, Any]
) -> None:
    verifier.trust(ISSUER, [("k1", KEY.public_key())], KEYCLOAK)
    with pytest.raises(Unauthenticated):
        verifier.verify(signed(**claims))


@pytest.mark.parametrize("kind", ["ID", "Refresh", "Offline", "Logout"])
def test_a_token_that_is_not_for_access_is_refused(verifier: Verifier, kind: str) -> None:
    verifier.trust(ISSUER, [("k1", KEY.public_key())])
    assert verifier.verify(signed(typ="Bearer")).subject == "ann"
    with pytest.raises(Unauthenticated, match="no access token"):
        verifier.verify(signed(typ=kind))


@pytest.mark.parametrize("leeway", [0, 60])
def test_clocks_may_differ_by_the_leeway_and_no_more(leeway: int) -> None:
    verifier = Verifier("motcua", leeway_seconds=leeway)
    verifier.trust(ISSUER, [("k1", KEY.public_key())])
    with time_machine.travel(1_800_000_000, tick=False):
        now = int(time.time())
        assert verifier.verify(signed(exp=now - leeway + 1, iat=now + leeway)).subject == "ann"
        for token in (signed(exp=now - leeway - 1), signed(nbf=now + leeway + 1)):
            with pytest.raises(Unauthenticated):
                verifier.verify(token)


# The gateway's own tokens ---------------------------------------------------------------------


@pytest.fixture
def signer() -> TokenSigner:
    """Sign as the gateway does."""
    return TokenSigner(KEY, "motcua")


def test_services_believe_what_the_gateway_signed(verifier: Verifier, signer: TokenSigner) -> None:
    verifier.trust(GATEWAY_ISSUER, [(signer._headers["kid"], KEY.public_key())])
    for principal in (Principal("kiosk-1", "kiosk", frozenset({"H29.1"})), Principal()):
        assert verifier.verify(signer.token(principal)) == principal
    assert verifier.verify(signer.token(Principal())).anonymous


def test_a_token_is_signed_anew_before_it_expires(verifier: Verifier, signer: TokenSigner) -> None:
    verifier.trust(GATEWAY_ISSUER, [(signer._headers["kid"], KEY.public_key())])
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        first = signer.token(Principal())
        traveller.shift(signer.lifetime_seconds / 2 - 1)
        assert signer.token(Principal()) == first
        traveller.shift(2)
        second = signer.token(Principal())
        assert second != first
        verifier.verify(first)
        traveller.shift(signer.lifetime_seconds)
        with pytest.raises(Unauthenticated):
            verifier.verify(first)


def test_nobody_is_believed_of_the_gateway_alone(verifier: Verifier) -> None:
    verifier.trust(ISSUER, [("k1", KEY.public_key())])
    with pytest.raises(Unauthenticated):
        verifier.verify(signed(role="nobody", units=[]))
    with pytest.raises(Unauthenticated):  # nor can a provider sign in the gateway's name
        verifier.verify(signed(role="nobody", units=[], iss=GATEWAY_ISSUER))


# Keys in production ---------------------------------------------------------------------------


def private_pem(key: Any) -> str:
    """Write a private key."""
    return str(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
    )


def public_pem(key: Any) -> str:
    """Write a public key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


@pytest.fixture
def production(tmp_path: Path) -> dict[str, Any]:
    """Give what a gateway in production needs."""
    return {
        "profile": "production",
        "data_dir": tmp_path,
        "oidc_issuer": ISSUER,
        "gateway_key": SecretStr(private_pem(KEY)),
        "gateway_public_keys": public_pem(KEY),
    }


def test_production_takes_keys_of_its_own(production: dict[str, Any]) -> None:
    old = Ed25519PrivateKey.generate()
    both = public_pem(old) + "\n" + public_pem(KEY)
    settings = Settings.model_validate(production | {"gateway_public_keys": both})
    verifier = Verifier("motcua")
    trust_issuers(verifier, settings)
    for key in (old, gateway_key(settings)):  # while the key is replaced both are good
        token = TokenSigner(key, "motcua").token(Principal())
        assert verifier.verify(token).anonymous
    assert not (settings.data_dir / "keys").exists()


def test_production_refuses_to_sign_without_a_key_of_its_own(production: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="MOTCUA_GATEWAY_KEY"):
        gateway_key(Settings.model_validate(production | {"gateway_key": None}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gateway_key": SecretStr(private_pem(RSA))}, "MOTCUA_GATEWAY_KEY is no PEM"),
        ({"gateway_key": SecretStr("x")}, "MOTCUA_GATEWAY_KEY is no PEM"),
        ({"gateway_public_keys": public_pem(RSA)}, "Ed25519"),
        ({"gateway_public_keys": "x"}, "Ed25519"),
        ({"gateway_public_keys": public_pem(Ed25519PrivateKey.generate())}, "public half"),
    ],
)
def test_keys_that_would_not_work_are_refused_at_the_start(
    production: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gateway_key(Settings.model_validate(production | changes))


def test_production_refuses_the_keys_of_a_developers_folder(production: dict[str, Any]) -> None:
    key = load_or_make_key(production["data_dir"] / "keys" / "development-gateway.pem")
    settings = Settings.model_validate(
        production
        | {"gateway_key": SecretStr(private_pem(key)), "gateway_public_keys": public_pem(key)}
    )
    for use in (gateway_key, gateway_public_keys):
        with pytest.raises(ValueError, match="development keys"):
            use(settings)


def test_production_trusts_no_development_issuer(production: dict[str, Any]) -> None:
    verifier = Verifier("motcua")
    trust_issuers(verifier, Settings.model_validate(production))
    assert {issuer for issuer, _ in verifier._keys} == {GATEWAY_ISSUER}

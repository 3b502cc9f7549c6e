"""Tokens: who is believed, and everything that is not."""

import base64
import json
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter

from libs.common.app import Service, create_app
from libs.common.auth import (
    DEVELOPMENT_ISSUER,
    Caller,
    DevelopmentIssuer,
    Principal,
    Verifier,
    bearer,
)
from libs.common.problems import Unauthenticated
from libs.contracts.roles import CityOffice
from tests.support import running, settings_for
from tests.support import token as token_of

ISSUER = "https://id.example.org"


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    """Give a key that the verifier trusts."""
    return Ed25519PrivateKey.generate()


@pytest.fixture
def verifier(key: Ed25519PrivateKey) -> Verifier:
    """Trust one issuer with one key."""
    verifier = Verifier("motcua")
    verifier.trust(ISSUER, [("k1", key.public_key())])
    return verifier


def claims(**changes: Any) -> dict[str, Any]:
    """Make good claims; None leaves one out."""
    now = int(time.time())
    good = {
        "iss": ISSUER, "aud": "motcua", "sub": "ann", "role": "officer", "units": ["H29.1"],
        "iat": now, "exp": now + 600,
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(key: Any, algorithm: str = "EdDSA", kid: str = "k1", **changes: Any) -> str:
    """Sign claims."""
    body = json.dumps(claims(**changes)).encode()
    return jwt.api_jws.encode(body, key, algorithm=algorithm, headers={"kid": kid})


def part(value: bytes) -> str:
    """Write a part of a token."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def test_a_good_token_tells_who_calls(verifier: Verifier, key: Ed25519PrivateKey) -> None:
    expected = Principal("ann", "officer", frozenset({"H29.1"}))
    assert verifier.verify(signed(key)) == expected
    assert verifier.verify(signed(key, units=None)).units == frozenset()
    assert not expected.anonymous
    assert Principal().anonymous


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "other"},
    "no audience": {"aud": None},
    "another issuer": {"iss": "https://evil.example.org"},
    "no issuer": {"iss": None},
    "issuer of wrong type": {"iss": [ISSUER]},
    "no subject": {"sub": None},
    "subject of wrong type": {"sub": 7},
    "empty subject": {"sub": ""},
    "NUL in the subject": {"sub": "ann\0"},
    "empty role": {"role": ""},
    "line end in the role": {"role": "officer\n"},
    "half a letter in a unit": {"units": ["H29.1", "\ud800"]},
    "no expiry": {"exp": None},
    "expired": {"exp": 1_700_000_000},
    "expiry of wrong type": {"exp": "soon"},
    "endless expiry": {"exp": float("inf")},
    "not yet valid": {"nbf": 4_000_000_000},
    "issued in the future": {"iat": 4_000_000_000},
    "no role": {"role": None},
    "role of wrong type": {"role": ["city"]},
    "role is a number": {"role": 7},
    "role nobody": {"role": "nobody"},
    "units are one text": {"units": "H29.1"},
    "units are numbers": {"units": [1, 2]},
    "units are an object": {"units": {"H29.1": True}},
    "units hold nothing": {"units": [None]},
}


@pytest.mark.parametrize("kind", BAD_CLAIMS)
def test_claims_that_do_not_convince(verifier: Verifier, key: Ed25519PrivateKey, kind: str) -> None:
    token = signed(key, **BAD_CLAIMS[kind])
    for _ in range(2):  # the second time must not come from memory
        with pytest.raises(Unauthenticated):
            verifier.verify(token)


def test_an_unsigned_token_is_refused(verifier: Verifier) -> None:
    for algorithm in ("none", "None", "NONE", ""):
        header = json.dumps({"alg": algorithm, "typ": "JWT", "kid": "k1"}).encode()
        token = f"{part(header)}.{part(json.dumps(claims()).encode())}."
        with pytest.raises(Unauthenticated):
            verifier.verify(token)


def test_a_public_key_is_no_shared_secret(verifier: Verifier, key: Ed25519PrivateKey) -> None:
    import hashlib
    import hmac

    public = key.public_key()
    encoding, form = serialization.Encoding, serialization.PublicFormat
    for secret in (
        public.public_bytes(encoding.PEM, form.SubjectPublicKeyInfo),
        public.public_bytes(encoding.Raw, form.Raw),
    ):
        header = part(json.dumps({"alg": "HS256", "kid": "k1"}).encode())
        body = f"{header}.{part(json.dumps(claims()).encode())}"
        mac = hmac.new(secret, body.encode(), hashlib.sha256).digest()
        with pytest.raises(Unauthenticated):
            verifier.verify(f"{body}.{part(mac)}")


def test_other_keys_are_refused_whatever_they_call_themselves(
    verifier: Verifier, key: Ed25519PrivateKey
) -> None:
    strangers: list[tuple[Any, str]] = [
        (Ed25519PrivateKey.generate(), "EdDSA"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ]
    for stranger, algorithm in strangers:
        for kid in ("k1", "k2", ""):
            with pytest.raises(Unauthenticated):
                verifier.verify(signed(stranger, algorithm, kid))
    with pytest.raises(Unauthenticated):
        verifier.verify(signed(key, kid="k2"))


def test_keys_of_each_kind_that_providers_use_are_understood() -> None:
    verifier = Verifier("motcua")
    for name, key, algorithm in (
        ("r", rsa.generate_private_key(65537, 2048), "RS256"),
        ("e", ec.generate_private_key(ec.SECP256R1()), "ES256"),
    ):
        verifier.trust(ISSUER, [(name, key.public_key())])
        assert verifier.verify(signed(key, algorithm, name)).subject == "ann"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b.c", "a.b", "é.é.é", "\x00", "a" * 200_000, "." * 10_000,
     f"{part(b'{}')}.{part(b'{}')}.x", f"{part(b'[]')}.{part(b'[]')}.x",
     f"{part(b'null')}.{part(b'null')}.", f"{part(b'7')}.{part(b'7')}.x",
     part(b'{"alg": "EdDSA", "kid": 7}') + f".{part(b'{}')}.x",
     part(b'{"alg": "EdDSA", "kid": ["k1"]}') + f".{part(b'{}')}.x",
     part(b'{"alg": "EdDSA", "kid": "k1", "crit": ["x"]}') + f".{part(b'{}')}.x",
     part(b"[" * 20_000) + "." + part(b"[" * 20_000) + ".x",
     part(b'{"alg": "EdDSA", "kid": "k1"}') + "." + part(b'{"iss":' * 20_000) + ".x",
     part(b'{"alg": "EdDSA", "kid": "k1"}') + "." + part(b'{"exp": ' + b"9" * 9000 + b"}") + ".x",
     part(b'{"alg": "EdDSA", "kid": "k1"}') + "." + part(b"\xff\xfe") + ".x",
     part(b'{"alg": "EdDSA", "kid": "\\ud800"}') + "." + part(b'{"iss": "\\ud800"}') + ".x"],
    ids=range(21),
)  # fmt: skip
def test_what_is_no_token_is_refused_and_nothing_breaks(verifier: Verifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_a_token_with_its_signature_changed_is_refused(
    verifier: Verifier, key: Ed25519PrivateKey
) -> None:
    good = signed(key)
    verifier.verify(good)
    head, body, signature = good.split(".")
    forged = part(json.dumps(claims(role="city")).encode())
    for token in (f"{head}.{forged}.{signature}", f"{head}.{body}.{signature[::-1]}",
                  f"{head}.{body}."):  # fmt: skip
        with pytest.raises(Unauthenticated):
            verifier.verify(token)


def test_a_token_seen_before_expires_all_the_same(
    verifier: Verifier, key: Ed25519PrivateKey
) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as traveller:
        token = signed(key)
        verifier.verify(token)
        traveller.shift(600 + verifier.leeway_seconds - 1)
        verifier.verify(token)
        traveller.shift(2)
        with pytest.raises(Unauthenticated, match="expired"):
            verifier.verify(token)


def test_a_key_that_is_withdrawn_counts_no_longer(
    verifier: Verifier, key: Ed25519PrivateKey
) -> None:
    token = signed(key)
    verifier.verify(token)
    verifier.trust("https://other.example.org", [("k1", key.public_key())])
    verifier.verify(token)
    verifier.trust(ISSUER, [("k2", key.public_key())])
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_the_memory_of_tokens_is_bounded(verifier: Verifier, key: Ed25519PrivateKey) -> None:
    verifier.remember = 10
    for number in range(25):
        assert verifier.verify(signed(key, sub=f"s{number}")).subject == f"s{number}"
    assert len(verifier._seen) <= 10


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, None), ("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER  abc ", "abc")],
)
def test_the_header_gives_the_token(header: str | None, expected: str | None) -> None:
    assert bearer(header) == expected


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "abc", "Bearerabc"])
def test_another_header_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated):
        bearer(header)


# The development issuer -----------------------------------------------------------------------


def test_the_key_in_the_data_folder_is_kept_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    token = DevelopmentIssuer(tmp_path).token("city", subject="ann", units=["b", "a"], hours=1)
    [path] = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    verifier = Verifier("motcua")
    verifier.trust(DEVELOPMENT_ISSUER, [DevelopmentIssuer(tmp_path).public])
    assert verifier.verify(token) == Principal("ann", "city", frozenset({"a", "b"}))
    verifier.trust(DEVELOPMENT_ISSUER, [DevelopmentIssuer(tmp_path / "other").public])
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from libs.common.auth import DevelopmentIssuer\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(DevelopmentIssuer(pathlib.Path(sys.argv[1])).public[0], flush=True)\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    keys = {child.communicate(timeout=20)[0] for child in children}
    assert len(keys) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["development-issuer.pem"]


def test_threads_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for turn in range(10):
        with ThreadPoolExecutor(4) as pool:
            folder = tmp_path / str(turn)
            issuers = list(pool.map(DevelopmentIssuer, [folder] * 4))
        assert len({issuer.public[0] for issuer in issuers}) == 1


# Over HTTP ------------------------------------------------------------------------------------

router = APIRouter(prefix="/v1")


@router.get("/whoami")
async def whoami(who: Caller) -> dict[str, Any]:
    """Tell who calls."""
    return {"subject": who.subject, "role": who.role, "units": sorted(who.units)}


@router.get("/city")
async def city(_: CityOffice) -> None:
    """Let the city's office in."""


@pytest.fixture(scope="module")
async def client(counting: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a small service."""
    app = create_app(Service("queue", "Asks who.", routers=[router]))
    async with running(app, settings_for(counting)) as client:
        yield client


async def test_without_a_token_a_caller_is_nobody(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/whoami")
    assert answer.json() == {"subject": "nobody", "role": "nobody", "units": []}
    refused = await client.get("/v1/city")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("role", "status"), [("city", 200), ("officer", 403), ("mayor", 403)])
async def test_only_the_roles_named_may_pass(
    client: httpx.AsyncClient, role: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {token_of(role, 'H29.1')}"}
    assert (await client.get("/v1/city", headers=headers)).status_code == status
    assert (await client.get("/v1/whoami", headers=headers)).json()["units"] == ["H29.1"]


@pytest.mark.parametrize(
    "header", [b"Bearer x", b"Basic x", b"", b"Bearer " + b"a" * 100_000, b"Bearer \xff\xfe"]
)
async def test_a_header_that_is_no_token_is_a_401_even_where_nobody_may_call(
    client: httpx.AsyncClient, header: bytes
) -> None:
    answer = await client.get("/v1/whoami", headers=[(b"authorization", header)])
    assert answer.status_code == 401
    assert len(answer.content) < 1000


# The issuer's keys over the network -----------------------------------------------------------


class Provider(httpx.AsyncBaseTransport):
    """An OIDC provider whose JWKS endpoint answers what a test wants."""

    answer: Any = None
    asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, bytes):
            return httpx.Response(200, content=self.answer, request=request)
        return httpx.Response(200, json=self.answer, request=request)


NONSENSE: list[Any] = [
    httpx.ConnectError("away"), b"<html>", b"[" * 50_000, None, [], {}, {"keys": None},
    {"keys": [1]}, {"keys": [{"kty": "OKP"}]}, {"keys": {"a": 1}},
]  # fmt: skip


def jwks(key: Ed25519PrivateKey, kid: str = "k1") -> dict[str, Any]:
    """Publish a key."""
    document = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key()))
    return {"keys": [document | {"kid": kid, "alg": "EdDSA", "use": "sig"}]}

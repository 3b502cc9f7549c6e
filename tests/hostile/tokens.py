"""Tokens and API keys that nobody here would have given, on a call that would change something."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.auth import DEVELOPMENT_ISSUER, GATEWAY_ISSUER, DevelopmentIssuer, load_or_make_key
from libs.common.issuers import DEVELOPMENT_GATEWAY_KEY
from tests.hostile.house import House
from tests.hostile.requests import COUNTER
from tests.hostile.verdict import Attack, Attacks
from tests.support import DATA_DIR, bearer
from tests.system.walk import HERE, THERE

UNAUTHENTICATED: Final = frozenset({401})
FORBIDDEN: Final = frozenset({403})
OPEN: Final = {"state": "open"}


def part(value: Any) -> str:
    """Write a part of a token; text goes as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


class Forger:
    """Writes tokens with the development issuer's own key, or with anybody else's."""

    def __init__(self) -> None:
        """Borrow the issuer's key."""
        issuer = DevelopmentIssuer(DATA_DIR)
        self.kid, self.public = issuer.public
        self.key = issuer._key
        self.other = Ed25519PrivateKey.generate()
        now = int(time.time())
        self.claims: dict[str, Any] = {
            "iss": DEVELOPMENT_ISSUER, "aud": "motcua", "sub": "officer-x", "role": "officer",
            "units": [HERE], "iat": now, "exp": now + 600,
        }  # fmt: skip

    def signed(self, head: Any = None, key: Any = None, **changes: Any) -> str:
        """Sign whatever is wished: a head, claims (None takes one away), a key."""
        claims = {k: v for k, v in (self.claims | changes).items() if v is not None}
        header = {"alg": "EdDSA", "kid": self.kid, "typ": "JWT"} | (head or {})
        data = f"{part(header)}.{part(claims)}"
        signature = (key or self.key).sign(data.encode())
        return f"{data}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def raw(self, head: Any, claims: Any = None, signature: str = "") -> str:
        """Put a token together from parts."""
        return f"{part(head)}.{part(self.claims if claims is None else claims)}.{signature}"

    def hs256(self, secret: bytes, **head: Any) -> str:
        """Sign with a shared secret."""
        data = f"{part({'alg': 'HS256', 'kid': self.kid} | head)}.{part(self.claims)}"
        mac = hmac.new(secret, data.encode(), hashlib.sha256).digest()
        return f"{data}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def forged() -> Iterator[tuple[str, str]]:
    """Give tokens that are no credentials."""
    forger = Forger()
    yield from _algorithms(forger)
    yield from _headers(forger)
    yield from _claims(forger)
    yield from _shapes(forger)


def _algorithms(forger: Forger) -> Iterator[tuple[str, str]]:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    raw = forger.public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    pem = forger.public.public_bytes(serialization.Encoding.PEM, spki)
    der = forger.public.public_bytes(serialization.Encoding.DER, spki)
    names: list[Any] = ["none", "None", "NONE", "nOnE", "", None, 0, [], "EdDSA ", "eddsa"]
    for name in names:
        yield f"alg {name!r}", forger.raw({"alg": name, "kid": forger.kid})
    for what, secret in {
        "PEM": pem, "DER": der, "bytes": raw, "hex": raw.hex().encode(), "kid": forger.kid.encode(),
        "nothing": b"", "a guess": b"secret", "a NUL": b"\0",
    }.items():  # fmt: skip
        yield f"HS256 with the public key's {what}", forger.hs256(secret)
    curve, big = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    kid = {"kid": forger.kid}
    yield "ES256 by a key of its own", jwt.encode(forger.claims, curve, "ES256", headers=kid)
    yield "RS256 by a key of its own", jwt.encode(forger.claims, big, "RS256", headers=kid)
    yield "PS256 by a key of its own", jwt.encode(forger.claims, big, "PS256", headers=kid)
    for algorithm in ("ES256", "EdDSA", "RS256"):
        noughts = base64.urlsafe_b64encode(bytes(64)).rstrip(b"=").decode()
        yield f"{algorithm}, all noughts", forger.raw({"alg": algorithm, **kid}, signature=noughts)
    yield "encrypted instead of signed", forger.raw({"alg": "dir", "enc": "A256GCM", **kid})


def _headers(forger: Forger) -> Iterator[tuple[str, str]]:
    point = forger.other.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    own = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(point).decode()}
    for what, head in {
        "its own key in jwk": {"jwk": own},
        "its own key in jwk, without kid": {"jwk": own, "kid": ""},
        "its keys elsewhere (jku)": {"jku": "https://evil.example/jwks.json"},
        "its certificate elsewhere (x5u)": {"x5u": "https://evil.example/x.pem"},
        "its own certificate (x5c)": {"x5c": ["MIIB"]},
        "a file as kid": {"kid": "../../../../dev/null"},
        "SQL as kid": {"kid": "x' UNION SELECT 'secret"},
        "a command as kid": {"kid": "|id"},
        "an address as kid": {"kid": "http://169.254.169.254/"},
        "a list as kid": {"kid": [forger.kid]},
        "an object as kid": {"kid": {"$ne": ""}},
        "NUL after the kid": {"kid": f"{forger.kid}\0"},
        "the gateway's issuer": {},
    }.items():
        changes = {"iss": GATEWAY_ISSUER} if "gateway" in what else {}
        yield what, forger.signed(head, forger.other, **changes)
    yield "crit that nobody knows", forger.signed({"crit": ["x"], "x": 1})
    yield "not in base64 (b64)", forger.signed({"b64": False, "crit": ["b64"]})


def _claims(forger: Forger) -> Iterator[tuple[str, str]]:
    gateway = load_or_make_key(DATA_DIR / "keys" / DEVELOPMENT_GATEWAY_KEY)
    yield "the gateway's name, the issuer's key", forger.signed(iss=GATEWAY_ISSUER)
    yield "the issuer's name, the gateway's key", forger.signed(key=gateway)
    now = int(time.time())
    changed: dict[str, dict[str, Any]] = {
        "expired": {"exp": now - 60},
        "expired long ago": {"exp": 1},
        "without an end": {"exp": None},
        "an end that is text": {"exp": "tomorrow"},
        "an end without end": {"exp": float("inf")},
        "an end that is no number": {"exp": float("nan")},
        "a list as end": {"exp": [now + 600]},
        "not yet valid": {"nbf": now + 600},
        "nbf that is text": {"nbf": "yesterday"},
        "issued tomorrow": {"iat": now + 86_400},
        "no audience": {"aud": None},
        "another audience": {"aud": "motcua-test"},
        "an audience that begins like ours": {"aud": "motcua.evil.example"},
        "an audience of others": {"aud": ["a", "b"]},
        "an audience that is none": {"aud": {"motcua": True}},
        "no issuer": {"iss": None},
        "another issuer": {"iss": "https://evil.example"},
        "an issuer that ends in a slash": {"iss": DEVELOPMENT_ISSUER + "/"},
        "a list of issuers": {"iss": [DEVELOPMENT_ISSUER]},
        "no subject": {"sub": None},
        "an empty subject": {"sub": ""},
        "NUL in the subject": {"sub": "officer\0x"},
        "a line end in the subject": {"sub": "officer\r\nX-Injected: 1"},
        "half a letter as subject": {"sub": "\ud800"},
        "a number as subject": {"sub": 7},
        "a list as subject": {"sub": ["x"]},
        "no role": {"role": None},
        "an empty role": {"role": ""},
        "nobody": {"role": "nobody"},
        "NUL in the role": {"role": "officer\0"},
        "two roles": {"role": ["officer", "city"]},
        "an object as role": {"role": {"officer": True}},
        "a number as role": {"role": 1},
        "units in a text": {"units": HERE},
        "units as keys": {"units": {HERE: True}},
        "NUL in a unit": {"units": [f"{HERE}\0"]},
        "numbers as units": {"units": [26740]},
        "units in lists": {"units": [[HERE]]},
        "an ID token": {"typ": "ID"},
        "a refresh token": {"typ": "Refresh"},
    }
    for what, changes in changed.items():
        yield what, forger.signed(**changes)


def _shapes(forger: Forger) -> Iterator[tuple[str, str]]:
    good = forger.signed()
    head, body, signature = good.split(".")
    yield "without its signature", f"{head}.{body}."
    yield "without its dots", good.replace(".", "")
    yield "a part too many", f"{good}.{signature}"
    yield "half a signature", good[: -len(signature) // 2]
    yield "one letter changed", f"{head}.{body}.{_changed(signature)}"
    yield "another body", f"{head}.{part(forger.claims | {'role': 'city'})}.{signature}"
    yield "a body that is a list", forger.raw({"alg": "EdDSA", "kid": forger.kid}, [1])
    yield "a body that is no JSON", f"{head}.{part('nothing')}.{signature}"
    yield "a head that is no JSON", f"{part('nothing')}.{body}.{signature}"
    yield "a head 5,000 deep", f"{part('[' * 5_000 + ']' * 5_000)}.{body}.{signature}"
    yield "a body 5,000 deep", f"{head}.{part('[' * 5_000 + ']' * 5_000)}.{signature}"
    yield "17,000 bytes", forger.signed(padding="x" * 17_000)
    yield "JSON instead of dots", json.dumps({"protected": head, "payload": body})
    yield "spaces inside", f"{head} .{body}.{signature}"
    yield "quotes around it", f'"{good}"'
    yield "two tokens in one", f"{good}, {good}"


def _changed(signature: str) -> str:
    return ("A" if signature[0] != "A" else "B") + signature[1:]


def strangers() -> Iterator[tuple[str, str]]:
    """Give tokens that are good, of callers who may not do this."""
    forger = Forger()
    for role in ("mayor", "Officer", "OFFICER", " officer", "officer,city", "оfficer"):
        yield f"the role {role!r}", forger.signed(role=role)
    for units in (
        [], [THERE], ["*"], ["H29"], ["H29.*"], ["%"], ["h29.26740"], ["H29.2674"], [f"{HERE} "],
        ["Н29.26740"], ["Ｈ29.26740"], ["gso:26740"], [f"{THERE},{HERE}"],
    ):  # fmt: skip
        yield f"the units {units!r}", forger.signed(units=units)


async def tokens(house: House) -> Attacks:
    """Open a counter as nobody who may."""
    for what, token in forged():
        lines = {"Authorization": f"Bearer {token}"}
        request = house.request("PUT", COUNTER, lines, OPEN)
        yield Attack(what, request, UNAUTHENTICATED, hidden=(token[-30:],))
    for what, token in strangers():
        request = house.request("PUT", COUNTER, {"Authorization": f"Bearer {token}"}, OPEN)
        yield Attack(what, request, FORBIDDEN, noted=True)
    good = bearer("officer", HERE)["Authorization"].removeprefix("Bearer ")
    for scheme in ("", "Basic", "Digest", "Token", "Bearer Bearer", "Bearer:", "DPoP", "Negotiate"):
        request = house.request("PUT", COUNTER, {"Authorization": f"{scheme} {good}"}, OPEN)
        yield Attack(f"the scheme {scheme!r}", request, UNAUTHENTICATED, hidden=(good[-30:],))
    for where in (f"?access_token={good}", f"?token={good}", f"?Authorization=Bearer%20{good}"):
        request = house.request("PUT", COUNTER + where, {}, OPEN)
        yield Attack("in the query", request, UNAUTHENTICATED, hidden=(good[-30:],))
    request = house.request("PUT", COUNTER, {"Cookie": f"token={good}; access_token={good}"}, OPEN)
    yield Attack("in a cookie", request, UNAUTHENTICATED, hidden=(good[-30:],))

"""Who is calling: principals from signed tokens, verified in every process a request reaches."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from fastapi import Depends, Request

from libs.common.problems import Forbidden, Unauthenticated
from libs.common.settings import Settings

log = structlog.get_logger()

NOBODY = "nobody"
DEVELOPMENT_ISSUER = "urn:motcua:development"
ALGORITHMS = ("EdDSA", "ES256", "RS256")
"""What a signature may be made with; `none` and shared secrets are never among them."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who calls: the token's subject, one role, and the units the role is held for."""

    subject: str = NOBODY
    role: str = NOBODY
    units: frozenset[str] = field(default_factory=frozenset)

    @property
    def anonymous(self) -> bool:
        """Whether no credentials came with the call."""
        return self.role == NOBODY


class Verifier:
    """Checks tokens of the trusted issuers; a token seen before costs a dictionary look-up."""

    remember = 10_000
    leeway_seconds = 30

    def __init__(self, audience: str) -> None:
        """Trust nobody yet."""
        self._audience = audience
        self._keys: dict[tuple[str, str], Any] = {}
        self._seen: dict[str, tuple[float, Principal]] = {}

    def trust(self, issuer: str, keys: Iterable[tuple[str, Any]]) -> None:
        """Replace the public keys (by key id) of an issuer; what it signed before is re-checked."""
        self._keys = {known: key for known, key in self._keys.items() if known[0] != issuer}
        self._keys |= {(issuer, key_id): key for key_id, key in keys}
        self._seen.clear()

    def verify(self, token: str) -> Principal:
        """Tell who a token speaks for.

        Raises:
            Unauthenticated: it is malformed, expired, of another audience, or of nobody we trust.
        """
        seen = self._seen.get(token)
        if seen is not None and seen[0] > time.time():
            return seen[1]
        try:
            header = jwt.get_unverified_header(token)
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss", "")
            key = self._keys[str(issuer), str(header.get("kid", ""))]
            claims = jwt.decode(
                token, key, algorithms=list(ALGORITHMS), audience=self._audience, issuer=issuer,
                leeway=self.leeway_seconds, options={"require": ["exp", "sub", "aud", "iss"]},
            )  # fmt: skip
        except KeyError:
            raise Unauthenticated("the token is not signed by an issuer trusted here") from None
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; get a new one") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated(f"the token is not valid: {type(error).__name__}") from None
        principal = _principal(claims)
        self._keep(token, float(claims["exp"]), principal)
        return principal

    def _keep(self, token: str, expires: float, principal: Principal) -> None:
        if len(self._seen) >= self.remember:
            self._seen.clear()
        self._seen[token] = (expires, principal)


def _principal(claims: dict[str, Any]) -> Principal:
    role = claims.get("role")
    units = claims.get("units", [])
    if not isinstance(role, str) or role == NOBODY:
        raise Unauthenticated("the token names no role")
    if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
        raise Unauthenticated("the token's units are not a list of codes")
    return Principal(str(claims["sub"]), role, frozenset(units))


class DevelopmentIssuer:
    """Signs tokens for every role with a key in the data folder; production refuses it."""

    def __init__(self, data_dir: Path) -> None:
        """Load the key, making it first where there is none."""
        self._key = load_or_make_key(data_dir / "keys" / "development-issuer.pem")

    @property
    def public(self) -> tuple[str, Any]:
        """Give the key id and the public key."""
        key = self._key.public_key()
        return key_id(key), key

    def token(self, role: str, *, subject: str, units: Iterable[str] = (), hours: float = 8) -> str:
        """Sign a token; it is valid for `hours` of the wall clock."""
        now = int(time.time())
        claims = {
            "iss": DEVELOPMENT_ISSUER,
            "aud": "motcua",
            "sub": subject,
            "role": role,
            "units": sorted(units),
            "iat": now,
            "exp": now + int(hours * 3600),
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self.public[0]})


def key_id(key: Ed25519PublicKey) -> str:
    """Name a key by its own first bytes, so that every process gives it the same name."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw.hex()[:16]


def load_or_make_key(path: Path) -> Ed25519PrivateKey:
    """Read a development key, making it first where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        # Written beside and linked into place: of two processes that start at once both end up
        # with the key that came first, and nobody ever reads half a file.
        draft = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
        draft.touch(mode=0o600)
        draft.write_bytes(pem)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey), f"{path} is not an Ed25519 key"
    return key


def trust_development_issuer(verifier: Verifier, settings: Settings) -> None:
    """Trust the built-in issuer of the data folder; only a development process may."""
    assert settings.development
    verifier.trust(DEVELOPMENT_ISSUER, [DevelopmentIssuer(settings.data_dir).public])


async def follow_issuer(verifier: Verifier, issuer: str, jwks_url: str) -> None:
    """Keep trusting the OIDC provider's present keys, until cancelled."""
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            try:
                answer = (await client.get(jwks_url)).raise_for_status()
                keys = jwt.PyJWKSet.from_dict(answer.json()).keys
                verifier.trust(issuer, [(str(key.key_id), key.key) for key in keys])
                pause = 300
            except Exception as error:
                # Whatever it answers, the keys we have stay good: nobody is locked out by it.
                log.warning("issuer.away", error=type(error).__name__)
                pause = 5
            await asyncio.sleep(pause)


def bearer(authorization: str | None) -> str | None:
    """Take the token out of an `Authorization` header.

    Raises:
        Unauthenticated: the header holds something else.
    """
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send `Authorization: Bearer <token>`")
    return token.strip()


async def caller(request: Request) -> Principal:
    """Tell who sent a request: its token's principal, or nobody."""
    token = bearer(request.headers.get("authorization"))
    return request.state.verifier.verify(token) if token else Principal()


Caller = Annotated[Principal, Depends(caller)]


def require(*roles: str) -> Callable[..., Any]:
    """Make a dependency that lets only these roles in.

    Raises:
        Unauthenticated: nobody called. Forbidden: somebody with another role did.
    """

    async def check(principal: Caller) -> Principal:
        if principal.role in roles:
            return principal
        if principal.anonymous:
            raise Unauthenticated(f"this needs a token with the role {' or '.join(roles)}")
        raise Forbidden(f"the role {principal.role} may not do this; {' or '.join(roles)} may")

    check.roles = roles  # type: ignore[attr-defined]  # read by the test that walks every route
    return check

"""Who is calling: principals from signed tokens, verified in every process a request reaches."""

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from fastapi import Depends, Request

from libs.common.problems import Forbidden, Unauthenticated, Unavailable
from libs.common.words import either, say

NOBODY = "nobody"
DEVELOPMENT_ISSUER = "urn:motcua:development"
GATEWAY_ISSUER = "urn:motcua:gateway"
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


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Where an issuer's tokens name the role and the units.

    Dots lead into nested claims (`realm_access.roles`). With a prefix only the values that begin
    with it count, and it is taken off; a role claim that is a list may hold many others.
    """

    role: str = "role"
    role_prefix: str = ""
    units: str = "units"
    units_prefix: str = ""


OUR_NAMES = ClaimNames()
"""How our own issuers write them."""


class KeySource(Protocol):
    """Follows the keys of an issuer that may change them at any time."""

    async def look_for(self, key_id: str) -> None:
        """Ask the issuer for a key that is not known yet, unless it was asked a moment ago."""
        ...


@dataclass(frozen=True, slots=True)
class _Trusted:
    """One public key, and what may be signed with it."""

    key: Any
    algorithms: tuple[str, ...]


class Verifier:
    """Checks tokens of the trusted issuers; a token seen before costs a hash and a look-up."""

    remember = 10_000
    longest_token = 16_384

    def __init__(
        self,
        audience: str,
        *,
        leeway_seconds: int = 30,
        roles: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Trust nobody yet. `roles` names those there are, each with the ones it includes."""
        self._audience = audience
        self.leeway_seconds = leeway_seconds
        self._roles = roles
        self._keys: dict[tuple[str, str], _Trusted] = {}
        self._names: dict[str, ClaimNames] = {}
        self._sources: dict[str, KeySource] = {}
        self._seen: dict[bytes, tuple[float, Principal]] = {}

    def trust(
        self, issuer: str, keys: Iterable[tuple[str, Any]], names: ClaimNames = OUR_NAMES
    ) -> None:
        """Replace the public keys (by key id) of an issuer; what it signed before is re-checked.

        A key is a public key, or a `jwt.PyJWK`, whose own algorithm is then the only one taken.
        """
        self._keys = {known: key for known, key in self._keys.items() if known[0] != issuer}
        self._keys |= {(issuer, key_id): _trusted(key) for key_id, key in keys}
        self._names[issuer] = names
        self._seen.clear()

    def ask(self, issuer: str, source: KeySource) -> None:
        """Name who is asked for a key of an issuer that is not known."""
        self._sources[issuer] = source

    async def identify(self, token: str) -> Principal:
        """Tell who a token speaks for, asking its issuer once for a key that is new.

        Raises:
            Unauthenticated: as `verify`.
            Unavailable: the issuer is trusted, but none of its keys could be had yet.
        """
        seen = self._remembered(token)
        if seen is not None:
            return seen
        issuer, key_id = _named(token)
        source = self._sources.get(issuer)
        if source is not None and (issuer, key_id) not in self._keys:
            await source.look_for(key_id)
            if not any(known == issuer for known, _ in self._keys):
                raise Unavailable(say("the issuer of this token does not answer; try again soon"))
        return self.verify(token)

    def remembers(self, token: str) -> bool:
        """Tell whether a token was found good and still is; anything else has to be checked.

        Raises:
            Unauthenticated: it is too long to be one.
        """
        return self._remembered(token) is not None

    def verify(self, token: str) -> Principal:
        """Tell who a token speaks for.

        Raises:
            Unauthenticated: it is malformed, expired, of another audience, or of nobody we trust.
        """
        seen = self._remembered(token)
        if seen is not None:
            return seen
        issuer, key_id = _named(token)
        try:
            trusted = self._keys[issuer, key_id]
            claims = jwt.decode(
                token, trusted.key, algorithms=list(trusted.algorithms), audience=self._audience,
                issuer=issuer, leeway=self.leeway_seconds,
                options={"require": ["exp", "sub", "aud", "iss"]},
            )  # fmt: skip
        except KeyError:
            raise Unauthenticated(
                say("the token is not signed by an issuer trusted here")
            ) from None
        except jwt.ExpiredSignatureError:
            raise Unauthenticated(say("the token has expired; get a new one")) from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated(
                say("the token is not valid: {error}", error=type(error).__name__)
            ) from None
        principal = self._principal(issuer, claims)
        self._keep(token, float(claims["exp"]), principal)
        return principal

    def _remembered(self, token: str) -> Principal | None:
        if len(token) > self.longest_token:
            raise Unauthenticated(say("the token is too long"))
        seen = self._seen.get(_digest(token))
        return seen[1] if seen is not None and seen[0] > time.time() else None

    def _keep(self, token: str, expires: float, principal: Principal) -> None:
        while len(self._seen) >= self.remember:
            del self._seen[next(iter(self._seen))]  # the one seen first
        self._seen[_digest(token)] = (expires, principal)

    def _principal(self, issuer: str, claims: dict[str, Any]) -> Principal:
        if claims.get("typ") in _NOT_FOR_ACCESS:
            raise Unauthenticated(say("this is no access token"))
        names = self._names[issuer]
        role = self._role(_claim(claims, names.role), names.role_prefix)
        if role == NOBODY:
            if issuer != GATEWAY_ISSUER:
                raise Unauthenticated(say("the token names no role"))
            return Principal()
        units = _claim(claims, names.units)
        if units is None:
            units = []
        if not isinstance(units, list) or not all(isinstance(unit, str) for unit in units):
            raise Unauthenticated(say("the token's units are not a list of codes"))
        principal = Principal(
            str(claims["sub"]), role, frozenset(_without_prefix(units, names.units_prefix))
        )
        # They go into logs, the audit and the scope of idempotency keys.
        if not all(map(_is_name, (principal.subject, role, *principal.units))):
            raise Unauthenticated(say("the token's subject, role or units are no printable text"))
        return principal

    def _role(self, named: Any, prefix: str) -> str:
        """Find the one role among what a token names; what another one includes does not count."""
        if isinstance(named, str):
            found = set(_without_prefix([named], prefix))
        elif isinstance(named, list) and self._roles is not None:
            texts = [value for value in named if isinstance(value, str)]
            # Other applications' roles stand in the same list.
            found = set(_without_prefix(texts, prefix)) & self._roles.keys()
            found -= {included for role in found for included in self._roles[role]}
        else:
            found = set()
        if not found:
            raise Unauthenticated(say("the token names no role"))
        if len(found) > 1:
            raise Unauthenticated(
                say("the token names several roles: {roles}", roles=", ".join(sorted(found)))
            )
        return found.pop()


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable()


_NOT_FOR_ACCESS = ("ID", "Refresh", "Offline", "Logout")
"""What Keycloak writes into tokens that prove something else than the right to call."""


def _trusted(key: Any) -> _Trusted:
    if isinstance(key, jwt.PyJWK):
        return _Trusted(key.key, (key.algorithm_name,))
    return _Trusted(key, ALGORITHMS)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _named(token: str) -> tuple[str, str]:
    """Read which issuer and key a token says that it is of; nothing of it is believed yet."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise Unauthenticated(
            say("the token is not valid: {error}", error=type(error).__name__)
        ) from None
    return str(claims.get("iss", "")), str(header.get("kid", ""))


def _claim(claims: Any, path: str) -> Any:
    # A claim may have dots in its own name, as those that are addresses do.
    if path in claims:
        return claims[path]
    for name in path.split("."):
        claims = claims.get(name) if isinstance(claims, dict) else None
    return claims


def _without_prefix(values: Iterable[str], prefix: str) -> Iterator[str]:
    return (value.removeprefix(prefix) for value in values if value.startswith(prefix))


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


def bearer(authorization: str | None) -> str | None:
    """Take the token out of an `Authorization` header.

    Raises:
        Unauthenticated: the header holds something else.
    """
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(say("send `Authorization: Bearer <token>`"))
    return token.strip()


async def caller(request: Request) -> Principal:
    """Tell who sent a request: its token's principal, or nobody."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is None:
        token = bearer(request.headers.get("authorization"))
        known = await request.state.verifier.identify(token) if token else Principal()
        request.state.principal = known
    return known


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
            raise Unauthenticated(
                say("this needs a token with the role {roles}", roles=either(roles))
            )
        raise Forbidden(
            say(
                "the role {role} may not do this; {roles} may",
                role=principal.role,
                roles=either(roles),
            )
        )

    return check

"""Whose tokens a process takes: the OIDC provider's, the gateway's, and in development our own."""

import asyncio
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from libs.common.auth import (
    ALGORITHMS,
    DEVELOPMENT_ISSUER,
    GATEWAY_ISSUER,
    ClaimNames,
    DevelopmentIssuer,
    Principal,
    Verifier,
    key_id,
    load_or_make_key,
)
from libs.common.settings import Settings

log = structlog.get_logger()


class NotItself(ValueError):
    """The provider's answer is not what its keys may be taken from."""


class OidcProvider:
    """Follows an OIDC provider's signing keys and keeps the last ones while it is away."""

    every_seconds = 300.0
    asked_for_at_most_every = 2.0
    """Seconds between two looks for a key that a token names: anybody can make names up."""
    longest_pause = 30.0
    largest_answer = 1_000_000

    def __init__(
        self,
        verifier: Verifier,
        issuer: str,
        *,
        jwks_url: str | None = None,
        names: ClaimNames,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Describe the provider; without a `jwks_url` its own description is asked for one."""
        self._verifier = verifier
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._names = names
        self._client = httpx.AsyncClient(timeout=5, transport=transport)
        self._known: dict[str, dict[str, Any]] | None = None
        self._asking = asyncio.Lock()
        self._not_before = 0.0
        self._away = False
        self.problem: str | None = "none of its keys is known yet"
        """What keeps the keys from being fresh, for `readyz`."""
        verifier.ask(issuer, self)

    async def run(self) -> None:
        """Follow the keys until cancelled."""
        pause = 1.0
        try:
            while True:
                async with self._asking:
                    answered = await self._refresh()
                pause = 1.0 if answered else min(pause * 2, self.longest_pause)
                # Spread, or all processes of a city would ask at the same moment for ever.
                await asyncio.sleep(
                    (self.every_seconds if answered else pause) * random.uniform(0.8, 1.2)  # noqa: S311
                )
        finally:
            await self._client.aclose()

    async def look_for(self, key_id: str) -> None:
        """Ask for a key that a token names; those who come meanwhile wait for the same answer."""
        async with self._asking:
            now = time.monotonic()
            if key_id in (self._known or {}) or now < self._not_before:
                return
            self._not_before = now + self.asked_for_at_most_every
            await self._refresh()

    async def _refresh(self) -> bool:
        """Fetch the keys; whatever the provider answers, the ones we have stay good."""
        try:
            self._take(await self._get(await self._address()))
        except Exception as error:
            if not self._away:  # said once, however long it lasts
                log.warning("issuer.away", issuer=self._issuer, error=type(error).__name__)
            self._away = True
            self.problem = f"its keys cannot be had: {type(error).__name__}: {error}"[:200]
            return False
        self._away = False
        self.problem = None
        return True

    async def _address(self) -> str:
        if self._jwks_url is not None:
            return self._jwks_url
        about = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        # OpenID Connect Discovery 1.0 §4.3: anything else is another issuer's description.
        if about["issuer"] != self._issuer:
            raise NotItself(f"it calls itself {about['issuer']}")
        return str(about["jwks_uri"])

    async def _get(self, url: str) -> Any:
        answer = (await self._client.get(url)).raise_for_status()
        if len(answer.content) > self.largest_answer:
            raise NotItself("its answer is too long")
        return answer.json()

    def _take(self, document: Any) -> None:
        usable = {
            str(key["kid"]): key
            for key in document["keys"]
            if key.get("kid") and key.get("use", "sig") == "sig"
        }
        keys = [(name, jwt.PyJWK(key)) for name, key in usable.items() if _understood(key)]
        if not keys:
            raise NotItself("it names no key that we take")
        if usable != self._known:  # or every look would forget the tokens that were checked
            self._verifier.trust(self._issuer, keys, self._names)
            self._known = usable
            log.info("issuer.keys", issuer=self._issuer, keys=[name for name, _ in keys])


def _understood(key: dict[str, Any]) -> bool:
    try:
        return jwt.PyJWK(key).algorithm_name in ALGORITHMS
    except jwt.PyJWTError:
        return False  # of a kind that is newer than we are


# The gateway's own tokens ---------------------------------------------------------------------


class TokenSigner:
    """Signs the short-lived tokens by which the gateway tells services who called it.

    They never leave the house: a caller shows an API key or nothing. One is used again for half
    its life, so that neither side pays for a signature on each call.
    """

    lifetime_seconds: Final = 120
    remember: Final = 10_000

    def __init__(self, key: Ed25519PrivateKey, audience: str) -> None:
        """Sign with a key whose public half the services trust."""
        self._key = key
        self._audience = audience
        self._headers = {"kid": key_id(key.public_key())}
        self._signed: dict[Principal, tuple[float, str]] = {}

    def token(self, principal: Principal) -> str:
        """Give a token that is good for a minute at least."""
        now = time.time()
        known = self._signed.get(principal)
        if known is not None and now < known[0]:
            return known[1]
        if len(self._signed) >= self.remember:
            self._signed.clear()
        claims = {
            "iss": GATEWAY_ISSUER,
            "aud": self._audience,
            "sub": principal.subject,
            "role": principal.role,
            "units": sorted(principal.units),
            "iat": int(now),
            "exp": int(now) + self.lifetime_seconds,
        }
        token = jwt.encode(claims, self._key, algorithm="EdDSA", headers=self._headers)
        self._signed[principal] = (now + self.lifetime_seconds / 2, token)
        return token


DEVELOPMENT_GATEWAY_KEY: Final = "development-gateway.pem"


def gateway_key(settings: Settings) -> Ed25519PrivateKey:
    """Give the gateway's private key; development makes one in the data folder.

    Raises:
        ValueError: production without a key, or a key of another kind.
    """
    if settings.gateway_key is None:
        if not settings.development:
            raise ValueError(
                "production refuses development keys: set MOTCUA_GATEWAY_KEY to a PEM of an "
                "Ed25519 key of your own (openssl genpkey -algorithm ed25519)"
            )
        return load_or_make_key(_development_key(settings))
    pem = settings.gateway_key.get_secret_value().encode()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, Ed25519PrivateKey)
    except (ValueError, TypeError, AssertionError):
        # The library's own words may repeat a part of what should be secret.
        raise ValueError("MOTCUA_GATEWAY_KEY is no PEM of an Ed25519 private key") from None
    if not settings.development:
        _refuse_development_keys(settings, [key.public_key()])
        if key_id(key.public_key()) not in {key_id(public) for public in _published(settings)}:
            raise ValueError(
                "MOTCUA_GATEWAY_PUBLIC_KEYS does not hold the public half of MOTCUA_GATEWAY_KEY: "
                "the services would refuse every call"
            )
    return key


def gateway_public_keys(settings: Settings) -> list[Ed25519PublicKey]:
    """Give the public keys by which a process knows the gateway's tokens.

    Raises:
        ValueError: production without any, or one that is a development key.
    """
    if settings.gateway_public_keys:
        published = _published(settings)
        if not settings.development:
            _refuse_development_keys(settings, published)
        return published
    if not settings.development:
        raise ValueError(
            "production refuses development keys: set MOTCUA_GATEWAY_PUBLIC_KEYS to the PEM of the "
            "gateway's public key (openssl pkey -in gateway.pem -pubout)"
        )
    return [gateway_key(settings).public_key()]


_PEM_END: Final = "-----END PUBLIC KEY-----"


def _published(settings: Settings) -> list[Ed25519PublicKey]:
    """Read a bundle: while the gateway's key is replaced, the old and the new one."""
    parts = (settings.gateway_public_keys or "").split(_PEM_END)[:-1]
    try:
        keys = [serialization.load_pem_public_key((part + _PEM_END).encode()) for part in parts]
    except ValueError:
        keys = []
    ours = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not keys or len(ours) < len(keys):
        raise ValueError("MOTCUA_GATEWAY_PUBLIC_KEYS holds something else than Ed25519 public keys")
    return ours


def _development_key(settings: Settings) -> Path:
    return settings.data_dir / "keys" / DEVELOPMENT_GATEWAY_KEY


def _refuse_development_keys(settings: Settings, keys: Iterable[Ed25519PublicKey]) -> None:
    """Refuse keys that lie readable in a developer's data folder."""
    folder = settings.data_dir / "keys"
    made_here = {
        key_id(load_or_make_key(path).public_key()) for path in folder.glob("development-*.pem")
    }
    if any(key_id(key) in made_here for key in keys):
        raise ValueError(
            f"production refuses the development keys of {folder}: make one of its own"
        )


# Trust ----------------------------------------------------------------------------------------


def trust_issuers(verifier: Verifier, settings: Settings) -> OidcProvider | None:
    """Trust everybody whose tokens this process takes; give the provider that has to be followed.

    Raises:
        ValueError: production with a development key, or without keys.
    """
    verifier.trust(GATEWAY_ISSUER, [(key_id(key), key) for key in gateway_public_keys(settings)])
    if settings.development:
        verifier.trust(DEVELOPMENT_ISSUER, [DevelopmentIssuer(settings.data_dir).public])
    if settings.oidc_issuer is None:
        return None
    return OidcProvider(
        verifier,
        settings.oidc_issuer,
        jwks_url=settings.oidc_jwks_url,
        names=ClaimNames(
            settings.oidc_role_claim,
            settings.oidc_role_prefix,
            settings.oidc_units_claim,
            settings.oidc_units_prefix,
        ),
    )

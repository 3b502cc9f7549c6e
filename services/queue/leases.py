"""What a kiosk is lent for the time without network: a signed block of numbers, and its accounts.

A lease is a JSON Web Signature (RFC 7515, EdDSA over Ed25519): the kiosk checks it offline against
the public keys that it fetched while it could, and we know our own when it comes back.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID, uuid5

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from pydantic import Field

from libs.common import fast_json
from libs.common.auth import key_id, load_or_make_key
from libs.common.fields import In, Instant
from libs.common.problems import field_error, malformed_field
from libs.common.settings import Settings
from libs.contracts.codes import ProcedureCode
from services.queue.models import KioskLease
from services.queue.policy import PriorityClass
from services.queue.words import say

ISSUER: Final = "urn:motcua:queue"
AUDIENCE: Final = "urn:motcua:kiosk"
TYPE: Final = "kiosk-lease+jwt"
MOST_NUMBERS: Final = 500

LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""By which the kiosks of a unit are told apart: no I and O, which would be read as digits."""

_PEM: Final = re.compile(rb"-----BEGIN [^-]+-----.+?-----END [^-]+-----", re.DOTALL)


# Keys ---------------------------------------------------------------------------------------------


class LeaseKeys:
    """The keys that sign leases: the first signs, all of them are still believed."""

    def __init__(self, keys: Sequence[Ed25519PrivateKey]) -> None:
        """Take the keys, the signing one first."""
        self._signing = keys[0]
        self._public = {key_id(key.public_key()): key.public_key() for key in keys}

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Read the keys; None where production names no file: then it gives no leases.

        Development makes a key in its data folder, beside the one that signs tokens.

        Raises:
            ValueError: the file holds no Ed25519 private key.
        """
        if settings.kiosk_key_file is not None:
            return cls(_read_keys(settings.kiosk_key_file))
        if settings.development:
            return cls([load_or_make_key(settings.data_dir / "keys" / "kiosk-leases.pem")])
        return None

    def sign(self, lease: KioskLease) -> str:
        """Write a lease that a kiosk can check by itself."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "jti": str(lease.id),
            "sub": lease.kiosk,
            "unit": lease.unit,
            "series": lease.series,
            "first": lease.first,
            "last": lease.last,
            "business_day": lease.business_day.isoformat(),
            "iat": int(lease.granted_at.timestamp()),
            "nbf": int(lease.valid_from.timestamp()),
            "exp": int(lease.expires_at.timestamp()),
        }
        headers = {"kid": key_id(self._signing.public_key()), "typ": TYPE}
        return jwt.encode(claims, self._signing, algorithm="EdDSA", headers=headers)

    def lease_id(self, lease: str) -> UUID:
        """Tell which lease a signed text is; its times are looked at against the stored one.

        Raises:
            Malformed: it was not signed by us, or was changed since.
        """
        try:
            header = jwt.get_unverified_header(lease)
            claims = jwt.decode(
                lease,
                self._public[str(header.get("kid"))],
                algorithms=["EdDSA"],
                issuer=ISSUER,
                audience=AUDIENCE,
                # Business time, which a virtual clock may give, is not the wall's.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            assert header.get("typ") == TYPE
            return UUID(claims["jti"])
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, AssertionError):
            raise malformed_field(
                "signed", say("was not signed here, or was changed since: send it as it was given")
            ) from None

    def public(self) -> list[dict[str, Any]]:
        """Give the public keys as a JSON Web Key Set has them."""
        return [
            OKPAlgorithm.to_jwk(key, as_dict=True) | {"kid": name, "use": "sig", "alg": "EdDSA"}
            for name, key in self._public.items()
        ]


def _read_keys(path: Path) -> list[Ed25519PrivateKey]:
    try:
        keys = [
            serialization.load_pem_private_key(pem, password=None)
            for pem in _PEM.findall(path.read_bytes())
        ]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"MOTCUA_KIOSK_KEY_FILE {path} cannot be read: {error}") from None
    ours = [key for key in keys if isinstance(key, Ed25519PrivateKey)]
    if not ours or len(ours) != len(keys):
        raise ValueError(f"MOTCUA_KIOSK_KEY_FILE {path} must hold Ed25519 private keys as PEM")
    return ours


# What was issued ----------------------------------------------------------------------------------


class IssuedOffline(In):
    """A number that a kiosk gave to somebody, and what it knows of what became of them."""

    number: Annotated[str, Field(pattern=r"^[A-Z]{2}\d{3,6}$")]
    issued_at: Instant
    procedure_codes: list[ProcedureCode] = Field(default_factory=list, max_length=20)
    priority_class: PriorityClass = "normal"
    status: Literal["waiting", "cancelled", "finished", "no_show"] = "waiting"
    counter: Annotated[int, Field(ge=1, le=99)] | None = None
    called_at: Instant | None = None
    started_at: Instant | None = None
    ended_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """What a kiosk has to tell of a number of some status, and what it may."""

    needed: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()


_TOLD: Final = ("counter", "called_at", "started_at", "ended_at")

LIVES: Final[Mapping[str, Life]] = {
    "waiting": Life(),
    "cancelled": Life(needed=("ended_at",)),
    "no_show": Life(needed=("counter", "called_at", "ended_at")),
    "finished": Life(needed=("counter", "called_at", "ended_at"), possible=("started_at",)),
}
"""Whoever stands at a counter right now is for the officer to say, not for a kiosk."""


def number_of(series: str, sequence: int) -> str:
    """Write a number as `statements.ISSUE` does: three digits, or more where they are needed."""
    return f"{series}{sequence:03d}"


def line_of(lease: KioskLease) -> str:
    """Give the series in which people with the lease's numbers wait: its line, not its own."""
    return lease.series[0]


def sequence_of(lease: KioskLease, number: str) -> int | None:
    """Give the place of a number in its series, if it is one of a lease."""
    digits = number[2:]
    sequence = int(digits) if digits.isascii() and digits.isdigit() else 0
    inside = lease.first <= sequence <= lease.last
    return sequence if inside and number_of(lease.series, sequence) == number else None


def ticket_id(lease: KioskLease, number: str) -> UUID:
    """Give the id of the ticket that a leased number becomes (UUID version 5 in the lease's id).

    A kiosk can print it on the slip before anybody else knows of the ticket. The lease's id is
    random and told to the kiosk alone: who holds one ticket can guess no other.
    """
    return uuid5(lease.id, number)


def contents_of(issued: Sequence[IssuedOffline]) -> bytes:
    """Give a fingerprint of what was issued, whatever the order it is told in."""
    told = sorted((entry.model_dump(mode="json") for entry in issued), key=lambda e: e["number"])
    return hashlib.sha256(fast_json.dumps(told)).digest()


def mistakes(
    issued: Sequence[IssuedOffline], lease: KioskLease, now: datetime
) -> Iterator[dict[str, str]]:
    """List what cannot have been issued from a lease, entry by entry, as a problem's `errors`."""
    seen: dict[str, int] = {}
    for place, entry in enumerate(issued):
        for name, message in _mistakes_of(entry, lease, now):
            yield field_error(f"tickets.{place}.{name}", message)
        twin = seen.setdefault(entry.number, place)
        if twin != place:
            message = say(
                "{number} is told twice: tickets.{twin} has it too", number=entry.number, twin=twin
            )
            yield field_error(f"tickets.{place}.number", message)


def _mistakes_of(
    entry: IssuedOffline, lease: KioskLease, now: datetime
) -> Iterator[tuple[str, str]]:
    if sequence_of(lease, entry.number) is None:
        first, last = (number_of(lease.series, n) for n in (lease.first, lease.last))
        yield (
            "number",
            say(
                "{number} is outside the lease, which is {first} to {last}",
                number=entry.number,
                first=first,
                last=last,
            ),
        )
    if not lease.valid_from <= entry.issued_at < lease.expires_at:
        since, until = lease.valid_from, lease.expires_at
        wrong = say("the lease was good from {since} until {until}", since=since, until=until)
        yield "issued_at", wrong
    life = LIVES[entry.status]
    for name in _TOLD:
        told = getattr(entry, name) is not None
        if name in life.needed and not told:
            yield name, say("is needed of a ticket that is {status}", status=entry.status)
        if told and name not in (*life.needed, *life.possible):
            yield name, say("cannot be told of a ticket that is {status}", status=entry.status)
    yield from _out_of_order(entry, now)


def _out_of_order(entry: IssuedOffline, now: datetime) -> Iterator[tuple[str, str]]:
    """List the times that are in the future, or earlier than what came before them."""
    before = None
    for name in ("issued_at", "called_at", "started_at", "ended_at"):
        at: datetime | None = getattr(entry, name)
        if at is None:
            continue
        if at > now:
            yield name, say("is in the future: it is {now} here", now=now)
        elif before is not None and at < getattr(entry, before):
            yield name, say("is earlier than {before}", before=before)
        before = name

"""Leases as texts: signed so that a kiosk can check them alone, and accounts that add up."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from libs.common.problems import Malformed
from libs.common.settings import Settings
from services.queue.leases import (
    AUDIENCE,
    ISSUER,
    LIVES,
    IssuedOffline,
    LeaseKeys,
    contents_of,
    mistakes,
    number_of,
    sequence_of,
    ticket_id,
)
from services.queue.models import KioskLease
from tests.queue.visits import at
from tests.support import PRODUCTION

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GRANTED = at("2026-11-16T08:00:00")
NOW = at("2026-11-16T15:00:00")


def lease(**changes: Any) -> KioskLease:
    """Make a lease of a Monday."""
    values = {
        "id": UUID("6ba7b811-9dad-41d1-80b4-00c04fd430c8"),
        "kiosk": "kiosk-1",
        "unit": "H29.26740",
        "series": "AB",
        "business_day": GRANTED.date(),
        "first": 101,
        "last": 300,
        "granted_at": GRANTED,
        "valid_from": GRANTED,
        "expires_at": at("2026-11-17T00:00:00"),
    }
    return KioskLease(**values | changes)


# Signatures ---------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> LeaseKeys:
    """Give the keys of a development process."""
    keys = LeaseKeys.of(Settings(data_dir=tmp_path))
    assert keys is not None
    return keys


def test_a_kiosk_checks_a_lease_with_the_published_key_and_nothing_else(keys: LeaseKeys) -> None:
    signed = keys.sign(lease())
    published = jwt.PyJWKSet.from_dict({"keys": keys.public()})
    header = jwt.get_unverified_header(signed)
    assert header == {"alg": "EdDSA", "typ": "kiosk-lease+jwt", "kid": header["kid"]}
    key = published[header["kid"]]
    claims = jwt.decode(
        signed, key, algorithms=["EdDSA"], audience=AUDIENCE, issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )  # fmt: skip
    assert claims["sub"] == "kiosk-1"
    assert (claims["unit"], claims["business_day"]) == ("H29.26740", "2026-11-16")
    assert (claims["series"], claims["first"], claims["last"]) == ("AB", 101, 300)
    assert datetime.fromtimestamp(claims["nbf"], GRANTED.tzinfo) == GRANTED
    assert datetime.fromtimestamp(claims["exp"], GRANTED.tzinfo) == at("2026-11-17T00:00:00")
    assert "d" not in keys.public()[0], "the private half stays here"


def test_our_own_lease_is_known_again_also_after_it_expired(keys: LeaseKeys) -> None:
    old = lease(expires_at=at("2020-01-01T00:00:00"), valid_from=at("2019-12-31T00:00:00"))
    assert keys.lease_id(keys.sign(old)) == old.id


@UNHURRIED
@given(st.data())
def test_a_lease_of_which_one_letter_was_changed_is_refused(data: st.DataObject) -> None:
    keys = LeaseKeys([ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)])
    signed = keys.sign(lease())
    place = data.draw(st.integers(0, len(signed) - 2))  # the last carries unused bits
    other = data.draw(st.sampled_from("ABab01-_.=").filter(lambda c: c != signed[place]))
    with pytest.raises(Malformed) as refused:
        keys.lease_id(signed[:place] + other + signed[place + 1 :])
    assert refused.value.errors is not None
    assert [error["field"] for error in refused.value.errors] == ["signed"]


def test_what_somebody_else_signed_or_nobody_did_is_refused(keys: LeaseKeys) -> None:
    stranger = ed25519.Ed25519PrivateKey.generate()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "jti": str(uuid4()), "sub": "kiosk-1"}
    kid = keys.public()[0]["kid"]
    header = {"kid": kid, "typ": "kiosk-lease+jwt"}
    secret = "x" * 64
    for forged in (
        jwt.encode(claims, stranger, algorithm="EdDSA", headers=header),
        jwt.encode(claims, secret, algorithm="HS512", headers=header),
        jwt.encode(claims, "", algorithm="none", headers=header),
        LeaseKeys([stranger]).sign(lease()),
        "",
        "a.b.c",
        "é" * 10,
        "..",
    ):
        with pytest.raises(Malformed):
            keys.lease_id(forged)


def test_a_token_of_another_kind_is_no_lease(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    keys = LeaseKeys([key])
    kid = keys.public()[0]["kid"]
    good = {"iss": ISSUER, "aud": AUDIENCE, "jti": str(uuid4())}
    header = {"kid": kid, "typ": "kiosk-lease+jwt"}
    assert keys.lease_id(jwt.encode(good, key, "EdDSA", header))
    for claims, changed in (
        (good | {"iss": "urn:motcua:development"}, {}),
        (good | {"aud": "motcua"}, {}),
        (good | {"jti": "no uuid"}, {}),
        ({"iss": ISSUER, "aud": AUDIENCE}, {}),
        (good, {"typ": "JWT"}),
        (good, {"kid": "another"}),
    ):
        with pytest.raises(Malformed):
            keys.lease_id(jwt.encode(claims, key, "EdDSA", header | changed))


def pem(key: Any) -> bytes:
    """Write a private key as PEM."""
    written: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return written


def test_production_reads_its_keys_from_a_file_and_a_new_one_is_put_first(tmp_path: Path) -> None:
    old, new = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))
    file = tmp_path / "kiosk.pem"
    file.write_bytes(pem(old))
    before = LeaseKeys.of(Settings(kiosk_key_file=file))
    file.write_bytes(pem(new) + pem(old))
    after = LeaseKeys.of(Settings(kiosk_key_file=file))
    assert before is not None
    assert after is not None
    mine = lease()
    assert after.lease_id(before.sign(mine)) == mine.id, "what is out there is still believed"
    assert after.sign(mine) != before.sign(mine)
    with pytest.raises(Malformed):
        before.lease_id(after.sign(mine))
    assert len(after.public()) == 2


def test_without_a_file_production_has_no_keys_and_with_a_bad_one_does_not_start(
    tmp_path: Path,
) -> None:
    production = PRODUCTION | {"database_url": SecretStr("postgresql://queue:x@db/motcua")}
    assert LeaseKeys.of(Settings.model_validate(production)) is None
    file = tmp_path / "kiosk.pem"
    for content in (None, b"", b"no key", pem(rsa.generate_private_key(65537, 2048)),
                    pem(ed25519.Ed25519PrivateKey.generate())[:-40]):  # fmt: skip
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ValueError, match="MOTCUA_KIOSK_KEY_FILE"):
            LeaseKeys.of(Settings.model_validate(production | {"kiosk_key_file": file}))


# Numbers ------------------------------------------------------------------------------------------


@UNHURRIED
@given(st.integers(1, 99_999))
def test_a_number_names_its_place_in_the_series(sequence: int) -> None:
    number = number_of("AB", sequence)
    mine = lease(first=sequence, last=sequence)
    assert sequence_of(mine, number) == sequence
    assert sequence_of(lease(first=sequence, last=sequence, series="AC"), number) is None
    assert sequence_of(lease(first=sequence + 1, last=sequence + 9), number) is None
    assert sequence_of(mine, f"AB0{sequence:03d}") is None, "one number is written in one way"


def test_the_ticket_of_a_number_has_an_id_before_anybody_knows_of_it() -> None:
    mine, other = lease(), lease(id=uuid4())
    ids = {ticket_id(held, number_of("AB", n)) for held in (mine, other) for n in range(101, 301)}
    assert len(ids) == 400
    # What docs/queue.md tells the builders of kiosks.
    assert str(ticket_id(mine, "AB101")) == "7bc5f683-92bb-573d-80ce-e1652d08c0b5"


# Accounts -----------------------------------------------------------------------------------------

_moments = st.integers(0, int((NOW - GRANTED).total_seconds())).map(
    lambda seconds: GRANTED + timedelta(seconds=seconds)
)


@st.composite
def accounts(draw: st.DrawFn, least: int = 0) -> list[dict[str, Any]]:
    """Draw what a kiosk may have issued from the lease."""
    numbers = draw(st.lists(st.integers(101, 300), min_size=least, max_size=8, unique=True))
    entries = []
    for sequence in numbers:
        status = draw(st.sampled_from(sorted(LIVES)))
        moments = sorted(draw(st.tuples(*[_moments] * 4)))
        entry: dict[str, Any] = {
            "number": number_of("AB", sequence),
            "issued_at": moments[0].isoformat(),
            "status": status,
        }
        told = {
            "called_at": moments[1].isoformat(),
            "started_at": moments[2].isoformat(),
            "ended_at": moments[3].isoformat(),
            "counter": draw(st.integers(1, 99)),
        }
        life = LIVES[status]
        optional = [name for name in life.possible if draw(st.booleans())]
        entries.append(entry | {name: told[name] for name in (*life.needed, *optional)})
    return entries


def fields(entries: list[dict[str, Any]], held: KioskLease | None = None) -> set[str]:
    """Name the fields that cannot be."""
    issued = [IssuedOffline.model_validate(entry) for entry in entries]
    return {error["field"] for error in mistakes(issued, held or lease(), NOW)}


@UNHURRIED
@given(accounts())
def test_what_may_have_happened_is_taken(entries: list[dict[str, Any]]) -> None:
    assert fields(entries) == set()


_SPOILT: dict[str, dict[str, Any]] = {
    "below the block": {"number": "AB100"},
    "above the block": {"number": "AB301"},
    "another kiosk's series": {"number": "AC101"},
    "another line's series": {"number": "BB101"},
    "before the lease": {"issued_at": "2026-11-16T07:59:59+07:00"},
    "after the lease": {"issued_at": "2026-11-17T00:00:00+07:00"},
    "in the future": {"issued_at": "2026-11-16T15:00:01+07:00"},
}


@UNHURRIED
@given(accounts(least=1), st.sampled_from(sorted(_SPOILT)), st.data())
def test_an_entry_that_cannot_be_is_named_and_the_others_are_not(
    entries: list[dict[str, Any]], how: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    [(name, value)] = _SPOILT[how].items()
    entries[place] = {"number": entries[place]["number"], "issued_at": GRANTED.isoformat()}
    entries[place][name] = value
    assert fields(entries) == {f"tickets.{place}.{name}"}


@UNHURRIED
@given(accounts(least=1), st.data())
def test_a_number_told_twice_is_named_where_it_comes_again(
    entries: list[dict[str, Any]], data: st.DataObject
) -> None:
    again = data.draw(st.sampled_from(entries))
    assert fields([*entries, again]) == {f"tickets.{len(entries)}.number"}


@pytest.mark.parametrize(
    ("told", "bad"),
    [
        ({"counter": 3}, {"counter"}),
        ({"called_at": 5, "ended_at": 6}, {"called_at", "ended_at"}),
        ({"status": "cancelled"}, {"ended_at"}),
        ({"status": "cancelled", "ended_at": 9, "counter": 3}, {"counter"}),
        ({"status": "no_show", "ended_at": 9}, {"counter", "called_at"}),
        ({"status": "no_show", "counter": 3, "called_at": 5, "started_at": 6, "ended_at": 9},
         {"started_at"}),
        ({"status": "finished"}, {"counter", "called_at", "ended_at"}),
        ({"status": "finished", "counter": 3, "called_at": 9, "ended_at": 5}, {"ended_at"}),
        ({"status": "finished", "counter": 3, "called_at": -1, "ended_at": 5}, {"called_at"}),
        ({"status": "finished", "counter": 3, "called_at": 5, "started_at": 4, "ended_at": 9},
         {"started_at"}),
        ({"status": "finished", "counter": 3, "called_at": 5, "ended_at": 601}, {"ended_at"}),
    ],
)  # fmt: skip
def test_a_life_that_cannot_be_is_named_field_by_field(told: dict[str, Any], bad: set[str]) -> None:
    """Times are in minutes from when the number was issued, five hours before now."""
    issued = NOW - timedelta(hours=5)
    entry = {"number": "AB101", "issued_at": issued.isoformat()} | {
        name: (issued + timedelta(minutes=value)).isoformat() if name.endswith("_at") else value
        for name, value in told.items()
    }
    assert fields([entry]) == {f"tickets.0.{name}" for name in bad}


@UNHURRIED
@given(accounts(), st.randoms())
def test_the_order_of_an_account_does_not_matter_and_its_contents_do(
    entries: list[dict[str, Any]], dice: Any
) -> None:
    issued = [IssuedOffline.model_validate(entry) for entry in entries]
    before = contents_of(issued)
    dice.shuffle(issued)
    assert contents_of(issued) == before
    if issued:
        assert contents_of(issued[1:]) != before
        changed = issued[0].model_copy(update={"priority_class": "merit"})
        assert contents_of([changed, *issued[1:]]) != before

"""Where a call comes from: whom the door believes, and whom an address is counted for."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common.settings import Settings
from services.gateway.addresses import PEER, Proxies, caller_of
from tests.gateway.front import front
from tests.gateway.stub import Stub
from tests.serving import HOST, serving, talk, written
from tests.support import PRODUCTION

PROXIES = Proxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
PROXY = "10.0.0.1"


def placed(peer: str, *headers: tuple[str, str], proxies: Proxies = PROXIES) -> str:
    """Tell where a call is from."""
    scope: dict[str, Any] = {
        "client": (peer, 4711),
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    proxies.place(scope)
    client: str = scope["client"][0]
    return client


X = "X-Forwarded-For"
F = "Forwarded"


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("203.0.113.1", [], "203.0.113.1"),
        # Who is no proxy may say what he likes.
        ("203.0.113.1", [(X, "198.51.100.7")], "203.0.113.1"),
        ("203.0.113.1", [(F, "for=198.51.100.7")], "203.0.113.1"),
        (PROXY, [], PROXY),
        (PROXY, [(X, "198.51.100.7")], "198.51.100.7"),
        (PROXY, [(X, "198.51.100.7:1234")], "198.51.100.7"),
        # What stands left of the first stranger is the stranger's own word.
        (PROXY, [(X, "1.1.1.1, 198.51.100.7")], "198.51.100.7"),
        (PROXY, [(X, "1.1.1.1, 198.51.100.7, 10.9.9.9")], "198.51.100.7"),
        (PROXY, [(X, "1.1.1.1"), (X, "198.51.100.7")], "198.51.100.7"),
        (PROXY, [(X, "10.2.2.2, 10.3.3.3")], "10.2.2.2"),
        (PROXY, [(X, "198.51.100.7, unknown")], PROXY),
        (PROXY, [(X, "198.51.100.7, rubbish, 10.9.9.9")], "10.9.9.9"),
        (PROXY, [(X, "")], PROXY),
        (PROXY, [(F, "for=198.51.100.7;proto=https")], "198.51.100.7"),
        (PROXY, [(F, 'for="[2001:db8::7]:443";by=10.0.0.1')], "2001:db8::7"),
        (PROXY, [(F, "for=1.1.1.1, For=198.51.100.7")], "198.51.100.7"),
        (PROXY, [(F, "for=198.51.100.7, proto=https")], PROXY),
        (PROXY, [(F, "for=_hidden")], PROXY),
        # A proxy writes one of the two; the other may be the caller's own.
        (PROXY, [(X, "198.51.100.7"), (F, "for=1.1.1.1")], PROXY),
        (PROXY, [(X, "198.51.100.7"), (F, "for=198.51.100.7")], "198.51.100.7"),
        ("fd00::1", [(X, "2001:db8::7")], "2001:db8::7"),
        ("::ffff:10.0.0.1", [(X, "::ffff:198.51.100.7")], "198.51.100.7"),
    ],
)
def test_only_a_trusted_proxy_says_where_a_call_is_from(
    peer: str, headers: list[tuple[str, str]], client: str
) -> None:
    assert placed(peer, *headers) == client


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_header_makes_a_stranger_somebody_else(told: str, forwarded: str) -> None:
    assert placed("203.0.113.1", (X, told), (F, forwarded)) == "203.0.113.1"


@given(st.lists(st.sampled_from(["1.1.1.1", "junk", "", "10.4.4.4", "[::1]:9", "fd00::2"])))
def test_what_a_caller_writes_never_counts_behind_a_proxy(own: list[str]) -> None:
    assert placed(PROXY, (X, ", ".join([*own, "198.51.100.7"]))) == "198.51.100.7"


def test_what_the_server_has_seen_counts_and_not_what_it_made_of_it() -> None:
    scope: dict[str, Any] = {
        "client": ("198.51.100.7", 0),
        "extensions": {PEER: ("127.0.0.1", 4711)},
        "scheme": "https",
        "headers": [(b"x-forwarded-for", b"198.51.100.7")],
    }
    PROXIES.place(scope)
    assert scope["client"] == ("127.0.0.1", 4711)


def test_a_household_is_counted_once_and_two_are_counted_twice() -> None:
    assert caller_of("2001:db8:1:2::7") == caller_of("2001:db8:1:2:ffff::1")
    assert caller_of("2001:db8:1:2::7") != caller_of("2001:db8:1:3::7")
    assert caller_of("198.51.100.7") != caller_of("198.51.100.8")
    assert caller_of("::ffff:198.51.100.7") == caller_of("198.51.100.7")


def test_production_trusts_nobody_unless_told() -> None:
    assert Settings.model_validate(PRODUCTION).proxies == ()
    told = Settings.model_validate(PRODUCTION | {"trusted_proxies": "10.0.0.0/8, fd00::/8"})
    assert [str(network) for network in told.proxies] == ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "proxy.example", "10.0.0.1/8", "10.0.0.0/8,,"])
def test_a_network_that_is_none_is_named_at_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError, match="MOTCUA_TRUSTED_PROXIES"):
        Settings.model_validate({"trusted_proxies": wrong})


@pytest.mark.parametrize("believing", [True, False])
@pytest.mark.parametrize(("trusted", "told"), [("127.0.0.1", "198.51.100.7"), ("none", HOST)])
async def test_a_service_hears_one_address_whatever_uvicorn_believes(
    trusted: str, told: str, believing: bool
) -> None:
    stub = Stub()
    server = {"proxy_headers": believing, "forwarded_allow_ips": "*"}
    async with (
        serving(stub) as port,
        front({"queue": port}, server, trusted_proxies=trusted) as door,
    ):
        await talk(door.port, written("GET", "/v1/tickets/x", f"{X}: 1.1.1.1, 198.51.100.7"))
    (seen,) = stub.requests
    assert seen.all(b"x-forwarded-for") == [told.encode()]

"""Where a call comes from, as far as anybody's word on it can be believed."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.types import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PEER: Final = "motcua.peer"
"""The scope's extension in which our server keeps who has connected.

uvicorn has a belief of its own in proxies: unless told otherwise it takes what a process of the
same machine says for the client's address, before the gateway sees it.
"""


class Proxies:
    """The proxies whose word counts, and what they say."""

    def __init__(self, networks: Sequence[Network]) -> None:
        """Believe who is in one of these networks."""
        self._networks = networks
        self.trusts = lru_cache(4096)(self._trusts)

    def _trusts(self, address: str) -> bool:
        known = parsed(address)
        return known is not None and any(known in network for network in self._networks)

    def place(self, scope: Scope) -> None:
        """Let the scope's client be who called, whichever proxies were on the way.

        Each proxy adds who has called it at the end, so what is right of the first address that is
        no trusted proxy's was written by trusted ones, and what is left of it by anybody.
        """
        peer = scope.get("extensions", {}).get(PEER) or scope.get("client")
        if not peer:
            return
        scope["client"] = tuple(peer)
        if not self._networks or not self.trusts(peer[0]):
            return
        headers = scope["headers"]
        told = [
            self._first_outside(peer[0], hops)
            for hops in (_x_forwarded_for(headers), _forwarded(headers))
            if hops
        ]
        # A proxy that writes only one of the two lets the caller's own word in the other through.
        if told and len(set(told)) == 1 and told[0] != peer[0]:
            scope["client"] = (told[0], 0)
        scheme = _last(headers, b"x-forwarded-proto")
        if scheme in ("http", "https"):
            scope["scheme"] = scheme

    def _first_outside(self, peer: str, hops: Sequence[str]) -> str:
        reached = peer
        for hop in reversed(hops):
            address = parsed(hop)
            if address is None:
                break  # hidden, or nonsense: the last one that could be read answers for it
            reached = str(address)
            if not self.trusts(reached):
                break
        return reached


@lru_cache(4096)
def parsed(text: str) -> Address | None:
    """Read an address as it stands in `X-Forwarded-For` or `Forwarded`, with or without a port."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(4096)
def caller_of(address: str) -> str:
    """Name whom an address is counted for: of IPv6 the /64, which one household or host has."""
    known = parsed(address)
    if isinstance(known, IPv6Address):
        return str(IPv6Network((known, 64), strict=False))
    return str(known or address)


def _values(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _last(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    values = _values(headers, wanted)
    return values[-1].rpartition(",")[2].strip().lower() if values else ""


def _x_forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    values = _values(headers, b"x-forwarded-for")
    return ",".join(values).split(",") if values else []


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Give the `for` of each hop (RFC 7239 §4); a hop that names none is an unreadable one."""
    values = _values(headers, b"forwarded")
    hops = []
    for hop in ",".join(values).split(",") if values else ():
        pairs = (pair.partition("=") for pair in hop.split(";"))
        named = {name.strip().lower(): value for name, _, value in pairs}
        hops.append(named.get("for", ""))
    return hops

"""Requests that are no HTTP, or that two programs would read as two different ones."""

from collections.abc import Iterator
from typing import Final

from tests.hostile.house import House
from tests.hostile.verdict import NOT_HTTP, REFUSED, Attack, Attacks
from tests.support import bearer
from tests.system.walk import HERE

WISH: Final = b'{"unit": "H29.26740", "channel": "kiosk"}'
COUNTER: Final = f"/v1/units/{HERE}/counters/1"

PATHS: Final = (
    "/v1/tickets/", "/v1//tickets", "//v1/tickets", "/v1/./tickets", "/v1/x/../tickets",
    "/v1/units/../tickets", "/v1/%2e%2e/v1/tickets", "/v1/..%2fv1/tickets", "/v1%2ftickets",
    "/v1/%74ickets/..", "/v1/tickets%00", "/v1/tickets%0d%0aX-Injected:%201", "/v1/tickets%20",
    "/v1/tickets;x=1", "/v1/tickets.json", "/V1/TICKETS", "/v1\\tickets", "/v1/tickets%5c",
    "/v1/tickets%252f", "/v1/tickets%23", "/v1/tickets%3fx=1", "/v1/t%C0%AFickets",
    "/v1/tickets/%e2%80%a6/cancel", "/../v1/tickets", "/web/../v1/tickets",
    "/web/..%2f..%2fdoor.py", "/web/%2e%2e/door.py", "/web/....//door.py",
    "/web/live.css/../../door.py", "*",
    "tickets", "http://evil.example//v1/tickets", "//evil.example/v1/tickets",
    "/v1/tickets/" + "a/" * 2_000, "/v1/tickets/" + "%41" * 5_000,
)  # fmt: skip
"""Other ways to write the address by which tickets are taken, or to climb out of a folder."""

METHODS: Final = (
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PATCH",
    "DELETE",
    "BREW",
    "PURGE",
    "post",
    "Post",
)

OVERRIDES: Final = (
    "X-HTTP-Method-Override: PUT", "X-HTTP-Method: PUT", "X-Method-Override: PUT",
    "X-Original-URL: /v1/tickets", "X-Rewrite-URL: /v1/tickets", "X-Forwarded-Prefix: /v1/tickets",
)  # fmt: skip

SECOND: Final = b"POST /v1/tickets HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + (
    b"Content-Length: %d\r\n\r\n%s" % (len(WISH), WISH)
)
"""A request hidden in another's body."""


async def requests(house: House) -> Attacks:
    """Send them all as a kiosk that may take tickets: none may be taken."""
    kiosk = f"Authorization: {bearer('kiosk', HERE)['Authorization']}"
    for make in (_paths, _methods, _framing, _heads, _credentials):
        for attack in make(house, kiosk):
            yield attack


def _paths(house: House, kiosk: str) -> Iterator[Attack]:
    json = "Content-Type: application/json"
    for path in PATHS:
        for method in ("POST", "GET"):
            body = WISH if method == "POST" else b""
            request = house.raw(method, path, kiosk, json, body=body)
            yield Attack(f"{method} {path[:60]}", request, REFUSED, bare=True)


def _methods(house: House, kiosk: str) -> Iterator[Attack]:
    for method in METHODS:
        for path in ("/v1/tickets", COUNTER, "/v1/route", "/readyz", "/"):
            request = house.raw(method, path, kiosk)
            yield Attack(f"{method} {path}", request, frozenset({400, 403, 404, 405}), bare=True)
    officer = f"Authorization: {bearer('officer', HERE)['Authorization']}"
    for line in OVERRIDES:
        request = house.raw("GET", f"/v1/units/{HERE}/queue", officer, line)
        yield Attack(f"GET with {line}", request, frozenset({200, 400}))


def _framing(house: House, kiosk: str) -> Iterator[Attack]:
    """Bodies whose end two programs would see in two places (request smuggling)."""
    length, json = f"Content-Length: {len(SECOND) + 5}", "Content-Type: application/json"
    open_end = "Connection: keep-alive"
    heads = {
        "a length and chunks": (length, "Transfer-Encoding: chunked"),
        "chunks and a length": ("Transfer-Encoding: chunked", length),
        "two lengths": ("Content-Length: 0", length),
        "two equal lengths": (length, length),
        "a list of lengths": (f"{length}, 0",),
        "a signed length": ("Content-Length: +5",),
        "a negative length": ("Content-Length: -5",),
        "a length in base sixteen": ("Content-Length: 0x5",),
        "a length past 64 bits": (f"Content-Length: {2**64 + 5}",),
        "a length that is no number": ("Content-Length: five",),
        "a space before the colon": ("Content-Length : 0", "Transfer-Encoding: chunked"),
        "chunks spelt otherwise": ("Transfer-Encoding: xchunked",),
        "chunks twice": ("Transfer-Encoding: chunked, chunked",),
        "chunks, then as it is": ("Transfer-Encoding: chunked, identity",),
        "chunks after a tab": ("Transfer-Encoding:\x0bchunked",),
        "chunks on a folded line": ("Transfer-Encoding:\r\n chunked",),
    }
    for what, lines in heads.items():
        request = house.raw("POST", "/v1/tickets", kiosk, json, open_end, *lines)
        sent = request + b"0\r\n\r\n" + SECOND.replace(b"Host: x", b"Host: x\r\n" + kiosk.encode())
        yield Attack(f"smuggling: {what}", sent, REFUSED, bare=True)
    chunked = house.raw("POST", "/v1/tickets", kiosk, json, "Transfer-Encoding: chunked", open_end)
    for what, chunks in {
        "a chunk of no size": b"\r\n\r\n",
        "a negative chunk": b"-5\r\nhello\r\n0\r\n\r\n",
        "a chunk in letters": b"zz\r\nhello\r\n0\r\n\r\n",
        "a chunk past 64 bits": b"1" + b"0" * 16 + b"\r\nhello\r\n",
        "a chunk longer than it says": b"2\r\nhello\r\n0\r\n\r\n",
        "a chunk that ends in LF": b"5\nhello\n0\n\n",
    }.items():
        yield Attack(f"smuggling: {what}", chunked + chunks, REFUSED, bare=True)


def _heads(house: House, kiosk: str) -> Iterator[Attack]:
    """Heads that are no HTTP, or whose lines contradict each other."""
    start, rest = b"POST /v1/tickets HTTP/1.1\r\n", b"\r\nConnection: close\r\n\r\n"
    host, who = b"Host: motcua.test", kiosk.encode()
    for what, head in {
        "nothing but line ends": b"\r\n\r\n\r\n\r\n",
        "TLS": bytes.fromhex("16030100a5010000a10303"),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/9.9": b"POST /v1/tickets HTTP/9.9\r\n" + host + rest,
        "no version": b"POST /v1/tickets\r\n" + host + rest,
        "two spaces": b"POST  /v1/tickets  HTTP/1.1\r\n" + host + rest,
        "a NUL in a header": start + host + b"\r\nX-A: a\x00b\r\n" + who + rest,
        "a header without a name": start + host + b"\r\n: x\r\n" + who + rest,
        "a space in a name": start + host + b"\r\nX A: x\r\n" + who + rest,
        "a carriage return alone": start + host + b"\r\nX-A: a\rX-Injected: 1\r\n" + who + rest,
        "a line without a colon": start + host + b"\r\nnonsense\r\n" + who + rest,
        "random bytes": bytes(range(255, 0, -1)) + b"\r\n\r\n",
    }.items():  # fmt: skip
        yield Attack(f"head: {what}", head, frozenset(NOT_HTTP | {422}), bare=True)
    big = ("X-Padding: " + "x" * 60_000, *(f"X-{number}: x" for number in range(2_000)))
    for what, line in zip(("60,000 bytes in a header", "2,000 headers"), (big[:1], big[1:])):  # noqa: B905
        request = house.raw("GET", "/v1/units/H29.99999", kiosk, *line)
        yield Attack(f"head: {what}", request, frozenset({400, 404, 413, 431}), bare=True)
    for target in ("/v1/units/" + "H" * 70_000, "/v1/units?q=" + "x" * 70_000):
        request = house.raw("GET", target, kiosk)
        yield Attack(
            f"head: {target[:12]}…", request, frozenset({400, 404, 414, 422, 431}), bare=True
        )


def _credentials(house: House, kiosk: str) -> Iterator[Attack]:
    """Credentials and keys sent more than once: which one would hold?"""
    other = f"Authorization: {bearer('kiosk', 'H29.25747')['Authorization']}"
    json = "Content-Type: application/json"
    for what, lines in {
        "two tokens": (kiosk, other),
        "a token twice": (kiosk, kiosk),
        "a token and an empty one": (kiosk, "Authorization:"),
        "a token and a key": (kiosk, "X-API-Key: motcua_x"),
        "two keys": ("X-API-Key: a", "X-API-Key: b"),
        "two idempotency keys": (kiosk, "Idempotency-Key: a", "Idempotency-Key: b"),
        "two media types": (kiosk, "Content-Type: text/plain"),
    }.items():
        request = house.raw("POST", "/v1/tickets", *lines, json, body=WISH)
        yield Attack(f"twice: {what}", request, frozenset({400, 401, 415, 422}))

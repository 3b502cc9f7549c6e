"""Bodies that are no JSON, not JSON's media type, or too large, for every route that takes one."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from libs.contracts.roles import RULES, Role
from tests.hostile.house import House
from tests.hostile.verdict import Attack, Attacks
from tests.support import bearer
from tests.system.walk import HERE, Operation

MEGABYTE = 1_048_576

NOT_JSON: dict[str, bytes] = {
    "an open brace": b"{",
    "a bare word": b"nothing",
    "single quotes": b"{'unit': 'x'}",
    "a comma too many": b'{"unit": "x",}',
    "a comment": b'{"unit": "x"} // hush',
    "two values": b'{"unit": "x"} {"unit": "y"}',
    "no UTF-8": b"\xff\xfe\xfd",
    "half a letter": b'{"unit": "\xc3"}',
    "an overlong slash": b'{"unit": "\xc0\xaf"}',
    "NUL": b"\x00",
    "a NUL inside": b'{"unit": "a\x00b"}',
    "a line end inside a text": b'{"unit": "a\nb"}',
    "an endless number": b'{"unit": ' + b"9" * 5_000 + b"}",
    "a number in base sixteen": b'{"unit": 0x10}',
    "lists 60,000 deep": b"[" * 60_000,
    "closed lists 20,000 deep": b"[" * 20_000 + b"]" * 20_000,
    "objects 5,000 deep": b'{"unit":' * 5_000 + b"1" + b"}" * 5_000,
    "XML with an entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
    "gzip": bytes.fromhex("1f8b0800000000000003ab562acd2b51b2525028cd2b51d2510052a545a96500"),
}

NO_OBJECT: dict[str, bytes] = {
    "a number": b"7",
    "a text": b'"a"',
    "a list": b"[]",
    "true": b"true",
    "not a number": b"NaN",
    "infinity": b"-Infinity",
}

OTHER_MEDIA_TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
    "x",
)


@dataclass(frozen=True)
class Target:
    """A route that takes a body, called by somebody who may and for something that is there."""

    operation: Operation
    role: Role
    path: str
    body: dict[str, Any]
    optional: bool

    @property
    def method(self) -> str:
        """POST or PUT."""
        return self.operation.method

    @property
    def name(self) -> str:
        """Name the route."""
        return f"{self.operation.method} {self.operation.path}"

    @property
    def headers(self) -> dict[str, str]:
        """Show who calls."""
        return {} if self.role is Role.nobody else bearer(self.role, HERE)

    @property
    def noted(self) -> bool:
        """Tell whether a refusal leaves a line in the audit."""
        rule = RULES[self.operation.method, self.operation.path]
        return rule.audited and self.role is not Role.nobody


async def targets(house: House) -> list[Target]:
    """Give every route that takes a body, making what they are to be called for."""
    return [target async for target in _targets(house)]


async def _targets(house: House) -> AsyncIterator[Target]:
    for place, operation in house.walk.operations.items():
        schema = operation.body_schema
        if schema is None:
            continue
        may = RULES[place].may
        role = next(role for role in PREFERRED if role in may)
        path = await house.walk._filled(operation, role, HERE)
        optional = not operation.described["requestBody"].get("required", False)
        yield Target(operation, role, path, operation.example(schema, role), optional)


PREFERRED = (Role.officer, Role.city, Role.manager, Role.kiosk, Role.nobody, Role.ops, Role.portal)


async def bodies(house: House) -> Attacks:
    """Send what is no body of this API to every route that takes one."""
    for target in await targets(house):
        for attack in _of_one(house, target):
            yield attack


def _of_one(house: House, target: Target) -> Iterator[Attack]:
    good = json.dumps(target.body).encode()
    named = [f"{name}: {value}" for name, value in target.headers.items()]
    typed = "Content-Type: application/json"

    def attack(what: str, request: bytes, *statuses: int, **more: Any) -> Attack:
        known = frozenset(statuses or (422,))
        return Attack(f"{target.name}: {what}", request, known, **more)

    for what, body in (NOT_JSON | NO_OBJECT).items():
        request = house.raw(target.method, target.path, *named, typed, body=body)
        yield attack(what, request, field="body", noted=target.noted)
    # Python's reader lets it through as half a letter, which no field takes.
    surrogate = b'{"unit": "\xed\xa0\x80"}'
    request = house.raw(target.method, target.path, *named, typed, body=surrogate)
    yield attack("half a surrogate pair in bytes", request, noted=target.noted)
    for media_type in OTHER_MEDIA_TYPES:
        kind = f"Content-Type: {media_type}"
        request = house.raw(target.method, target.path, *named, kind, body=good)
        yield attack(f"as {media_type}", request, 415, noted=target.noted)
    for what, body in {"null": b"null", "nothing": b""}.items():
        if not target.optional:
            request = house.raw(target.method, target.path, *named, typed, body=body)
            yield attack(what, request, field="body", noted=target.noted)
    padded = good + b" " * MEGABYTE
    # Who asks for the end of the connection may find it ended before the answer is read.
    open_end = "Connection: keep-alive"
    request = house.raw(target.method, target.path, *named, typed, open_end, body=padded)
    yield attack("a megabyte of spaces", request, 413)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (good, b" " * MEGABYTE))
    chunked = house.raw(target.method, target.path, *named, typed, "Transfer-Encoding: chunked")
    yield attack("a megabyte in chunks", chunked + chunks + b"0\r\n\r\n", 413)

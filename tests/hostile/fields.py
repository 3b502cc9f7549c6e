"""Each field of every body, holding what its own description forbids."""

import json
from collections.abc import Iterator
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker

from tests.hostile.bodies import Target, targets
from tests.hostile.house import House
from tests.hostile.verdict import Attack, Attacks
from tests.system.walk import Operation

MARK: Final = "@@ here @@"
"""Stands where the hostile value is written, for some cannot be written by a JSON library."""

VALUES: Final[dict[str, str]] = {
    "null": "null",
    "true": "true",
    "a number": "7",
    "a fraction": "7.5",
    "a negative number": "-1",
    "a number past 64 bits": str(10**30),
    "a number of 4,000 digits": "9" * 4_000,
    "the largest float": "1.7976931348623157e308",
    "a text": '"text"',
    "no text": '""',
    "a list": "[]",
    "a list of nothing": "[null]",
    "lists in lists": "[[[[]]]]",
    "an object": "{}",
    "an object that would be a prototype": '{"__proto__": {"admin": true}}',
    "an operator": '{"$ne": null}',
    "a text of 20,000 letters": '"' + "x" * 20_000 + '"',
    "201 values": "[" + ", ".join(['"x"'] * 201) + "]",
    "a day that is none": '"2026-02-30"',
    "the year 9999": '"9999-12-31T23:59:59+00:00"',
    "a UUID that is none": '"00000000-0000-0000-0000-00000000000g"',
}
"""Sent where the description forbids them."""

NOWHERE: Final[dict[str, str]] = {
    "NUL": '"a\\u0000b"',
    "half a surrogate pair": '"\\ud800"',
    "not a number": "NaN",
    "infinity": "Infinity",
    "minus infinity": "-Infinity",
    "more than a float holds": "1e999",
}
"""Sent everywhere: no field takes them."""

UNKNOWN: Final = ("__proto__", "constructor", "is_admin", "role", "id", "Unit", "unit ", "")


async def fields(house: House) -> Attacks:
    """Send each field of each body wrong, the others right."""
    for target in await targets(house):
        schema = target.operation.body_schema
        assert schema is not None
        for name, body, described in _places(target.operation, schema, target.body):
            for what, raw in _forbidden(target.operation, described):
                yield _attack(house, target, f"{name} is {what}", name, _written(body, raw))
        for name in schema.get("required", ()):
            body = {key: value for key, value in target.body.items() if key != name}
            yield _attack(house, target, f"{name} is missing", name, json.dumps(body))
        for name in UNKNOWN:
            if name not in schema["properties"]:
                text = json.dumps(target.body | {name: "x"})
                yield _attack(house, target, f"{name!r} is unknown", name or None, text)


def _attack(house: House, target: Target, what: str, field: str | None, body: str) -> Attack:
    request = house.request(target.method, target.path, target.headers, body.encode())
    return Attack(f"{target.name}: {what}", request, field=field, noted=target.noted)


def _places(
    operation: Operation, schema: dict[str, Any], body: dict[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Give every field, however deep: its name, the body with a mark in it, its description."""
    for name, described in schema["properties"].items():
        place = f"{above}{name}"
        yield place, body | {name: MARK}, described
        inner = operation.resolved(described)
        item = operation.resolved(inner["items"]) if "items" in inner else None
        if item is not None:
            yield f"{place}.0", body | {name: [MARK]}, inner["items"]
        for part, step, wrap in ((inner, "", _alone), (item, ".0", _listed)):
            if part is not None and "properties" in part:
                example = operation.example(part, "officer")
                for found, marked, kind in _places(operation, part, example, f"{place}{step}."):
                    yield found, body | {name: wrap(marked)}, kind


def _alone(value: Any) -> Any:
    return value


def _listed(value: Any) -> Any:
    return [value]


def _forbidden(operation: Operation, described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    root = {**described, "components": {"schemas": operation.schemas}}
    validator = Draft202012Validator(root, format_checker=FormatChecker())
    yield from NOWHERE.items()
    for what, raw in VALUES.items():
        if not validator.is_valid(json.loads(raw)):
            yield what, raw


def _written(body: Any, raw: str) -> str:
    return json.dumps(body).replace(json.dumps(MARK), raw)

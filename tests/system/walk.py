"""Walks every route of the city's OpenAPI as every role, for its own unit and for a foreign one."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from libs.contracts.roles import RULES, Reach, Role, Rule
from tests.support import bearer

HERE = "H29.26740"
THERE = "H29.25747"
"""The unit that callers hold in turn: everything that is called belongs to `HERE`."""
SCRATCH = "H29.ZZZ"
"""A unit that there is not."""

UNIT_FIELDS = ("unit", "receiving_unit")
"""How bodies name the unit that a caller acts for."""

CHANNELS = {
    Role.nobody: ("web",),
    Role.kiosk: ("kiosk",),
    Role.officer: ("counter", "direct"),
    Role.manager: ("counter", "direct"),
    Role.portal: ("portal", "online"),
}
"""By which channel a role may hand something in, whatever the others are allowed."""

VALUES: dict[str, Any] = {
    "procedure_code": "2.000815",
    "week": "2026-W47",
    "signed": "a.b.c",
    "starts_at": "2026-11-25T09:00:00+07:00",
    "/v1/procedures code": "2.000815",
    "/v1/appointments/codes/{unit} code": "ABC234",
}
"""What stands in fields and paths that no schema can tell; by name, or by path and name."""


@dataclass(frozen=True)
class Asked:
    """An answer, as far as the walk looks at it."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)


async def ask(
    app: Any, method: str, target: str, headers: dict[str, str], body: Any = None
) -> Asked:
    """Call an ASGI app; of a stream only the beginning is waited for."""
    path, _, query = target.partition("?")
    sent = b"" if body is None else json.dumps(body).encode()
    lines = headers | {"host": "motcua", "content-length": str(len(sent))}
    if sent:
        lines["content-type"] = "application/json"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(name.lower().encode(), value.encode()) for name, value in lines.items()],
    }  # fmt: skip
    started: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
    parts: list[bytes] = []

    async def receive() -> Any:
        if not started.done():
            return {"type": "http.request", "body": sent, "more_body": False}
        await asyncio.Event().wait()  # nobody leaves
        return None

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            started.set_result((message["status"], b"text/event-stream" in b"".join(kinds)))
        else:
            parts.append(message.get("body", b""))

    calling = asyncio.ensure_future(app(scope, receive, send))
    await asyncio.wait([calling, started], return_when=asyncio.FIRST_COMPLETED)
    if not started.done():
        calling.result()  # raises what went wrong
    status, stream = started.result()
    if stream:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    else:
        await calling
    return Asked(status, b"".join(parts))


@dataclass(frozen=True)
class Operation:
    """One route of the description."""

    method: str
    path: str
    described: dict[str, Any]
    schemas: dict[str, Any]

    @property
    def body_schema(self) -> dict[str, Any] | None:
        """Give the schema of the JSON body, if there is one."""
        content = self.described.get("requestBody", {}).get("content", {})
        schema: dict[str, Any] | None = content.get("application/json", {}).get("schema")
        return schema and self.resolved(schema)

    @property
    def query(self) -> set[str]:
        """Name the parameters that may stand behind the question mark."""
        return {p["name"] for p in self.described.get("parameters", ()) if p["in"] == "query"}

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Follow references, and take the first of several shapes that is not null."""
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                shapes = [s for s in schema[several] if s.get("type") != "null"]
                return self.resolved(shapes[0])
        if "$ref" in schema:
            return self.resolved(self.schemas[schema["$ref"].rpartition("/")[2]])
        return schema

    def example(self, schema: dict[str, Any], role: str, name: str = "") -> Any:
        """Make a value of a schema: no more than is required, and the unit wherever one fits."""
        schema = self.resolved(schema)
        if name in UNIT_FIELDS:
            return HERE
        if name == "units":
            return [HERE]
        if name in VALUES:
            return VALUES[name]
        if name == "channel":
            wanted = CHANNELS.get(Role(role), ())
            return next((c for c in wanted if c in schema["enum"]), schema["enum"][0])
        if "const" in schema or "enum" in schema:
            return schema.get("const") or schema["enum"][0]
        if schema.get("type") == "object":
            named = {*schema.get("required", ()), *UNIT_FIELDS, "units"}
            return {
                key: self.example(part, role, key)
                for key, part in schema.get("properties", {}).items()
                if key in named
            }
        if schema.get("type") == "array":
            return [self.example(schema["items"], role)] * schema.get("minItems", 0)
        return _simple(schema)


def _simple(schema: dict[str, Any]) -> Any:
    formats = {"date": "2026-11-20", "date-time": "2026-11-20T09:00:00+07:00", "uuid": str(uuid4())}
    if (form := schema.get("format")) in formats:
        return formats[form]
    values = {"integer": int(schema.get("minimum", 1)), "number": 1.0, "boolean": False}
    return values.get(schema.get("type", ""), "text")


@dataclass
class Walk:
    """The walk's account."""

    app: Any
    operations: dict[tuple[str, str], Operation]
    calls: int = 0
    foreign: int = 0
    wrong: list[str] = field(default_factory=list)
    made: dict[str, str] = field(default_factory=dict)
    """Objects of `HERE`, by the collection they were made in."""

    @classmethod
    async def begin(cls, app: Any) -> "Walk":
        """Read the description of everything that the door serves."""
        described = (await ask(app, "GET", "/openapi.json", {})).json
        assert "x-not-described" not in described, "a service is not described"
        schemas = described["components"]["schemas"]
        operations = {
            (method.upper(), path): Operation(method.upper(), path, operation, schemas)
            for path, item in described["paths"].items()
            for method, operation in item.items()
        }
        return cls(app, operations)

    async def run(self) -> None:
        """Call everything as everybody."""
        for place, operation in self.operations.items():
            if place in RULES:  # what is acted on is made before the calls fill the halls
                await self._filled(operation, Role.officer, HERE)
        for place, operation in self.operations.items():
            rule = RULES.get(place)
            if rule is None:
                self.wrong.append(f"{' '.join(place)}: no rule says who may")
                continue
            for role in Role:
                await self._compare(operation, rule, role)

    async def _compare(self, operation: Operation, rule: Rule, role: Role) -> None:
        reach = rule.may.get(role)
        if reach is None:
            expected = {401 if role is Role.nobody else 403}
            await self._expect(operation, role, HERE, expected)
            await self._expect(operation, role, THERE, expected)
            return
        await self._expect(operation, role, HERE, None)
        if reach is Reach.any:
            await self._expect(operation, role, THERE, None)
        elif self._names_a_unit(operation):
            self.foreign += 1
            await self._expect(operation, role, THERE, {403})

    async def _expect(
        self, operation: Operation, role: Role, unit: str, expected: set[int] | None
    ) -> None:
        """Call with credentials for a unit; None expects anything but a refusal of the caller."""
        answer = await self._call(operation, role, unit)
        self.calls += 1
        good = answer.status in expected if expected else answer.status not in (401, 403)
        if str(answer.status) not in operation.described["responses"]:
            self.wrong.append(
                f"{operation.method} {operation.path} as {role} of {unit}: {answer.status} is not "
                f"described: {answer.body[:300]!r}"
            )
        if answer.status >= 500 or not good:
            meant = " or ".join(map(str, expected)) if expected else "neither 401 nor 403"
            self.wrong.append(
                f"{operation.method} {operation.path} as {role} of {unit}: {answer.status}, "
                f"the table says {meant}: {answer.body[:300]!r}"
            )

    async def _call(self, operation: Operation, role: Role, unit: str) -> Asked:
        headers = {} if role is Role.nobody else bearer(role, unit)
        path = await self._filled(operation, role, unit)
        if "unit" in operation.query:
            path += f"?{urlencode({'unit': HERE})}"
        schema = operation.body_schema
        body = None if schema is None else operation.example(schema, role)
        return await ask(self.app, operation.method, path, headers, body)

    async def _filled(self, operation: Operation, role: Role, unit: str) -> str:
        done = ""
        for part in operation.path.strip("/").split("/"):
            template = "/" + "/".join(operation.path.strip("/").split("/")[: done.count("/")])
            if part.startswith("{"):
                value = await self._value(operation, template, part.strip("{}"), role, unit)
                done += "/" + quote(value, safe=":")
            else:
                done += "/" + part
        return done

    async def _value(
        self, operation: Operation, collection: str, name: str, role: Role, unit: str
    ) -> str:
        if name == "unit":
            # Who may close any unit closes none that the rest of the walk needs.
            reach = RULES[operation.method, operation.path].may.get(role)
            return SCRATCH if reach is Reach.any and operation.method != "GET" else HERE
        if name == "kiosk":  # itself
            return f"{role}-{unit}"
        for known in (name, f"{collection} {name}"):
            if known in VALUES:
                return str(VALUES[known])
        if ("POST", collection) in RULES:
            return await self._object_of(collection)
        schema = next(p for p in operation.described["parameters"] if p["name"] == name)["schema"]
        return str(_simple(operation.resolved(schema)))

    async def _object_of(self, collection: str) -> str:
        """Make an object of `HERE` by the collection's own POST, once."""
        if collection not in self.made:
            maker = self.operations["POST", collection]
            may = RULES["POST", collection].may
            role = next(r for r in (Role.officer, Role.city, Role.manager) if r in may)
            answer = await self._call(maker, role, HERE)
            assert answer.status == 201, (
                f"the walk cannot make an object of {collection}, and so cannot tell what others "
                f"may do with it; teach it in VALUES: {answer.status} {answer.body!r}"
            )
            self.made[collection] = answer.json.get("id") or answer.json["code"]
        return self.made[collection]

    def _names_a_unit(self, operation: Operation) -> bool:
        """Tell whether a call says, by itself or by its object, for which unit it is."""
        body = operation.body_schema or {}
        if "{unit}" in operation.path or "unit" in operation.query:
            return True
        if any(name in body.get("properties", {}) for name in UNIT_FIELDS):
            return True
        return any(self._made_for_a_unit(place) for place in _collections(operation.path))

    def _made_for_a_unit(self, collection: str) -> bool:
        maker = self.operations.get(("POST", collection))
        return maker is not None and self._names_a_unit(maker)


def _collections(path: str) -> Iterator[str]:
    """Give the paths of which a path names one member."""
    parts = path.split("/")
    return ("/".join(parts[:place]) for place, part in enumerate(parts) if part.startswith("{"))

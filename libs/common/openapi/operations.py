"""Completes what FastAPI says of each call: who may, which problems it may meet, what comes back.

A route names only what its own domain refuses, with `responses=refusals(...)`. Everything else
follows from what the call is: one with a body may be told that it is too large, one with a path
parameter that there is no such thing, one that the table of rights closes to somebody that it is
closed.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from libs.common.auth import NOBODY
from libs.common.openapi.components import Part, components, headers, problem_answer
from libs.common.problems import (
    Forbidden,
    Malformed,
    MethodNotAllowed,
    NotFound,
    NotHttp,
    Problem,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    Unexpected,
    UnsupportedMediaType,
    kinds,
)
from libs.common.routes import Access, Right

EVERYWHERE: Final = (NotHttp, Unauthenticated, TooManyRequests, Unexpected, Unavailable)
"""What any call may meet, whatever it asks for."""


def refusals(*refused: type[Problem]) -> dict[int | str, Part]:
    """Say by which problems a route's domain may refuse a call, for the route's `responses`."""
    answers: dict[int | str, Part] = {}
    for kind in refused:
        answer = answers.setdefault(kind.status, {"description": "", "x-problems": []})
        answer["x-problems"].append(kind.type_uri())
    return answers


def completed(document: Part, access: Access | None, others: Iterable[type[Problem]] = ()) -> Part:
    """Complete a service's description in place, and give it back.

    `others` may be answered to any call, by what stands before the routes. What only FastAPI's own
    refusals would have used is taken out: ours are problems.
    """
    anyway: tuple[type[Problem], ...] = (MethodNotAllowed, *others)
    used = {kind.type_uri(): kind for kind in anyway}
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for schema in schemas.values():
        _without_titles(schema)
    for path, item in document["paths"].items():
        for method, call in item.items():
            right = access.rights.get((method.upper(), path)) if access else None
            _complete(call, schemas, right, access)
            for parameter in call.get("parameters", ()):
                _without_titles({"items": parameter["schema"]})
            implied = _implied(call, method, path, right, access)
            used |= _answer_by_problems(call, schemas, implied)
    general = {kind.__name__: problem_answer(kind) for kind in used.values() if _is_general(kind)}
    parts = components(dict(sorted(general.items())))
    for place, found in parts.items():
        document["components"][place] = document["components"].get(place, {}) | found
    document["x-problem-types"] = listed(used.values())
    return document


def _without_titles(schema: Part) -> None:
    """Take away the titles of a shape's parts: they repeat the names of the fields."""
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    parts += [schema[word] for word in ("items", "additionalProperties") if word in schema]
    for part in parts:
        if isinstance(part, dict):
            part.pop("title", None)
            _without_titles(part)


def listed(some: Iterable[type[Problem]]) -> Part:
    """List kinds of problems, with what to do about them, by their URI."""
    return {
        kind.type_uri(): {"status": kind.status, "title": kind.title(), "remedy": kind.remedy()}
        for kind in sorted(some, key=lambda kind: kind.type_uri())
    }


def _complete(call: Part, schemas: Part, right: Right | None, access: Access | None) -> None:
    summary, _, rest = call.get("description", "").partition("\n\n")
    call["summary"] = " ".join(summary.split()).removesuffix(".")
    call["description"] = "\n\n".join(filter(None, (rest.strip(), _who(right))))
    if right is not None and access is not None:
        call["x-scope"] = right.scope
        call["x-roles"] = {str(role): str(reach) for role, reach in right.may.items()}
        call["security"] = _security(right, access)
    for status, answer in call["responses"].items():
        kept = status in ("200", "201") and _takes_a_key(call)
        replayed = ["Idempotent-Replayed"] if kept else []
        answer["headers"] = answer.get("headers", {}) | headers("X-Trace-Id", *replayed)
        if answer["description"] == "Successful Response":
            answer["description"] = _named(answer, schemas)


def _named(answer: Part, schemas: Part) -> str:
    """Say what comes back in the words of its shape."""
    for content in answer.get("content", {}).values():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name in schemas and "description" in schemas[name]:
            return str(schemas[name]["description"]).partition("\n\n")[0].replace("\n", " ")
    return "Done."


def _takes_a_key(call: Part) -> bool:
    return any(part.get("name") == "Idempotency-Key" for part in call.get("parameters", ()))


def _who(right: Right | None) -> str:
    if right is None:
        return ""
    by_reach: dict[str, list[str]] = {}
    for role, reach in right.may.items():
        by_reach.setdefault(str(reach), []).append(f"`{role}`")
    told = {"any": "for any unit", "own": "for their own units"}
    words = "; ".join(f"{', '.join(roles)} {told[reach]}" for reach, roles in by_reach.items())
    return f"Who may (scope `{right.scope}`): {words}."


def _security(right: Right, access: Access) -> list[Part]:
    """Name the ways to say who calls; none where it makes no difference who does."""
    if all(str(right.may.get(role)) == "any" for role in access.roles):
        return []
    ways: list[Part] = [{}] if NOBODY in right.may else []
    ways.append({"token": []})
    if any(role in right.may for role in access.with_keys):
        ways.append({"apiKey": []})
    return ways


def _answer_by_problems(
    call: Part, schemas: Part, implied: Iterator[type[Problem]]
) -> dict[str, type[Problem]]:
    """Declare every problem that a call may be answered by; give them by their URI."""
    known = kinds()
    named = [uri for answer in call["responses"].values() for uri in answer.get("x-problems", ())]
    named += _of_values(call, schemas)
    found = [*implied, *(known[uri] for uri in named)]
    by_status: dict[str, dict[str, type[Problem]]] = {}
    for kind in found:
        by_status.setdefault(str(kind.status), {})[kind.type_uri()] = kind
    for status, some in by_status.items():
        # Health answers 503 in a shape of its own, and FastAPI every 422 in one that is not ours.
        if status == "422" or "content" not in call["responses"].get(status, {}):
            call["responses"][status] = _answer(some)
    call["responses"] = dict(sorted(call["responses"].items()))
    return {uri: kind for some in by_status.values() for uri, kind in some.items()}


def _answer(some: Mapping[str, type[Problem]]) -> Part:
    special = {uri: kind for uri, kind in some.items() if not _is_general(kind)}
    if not special:
        (kind,) = some.values()
        return {"$ref": f"#/components/responses/{kind.__name__}"}
    first = next(iter(special.values()))
    lines = [f"- `{uri.rpartition(':')[2]}`: {kind.title()}" for uri, kind in some.items()]
    return problem_answer(first) | {"description": "\n".join(lines), "x-problems": list(some)}


def _is_general(kind: type[Problem]) -> bool:
    return kind.__module__ == Problem.__module__


def _implied(
    call: Part, method: str, path: str, right: Right | None, access: Access | None
) -> Iterator[type[Problem]]:
    yield from EVERYWHERE
    if right is not None and access is not None:
        if right.may.keys() < access.roles.keys():
            yield Forbidden
        if "own" in map(str, right.may.values()):
            yield access.foreign
    if "{" in path:
        yield NotFound
    if method != "get":
        yield TooLarge
    if "requestBody" in call:
        yield UnsupportedMediaType
    if "requestBody" in call or call.get("parameters"):
        yield Malformed


def _of_values(call: Part, schemas: Part) -> Iterator[str]:
    """List the problems that the types of a call's values name: a unit's code may be unknown."""
    waiting: list[Any] = [call.get("parameters", []), call.get("requestBody", {})]
    seen: set[str] = set()
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            yield from part.get("x-problems", ())
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                waiting.append(schemas[name])
            waiting += part.values()

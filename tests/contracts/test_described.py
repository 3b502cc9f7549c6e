"""The description of the calls: valid, complete, and all that may be refused stands in it."""

import importlib
import pkgutil
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator.schemas.utils import get_schema_content

import libs
import services
from libs.common.problems import Conflict, Later, Problem, kinds
from libs.contracts.roles import RULES, Role
from services.announced.calls import description
from services.announced.problems import page

CALLS = {
    call["operationId"]: (method, path, call)
    for path, item in description()["paths"].items()
    for method, call in item.items()
}


def test_the_description_is_openapi() -> None:
    assert description()["openapi"].startswith("3.1.")
    official = Draft202012Validator(get_schema_content("3.1"))
    assert list(official.iter_errors(description())) == []
    spoiled = description() | {"paths": {"units": {}}}
    assert list(official.iter_errors(spoiled))


def test_every_problem_that_the_code_knows_is_listed_with_what_to_do() -> None:
    for package in (libs, services):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = {
        uri: kind
        for uri, kind in kinds().items()
        if kind.__module__.startswith(("libs.", "services."))
    }
    for parent in (Conflict, Later):  # what others have in common; never answered as such
        ours.pop(parent.type_uri())
    listed = description()["x-problem-types"]
    assert listed.keys() == ours.keys()
    for uri, kind in ours.items():
        told = {"status": kind.status, "title": kind.title(), "remedy": kind.remedy()}
        assert listed[uri] == told
        assert all(told.values()), uri
        assert f"`{uri.rpartition(':')[2]}` | {kind.status}" in page()


def test_kinds_that_share_a_name_are_the_same_to_clients() -> None:
    seen: dict[str, tuple[int, str, str]] = {}
    waiting = Problem.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(("libs.", "services.")):
            told = (kind.status, kind.title(), kind.remedy())
            assert seen.setdefault(kind.type_uri(), told) == told


@pytest.mark.parametrize("operation", CALLS)
def test_a_call_says_what_it_does_who_may_and_every_answer(operation: str) -> None:
    method, path, call = CALLS[operation]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation)
    assert 10 < len(call["summary"]) < 120, call["summary"]
    assert call["tags"][0] in {tag["name"] for tag in description()["tags"]}
    rule = RULES[method.upper(), path]
    assert (call["x-scope"], call["x-roles"]) == (rule.scope, rule.may)
    answers = call["responses"]
    assert {"400", "401", "429", "500", "503"} <= answers.keys()
    assert any(status.startswith("2") for status in answers)
    assert ("403" in answers) == (set(rule.may.values()) != {"any"} or len(rule.may) < len(Role))
    for status, answer in answers.items():
        answer = _resolved(answer)
        assert answer["description"] not in ("", "Successful Response"), status
        assert "X-Trace-Id" in answer["headers"], status
        if status[0] in "45" and path not in ("/livez", "/readyz"):
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
            assert list(answer["content"]) == ["application/problem+json"]
        if status in ("429", "503") and path not in ("/livez", "/readyz"):
            assert "Retry-After" in answer["headers"]


def _resolved(answer: Any) -> Any:
    if "$ref" in answer:
        return description()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer


@pytest.mark.parametrize("operation", CALLS)
def test_a_call_that_changes_something_takes_an_idempotency_key(operation: str) -> None:
    method, path, call = CALLS[operation]
    takes = any(part["name"] == "Idempotency-Key" for part in call.get("parameters", ()))
    assert takes == (method == "post" and RULES["POST", path].audited)
    if takes:
        kept = [a for status, a in call["responses"].items() if status in ("200", "201")]
        assert all("Idempotent-Replayed" in answer["headers"] for answer in kept)


def test_credentials_are_asked_for_where_they_make_a_difference() -> None:
    def ways(operation: str) -> Any:
        return CALLS[operation][2]["security"]

    assert ways("list_units") == []
    assert ways("issue_ticket") == [{}, {"token": []}, {"apiKey": []}]
    assert ways("lend_numbers") == [{"token": []}, {"apiKey": []}]
    assert ways("submit_dossier") == [{"token": []}, {"apiKey": []}]
    assert ways("search_audit") == [{"token": []}]
    assert description()["components"]["securitySchemes"].keys() == {"token", "apiKey"}


def test_a_route_names_only_kinds_that_its_status_fits() -> None:
    listed = description()["x-problem-types"]
    for _, _, call in CALLS.values():
        for status, answer in call["responses"].items():
            for uri in answer.get("x-problems", ()):
                assert str(listed[uri]["status"]) == status

"""What people read, in both languages: all that is said has its Vietnamese, who asks gets it."""

import ast
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from string import Formatter
from typing import Any, NamedTuple, get_args

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core.core_schema import ErrorType

from libs.common import problems
from libs.common.language import ENGLISH, VIETNAMESE, preferred
from libs.common.problems import Conflict, Problem
from libs.common.words import Words, either, package_of, said, say, vietnamese_of

PACKAGES = (
    "libs.common", "libs.contracts",
    "services.registry", "services.intake", "services.queue", "services.reporting",
    "services.gateway",
)  # fmt: skip

PYDANTIC = "pydantic "
"""Begins the key of what the library that checks shapes says; its name of the error follows."""

NEVER_ANSWERED = {"local", "_merged", "add_working_time", "parse_dossier_code", "_read_keys"}
"""Functions beside validators whose ValueError tells a programmer or an operator something."""


class Said(NamedTuple):
    """A sentence as it stands in the code."""

    place: str
    sentence: ast.expr
    values: frozenset[str]


@cache
def modules_of(package: str) -> dict[str, ast.Module]:
    """Read a package's code."""
    folder = Path(import_module(package).__file__ or "").parent
    return {
        f"{package}/{path.relative_to(folder)}": ast.parse(path.read_text("utf-8"))
        for path in sorted(folder.rglob("*.py"))
    }


def calls_in(package: str) -> Iterator[tuple[str, str, ast.Call]]:
    """List the calls of a package: where, of what, and the call."""
    for module, tree in modules_of(package).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                yield f"{module}:{node.lineno}", name, node


def said_in(package: str) -> list[Said]:
    """List what a package says."""
    return [
        Said(place, call.args[0], frozenset(str(value.arg) for value in call.keywords))
        for place, name, call in calls_in(package)
        if name == "say"
    ]


@cache
def kinds_of_problem() -> list[type[Problem]]:
    """Find every kind of problem there is."""
    for package in PACKAGES:
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            if ".migrations." not in module.name and not module.name.endswith("__main__"):
                import_module(module.name)

    def below(kind: type[Problem]) -> Iterator[type[Problem]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return [kind for kind in below(Problem) if package_of(kind.__module__) in PACKAGES]


def holes(sentence: str) -> set[str]:
    """Name what a sentence leaves open."""
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


# What the code says -----------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_every_sentence_has_its_vietnamese_and_no_vietnamese_is_left_over(package: str) -> None:
    sentences = {ast.literal_eval(line.sentence) for line in said_in(package)}
    titles = {
        str(kind.title()) for kind in kinds_of_problem() if package_of(kind.__module__) == package
    }
    known = {key for key in vietnamese_of(package) if not key.startswith(PYDANTIC)}
    assert sorted((sentences | titles) - known) == []
    assert sorted(known - sentences - titles) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_both_languages_leave_the_same_open_and_the_code_fills_it(package: str) -> None:
    for line in said_in(package):
        sentence = ast.literal_eval(line.sentence)
        assert holes(sentence) == line.values, line.place
    for english, vietnamese in vietnamese_of(package).items():
        if not english.startswith(PYDANTIC):
            assert holes(vietnamese) == holes(english), english


def test_what_the_library_says_of_shapes_is_known_by_its_own_names() -> None:
    known = {key.removeprefix(PYDANTIC) for key in vietnamese_of("libs.common") if PYDANTIC in key}
    assert known <= set(get_args(ErrorType))
    assert {"missing", "extra_forbidden", "string_type", "int_parsing", "literal_error"} <= known


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_is_refused_in_words_that_could_not_be_put_into_vietnamese(package: str) -> None:
    names = (kind.__name__ for kind in kinds_of_problem())
    sentence_of = dict.fromkeys(names, 0) | {"malformed_field": 1, "field_error": 1}
    for place, name, call in calls_in(package):
        where = sentence_of.get(name)
        if where is None or "/bus/" in place or len(call.args) <= where:
            continue
        assert not isinstance(call.args[where], ast.Constant | ast.JoinedStr | ast.BinOp), place


@pytest.mark.parametrize("package", PACKAGES)
def test_validators_speak_in_words_too(package: str) -> None:
    for module, tree in modules_of(package).items():
        if module.endswith("settings.py") or "Validator" not in ast.unparse(tree):
            continue
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or function.name in NEVER_ANSWERED:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "ValueError":
                    assert ast.unparse(node.args[0]).startswith("say("), f"{module}:{node.lineno}"


# How it is said ---------------------------------------------------------------------------------


def test_words_are_english_wherever_a_text_is_wanted() -> None:
    words = say("{field}: {message}", field="unit", message=say("write it like 2026-11-20"))
    assert words == "unit: write it like 2026-11-20"
    assert f"{words}" == str(words) == said(words, ENGLISH)
    assert type(said(words, ENGLISH)) is str


def test_sentences_within_sentences_are_translated_too() -> None:
    words = say("{field}: {message}", field="unit", message=say("write it like 2026-11-20"))
    assert said(words, VIETNAMESE) == "unit: hãy viết theo mẫu 2026-11-20"
    assert either(["a", "b", "c"]) == "a or b or c"
    assert said(either(["a", "b", "c"]), VIETNAMESE) == "a hoặc b hoặc c"


@pytest.mark.parametrize(
    ("value", "english", "vietnamese"),
    [
        (datetime(2026, 11, 17, 0, 30, tzinfo=UTC), "2026-11-17T07:30:00+07:00",
         "07:30 ngày 17/11/2026"),
        (datetime(2026, 11, 16, 17, 0, 5, tzinfo=UTC), "2026-11-17T00:00:05+07:00",
         "00:00:05 ngày 17/11/2026"),
        (date(2026, 9, 2), "2026-09-02", "02/09/2026"),
        (1.5, "1.5", "1,5"),
        (15, "15", "15"),
        ("{0} {x} %s", "{0} {x} %s", "{0} {x} %s"),
    ],
    ids=["an instant", "with seconds", "a day", "a fraction", "a count", "somebody's braces"],
)  # fmt: skip
def test_values_are_written_as_each_language_does(
    value: object, english: str, vietnamese: str
) -> None:
    words = say("not JSON: {error}", error=value)
    assert words == f"not JSON: {english}"
    assert said(words, VIETNAMESE) == f"không phải JSON: {vietnamese}"


def test_what_has_no_vietnamese_stays_english() -> None:
    assert said(Words("so be it", "libs.common", "unheard of"), VIETNAMESE) == "so be it"
    assert said(Words("so be it", "tests.common", "so be it"), VIETNAMESE) == "so be it"
    assert said("so be it", VIETNAMESE) == "so be it"


# Which language is asked for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("vi", "vi"),
        ("vi-VN", "vi"),
        ("VI-vn", "vi"),
        ("en", "en"),
        ("en-GB", "en"),
        ("vi-VN,vi;q=0.9,en-US;q=0.6,en;q=0.5", "vi"),
        ("en-US,en;q=0.9,vi;q=0.8", "en"),
        ("fr,vi;q=0.3", "vi"),
        ("fr,vi;q=0.3,en;q=0.4", "en"),
        ("en;q=0.5 , vi ; q=0.7", "vi"),
        ("vi,en", "vi"),
        ("en,vi", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("vi,*", "vi"),
        ("*,vi;q=0.5", "en"),
        ("en;q=0,*", "vi"),
        ("vi;q=0", "en"),
        ("vi;q=0,*", "en"),
        ("vi;q=1.000", "vi"),
        ("vi;q=7,en;q=0.1", "en"),
        ("vi;q=0.1234,en;q=0.1", "en"),
        ("vietnamese", "en"),
        ("", "en"),
        (",;=q,,", "en"),
        ("vi;q=", "en"),
        ("vi," * 100_000, "vi"),
    ],
)
def test_the_header_chooses_by_its_weights_and_then_by_its_order(
    header: str, language: str
) -> None:
    assert preferred(header) == language


@given(st.text())
def test_whatever_the_header_holds_one_of_the_two_is_spoken(header: str) -> None:
    assert preferred(header) in (ENGLISH, VIETNAMESE)


# At the edge ------------------------------------------------------------------------------------

router = APIRouter()


@router.get("/refused")
async def refused(count: int = 1) -> None:
    """Refuse."""
    raise Conflict(say("{count} value(s) to mend: {fields}", count=count, fields="unit"))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Call an app that only refuses."""
    app = FastAPI()
    problems.install(app)
    app.include_router(router)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
        yield client


async def ask(client: httpx.AsyncClient, path: str, *languages: str) -> tuple[Any, httpx.Headers]:
    """Ask in languages, a header each."""
    answer = await client.get(path, headers=[("Accept-Language", one) for one in languages])
    return answer.json(), answer.headers


async def test_a_problem_speaks_the_language_that_was_asked_for(client: httpx.AsyncClient) -> None:
    english, headers = await ask(client, "/refused")
    assert english["title"] == "The present state does not allow this."
    assert english["detail"] == "1 value(s) to mend: unit"
    assert headers["content-language"] == "en"
    assert headers["vary"] == "Accept-Language"
    vietnamese, headers = await ask(client, "/refused", "vi-VN,vi;q=0.9,en;q=0.8")
    assert vietnamese["title"] == "Trạng thái hiện tại không cho phép thực hiện việc này."
    assert vietnamese["detail"] == "có 1 giá trị cần sửa: unit"
    assert headers["content-language"] == "vi"
    assert headers["vary"] == "Accept-Language"
    assert {**english, "title": 0, "detail": 0} == {**vietnamese, "title": 0, "detail": 0}


async def test_a_header_sent_in_parts_is_read_as_one(client: httpx.AsyncClient) -> None:
    _, headers = await ask(client, "/refused", "en;q=0.3", "vi;q=0.8")
    assert headers["content-language"] == "vi"


async def test_a_bad_field_keeps_its_name_and_is_explained(client: httpx.AsyncClient) -> None:
    problem, _ = await ask(client, "/refused?count=many", "vi")
    assert problem["errors"] == [{"field": "count", "message": "phải là số nguyên"}]
    assert problem["detail"] == "có 1 giá trị cần sửa: count"


async def test_what_the_framework_refuses_is_said_in_vietnamese_too(
    client: httpx.AsyncClient,
) -> None:
    missing, _ = await ask(client, "/nowhere", "vi")
    assert missing["detail"] == "Không tìm thấy nội dung này."
    answer = await client.post("/refused", headers={"Accept-Language": "vi"})
    assert answer.status_code == 405
    assert answer.json()["detail"] == "Địa chỉ này không nhận phương thức đó"

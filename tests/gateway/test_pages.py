"""What people open first: the start page, one description of the whole API, the docs."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from libs.common.settings import SERVICES
from services.embedded import APPS, city
from services.gateway import openapi
from services.gateway.clients import UpstreamAway
from services.gateway.door import service_of
from services.gateway.main import app
from tests.support import settings_for

OPERATIONS = {"/livez", "/readyz", "/metrics", "/version"}


@pytest.fixture(scope="module")
async def client(gateway_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of the whole city in this process."""
    async with (
        city(settings_for(gateway_url)) as whole,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(whole), base_url="http://127.0.0.1:8000"
        ) as client,
    ):
        async with asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        yield client


# The start page -------------------------------------------------------------------------------


def calls_on(page: str) -> list[list[str]]:
    """Take the calls that a page shows apart, as a shell would."""
    (block,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    return [shlex.split(line) for line in unescape(block).splitlines()]


async def play(client: httpx.AsyncClient, words: list[str]) -> httpx.Response:
    """Do what curl would do."""
    assert words.pop(0) == "curl"
    method, headers, content, url = "GET", {}, None, ""
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            content = words.pop(0)
        else:
            url = word
    return await client.request(method, url, headers=headers, content=content)


async def test_the_three_calls_on_the_start_page_work(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    found, ticket, queue = [await play(client, call) for call in calls_on(page.text)]
    assert found.json()["items"][0]["name"] == "Phường Sài Gòn"
    assert ticket.status_code == 201
    assert re.fullmatch(r"A\d{3,}", ticket.json()["number"])
    assert queue.json()["unit"] == "H29.26740"


HOSTS = [
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "x'; rm -rf ~; '",
    "$(id)",
    "`id`",
    "&amp;<b>",
    "[::1",
    "$base",
    "é",
    "a b",
]


class _Tags(HTMLParser):
    """Counts the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, attrs))


def tags_of(page: str) -> list[tuple[str, Any]]:
    """List the tags of a page with their attributes."""
    parser = _Tags()
    parser.feed(page)
    return parser.found


@pytest.mark.parametrize("host", HOSTS)
async def test_whatever_the_host_header_says_stays_text(
    client: httpx.AsyncClient, host: str
) -> None:
    honest = await client.get("/")
    page = await client.get("/", headers={b"Host": host.encode()})
    assert page.status_code == 200
    assert tags_of(page.text) == tags_of(honest.text)
    for call in calls_on(page.text):
        (url,) = [word for word in call if word.startswith("http")]
        assert "/v1/" in url


# One description ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def description(client: httpx.AsyncClient) -> Any:
    """Give the description of the whole API."""
    answered = await client.get("/openapi.json")
    assert answered.status_code == 200
    return answered.json()


def references(part: Any) -> set[str]:
    """List what a part of a description refers to."""
    return set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(part)))


@pytest.mark.parametrize("service", SERVICES)
async def test_every_call_of_a_service_is_described_and_led_to_it(
    description: Any, service: str
) -> None:
    own = APPS[service].openapi()["paths"]
    for path in own.keys() - OPERATIONS:
        assert description["paths"][path].keys() == own[path].keys()
        found = service_of(path)
        assert found is not None, f"nobody is led to {path}"
        assert found[0] == service, path


async def test_nothing_is_described_twice_or_by_nobody(description: Any) -> None:
    described: list[str] = []
    for part in (*APPS.values(), app):
        described += part.openapi()["paths"].keys() - OPERATIONS
    assert sorted(described) == sorted(description["paths"].keys() - OPERATIONS)
    assert len(set(described)) == len(described)


async def test_every_reference_leads_somewhere(description: Any) -> None:
    for reference in references(description):
        part = description
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


async def test_operation_ids_are_given_once(description: Any) -> None:
    ids = [
        call["operationId"]
        for path, item in description["paths"].items()
        if path not in OPERATIONS
        for call in item.values()
    ]
    assert len(set(ids)) == len(ids)


def a_description(path: str, **schemas: Any) -> dict[str, Any]:
    """Describe one call that answers with the schema `Answer`."""
    answer = {"content": {"application/json": {"schema": ref("Answer")}}}
    return {
        "paths": {path: {"get": {"responses": {"200": answer}}}, "/readyz": {"get": {"own": path}}},
        "components": {"schemas": schemas},
    }


def ref(name: str) -> dict[str, str]:
    """Refer to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def resolved(description: Any, part: Any) -> Any:
    """Put in place of every reference what it refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            return resolved(description, description["components"]["schemas"][name])
        return {key: resolved(description, value) for key, value in part.items()}
    return part


def joined(**described: Any) -> Any:
    """Join descriptions under the gateway's own."""
    return openapi.joined(app.openapi(), described)


async def test_services_that_give_one_name_to_two_shapes_keep_both() -> None:
    one = a_description("/a", Answer={"type": "string"}, Same={"type": "null"})
    two = a_description("/b", Answer={"type": "integer"}, Same={"type": "null"})
    union = joined(one=one, two=two)
    assert resolved(union, union["paths"]["/a"]) == resolved(one, one["paths"]["/a"])
    assert resolved(union, union["paths"]["/b"]) == resolved(two, two["paths"]["/b"])
    assert sum("Same" in name for name in union["components"]["schemas"]) == 1


async def test_a_shape_that_differs_only_in_what_it_refers_to_is_kept_too() -> None:
    outer = {"properties": {"inner": ref("Inner")}}
    answer = {"properties": {"outer": ref("Outer"), "again": ref("Inner")}}
    described = {
        name: a_description(f"/{name}", Answer=answer, Outer=outer, Inner={"type": kind})
        for name, kind in (("one", "string"), ("two", "integer"), ("three", "boolean"))
    }
    union = joined(**described)
    for name, own in described.items():
        path = f"/{name}"
        assert resolved(union, union["paths"][path]) == resolved(own, own["paths"][path])


async def test_a_path_that_two_services_share_keeps_the_methods_of_both() -> None:
    one: Any = {"paths": {"/a": {"get": {}}}}
    two: Any = {"paths": {"/a": {"post": {}}}}
    union = joined(one=one, two=two)
    assert union["paths"]["/a"] == {"get": {}, "post": {}}


async def test_a_service_that_is_away_is_named() -> None:
    union = joined(one=a_description("/a", Answer={}), two=None, three=None)
    assert "/a" in union["paths"]
    assert union["info"]["description"].endswith("Not described now, because away: two, three.")
    assert union["x-not-described"] == ["two", "three"]


async def test_the_gateways_own_operations_are_the_ones_described() -> None:
    union = joined(one=a_description("/a", Answer={}))
    assert union["paths"]["/readyz"] == app.openapi()["paths"]["/readyz"]


async def test_describing_leaves_every_services_own_description_alone() -> None:
    before = {name: json.dumps(part.openapi()) for name, part in (APPS | {"gateway": app}).items()}
    joined(**{name: part.openapi() for name, part in APPS.items()})
    after = {name: json.dumps(part.openapi()) for name, part in (APPS | {"gateway": app}).items()}
    assert before == after


class _Told:
    """A way to services whose descriptions the test changes; counts how often it is asked."""

    def __init__(self) -> None:
        self.described: dict[str, Any] = {
            service: a_description(f"/{service}", Answer={}) for service in SERVICES
        }
        self.asked = 0

    async def openapi(self, service: str) -> Any:
        """Give what was written, or be away."""
        self.asked += 1
        if self.described[service] is None:
            raise UpstreamAway(f"the {service} service does not answer")
        return self.described[service]


async def test_the_description_is_joined_once_however_many_ask() -> None:
    told, union = _Told(), openapi.Union()
    asked = [union.written(app, told) for _ in range(20)]  # type: ignore[arg-type]
    assert len({id(written) for written in await asyncio.gather(*asked)}) == 1
    assert told.asked == len(SERVICES)


async def test_a_service_that_changes_goes_or_comes_back_shows_in_the_description() -> None:
    told, union = _Told(), openapi.Union(every_seconds=0, away_seconds=0)
    first = await union.written(app, told)  # type: ignore[arg-type]
    assert await union.written(app, told) is first  # type: ignore[arg-type]
    before, told.described["queue"] = told.described["queue"], None
    without = await union.written(app, told)  # type: ignore[arg-type]
    assert "/queue" not in json.loads(without.body)["paths"]
    told.described["queue"] = before
    again = await union.written(app, told)  # type: ignore[arg-type]
    assert (again.body, again.tag) == (first.body, first.tag)
    told.described["queue"] = a_description("/new", Answer={})
    assert "/new" in json.loads((await union.written(app, told)).body)["paths"]  # type: ignore[arg-type]


async def test_who_has_the_description_already_is_not_sent_it_again(
    client: httpx.AsyncClient,
) -> None:
    first = await client.get("/openapi.json")
    again = await client.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await client.get("/openapi.json", headers={"If-None-Match": '"other"'})
    assert other.content == first.content


# The docs -------------------------------------------------------------------------------------


async def test_the_docs_bring_everything_along_and_run_no_script_of_others(
    client: httpx.AsyncClient,
) -> None:
    docs = await client.get("/docs")
    assert docs.status_code == 200
    assert docs.headers["content-type"] == "text/html; charset=utf-8"
    policy = docs.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    tags = tags_of(docs.text)
    assert not any("://" in str(value) for _, attrs in tags for _, value in attrs)
    loaded = [
        dict(attrs)[name]
        for tag, attrs in tags
        for name in ("src", "href")
        if tag in ("script", "link") and name in dict(attrs)
    ]
    loaded.remove("data:,")
    assert len(loaded) == 3
    for address in loaded:
        part = await client.get(address)
        assert part.status_code == 200, address
        assert "immutable" not in part.headers["cache-control"]
        again = await client.get(address, headers={"If-None-Match": part.headers["etag"]})
        assert again.status_code == 304
    assert not re.findall(r"<script[^>]*>[^<]|\son\w+=|\sstyle=|<style", docs.text)
    ours = (await client.get("/docs/docs.js")).text
    assert "://" not in ours
    assert "validatorUrl: null" in ours  # or the page would ask somebody else about us
    assert (await client.get("/docs/redoc.standalone.js")).status_code == 404


# Boards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["H29.26740", "gso:26740"])
async def test_a_board_names_its_unit_and_brings_everything_it_needs(
    client: httpx.AsyncClient, unit: str
) -> None:
    page = await client.get(f"/units/{unit}/board")
    assert page.status_code == 200
    assert "Phường Sài Gòn" in page.text
    assert 'data-unit="H29.26740"' in page.text


async def test_a_board_of_no_unit_says_so_in_words_for_people(client: httpx.AsyncClient) -> None:
    page = await client.get("/units/H29.99999/board")
    assert page.status_code == 404
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "H29.99999" in page.text
    hostile = await client.get("/units/%3Cscript%3Ealert(1)%3C%2Fscript%3E/board")
    assert hostile.status_code in (400, 404)
    assert "<script>alert" not in hostile.text


@pytest.mark.parametrize("path", ["/units/H29.26740/board", "/overview"])
async def test_pages_run_only_scripts_of_their_own_and_load_nothing_from_elsewhere(
    client: httpx.AsyncClient, path: str
) -> None:
    page = await client.get(path)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    loaded = [
        dict(attrs)[name]
        for tag, attrs in tags_of(page.text)
        for name in ("src", "href")
        if tag in ("script", "link") and name in dict(attrs)
    ]
    loaded.remove("data:,")  # no icon, and no question for one
    assert loaded
    for address in loaded:
        part = await client.get(address)
        assert part.status_code == 200, address
        assert "://" not in part.text, address
    inline = re.findall(r"<script[^>]*>(.+?)</script>|\son\w+=|\sstyle=", page.text, re.DOTALL)
    assert not inline
    for name in set(re.findall(r'byId\("([\w-]+)"\)', (await client.get(loaded[-1])).text)):
        assert f'id="{name}"' in page.text, name


async def test_only_what_pages_are_made_of_is_given(client: httpx.AsyncClient) -> None:
    for name in ("start.html", "board.html", "..%2Fapi.py", "live.css.map"):
        assert (await client.get(f"/web/{name}")).status_code in (400, 404)


async def test_the_start_page_leads_to_the_boards(client: httpx.AsyncClient) -> None:
    links = {dict(attrs).get("href") for tag, attrs in tags_of((await client.get("/")).text)}
    assert {"/overview", "/units/H29.26740/board"} <= links

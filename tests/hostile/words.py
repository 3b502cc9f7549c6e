"""Words that look like others, or that some program on the way might obey."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from tests.hostile.bodies import targets
from tests.hostile.house import House
from tests.hostile.parameters import WORDS
from tests.hostile.requests import COUNTER
from tests.hostile.verdict import REFUSED, Attack, Attacks, Tally
from tests.support import bearer
from tests.system.walk import HERE

ALIKE: Final = (
    "Н29.26740", "Ｈ29.26740", "ℍ29.26740", "H２９.26740", "H29.２６７４０", "H29.٢٦٧٤٠",
    "H29．26740", "H29。26740", "H29․26740", "H29.26740\u200b", "\u200eH29.26740",
    "H29.\u00ad26740", "\ufeffH29.26740", "H29.26740\u0301", "h29.26740", "H29.26740.",
    ".H29.26740", "H29..26740", "H29.26740 ", " H29.26740", "H29.26740\t", "H29,26740",
    "H29-26740", "H29 26740", "H29.2674O", "H29.Z6740", "H29.026740", "gso:２６７４０",
    "GSO:26740", "gso:-26740", "gso:+26740", "gso: 26740", "gso:26740x", "gso:", "gso:0",
    "gso:00000000026740", "*", "H29.*", "H29.%", "H29._____", "H29", "",
)  # fmt: skip
"""What somebody may take for H29.26740."""

LANGUAGES: Final = (
    "", "*", "vi", "xx", "vi;q=2", "vi;q=-1", "vi;q=nan", "vi;q=", "vi;;;q=1", ";", ",,,,",
    "vi" * 500, "en;q=0, *;q=0", "vi, " * 1_000, "../../etc/passwd", "vi\\..\\en", "{0}", "%s",
    "'; DROP TABLE x", "vi_VN", "e\u0301", "ｖｉ", "zh-Hant-HK-x-private-0123456789",
    "en-" * 300, "vi;q=1e309", "*-CH", "i-klingon;q=0.9999999999999999999",
)  # fmt: skip

ODD_HEADERS: Final = (
    "Accept: application/xml", "Accept: */*;q=0", "Accept-Encoding: identity;q=0, *;q=0",
    "Accept-Charset: utf-7", "Range: bytes=0-0,0-0,0-0", "If-None-Match: *", "If-Match: x",
    "If-Modified-Since: yesterday", "Expect: 100-continue-or-not", "Upgrade: h2c",
    "TE: trailers", "Forwarded: for=_x;host=evil.example", "X-Forwarded-Host: evil.example",
    "X-Forwarded-Proto: javascript", "Referer: javascript:alert(1)", "Origin: null",
    "Cookie: a=b; a=c", "traceparent: 00-0-0-0", "baggage: x=%0d%0aX-Injected:%201",
    "Via: 1.1 x", "Content-Type: x", "X-Trace-Id: injected",
    "Connection: close, x-trace-id, authorization, host",
)  # fmt: skip


async def confusables(house: House) -> Attacks:
    """Write a unit's code in ways that only look like it: in path, query and body."""
    everywhere = bearer("city")
    officer = bearer("officer", HERE)
    for code in ALIKE:
        for what, request in _naming(house, code, everywhere, officer):
            yield Attack(f"{code!r} in the {what}", request, REFUSED)


def _naming(
    house: House, code: str, city: dict[str, str], officer: dict[str, str]
) -> Iterator[tuple[str, bytes]]:
    quoted = quote(code, safe="")
    yield "body", house.request("POST", "/v1/tickets", {}, {"unit": code, "channel": "web"})
    if code in ("H29", ""):
        return  # the city itself, and the collection
    yield "query", house.request("GET", f"/v1/reports/weekly/2026-W47?unit={quoted}", city)
    yield "path", house.request("GET", f"/v1/units/{quoted}/queue")
    path = f"/v1/units/{quoted}/counters/1"
    yield "path of a write", house.request("PUT", path, officer, {"state": "open"})


async def languages(house: House) -> Attacks:
    """Ask for an answer in languages that are none."""
    for language in LANGUAGES:
        line = f"Accept-Language: {language}"
        yield Attack(line[:60], house.raw("GET", "/v1/units/H29.99999", line), frozenset({404}))
        bad = house.raw("PUT", COUNTER, line, "Content-Type: application/json", body=b"{}")
        yield Attack(line[:60], bad, frozenset({401}))
    for line in ODD_HEADERS:
        request = house.raw("GET", "/v1/units/H29.99999", line)
        hidden = ("evil.example", "injected")
        yield Attack(line[:60], request, frozenset({400, 404, 406, 417}), hidden=hidden)


async def stored(house: House, tally: Tally, every: int = 1) -> None:
    """Put words into each field of text: refused, or kept to the letter and obeyed by nobody."""
    before = set(await house.state())
    number = 0
    for target in await targets(house):
        for name in _texts(target.operation.body_schema or {}):
            for what, word in WORDS.items():
                number += 1
                if number % every:
                    continue
                body = json.dumps(target.body | {name: word})
                request = house.request(target.method, target.path, target.headers, body.encode())
                attack = Attack(
                    f"{target.name}: {name} is {what}", request, frozenset(REFUSED | {200, 201})
                )
                answer = await house.exchange(request)
                tally.count("stored", attack, answer)
                told = _told(answer.body, name) if answer.status in (200, 201) else None
                if told is not None and told not in (word, word.strip()):
                    tally.blame("stored", f"{attack.what}: {word!r} came back as {told!r}")
    if set(await house.state()) != before:
        tally.blame("stored", "tables came or went")
    await house.assert_serving()


def _texts(schema: dict[str, Any]) -> Iterator[str]:
    for name, described in schema.get("properties", {}).items():
        for shape in described.get("anyOf", [described]):
            free = not shape.keys() & {"enum", "const", "format"}
            if shape.get("type") == "string" and free and name not in ("code", "unit"):
                yield name


def _told(body: bytes, name: str) -> str | None:
    told = json.loads(body).get(name)
    return told if isinstance(told, str) else None

"""`docs/api/problems.md`: every kind of problem, what it means and what to do about it."""

from collections.abc import Iterator
from typing import Any

from services.announced.calls import description

_HEAD = """\
# Problems

Made by `make contracts` from the code; a test holds it to it.

Whatever is refused is answered as a problem (RFC 9457, `application/problem+json`): `type`,
`title`, `status`, `detail`, `trace_id`, and `errors`, which lists every bad field of a malformed
request. Some carry more, such as `allowed` or `next_opening`. Decide by `type`, never by the texts:
those are for people, in the language of `Accept-Language`. There will be more kinds: take one that
you do not know by its status.
"""

_ANYWHERE = 10
"""From how many calls on nobody reads their names."""


def page() -> str:
    """Write the page."""
    return "\n".join([_HEAD, *_rows(description())]) + "\n"


def _rows(document: dict[str, Any]) -> Iterator[str]:
    yield "| type: `urn:motcua:problem:…` | status | what it means | what to do | calls |"
    yield "|---|---|---|---|---|"
    kinds = document["x-problem-types"]
    for uri in sorted(kinds, key=lambda uri: (kinds[uri]["status"], uri)):
        kind = kinds[uri]
        words = f"{kind['title']} | {kind['remedy']} | {_calls(document, uri)}"
        yield f"| `{uri.rpartition(':')[2]}` | {kind['status']} | {words} |"


def _calls(document: dict[str, Any], uri: str) -> str:
    found = [
        f"`{call['operationId']}`"
        for item in document["paths"].values()
        for call in item.values()
        if any(uri in answer.get("x-problems", ()) for answer in call["responses"].values())
    ]
    return ", ".join(found) if 0 < len(found) < _ANYWHERE else "many"

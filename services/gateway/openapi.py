"""One OpenAPI document out of the services' own, kept until one of them tells something else."""

import asyncio
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib.resources import files
from time import monotonic
from typing import Any, Final

from fastapi import FastAPI

from libs.common.openapi.document import Written
from libs.common.settings import SERVICES
from services.gateway.clients import Forwarder, UpstreamAway

_REF = "#/components/schemas/"
_REFERENCE = re.compile(f'"{_REF}([^"]+)"')
_OPERATIONS = ("/livez", "/readyz", "/metrics", "/version")

_ABOUT: Final = """\
Một cửa: hand a dossier in at any centre of the city, wherever you live, and wait no more than 20
minutes.

- **Who calls.** `Authorization: Bearer <token>` for people, `X-API-Key` for registered kiosks and
  the portal. Each call says which roles may make it (`x-scope`, `x-roles`). Citizens need nothing.
- **Twice the same.** Every `POST` takes an `Idempotency-Key`, a UUID where there are no
  credentials. Sent again with it, a call has one effect and one answer, then marked
  `Idempotent-Replayed`.
- **Errors** are problems (RFC 9457, `application/problem+json`). Decide by `type`, of which
  `x-problem-types` lists all, with what to do. `trace_id`, also in `X-Trace-Id`, names the call.
- **Lists** are pages: `next_cursor` goes into `cursor`, until it is null.
- **Languages.** `Accept-Language` `vi` or `en` chooses that of texts for people, also in problems.
- **Codes.** A unit goes by its code, an older one, or `gso:26734`; answers have the current
  one."""

_TAGS: Final = {
    "routing": "Where to hand in, and who decides.",
    "tickets": "Places in the queue: taken, looked at, given up.",
    "steps": "What happens to a ticket at the counters.",
    "counters": "Counters, and calling.",
    "live": "Boards, the city's overview, and what officers see.",
    "planning": "Waits foretold, and counters advised.",
    "appointments": "Slots, bookings and a centre's rules for them.",
    "kiosks": "Numbers lent to kiosks for the time without network.",
    "visits": "After the visit: ratings and the day's figures.",
    "dossiers": "Dossiers from submission to return.",
    "reports": "The weekly report.",
    "units": "Units and their codes, past ones too.",
    "centres": "One-stop centres.",
    "procedures": "The versioned catalogue of procedures.",
    "calendar": "Working days and exceptions.",
    "clients": "Kiosks and the portal as callers, and their keys.",
    "audit": "Who did what.",
    "operations": "Health of this process.",
}


def joined(own: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    """Join the gateway's own description and those of services; None stands for one that is away.

    Where two gave one name to different shapes, the later one gets its service's before it.
    """
    away = [service for service, description in described.items() if description is None]
    union: dict[str, Any] = {
        "openapi": own["openapi"],
        "info": {
            "title": "motcua",
            "version": own["info"]["version"],
            "summary": "Một cửa: one door for every procedure, wherever you live.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This door."}],
        "tags": [{"name": name, "description": words} for name, words in _TAGS.items()],
        "paths": dict(own["paths"]),
        "components": {place: dict(parts) for place, parts in own["components"].items()},
        "x-problem-types": dict(own["x-problem-types"]),
    }
    if away:
        union["info"]["description"] += f"\n\nNot described now, because away: {', '.join(away)}."
        union["x-not-described"] = away
    for service, description in described.items():
        if description is not None:
            _join(union, service, description)
    union["x-problem-types"] = dict(sorted(union["x-problem-types"].items()))
    for item in union["paths"].values():
        for method, call in item.items():
            item[method] = _with_example(call)
    return union


def _join(union: dict[str, Any], service: str, description: Mapping[str, Any]) -> None:
    parts = description.get("components", {})
    schemas = union["components"]["schemas"]
    mine = parts.get("schemas", {})
    clashing = _clashing(schemas, mine)
    text = json.dumps({"paths": description["paths"], "schemas": mine})
    for name in clashing:  # two services gave one name to different shapes
        text = text.replace(f'"{_REF}{name}"', f'"{_REF}{service.title()}{name}"')
    renamed = json.loads(text)
    for name, schema in renamed["schemas"].items():
        known = f"{service.title()}{name}" if name in clashing else name
        if "title" in schema:  # generators name their classes by it
            schema["title"] = known
        schemas[known] = schema
    for place in parts.keys() - {"schemas"}:  # made by one hand, and so the same everywhere
        union["components"][place] = union["components"].get(place, {}) | parts[place]
    for path, item in renamed["paths"].items():
        if path not in _OPERATIONS:
            union["paths"][path] = union["paths"].get(path, {}) | item
    union["x-problem-types"] |= description.get("x-problem-types", {})


def _clashing(known: dict[str, Any], mine: dict[str, Any]) -> set[str]:
    """Name the schemas that mean something else here, be it only through one they refer to."""
    shared = known.keys() & mine.keys()
    clashing = {name for name in shared if known[name] != mine[name]}
    refers = {name: set(_REFERENCE.findall(json.dumps(mine[name]))) for name in shared}
    while further := {name for name in shared - clashing if refers[name] & clashing}:
        clashing |= further
    return clashing


@cache
def _examples() -> dict[str, Any]:
    """Read what a real city was asked and has answered, by operation (`make examples`)."""
    kept = (files("services.gateway") / "examples.json").read_text("utf-8")
    return dict(json.loads(kept))


def _with_example(call: dict[str, Any]) -> dict[str, Any]:
    """Show an operation with its example; the operation itself is the service's, and stays."""
    example = _examples().get(call.get("operationId", ""))
    if example is None:
        return call
    call = deepcopy(call)
    sent = example.get("parameters", {})
    for parameter in call.get("parameters", ()):
        if parameter["name"] in sent:
            parameter["example"] = sent[parameter["name"]]
    for content in call.get("requestBody", {}).get("content", {}).values():
        if "body" in example:
            content["example"] = example["body"]
    for content in call["responses"][str(example["status"])].get("content", {}).values():
        content["example"] = example["answer"]
    return call


class Union:
    """The description of it all as it is sent; joined anew only when a service tells another one.

    Services are asked again after some seconds, whoever asks meanwhile, and after one while one is
    away: so that a service that is new, or back, shows without anybody saying so.
    """

    def __init__(self, *, every_seconds: float = 10, away_seconds: float = 1) -> None:
        """Know nothing yet."""
        self._every_seconds = every_seconds
        self._away_seconds = away_seconds
        self._described: dict[str, Any] = {}
        self._written: Written | None = None
        self._asked_again = 0.0
        self._asking = asyncio.Lock()

    async def written(self, app: FastAPI, forwarder: Forwarder) -> Written:
        """Give the document that describes an app and the services behind it."""
        async with self._asking:  # whoever comes while the services are asked waits for the same
            if self._written is None or monotonic() >= self._asked_again:
                described = await _descriptions(forwarder)
                if self._written is None or described != self._described:
                    self._written = await asyncio.to_thread(
                        lambda: Written.of(joined(app.openapi(), described))
                    )
                    self._described = described
                away = None in described.values()
                patience = self._away_seconds if away else self._every_seconds
                self._asked_again = monotonic() + patience
            return self._written


async def _descriptions(forwarder: Forwarder) -> dict[str, Any]:
    async def ask(service: str) -> dict[str, Any] | None:
        try:
            return await forwarder.openapi(service)
        except UpstreamAway:
            return None

    answers = await asyncio.gather(*map(ask, SERVICES))
    return dict(zip(SERVICES, answers, strict=True))

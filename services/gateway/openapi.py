"""One OpenAPI document out of the services' own."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from services.gateway.clients import Forwarder, UpstreamAway

_REF = "#/components/schemas/"
_REFERENCE = re.compile(f'"{_REF}([^"]+)"')
_OPERATIONS = ("/livez", "/readyz", "/metrics", "/version")


async def union(app: FastAPI, forwarder: Forwarder, services: Sequence[str]) -> dict[str, Any]:
    """Join the descriptions of the gateway and of every service that answers."""
    own = app.openapi()
    joined: dict[str, Any] = {
        "openapi": own["openapi"],
        "info": {
            "title": "motcua",
            "version": own["info"]["version"],
            "summary": "Một cửa: one door for every procedure, wherever you live.",
        },
        "paths": dict(own["paths"]),
        "components": {"schemas": dict(own.get("components", {}).get("schemas", {}))},
    }
    answers = await asyncio.gather(
        *(forwarder.openapi(service) for service in services), return_exceptions=True
    )
    away = []
    for service, answer in zip(services, answers, strict=True):
        if isinstance(answer, UpstreamAway):
            away.append(service)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            _join(joined, service, answer)
    if away:
        joined["info"]["description"] = f"Not described now, because away: {', '.join(away)}."
    return joined


def _join(joined: dict[str, Any], service: str, description: dict[str, Any]) -> None:
    schemas = joined["components"]["schemas"]
    mine = description.get("components", {}).get("schemas", {})
    clashing = _clashing(schemas, mine)
    text = json.dumps({"paths": description["paths"], "schemas": mine})
    for name in clashing:  # two services gave one name to different shapes
        text = text.replace(f'"{_REF}{name}"', f'"{_REF}{service}.{name}"')
    renamed = json.loads(text)
    for name, schema in renamed["schemas"].items():
        schemas[f"{service}.{name}" if name in clashing else name] = schema
    for path, item in renamed["paths"].items():
        if path not in _OPERATIONS:
            joined["paths"][path] = joined["paths"].get(path, {}) | item


def _clashing(known: dict[str, Any], mine: dict[str, Any]) -> set[str]:
    """Name the schemas that mean something else here, be it only through one they refer to."""
    shared = known.keys() & mine.keys()
    clashing = {name for name in shared if known[name] != mine[name]}
    refers = {name: set(_REFERENCE.findall(json.dumps(mine[name]))) for name in shared}
    while further := {name for name in shared - clashing if refers[name] & clashing}:
        clashing |= further
    return clashing

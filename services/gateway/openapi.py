"""One OpenAPI document out of the services' own."""

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from services.gateway.clients import Forwarder, UpstreamAway

_REF = "#/components/schemas/"
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
    away = []
    for service in services:
        try:
            description = await forwarder.openapi(service)
        except UpstreamAway:
            away.append(service)
            continue
        _join(joined, service, description)
    if away:
        joined["info"]["description"] = f"Not described now, because away: {', '.join(away)}."
    return joined


def _join(joined: dict[str, Any], service: str, description: dict[str, Any]) -> None:
    schemas = joined["components"]["schemas"]
    mine = description.get("components", {}).get("schemas", {})
    clashing = [name for name, schema in mine.items() if schemas.get(name, schema) != schema]
    text = json.dumps({"paths": description["paths"], "schemas": mine})
    for name in clashing:  # two services gave one name to different shapes
        text = text.replace(f'"{_REF}{name}"', f'"{_REF}{service}.{name}"')
    renamed = json.loads(text)
    for name, schema in renamed["schemas"].items():
        schemas[f"{service}.{name}" if name in clashing else name] = schema
    joined["paths"] |= {
        path: item for path, item in renamed["paths"].items() if path not in _OPERATIONS
    }

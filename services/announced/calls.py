"""The calls that the gateway serves, whichever service answers them: one OpenAPI document."""

from functools import cache
from typing import Any

from services.embedded import APPS, GATEWAY
from services.gateway.openapi import joined


@cache
def description() -> dict[str, Any]:
    """Describe all calls, as `GET /openapi.json` at the gateway does while no service is away."""
    return joined(GATEWAY.openapi(), {service: app.openapi() for service, app in APPS.items()})

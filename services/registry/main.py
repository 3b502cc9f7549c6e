"""Entry point of the registry: `uvicorn services.registry.main:app`."""

from libs.common.app import Service, create_app
from libs.contracts import topics
from libs.contracts.following import following_registry
from services.registry import api

app = create_app(
    Service(
        "registry",
        "Units and their codes, succession, centres, procedures and the calendar.",
        routers=[api.units, api.centres, api.procedures, api.calendar],
        resources=following_registry,
        topics=topics.NAMES,
    )
)

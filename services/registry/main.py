"""Entry point of the registry: `uvicorn services.registry.main:app`."""

from libs.common.app import Service, create_app
from libs.contracts import topics
from libs.contracts.access import ACCESS
from libs.contracts.following import following_registry
from services.registry import api, audit_api, clients_api

app = create_app(
    Service(
        "registry",
        "Units and their codes, succession, centres, procedures, the calendar, and who may call.",
        routers=[
            api.units,
            api.centres,
            api.procedures,
            api.calendar,
            clients_api.router,
            audit_api.router,
        ],
        access=ACCESS,
        resources=following_registry,
        topics=topics.NAMES,
    )
)

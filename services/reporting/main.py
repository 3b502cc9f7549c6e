"""Entry point of reporting: `uvicorn services.reporting.main:app`."""

from libs.common.app import Service, create_app
from libs.contracts import topics
from libs.contracts.access import ACCESS
from libs.contracts.following import following_registry
from services.reporting import api, handlers

app = create_app(
    Service(
        "reporting",
        "The weekly report, computed from what the other services announce.",
        routers=[api.reports],
        access=ACCESS,
        handlers=handlers.router,
        resources=following_registry,
        topics=topics.NAMES,
    )
)

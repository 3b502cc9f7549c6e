"""Entry point of intake: `uvicorn services.intake.main:app`."""

from libs.common.app import Service, create_app
from libs.contracts import topics
from libs.contracts.access import ACCESS
from libs.contracts.following import following_registry
from services.intake import api, handlers

app = create_app(
    Service(
        "intake",
        "Dossiers: submission, reception, processing, the result handed over, and tracking.",
        routers=[api.dossiers, api.tracking],
        access=ACCESS,
        handlers=handlers.router,
        resources=following_registry,
        topics=topics.NAMES,
    )
)

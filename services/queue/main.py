"""Entry point of the queue: `uvicorn services.queue.main:app`."""

from libs.common.app import Service, create_app
from libs.contracts import topics
from libs.contracts.access import ACCESS
from services.queue import api, handlers, live

app = create_app(
    Service(
        "queue",
        "Tickets, counters, calls and live boards.",
        routers=api.ROUTERS,
        access=ACCESS,
        handlers=handlers.router,
        resources=live.resources,
        topics=topics.NAMES,
    )
)

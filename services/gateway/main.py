"""Entry point of the gateway: `uvicorn services.gateway.main:app`."""

from libs.common.app import Service, create_app
from libs.contracts import topics
from libs.contracts.access import ACCESS
from services.gateway import api, browsers, door, pages

app = create_app(
    Service(
        "gateway",
        "The one door: authentication, the routing rule, and the way to every service.",
        routers=[api.router, pages.router],
        access=ACCESS,
        resources=door.resources,
        topics=topics.NAMES,
        wrap=door.Door,
        refuses=door.REFUSALS,
        outermost=browsers.Browsers,
        database=False,
        own_openapi=True,
        body_limit=None,  # the service that takes a body knows how large it may be
    )
)

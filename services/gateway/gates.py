"""How many calls may be under way at once: one too many is told so, and waits for nothing."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from prometheus_client import Gauge
from starlette.types import Scope

from libs.common.settings import SERVICES, Settings
from libs.common.words import Words
from services.gateway.addresses import caller_of
from services.gateway.bodies import is_upload
from services.gateway.refusals import REFUSED, Busy
from services.gateway.words import say

OPEN: Final = Gauge(
    "motcua_gateway_open", "Calls under way to a service, open uploads and streams.", ("what",)
)


class Gates:
    """Counts what is open: calls of each service and of all, uploads, and live streams.

    Streams have bounds of their own, so that boards keep nobody from the queue, and so have
    uploads, which last as long as the caller's line is slow. Two services that hang with all their
    calls leave room for the others.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the bounds."""
        self._bounds = {
            "upstream-calls": settings.upstream_calls,
            "door-calls": settings.door_calls,
            "door-uploads": settings.door_uploads,
            "door-streams": settings.door_streams,
            "address-streams": settings.address_streams,
        }
        self._open: Counter[tuple[str, str]] = Counter()
        for service in SERVICES:
            OPEN.labels(service).set_function(partial(self._count, "upstream-calls", service))
        for bound in ("door-uploads", "door-streams"):
            OPEN.labels(bound).set_function(partial(self._count, bound, ""))

    def _count(self, bound: str, of: str) -> int:
        return self._open[bound, of]

    @contextmanager
    def passing(self, service: str, scope: Scope) -> Iterator[None]:
        """Hold a place for as long as the call lasts.

        Raises:
            Busy: all places of one kind are taken.
        """
        places = _places(service, scope)
        for place in places:
            if self._open[place] >= self._bounds[place[0]]:
                self._refuse(service, place[0])
        for place in places:
            self._open[place] += 1
        try:
            yield
        finally:
            for place in places:
                self._open[place] -= 1
                if not self._open[place]:
                    del self._open[place]  # addresses come and go

    def _refuse(self, service: str, bound: str) -> None:
        REFUSED.labels(bound).inc()
        words = _words(bound, self._bounds[bound], service)
        raise Busy(words, service=service, limit=bound)


def _words(bound: str, most: int, service: str) -> Words:
    match bound:
        case "upstream-calls":
            return say(
                "{most} calls to the {service} service are under way already",
                most=most,
                service=service,
            )
        case "door-calls":
            return say("{most} calls to all services are under way already", most=most)
        case "door-uploads":
            return say("{most} uploads are under way already", most=most)
        case "door-streams":
            return say("{most} live streams are open already", most=most)
        case _:
            return say("{most} live streams of this address are open already", most=most)


def _places(service: str, scope: Scope) -> tuple[tuple[str, str], ...]:
    if scope["method"] == "GET" and scope["path"].endswith("/stream"):
        client = scope.get("client")
        return ("door-streams", ""), ("address-streams", caller_of(client[0]) if client else "")
    if is_upload(scope):
        return (("door-uploads", ""),)
    return ("upstream-calls", service), ("door-calls", "")

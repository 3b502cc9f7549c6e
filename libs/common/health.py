"""Health that tells the truth: `/livez`, `/readyz`, `/metrics` and `/version` of every service."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from libs.common import fast_json
from libs.common.fields import Out

Check = Callable[[], Awaitable[str | None]]
"""Answers what is wrong, in words for an operator, or None."""


class Health:
    """What a service needs before it may serve, and what it can do without for a while."""

    def __init__(self) -> None:
        """Start with no check."""
        self.stopping = asyncio.Event()
        """Set once the process is told to stop."""
        self.needed: dict[str, Check] = {}
        """Failing ones make `readyz` 503: own database, migrations, start-up."""
        self.wanted: dict[str, Check] = {}
        """Failing ones show as `degraded` in a 200: taking every pod out would help nobody."""
        self.dead_tasks: Callable[[], list[str]] = list

    async def report(self) -> tuple[int, dict[str, Any]]:
        """Run all checks at once; answer the HTTP status and the body of `readyz`."""
        if self.stopping.is_set():  # at once: whoever balances loads should hear of it now
            return 503, {"status": "not ready", "checks": _STOPPING, "not_ready": _STOPPING}
        needed, wanted = await asyncio.gather(_run(self.needed), _run(self.wanted))
        failed = {name: words for name, words in needed.items() if words}
        degraded = {name: words for name, words in wanted.items() if words}
        status = "not ready" if failed else "degraded" if degraded else "ready"
        body: dict[str, Any] = {
            "status": status,
            "checks": {
                name: words or "ok" for name, words in (needed | wanted).items()
            },
        }  # fmt: skip
        if failed:
            body["not_ready"] = failed
        if degraded:
            body["degraded"] = degraded
        return (503 if failed else 200), body


_STOPPING = {"stopping": "told to stop, and takes no more calls soon"}


async def _run(checks: dict[str, Check]) -> dict[str, str | None]:
    async def one(check: Check) -> str | None:
        try:
            async with asyncio.timeout(2):
                return await check()
        except TimeoutError:
            return "no answer within 2 seconds"
        except Exception as error:  # a failing check is an answer, never a 500
            return f"{type(error).__name__}: {error}"[:200]

    return dict(zip(checks, await asyncio.gather(*map(one, checks.values())), strict=True))


class Liveness(Out):
    """Whether the process is worth keeping, and which background tasks of it have died."""

    status: Literal["alive", "dead"]
    dead_tasks: list[str]


class Readiness(Out):
    """What was checked, in words for an operator: `ok`, or what is wrong."""

    status: Literal["ready", "degraded", "not ready"]
    checks: dict[str, str]
    not_ready: dict[str, str] | None = None
    degraded: dict[str, str] | None = None


class About(Out):
    """What runs here, and by which clock."""

    service: str
    version: str
    revision: str | None
    profile: str
    clock: dict[str, Any]


router = APIRouter(tags=["operations"])


def _json(body: Any, status: int = 200) -> Response:
    return Response(fast_json.dumps(body), status_code=status, media_type="application/json")


def _or_503(shape: type[Out], words: str) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": shape, "description": words}}


@router.get("/livez", response_model=Liveness, responses=_or_503(Liveness, "A task has died."))
async def livez(request: Request) -> Response:
    """Whether this process is worth keeping: no background task of it has died."""
    dead = request.state.health.dead_tasks()
    return _json({"status": "dead" if dead else "alive", "dead_tasks": dead}, 503 if dead else 200)


@router.get("/readyz", response_model=Readiness, responses=_or_503(Readiness, "Not ready."))
async def readyz(request: Request) -> Response:
    """Whether requests may come: 503 names what is missing, a 200 what is degraded."""
    status, body = await request.state.health.report()
    return _json(body, status)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics() -> Response:
    """Give this process's metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", response_model=About, operation_id="show_version")
async def about(request: Request) -> Response:
    """Tell version, profile and the clock in use, from which a simulator can follow it."""
    settings = request.state.settings
    return _json(
        {
            "service": request.app.title.removeprefix("motcua "),
            "version": version("motcua"),
            "revision": settings.revision,
            "profile": settings.profile.value,
            "clock": request.state.clock.describe(),
        }
    )

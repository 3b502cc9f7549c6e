"""The factory every service's `main.py` calls: one lifespan, one order of middleware, one state."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from libs.common import faults, health, idempotency, problems
from libs.common.auth import Verifier
from libs.common.bus.base import Bus, BusError
from libs.common.bus.embedded import EmbeddedBus
from libs.common.bus.opening import open_bus
from libs.common.clock import Clock, clock_from
from libs.common.consumer import Consumer, watch_lag
from libs.common.db import Database, open_database, service_url, transient
from libs.common.events import EventRouter
from libs.common.health import Health
from libs.common.issuers import trust_issuers
from libs.common.migrate import AUDIT, missing_revision
from libs.common.observability import OUTBOX_AGE, Observed, configure_logging
from libs.common.openapi import document, pages
from libs.common.openapi.operations import completed
from libs.common.outbox import Relay, prune, watch_outbox
from libs.common.routes import Access, guarded
from libs.common.settings import Settings
from libs.common.stopping import hearing_signals
from libs.common.tasks import Tasks, running

log = structlog.get_logger()


class UnsafeDatabase(ValueError):
    """The database may forget what it has acknowledged."""


@dataclass(slots=True)
class Core:
    """What a running service holds; its own resources are added by its `resources` manager."""

    name: str
    settings: Settings
    clock: Clock
    bus: Bus
    tasks: Tasks
    health: Health
    verifier: Verifier
    database: Database | None = None
    relay: Relay | None = None

    @property
    def stopping(self) -> asyncio.Event:
        """Set when the process is told to stop, while the server still waits for open requests."""
        return self.health.stopping

    @property
    def db(self) -> Database:
        """The service's database; the gateway has none and never asks."""
        assert self.database is not None
        return self.database


Resources = Callable[[Core], AbstractAsyncContextManager[dict[str, Any]]]
"""Opens what only one service has; what it yields becomes attributes of `request.state`."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service, described: what `create_app` needs to know of it."""

    name: str
    summary: str
    routers: Sequence[APIRouter] = ()
    handlers: EventRouter | None = None
    resources: Resources | None = None
    access: Access | None = None
    """Rules on every call; without it only the routes themselves do."""
    database: bool = True
    wrap: Callable[[ASGIApp, FastAPI], ASGIApp] | None = None
    """Puts an app of its own before the routes (the gateway's door)."""
    outermost: Callable[[ASGIApp], ASGIApp] | None = None
    """Puts an app before all that answers, also what goes wrong (the gateway's headers)."""
    refuses: Sequence[type[problems.Problem]] = ()
    """What that app answers by itself, to be described with the rest."""
    own_openapi: bool = False
    """Whether the service describes more than its own routes, and does so itself."""
    topics: Sequence[str] = ()
    """Every topic of the city: one that is missing is named by all services."""
    body_limit: int | None = 1_048_576
    """Largest body in bytes that a route takes unless it says otherwise; None: not checked here."""


class _App(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        stack = problems.LimitAsProblem(super().build_middleware_stack())
        return self.state.outermost(stack) if self.state.outermost else stack

    def openapi(self) -> dict[str, Any]:
        with _DESCRIBING:  # it is asked for from threads, and is not whole before it is completed
            if self.openapi_schema is None:
                described = completed(super().openapi(), self.state.access, self.state.refuses)
                self.openapi_schema = described
            return self.openapi_schema


_DESCRIBING = threading.Lock()


def create_app(service: Service) -> FastAPI:
    """Build a service's ASGI app; nothing is read or opened before its lifespan starts."""
    app = _App(
        title=f"motcua {service.name}",
        summary=service.summary,
        version="1",
        lifespan=_lifespan(service),
        generate_unique_id_function=lambda route: route.name,
        max_body_size=service.body_limit,
        # A redirect would lead to whatever host the caller has named.
        redirect_slashes=False,
        openapi_url=None,  # FastAPI's own pages would ask others for their scripts
    )
    problems.install(app)
    app.add_exception_handler(idempotency.Replay, idempotency.on_replay)
    app.state.access, app.state.refuses = service.access, service.refuses
    app.state.outermost = service.outermost
    own = () if service.own_openapi else (document.router,)
    for router in (health.router, pages.router, *own, *service.routers):
        app.include_router(guarded(router))
    if service.wrap is not None:
        app.add_middleware(_Wrapped, wrap=service.wrap, fastapi=app)
    app.add_middleware(Observed, service=service.name)
    return app


class _Wrapped:
    """Adapts a service's own outer app to the middleware list."""

    def __init__(
        self, app: ASGIApp, wrap: Callable[[ASGIApp, FastAPI], ASGIApp], fastapi: FastAPI
    ) -> None:
        self._app = wrap(app, fastapi)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def _lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # The embedded city gives its five apps one set of settings and one clock.
        settings: Settings = getattr(app.state, "settings", None) or Settings.from_environment()
        clock: Clock = getattr(app.state, "clock", None) or clock_from(settings.clock)
        alone = not getattr(app.state, "embedded", False)
        if alone:
            configure_logging(settings.log_level)
        async with AsyncExitStack() as stack:
            state = await _enter(stack, service, settings, clock)
            if alone:
                stack.enter_context(hearing_signals(state["core"].stopping))
            yield state

    return lifespan


async def _enter(
    stack: AsyncExitStack, service: Service, settings: Settings, clock: Clock
) -> dict[str, Any]:
    faults.arm(settings.fault)
    verifier = Verifier(
        settings.oidc_audience,
        leeway_seconds=settings.oidc_leeway_seconds,
        roles=service.access.roles if service.access else None,
    )
    holder: list[Relay] = []
    database = None
    if service.database:
        database = await stack.enter_async_context(
            open_database(
                service_url(settings, service.name),
                service.name,
                pool=settings.database_pool,
                hot_pool=settings.database_hot_pool,
                on_commit=lambda: holder[0].wake(),
            )
        )
        await _assert_durable(settings, service.name, database)
    bus = await stack.enter_async_context(open_bus(settings, service.name))
    tasks = await stack.enter_async_context(running())
    core = Core(service.name, settings, clock, bus, tasks, Health(), verifier, database)
    core.health.dead_tasks = lambda: tasks.dead
    _trust(core)
    if database is not None:
        core.relay = Relay(service.name, database, bus)
        holder.append(core.relay)
        _check_database(core, database)
    own = await stack.enter_async_context(service.resources(core)) if service.resources else {}
    _start_background(core, service)
    return own | {
        "core": core,
        "settings": settings,
        "clock": clock,
        "verifier": verifier,
        "health": core.health,
        "bus": bus,
        "relay": core.relay,
        "sessions": database.sessions if database else None,
        "hot": database.hot if database else None,
    }


def _trust(core: Core) -> None:
    provider = trust_issuers(core.verifier, core.settings)
    if provider is not None:
        core.tasks.start("issuer", provider.run())
        core.health.wanted["issuer"] = _problem_of(provider)


async def _assert_durable(settings: Settings, service: str, database: Database) -> None:
    """Refuse a database that may lose a commit: an answer given means stored, whatever crashes.

    Each service asks with a connection of its own, because a role may have settings of its own.

    Raises:
        UnsafeDatabase: a setting is not PostgreSQL's default; the message says how to mend it.
    """
    row = await database.hot.fetchrow(
        "SELECT current_setting('fsync') AS fsync,"
        " current_setting('full_page_writes') AS full_page_writes,"
        " current_setting('synchronous_commit') AS synchronous_commit"
    )
    unsafe = [f"{name} is {value}" for name, value in row.items() if value not in _DURABLE]
    if not unsafe:
        return
    where = f"{settings.database_host} (for {service} {', '.join(unsafe)})"
    if settings.allow_unsafe_database:
        log.warning("database.unsafe", database=where)
        return
    log.error("database.unsafe", database=where)
    way_out = "set them back to on, PostgreSQL's default"
    if settings.development:
        way_out += ", or allow a crash to lose data with MOTCUA_ALLOW_UNSAFE_DATABASE=1"
    raise UnsafeDatabase(f"a crash would lose acknowledged writes of {where}: {way_out}")


_DURABLE = ("on", "remote_apply")


def _check_database(core: Core, database: Database) -> None:
    async def database_answers() -> str | None:
        await database.hot.fetchval("SELECT 1")
        return None

    async def migrated() -> str | None:
        for schema in (core.name, AUDIT):
            if missing := await missing_revision(database, schema):
                return f"run `motcua migrate`: {missing}"
        return None

    core.health.needed |= {"database": database_answers, "migrations": migrated}


def _start_background(core: Core, service: Service) -> None:
    async def bus_answers() -> str | None:
        await core.bus.ping()
        return None

    async def topics_exist() -> str | None:
        try:
            missing = await core.bus.missing(service.topics)
        except BusError:
            return None  # which `bus` says
        return f"missing: {', '.join(missing)} (motcua topics apply)" if missing else None

    core.health.wanted |= {"bus": bus_answers, "topics": topics_exist}
    if core.relay is not None:
        relay = core.relay
        OUTBOX_AGE.labels(core.name).set(0)
        core.tasks.start("relay", relay.run())
        core.tasks.start("outbox-age", watch_outbox(core.name, core.db))
        core.tasks.start("prune", _prune_for_ever(core.db))
        if isinstance(core.bus, EmbeddedBus):
            core.tasks.start("compaction", core.bus.compact_for_ever())
        core.health.wanted["relay"] = _problem_of(relay)
    if service.handlers is not None and service.handlers.topics:
        consumer = Consumer(core.name, service.handlers, core.db, core.bus)
        core.tasks.start("consumer", consumer.run())
        core.tasks.start("lag", watch_lag(core.name, service.handlers.topics, core.bus))
        core.health.needed["events"] = _caught_up(core, service.handlers)
        core.health.wanted["consumer"] = _problem_of(consumer)


def _caught_up(core: Core, handlers: EventRouter) -> health.Check:
    """Make the check that a service has once handled all states that others keep announced.

    A queue that has not heard of a centre yet would say that it has no counters. Topics of facts
    are left out: a service that was away long may answer while it still reads those.
    """
    states = sorted({kind.topic for kind in handlers if kind.compacted})
    done = not states

    async def check() -> str | None:
        nonlocal done
        if not done:
            try:
                # Less than a check is given: a bus that says nothing is away as well.
                async with asyncio.timeout(1.5):
                    done = not any((await core.bus.lag(core.name, states)).values())
            except Exception as error:
                if not (transient(error) or isinstance(error, BusError)):
                    raise
                return None  # the bus is away: `degraded` says so, and what was handled still holds
        return None if done else f"still handling {', '.join(states)}"

    return check


async def _prune_for_ever(database: Database) -> None:
    while True:
        await asyncio.sleep(600)
        try:
            await prune(database)
        except Exception as error:
            if not transient(error):
                raise


def _problem_of(worker: Any) -> health.Check:
    async def check() -> str | None:
        return str(worker.problem) if worker.problem else None

    return check

"""The whole city in one process: `python -m services.embedded`, which is what `make run` starts."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from starlette.types import Receive, Scope, Send

import services.gateway.main
import services.intake.main
import services.queue.main
import services.registry.main
import services.reporting.main
from libs.common.app import Core
from libs.common.clock import clock_from
from libs.common.migrate import migrate
from libs.common.observability import configure_logging
from libs.common.postgres import EmbeddedPostgres, PostgresError
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.cli import EMBEDDED_URL, explain_settings, seed_registry
from services.gateway.api import calls_to_try
from services.gateway.clients import InProcess

log = structlog.get_logger()

APPS: dict[str, FastAPI] = {
    "registry": services.registry.main.app,
    "intake": services.intake.main.app,
    "queue": services.queue.main.app,
    "reporting": services.reporting.main.app,
}
GATEWAY = services.gateway.main.app

GRACE_SECONDS = 5
"""How long open requests may take to end; with the rest of the stop it stays below ten."""


class CannotStart(Exception):
    """The city cannot start; the message says what to do."""


def main() -> int:
    """Run the city until it is told to stop; answer the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        settings = Settings.from_environment()
        configure_logging(settings.log_level)
        with _claim_port(settings) as listener:
            _run_on_database(settings, listener)
    except ValidationError as error:
        return _say(explain_settings(error), 2)
    except (CannotStart, PostgresError, ValueError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _say(message: str, status: int) -> int:
    print(f"motcua cannot start: {message}", file=sys.stderr)
    return status


def _claim_port(settings: Settings) -> socket.socket:
    """Take the port before anything else is started, without answering on it yet."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        # Two sockets may be bound to one port until one listens; this finds the other out.
        listener.listen(0)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"{settings.host}:{settings.port} cannot be used ({error.strerror}); stop what listens "
            "there, or choose another port: make run PORT=8123"
        ) from None
    return listener


def _run_on_database(settings: Settings, listener: socket.socket) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if settings.database_url is not None:
            runner.run(_serve(settings, listener, None))
            return
        folder = settings.data_dir / "postgres"
        with EmbeddedPostgres(folder, configured_binaries=settings.postgres_bin) as postgres:
            settings = settings.model_copy(update={"database_url": SecretStr(postgres.url)})
            with _noted(settings.data_dir / EMBEDDED_URL, postgres.url):
                runner.run(_serve(settings, listener, postgres))


@contextmanager
def _noted(path: Path, url: str) -> Iterator[None]:
    """Tell the command line of the same user where the database is, while it is there."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(url, "ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def _serve(
    settings: Settings, listener: socket.socket, postgres: EmbeddedPostgres | None
) -> None:
    if postgres is not None:
        supervisor = asyncio.create_task(postgres.supervise(), name="postgres")
    try:
        await migrate(settings, list(all_topics()))
        await seed_registry(settings)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise CannotStart(
            f"the database at {settings.database_host} does not serve: "
            f"{type(error).__name__}: {error}"
        ) from error
    async with city(settings) as app:
        await _serve_http(app, settings, listener)
    if postgres is not None:
        supervisor.cancel()


async def _serve_http(app: Any, settings: Settings, listener: socket.socket) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",  # `city` has entered them
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody stands before this door whose word on addresses counts
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # uvicorn would raise the signal again once it has stopped, before the rest of us has.
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    _greet(settings, listener)
    await server.serve(sockets=[listener])


def _greet(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    base = f"http://{host}:{port}"
    hours = "round the clock (MOTCUA_HOURS=demo)" if settings.round_the_clock else "official"
    log.info("city.starting", address=base, hours=hours)
    calls = "\n  ".join(calls_to_try(base))
    print(
        f"\nmotcua: {base}  (start page, API at /docs, readiness at /readyz)\n\n"
        f"Thử ngay · try:\n  {calls}\n\nCtrl-C dừng lại · stops everything.\n",
        file=sys.stderr,
        flush=True,
    )


class _City:
    """The gateway's app with its own state, on which every request enters."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = dict(self._state)
        await GATEWAY(scope, receive, send)


@asynccontextmanager
async def city(settings: Settings) -> AsyncIterator[_City]:
    """Enter the lifespans of all five apps on one clock and join them."""
    clock = clock_from(settings.clock)
    async with AsyncExitStack() as stack:
        states: dict[str, Mapping[str, Any]] = {}
        for name, app in [*APPS.items(), ("gateway", GATEWAY)]:
            app.state.settings, app.state.clock, app.state.embedded = settings, clock, True
            state = await stack.enter_async_context(app.router.lifespan_context(app))
            assert state is not None
            states[name] = state
        _speak_for_all(states)
        yield _City({**states["gateway"], "forwarder": InProcess(APPS, states)})


def _speak_for_all(states: Mapping[str, Mapping[str, Any]]) -> None:
    """Let the gateway's health be that of the whole process."""
    cores: dict[str, Core] = {name: state["core"] for name, state in states.items()}
    door = cores["gateway"]
    for name in APPS:
        own = cores[name].health
        door.health.wanted.pop(name, None)
        door.health.needed |= {f"{name} {check}": run for check, run in own.needed.items()}
        door.health.wanted |= {f"{name} {check}": run for check, run in own.wanted.items()}
    door.health.dead_tasks = lambda: [
        f"{name} {task}" for name, core in cores.items() for task in core.tasks.dead
    ]


if __name__ == "__main__":
    sys.exit(main())

"""What `make run` does before anything serves, whether in one process or in five."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import structlog
import uvloop
from pydantic import SecretStr, ValidationError

from libs.common.bus.base import BusError
from libs.common.bus.opening import open_bus
from libs.common.migrate import migrate
from libs.common.observability import configure_logging
from libs.common.postgres import EmbeddedPostgres, PostgresError
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.cli import EMBEDDED_URL, explain_settings, seed_registry
from services.gateway.pages import calls_to_try

log = structlog.get_logger()

Serve = Callable[[Settings, socket.socket], Coroutine[None, None, None]]
"""Serves on a port that is claimed, with a database that is there, until it is told to stop."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CannotStart(Exception):
    """The city cannot start; the message says what to do."""


def launch(serve: Serve) -> int:
    """Claim the port, bring a database along, load the city, serve; answer the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        settings = Settings.from_environment()
        configure_logging(settings.log_level)
        with _claim_port(settings) as listener:
            _run_on_database(settings, listener, serve)
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
    listener = socket.socket(family, proto=socket.IPPROTO_TCP)
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


def _run_on_database(settings: Settings, listener: socket.socket, serve: Serve) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if settings.database_url is not None:
            runner.run(_prepare_and_serve(settings, listener, serve, None))
            return
        folder = settings.data_dir / "postgres"
        with EmbeddedPostgres(folder, configured_binaries=settings.postgres_bin) as postgres:
            settings = settings.model_copy(update={"database_url": SecretStr(postgres.url)})
            with noted(settings.data_dir / EMBEDDED_URL, postgres.url):
                runner.run(_prepare_and_serve(settings, listener, serve, postgres))


@contextmanager
def noted(path: Path, told: str) -> Iterator[None]:
    """Tell the command line of the same user where something is, while it is there."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(told, "ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def _prepare_and_serve(
    settings: Settings, listener: socket.socket, serve: Serve, postgres: EmbeddedPostgres | None
) -> None:
    if postgres is not None:
        supervisor = asyncio.create_task(postgres.supervise(), name="postgres")
    try:
        await migrate(settings, list(all_topics()))
        await _make_topics(settings)
        await seed_registry(settings)
    except BusError as error:
        raise CannotStart(
            f"Kafka at {settings.kafka_bootstrap} does not serve: {error}; start it (make kafka), "
            "or unset MOTCUA_KAFKA_BOOTSTRAP"
        ) from error
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise CannotStart(
            f"the database at {settings.database_host} does not serve: "
            f"{type(error).__name__}: {error}"
        ) from error
    await serve(settings, listener)
    if postgres is not None:
        supervisor.cancel()


async def _make_topics(settings: Settings) -> None:
    """Make Kafka's topics; the embedded bus has had its own from `migrate`."""
    if settings.kafka_bootstrap is not None:
        async with open_bus(settings, "registry") as bus:
            await bus.apply_topics(all_topics(settings.facts_kept))


def greet(settings: Settings, listener: socket.socket) -> None:
    """Say where the city will be, and what to try first."""
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

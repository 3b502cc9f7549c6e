"""What tests share: a database of their own, services in process, tokens."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import LogCapture

from libs.common.auth import DevelopmentIssuer
from libs.common.clock import Clock, SystemClock
from libs.common.observability import configure_logging
from libs.common.settings import Settings

DATA_DIR = Path(os.environ.get("PYTEST_DEBUG_TEMPROOT", "/tmp")) / f"motcua-tests-{os.getuid()}"  # noqa: S108


PRODUCTION: dict[str, Any] = {
    "profile": "production",
    "oidc_issuer": "https://issuer.example",
    "oidc_jwks_url": "https://issuer.example/jwks",
    "gateway_public_keys": "-----BEGIN PUBLIC KEY-----",
}
"""The least that a production process must be told beside its database."""


def settings_for(url: str, **changes: Any) -> Settings:
    """Make the settings of a development process on a database."""
    values = {"database_url": SecretStr(url), "data_dir": DATA_DIR, "database_pool": 4} | changes
    return Settings.model_validate(values)


def on_database(url: str, name: str) -> str:
    """Point a URL to another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def token(role: str, *units: str, subject: str | None = None) -> str:
    """Sign a token as the development issuer would."""
    name = subject or "-".join((role, *units))
    return DevelopmentIssuer(DATA_DIR).token(role, subject=name, units=units)


def bearer(role: str, *units: str, subject: str | None = None) -> dict[str, str]:
    """Make the header that shows a token."""
    return {"Authorization": f"Bearer {token(role, *units, subject=subject)}"}


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Give an empty folder that an ordinary account can get to.

    pytest's own are closed to others, so a city started by root would keep its data elsewhere.
    """
    folder = Path(mkdtemp(prefix="motcua-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


@contextmanager
def logged_by(module: str) -> Iterator[list[Any]]:
    """Listen to what a module logs, also where an earlier test had its logger made for good."""
    told = LogCapture()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{module}.log", structlog.wrap_logger(None, processors=[told]))
        yield told.entries


class FrozenClock:
    """A clock that a test moves by hand."""

    def __init__(self, at: Any) -> None:
        """Stand still at an instant."""
        self.at = at

    def now(self) -> Any:
        """Give the instant."""
        return self.at

    def describe(self) -> dict[str, object]:
        """Tell that this is a test."""
        return {"kind": "frozen", "now": self.at.isoformat()}


@asynccontextmanager
async def started(
    app: FastAPI, settings: Settings, clock: Clock | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Enter a service's lifespan and give a client that calls it in process, ready or not.

    The client's `state` attribute is the service's lifespan state.
    """
    configure_logging("WARNING")
    app.state.settings = settings
    app.state.clock = clock or SystemClock()
    app.state.embedded = True
    async with app.router.lifespan_context(app) as state:
        assert state is not None

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | {"state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            client.state = state  # type: ignore[attr-defined]
            yield client


@asynccontextmanager
async def running(
    app: FastAPI, settings: Settings, clock: Clock | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Start a service as `started` does, and wait until it has read what others announced."""
    async with started(app, settings, clock) as client:
        await _ready(client)
        yield client


async def _ready(client: httpx.AsyncClient) -> None:
    """Wait until a service says that it is ready."""
    async with asyncio.timeout(20):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)


def fields_of(problem: httpx.Response) -> set[str]:
    """Name the fields that a problem lists as bad."""
    errors: Iterable[dict[str, str]] = problem.json()["errors"]
    return {entry["field"] for entry in errors}


async def wait_until(condition: Callable[[], bool], within: float = 10) -> None:
    """Poll until a condition holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)

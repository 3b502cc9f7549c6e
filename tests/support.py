"""What tests share: a database of their own, services in process, tokens."""

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from libs.common.auth import DevelopmentIssuer
from libs.common.clock import Clock, SystemClock
from libs.common.settings import Settings

DATA_DIR = Path(os.environ.get("PYTEST_DEBUG_TEMPROOT", "/tmp")) / f"motcua-tests-{os.getuid()}"  # noqa: S108


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
async def running(
    app: FastAPI, settings: Settings, clock: Clock | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Enter a service's lifespan and give a client that calls it in process.

    The client's `state` attribute is the service's lifespan state.
    """
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


def fields_of(problem: httpx.Response) -> set[str]:
    """Name the fields that a problem lists as bad."""
    errors: Iterable[dict[str, str]] = problem.json()["errors"]
    return {entry["field"] for entry in errors}

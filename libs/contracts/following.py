"""How a service keeps the registry's directory in memory: its part of the lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, Request

from libs.common.app import Core
from libs.common.consumer import Broadcast
from libs.common.problems import Unavailable
from libs.contracts.directory import TOPICS, Directory


@asynccontextmanager
async def following_registry(core: Core) -> AsyncIterator[dict[str, Any]]:
    """Follow the registry from its first event; the service is not ready before it has the end.

    Every process follows by itself, so a request never waits for another service.
    """
    directory = Directory(round_the_clock=core.settings.round_the_clock)
    reader = Broadcast(f"{core.name}-directory", core.bus, TOPICS, directory.take)

    async def loaded() -> str | None:
        if reader.loaded.is_set() or reader.missing:
            return None  # a topic that is missing shows as degraded; requests wait for it
        return f"still reading the registry's events ({reader.problem or 'a moment'})"

    async def following() -> str | None:
        return reader.problem

    core.health.needed["directory"] = loaded
    core.health.wanted["directory-feed"] = following
    core.tasks.start("directory", reader.run())
    yield {"directory": directory, "directory_loaded": reader.loaded}


async def _directory(request: Request) -> Directory:
    # Half a directory would answer 404 for units that exist.
    if not request.state.directory_loaded.is_set():
        raise Unavailable("this service is still reading the registry; try again in a moment")
    directory: Directory = request.state.directory
    return directory


Registry = Annotated[Directory, Depends(_directory)]
"""The registry as this process knows it."""

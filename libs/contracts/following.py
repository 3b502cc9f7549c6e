"""How a service keeps the registry's directory in memory: its part of the lifespan."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Annotated, Any, Final, Protocol

import structlog
from fastapi import Depends, Request

from libs.common.app import Core
from libs.common.bus.base import Received
from libs.common.consumer import Broadcast
from libs.common.db import transient
from libs.common.problems import Unavailable
from libs.contracts.directory import TOPICS, Directory
from libs.contracts.words import say

log = structlog.get_logger()

PATIENCE: Final = 5.0
"""Seconds that a starting process gives the bus before it goes on with what is remembered."""


class Memory(Protocol):
    """Where a service keeps the registry's states for the time when the bus is away."""

    async def recall(self) -> list[Received]:
        """Give the last states kept, one record each."""
        ...

    async def keep(self, records: Sequence[Received]) -> None:
        """Keep states; an older one never replaces a newer."""
        ...


class Following:
    """The registry as one process follows it: every process by itself, so no request waits.

    It is usable once it was read to the end. A service with a memory goes on with what it remembers
    when it starts while the bus is away, and catches up when the bus is back.
    """

    every_seconds: Final = 1.0

    def __init__(self, core: Core, memory: Memory | None = None) -> None:
        """Prepare; `run` follows."""
        self.directory = Directory(round_the_clock=core.settings.round_the_clock)
        self._reader = Broadcast(f"{core.name}-directory", core.bus, TOPICS, self._take)
        self._memory = memory
        self._remembered = False
        self._fresh: list[Received] = []
        self._started = monotonic()

    @property
    def usable(self) -> bool:
        """Whether the directory is whole: half of one would answer 404 for units that exist."""
        return self._reader.loaded.is_set() or (
            self._remembered and monotonic() - self._started > PATIENCE
        )

    async def missing(self) -> str | None:
        """Say what keeps requests from being served."""
        if self.usable or self._reader.missing:
            return None  # a topic that is missing shows as degraded; requests wait for it
        return f"still reading the registry's events ({self._reader.problem or 'a moment'})"

    async def stale(self) -> str | None:
        """Say why changes of the registry do not come in."""
        if self._remembered and not self._reader.loaded.is_set():
            return f"going by what is remembered: {self._reader.problem or 'the bus is silent'}"
        return self._reader.problem

    async def run(self) -> None:
        """Recall, then follow until cancelled."""
        while self._memory is not None:
            try:
                for record in await self._memory.recall():
                    self._recall(record)
                break
            except Exception as error:
                if not transient(error):
                    raise
            await asyncio.sleep(self.every_seconds)
        await self._reader.run()

    def _recall(self, record: Received) -> None:
        try:
            self.directory.take(record)
        except ValueError as error:
            log.warning(
                "directory.unreadable", topic=record.topic, key=record.key, error=str(error)
            )
        else:
            self._remembered = True

    def _take(self, record: Received) -> None:
        self.directory.take(record)
        if self._memory is not None and record.value is not None:
            self._fresh.append(record)

    async def remember(self, memory: Memory) -> None:
        """Keep what was read, until cancelled."""
        while True:
            read, self._fresh = self._fresh, []
            try:
                if read:
                    await memory.keep(read)
            except Exception as error:
                if not transient(error):
                    raise
                self._fresh = read + self._fresh
                log.warning("directory.not_kept", error=type(error).__name__)
            await asyncio.sleep(self.every_seconds)


@asynccontextmanager
async def following_registry(
    core: Core, memory: Memory | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Follow the registry from its first event; the service is not ready before it has the end."""
    following = Following(core, memory)
    core.health.needed["directory"] = following.missing
    core.health.wanted["directory-feed"] = following.stale
    core.tasks.start("directory", following.run())
    if memory is not None:
        core.tasks.start("directory-memory", following.remember(memory))
    yield {"directory": following.directory, "following": following}


def directory_of(request: Request) -> Directory:
    """Give the registry as this process knows it.

    Raises:
        Unavailable: it has not been read to its end yet.
    """
    following: Following = request.state.following
    if not following.usable:
        raise Unavailable(say("this service is still reading the registry; try again in a moment"))
    return following.directory


async def _directory(request: Request) -> Directory:
    return directory_of(request)


Registry = Annotated[Directory, Depends(_directory)]
"""The registry as this process knows it."""

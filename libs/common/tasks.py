"""Background work of a process: started together, stopped together, never dead in silence."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()


class Tasks:
    """The named tasks of one service."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run work that is meant to last as long as the service."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks[name] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A library may let out a cancellation that was meant for a task of its own.
        error = None if task.cancelled() else task.exception()
        if self._stopping and error is None:
            return
        log.error("task.died", task=task.get_name(), cancelled=task.cancelled(), exc_info=error)

    @property
    def dead(self) -> list[str]:
        """Name the tasks that ended although the service lives: `livez` fails on them."""
        return [name for name, task in self._tasks.items() if task.done()]

    async def stop(self) -> None:
        """Cancel everything, the last started first, and wait for it."""
        self._stopping = True
        for task in reversed(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()


@asynccontextmanager
async def running() -> AsyncIterator[Tasks]:
    """Hold tasks for the time of a lifespan."""
    tasks = Tasks()
    try:
        yield tasks
    finally:
        await tasks.stop()

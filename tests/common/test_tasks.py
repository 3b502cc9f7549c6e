"""Background work that ends although it should not: never in silence, however it ended."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from libs.common.tasks import running
from tests.common.helpers import eventually
from tests.support import logged_by


async def fails() -> None:
    raise ZeroDivisionError


async def is_cancelled() -> None:
    """Let out a cancellation that nobody has asked of us, as a client may whose own task ended."""
    stranger = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(stranger.cancel)
    await stranger


async def ends() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("work", [fails, is_cancelled, ends])
async def test_work_that_ends_is_dead_and_said_to_be(
    work: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    with logged_by("libs.common.tasks") as logs:
        async with running() as tasks:
            tasks.start("worker", work())
            tasks.start("other", asyncio.sleep(60))
            await eventually(lambda: tasks.dead == ["worker"])
    told = [entry for entry in logs if entry["event"] == "task.died"]
    assert [entry["task"] for entry in told] == ["worker"]
    assert told[0]["cancelled"] is (work is is_cancelled)


async def test_work_that_is_stopped_in_order_has_not_died() -> None:
    with logged_by("libs.common.tasks") as logs:
        async with running() as tasks:
            tasks.start("worker", asyncio.sleep(60))
            await asyncio.sleep(0)
            assert tasks.dead == []
    assert logs == []

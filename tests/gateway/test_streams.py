"""Live boards through the door: unbuffered, from gateway to gateway, ended when one stops."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import services.queue.main
from services.gateway.clients import InProcess
from services.gateway.main import app
from services.queue.streams import Streams
from tests.queue.hall import take
from tests.queue.screen import Screen, line, watch
from tests.serving import HOST, serving, with_state
from tests.support import running, settings_for, wait_until

PATH = "/v1/units/{}/queue/stream"


@dataclass
class House:
    """The queue, and three doors to it: two over HTTP and one in its own process."""

    queue: httpx.AsyncClient
    streams: Streams
    doors: list[int]
    cores: list[Any]


@pytest.fixture(scope="module")
async def house(gateway_url: str) -> AsyncIterator[House]:
    """Start them."""
    queue_app = services.queue.main.app
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        queue = await enter(running(queue_app, settings_for(gateway_url, hours="demo")))
        state = queue.state  # type: ignore[attr-defined]
        port = await enter(serving(with_state(queue_app, state)))
        doors, cores = [], []
        for _ in range(2):
            settings = settings_for(gateway_url, queue_url=f"http://{HOST}:{port}")
            gateway = await enter(running(app, settings))
            own = gateway.state  # type: ignore[attr-defined]
            doors.append(await enter(serving(with_state(app, own))))
            cores.append(own["core"])
        own = own | {"forwarder": InProcess({"queue": queue_app}, {"queue": state})}
        doors.append(await enter(serving(with_state(app, own))))
        streams: Streams = state["streams"]
        await wait_until(lambda: streams._projection.level)
        yield House(queue, streams, doors, cores)


@pytest.mark.parametrize("door", [0, 1, 2])
async def test_a_change_comes_through_the_door_while_the_stream_goes_on(
    house: House, door: int
) -> None:
    unit, screen = ("H29.26740", "H29.26743", "H29.25747")[door], Screen()
    async with line(house.doors[door], PATH.format(unit)) as opened:
        assert b"content-type: text/event-stream" in opened.head.lower()
        await watch(screen, opened, lambda: screen.board)
        await take(house.queue, unit)
        await watch(screen, opened, lambda: screen.moves == [("A001", "waiting", None)])
        assert len(house.streams._of_units[unit]) == 1
    await wait_until(lambda: unit not in house.streams._of_units)


async def test_a_stream_is_resumed_through_another_door(house: House) -> None:
    unit, screen = "H29.25750", Screen()
    async with line(house.doors[0], PATH.format(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
    for door, number in enumerate(("A001", "A002", "A003")):
        await take(house.queue, unit)
        async with line(house.doors[door], PATH.format(unit), screen.last_id) as opened:
            await watch(screen, opened, lambda number=number: screen.moves[-1:] == [
                (number, "waiting", None)])  # fmt: skip
    assert len(screen.of("snapshot")) == 1
    assert [number for number, _, _ in screen.moves] == ["A001", "A002", "A003"]


async def test_the_city_comes_through_the_door(house: House) -> None:
    screen = Screen()
    async with line(house.doors[0], "/v1/queue/overview/stream") as opened:
        await watch(screen, opened, lambda: "items" in screen.board)


async def test_a_gateway_that_is_told_to_stop_ends_its_streams_as_whole_answers(
    house: House,
) -> None:
    unit, screen = "H29.26743", Screen()
    async with line(house.doors[0], PATH.format(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
        house.cores[0].stopping.set()
        with pytest.raises(EOFError):
            await watch(screen, opened, lambda: False)
    await wait_until(lambda: unit not in house.streams._of_units)

"""Boards live over a real Kafka, whose topics have several partitions."""

from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.cli import seed_registry
from services.queue.main import app
from tests.queue.hall import call, set_counter, step, take
from tests.queue.screen import Screen, line, watch
from tests.serving import serving, with_state
from tests.support import running, settings_for, wait_until

pytestmark = pytest.mark.kafka

UNITS = ("H29.26740", "H29.26743", "H29.25747")


async def test_a_stream_goes_on_with_another_process_whatever_partition_its_unit_is_in(
    database_url: str, kafka: str
) -> None:
    settings = settings_for(database_url, kafka_bootstrap=kafka, hours="demo")
    await seed_registry(settings)
    async with AsyncExitStack() as stack:
        clients: list[Any] = []
        ports = []
        for _ in range(2):
            clients.append(await stack.enter_async_context(running(app, settings)))
            served = serving(with_state(app, clients[-1].state))
            ports.append(await stack.enter_async_context(served))
        projections = [client.state["streams"]._projection for client in clients]
        await wait_until(lambda: all(each.level for each in projections), 30)
        screens = {unit: Screen() for unit in UNITS}
        for unit, screen in screens.items():
            await set_counter(clients[0], unit)
            async with line(ports[0], f"/v1/units/{unit}/queue/stream") as opened:
                await watch(screen, opened, lambda screen=screen: "open" in {
                    counter["state"] for counter in screen.board.get("counters", [])})  # fmt: skip
            screen.sent.clear()
        for turn in range(1, 4):
            for unit, screen in screens.items():
                await take(clients[0], unit)
                ticket = (await call(clients[1], unit)).json()
                await step(clients[0], ticket, "start")
                await step(clients[1], ticket, "finish")
                path = f"/v1/units/{unit}/queue/stream"
                async with line(ports[turn % 2], path, screen.last_id) as opened:
                    await watch(screen, opened, lambda screen=screen, turn=turn:
                                len(screen.moves) == 4 * turn)  # fmt: skip
        for screen in screens.values():
            assert screen.moves == [
                (f"A{number:03}", status, counter)
                for number in (1, 2, 3)
                for status, counter in (
                    ("waiting", None), ("called", 1), ("serving", 1), ("finished", 1))
            ]  # fmt: skip
            assert not screen.of("snapshot")
        partitions = (screens[UNITS[0]].last_id or "").partition("-")[0].split(".")
        assert len(partitions) == 6

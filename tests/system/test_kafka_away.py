"""Services over a Kafka that goes away, comes back, or lacks a topic: what users see of it."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

import services.intake.main
import services.queue.main
import services.reporting.main
from deploy.kafka import Broker
from libs.common.bus.opening import open_bus
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from tests.common.carriers import admin_client
from tests.common.helpers import admin, eventually
from tests.kafka import own_broker
from tests.queue.hall import take
from tests.support import running, settings_for, started

pytestmark = [pytest.mark.kafka, pytest.mark.system]

UNIT = "H29.26740"


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """Give this module a broker that it may stop."""
    with own_broker() as broker:
        yield broker


@pytest.fixture
async def settings(broker: Broker, database_url: str) -> Settings:
    """Give the settings of services on an empty Kafka that holds the city."""
    async with admin_client(broker.bootstrap) as client:
        ours = {topic.name for topic in all_topics()}
        await client.delete_topics([name for name in await client.list_topics() if name in ours])
    settings = settings_for(database_url, kafka_bootstrap=broker.bootstrap)
    await seed_registry(settings)
    return settings


async def readiness(service: httpx.AsyncClient) -> tuple[int, dict[str, str]]:
    """Ask whether a service is ready, and what it lacks."""
    answer = await service.get("/readyz")
    body = answer.json()
    return answer.status_code, body.get("not_ready") or body.get("degraded") or {}


async def becomes_ready(service: httpx.AsyncClient) -> None:
    """Wait until a service lacks nothing."""

    async def ready() -> bool:
        return await readiness(service) == (200, {})

    await eventually(ready, 30)


async def says(service: httpx.AsyncClient, check: str, words: str) -> None:
    """Wait until a check says something, in a 200: nobody takes the service out for it."""

    async def said() -> bool:
        status, lacks = await readiness(service)
        return status == 200 and words in lacks.get(check, "")

    await eventually(said, 20)


async def reported(database_url: str, tickets: int) -> None:
    """Wait until reporting knows so many tickets."""

    async def counted() -> bool:
        async with admin(database_url) as operator:
            found = await operator.fetchval("SELECT count(*) FROM reporting.tickets")
        return bool(found == tickets)

    await eventually(counted, 30)


async def test_while_kafka_is_away_nothing_fails_for_citizens_and_all_is_delivered_afterwards(
    settings: Settings, broker: Broker, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(running(services.queue.main.app, settings))
        reporting = await stack.enter_async_context(running(services.reporting.main.app, settings))
        await take(queue, UNIT)
        await reported(database_url, 1)
        await asyncio.to_thread(broker.kill)
        for _ in range(20):
            await take(queue, UNIT)
        for service in (queue, reporting):
            await says(service, "bus", "Kafka")
            assert (await service.get("/livez")).status_code == 200
        # What a service must know before it answers it cannot learn now, and says so.
        intake = await stack.enter_async_context(started(services.intake.main.app, settings))
        status, lacks = await readiness(intake)
        assert (status, set(lacks)) == (503, {"directory"})
        assert (await intake.get("/livez")).status_code == 200
        await asyncio.to_thread(broker.start)
        await reported(database_url, 21)
        for service in (queue, reporting, intake):
            await becomes_ready(service)


async def test_a_missing_topic_is_named_by_every_service_and_its_events_wait_for_it(
    settings: Settings, broker: Broker, database_url: str
) -> None:
    async with (
        running(services.queue.main.app, settings) as queue,
        running(services.reporting.main.app, settings) as reporting,
    ):
        async with admin_client(broker.bootstrap) as client:
            await client.delete_topics(["queue.tickets.v1"])
        await take(queue, UNIT)
        for service in (queue, reporting):
            await says(service, "topics", "missing: queue.tickets.v1")
        await says(queue, "relay", "topics missing: queue.tickets.v1")
        async with open_bus(settings, "registry") as bus:
            await bus.apply_topics(all_topics())
        await reported(database_url, 1)
        for service in (queue, reporting):
            await becomes_ready(service)


async def test_registry_topics_that_are_missing_degrade_a_service_and_its_requests_wait(
    settings: Settings, broker: Broker
) -> None:
    async with admin_client(broker.bootstrap) as client:
        await client.delete_topics(["registry.units.v1", "registry.centres.v1"])
    async with started(services.queue.main.app, settings) as queue:
        await says(queue, "topics", "registry.units.v1")
        answer = await queue.post("/v1/tickets", json={"unit": UNIT, "channel": "web"})
        assert answer.status_code == 503, "404 would say that there is no such unit"
        assert int(answer.headers["Retry-After"]) > 0

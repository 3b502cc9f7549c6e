"""The bus's two carriers, and what a test may do to one beside using it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.group import LeaveGroupRequest

from libs.common.bus.base import Bus, Subscription
from libs.common.bus.embedded import EmbeddedBus, EmbeddedSubscription, open_embedded_bus
from libs.common.bus.kafka import Connection, KafkaBus, open_kafka_bus
from libs.common.bus.kafka.group import KafkaSubscription
from libs.common.db import connector, service_url
from tests.common.helpers import eventually, kill
from tests.common.namespaced import Namespaced
from tests.support import settings_for

CARRIERS = ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]


class Carrier(Protocol):
    """A log of its own, and what a test may do to it."""

    def open(self) -> AbstractAsyncContextManager[Bus]:
        """Open the bus as one more process would."""
        ...

    async def sever(self, member: Subscription) -> None:
        """Have the carrier give a member up that does not know of it."""
        ...

    async def compact(self, bus: Bus, topic: str) -> None:
        """Make the carrier compact now what it would compact some time."""
        ...


class EmbeddedCarrier:
    """The log table in PostgreSQL."""

    def __init__(self, url: str) -> None:
        """Name the database."""
        self._url = url

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Bus]:
        """Open the bus."""
        async with open_embedded_bus(self._url, connector(self._url, "bus")) as bus:
            yield bus

    async def sever(self, member: Subscription) -> None:
        """End the member's connection."""
        assert isinstance(member, EmbeddedSubscription)
        await kill(self._url, member._connection)

    async def compact(self, bus: Bus, topic: str) -> None:
        """Delete what was replaced."""
        assert isinstance(bus, EmbeddedBus)
        await bus.compact()


class KafkaCarrier:
    """A real broker."""

    def __init__(self, bootstrap: str) -> None:
        """Name the broker."""
        self.bootstrap = bootstrap

    @property
    def connection(self) -> Connection:
        """Give a connection whose silent members are given up soon."""
        return Connection(
            self.bootstrap,
            session_seconds=2,
            heartbeat_seconds=0.1,
            look_seconds=0.1,
            poll_seconds=0.05,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Bus]:
        """Open the bus."""
        async with open_kafka_bus(self.connection) as bus:
            yield bus

    async def sever(self, member: Subscription) -> None:
        """Have the member leave behind its back, and let nothing through to it but commits."""
        assert isinstance(member, KafkaSubscription)
        assert member._consumer is not None
        coordinator = member._consumer._coordinator
        leaving = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
        send = coordinator._send_req

        async def only_commits(request: Any) -> Any:
            if not isinstance(request, OffsetCommitRequest):
                raise KafkaConnectionError("severed")
            return await send(request)

        coordinator._send_req = only_commits
        async with admin_client(self.bootstrap) as admin:
            place = await admin.find_coordinator(coordinator.group_id)
            await admin._client.send(place, leaving)

    async def compact(self, bus: Bus, topic: str) -> None:
        """Close the topic's segments, and wait until the cleaner has been there."""
        assert isinstance(bus, KafkaBus)
        async with admin_client(self.bootstrap) as admin:
            await _clean_at_once(admin, topic)
            state = (await bus.describe_topics([topic]))[topic]
            ends = await _ends(bus, topic)
            assert state.partitions is not None
            for _ in range(2):  # a segment is closed by the first record that comes after its time
                await _add_nothing(self.bootstrap, topic, state.partitions)
                await asyncio.sleep(0.03)
        if state.compacted:
            await eventually(lambda: _nothing_replaced(bus, topic, ends), 30)


OpenBus = Callable[..., AbstractAsyncContextManager[Bus]]
"""Opens the bus as one more process would; an embedded one over another URL, if one is given."""


@asynccontextmanager
async def embedded_buses(url: str) -> AsyncIterator[OpenBus]:
    """Give buses of the service `queue` on a database."""

    @asynccontextmanager
    async def open_bus(over: str = url) -> AsyncIterator[Bus]:
        own = service_url(settings_for(over), "queue")
        async with open_embedded_bus(own, connector(own, "queue")) as bus:
            yield bus

    yield open_bus


@asynccontextmanager
async def kafka_buses(bootstrap: str) -> AsyncIterator[OpenBus]:
    """Give buses in a namespace of their own, whose topics are deleted afterwards."""
    prefix = f"{uuid4().hex[:8]}."
    connection = KafkaCarrier(bootstrap).connection

    @asynccontextmanager
    async def open_bus(_: str = "") -> AsyncIterator[Bus]:
        async with open_kafka_bus(connection) as bus:
            yield Namespaced(bus, prefix)

    yield open_bus
    async with admin_client(bootstrap) as admin:
        ours = [name for name in await admin.list_topics() if name.startswith(prefix)]
        await admin.delete_topics(ours)


@asynccontextmanager
async def admin_client(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open a client for what the bus does not offer."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def _clean_at_once(admin: AIOKafkaAdminClient, topic: str) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    [answer] = await admin.describe_configs([resource])
    own = {entry[0]: entry[1] for entry in answer.resources[0][4] if entry[3] == 1}
    eager = {
        "segment.ms": "10",
        "min.cleanable.dirty.ratio": "0.0001",
        "max.compaction.lag.ms": "1",
    }
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, own | eager)])


async def _add_nothing(bootstrap: str, topic: str, partitions: int) -> None:
    """Append what no reader sees: records of a transaction that is aborted."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{uuid4()}")
    async with producer:
        await producer.begin_transaction()
        for partition in range(partitions):
            await producer.send_and_wait(topic, b"", b"nothing", partition=partition)
        await producer.abort_transaction()


async def _ends(bus: KafkaBus, topic: str) -> dict[int, int]:
    """Tell where the partitions' last records stand now."""
    ends: dict[int, int] = {}
    async with bus.follow([topic]) as follower:
        while not follower.caught_up:
            for record in await follower.fetch(1000, 0.5):
                ends[record.partition] = record.offset
    return ends


async def _nothing_replaced(bus: KafkaBus, topic: str, ends: dict[int, int]) -> bool:
    """Tell whether every record up to some offsets is the last of its key up to there."""
    seen = []
    async with bus.follow([topic]) as follower:
        while not follower.caught_up:
            seen += [
                record.key
                for record in await follower.fetch(1000, 0.5)
                if record.offset <= ends.get(record.partition, -1)
            ]
    return len(seen) == len(set(seen))

"""The one place that chooses the carrier: Kafka where it is named, else PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.bus.base import Bus
from libs.common.bus.embedded import open_embedded_bus
from libs.common.bus.kafka import Connection, open_kafka_bus
from libs.common.db import connector, service_url
from libs.common.settings import Settings


@asynccontextmanager
async def open_bus(settings: Settings, service: str) -> AsyncIterator[Bus]:
    """Open the bus as a service, or as who acts for it.

    Kafka may be away: then whatever is asked of the bus fails with a `BusError` until it is there.
    """
    if settings.kafka_bootstrap is not None:
        connection = Connection(settings.kafka_bootstrap, f"motcua-{service}")
        async with open_kafka_bus(connection) as kafka:
            yield kafka
        return
    url = service_url(settings, service)
    async with open_embedded_bus(url, connector(url, service)) as embedded:
        yield embedded

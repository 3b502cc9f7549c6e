"""The one place that chooses the carrier: Kafka where it is named, else PostgreSQL."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

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
        connection = Connection(
            settings.kafka_bootstrap, f"motcua-{service}", security=security_of(settings)
        )
        async with open_kafka_bus(connection) as kafka:
            yield kafka
        return
    url = service_url(settings, service)
    async with open_embedded_bus(url, connector(url, service)) as embedded:
        yield embedded


def security_of(settings: Settings) -> dict[str, Any]:
    """Give aiokafka's options for TLS and for the account that services use."""
    options: dict[str, Any] = {"security_protocol": settings.kafka_security.upper()}
    if settings.kafka_security.endswith("ssl"):
        options["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ca)
    if settings.kafka_security.startswith("sasl"):
        assert settings.kafka_password is not None  # the settings have seen to it
        options |= {
            "sasl_mechanism": settings.kafka_mechanism,
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return options

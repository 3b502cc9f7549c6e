"""Who reads what is as documented, and readers take what a newer producer says."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI

import services.gateway.main
import services.intake.main
import services.queue.main
import services.registry.main
import services.reporting.main
from libs.common.bus.base import Received
from libs.common.bus.embedded import EmbeddedBus, open_embedded_bus
from libs.common.consumer import Consumer
from libs.common.db import connector, open_database, service_url
from libs.common.events import Envelope, Event
from libs.contracts import directory
from libs.contracts.directory import Directory
from services.announced.events import announced
from services.announced.examples import example_of
from services.consumers import FOLLOWED, ROUTERS
from tests.common.helpers import admin
from tests.support import running, settings_for

APPS: dict[str, FastAPI] = {
    "registry": services.registry.main.app,
    "intake": services.intake.main.app,
    "queue": services.queue.main.app,
    "reporting": services.reporting.main.app,
    "gateway": services.gateway.main.app,
}


@pytest.mark.parametrize("name", APPS)
async def test_a_service_reads_what_services_consumers_says(
    name: str, city_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, name what the service has begun or ceased to follow in `FOLLOWED`."""
    read: dict[str, set[str]] = {"follow": set(), "subscribe": set()}

    def noting(way: str) -> Any:
        real = getattr(EmbeddedBus, way)

        def note(bus: EmbeddedBus, *words: Any, **named: Any) -> AbstractAsyncContextManager[Any]:
            topics: Sequence[str] = words[-1] if way == "subscribe" else words[0]
            read[way].update(topics)
            context: AbstractAsyncContextManager[Any] = real(bus, *words, **named)
            return context

        return note

    for way in read:
        monkeypatch.setattr(EmbeddedBus, way, noting(way))
    async with running(APPS[name], settings_for(city_url)):
        pass
    assert read["follow"] == set(FOLLOWED.get(name, ()))
    assert read["subscribe"] == set(ROUTERS[name].topics if name in ROUTERS else ())


def strange(value: Any) -> Any:
    """Add to every object of a body what no reader knows."""
    if isinstance(value, dict):
        told = {name: strange(part) for name, part in value.items()}
        return told | {"from_the_future": {"deep": [1, None]}}
    return [strange(part) for part in value] if isinstance(value, list) else value


def record_of(event: Event, body: Any, type_: str | None = None) -> Received:
    """Make the record of a body."""
    name = type_ or event.type_name()
    envelope = Envelope(uuid4(), name, f"/motcua/{event.producer}", datetime.now(UTC), "")
    return Received(event.topic, event.key, json.dumps(body).encode(), envelope.headers())


@pytest.fixture(params=[name for name, router in ROUTERS.items() if router.topics])
async def consumer(
    request: pytest.FixtureRequest, database_url: str
) -> AsyncIterator[tuple[str, Consumer]]:
    """Give each service's own consumer in turn, to be handed messages by the test."""
    name = request.param
    url = service_url(settings_for(database_url), name)
    async with (
        open_database(url, name, pool=2, hot_pool=1) as database,
        open_embedded_bus(url, connector(url, name)) as bus,
    ):
        yield name, Consumer(name, ROUTERS[name], database, bus)


async def test_unknown_fields_and_types_are_handled_as_if_they_were_not_there(
    consumer: tuple[str, Consumer], database_url: str
) -> None:
    """Every event, with unknown fields in it and in its parts, and among types nobody knows."""
    name, handling = consumer
    mine = [kind for kind in announced() if ROUTERS[name].find(kind.topic, kind.type_name())]
    records = []
    for event in map(example_of, mine):
        body = strange(event.model_dump(mode="json"))
        records += [record_of(event, body, "FromTheFuture"), record_of(event, body)]
    await handling.handle(records)
    async with admin(database_url) as operator:
        handled = await operator.fetchval(f"SELECT count(*) FROM {name}.inbox")
        letters = await operator.fetchval(f"SELECT count(*) FROM {name}.outbox")
    assert (handled, letters) == (len(mine), 0)


def test_the_directory_takes_what_a_newer_registry_says() -> None:
    plain, newer = Directory(), Directory()
    kinds = [kind for kind in announced() if kind.topic in directory.TOPICS]
    for event in map(example_of, kinds):
        body = event.model_dump(mode="json")
        plain.take(record_of(event, body))
        newer.take(record_of(event, strange(body)))
    assert len(kinds) == 4
    for part in ("units", "centres", "procedures", "_overrides"):
        assert getattr(newer, part) == getattr(plain, part) != {}

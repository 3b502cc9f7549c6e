"""What the gateway's tests share: a city to change at will, loads to feed it, questions."""

import time
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx

from libs.common.bus.base import Received
from libs.common.events import Event
from libs.contracts.queue import QueueLoad
from services.gateway.directory import City

MONDAY = datetime.fromisoformat("2026-11-16T09:00:00+07:00")
"""An ordinary Monday morning; centres are open."""

ASKED = "H29.26740"
NOT_TERRITORIAL = "2.000815"
TERRITORIAL = "1.001193"
PROVINCIAL = "2.001583"
MINISTERIAL = "1.999999"


def copy_of(city: City) -> City:
    """Give a city of a test's own: what it changes, no other test sees."""
    known = city.registry
    return City(
        replace(
            known,
            units=dict(known.units),
            centres=dict(known.centres),
            procedures=dict(known.procedures),
            _overrides=dict(known._overrides),
            _aliases=dict(known._aliases),
            _by_gso={code: set(units) for code, units in known._by_gso.items()},
        )
    )


def record(event: Event) -> Received:
    """Write an event as it is read from the bus."""
    return Received(event.topic, event.key, event.model_dump_json().encode(), {})


def change(city: City, state: Any, **changes: Any) -> None:
    """Let the registry announce a new state of something."""
    newer = state.model_copy(update={"version": state.version + 1} | changes)
    city.registry.take(record(newer))


def feed(city: City, unit: str, wait: int | None, *, age: float = 0) -> None:
    """Let the queue tell a unit's load, measured `age` seconds ago."""
    load = QueueLoad(
        unit=unit,
        version=int((time.time() - age) * 1000),
        as_of=MONDAY,
        waiting=3,
        oldest_wait_seconds=60,
        forecast_wait_seconds=wait,
        open_counters=0 if wait is None else 1,
    )
    city.take_load(record(load))


async def ask(gateway: httpx.AsyncClient, **question: Any) -> httpx.Response:
    """Ask the routing rule."""
    return await gateway.post("/v1/route", json={"procedure_code": NOT_TERRITORIAL} | question)


async def answer(gateway: httpx.AsyncClient, **question: Any) -> Any:
    """Ask the routing rule and take its answer."""
    response = await ask(gateway, **question)
    assert response.status_code == 200, response.text
    return response.json()

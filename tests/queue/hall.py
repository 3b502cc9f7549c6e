"""What the queue's tests share: a hall of people, officers and counters, and its facts."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import cache
from time import monotonic
from typing import Any, TypeVar

import httpx

from libs.common.app import Core
from libs.common.events import publish
from libs.common.outbox import drained
from libs.contracts.directory import Directory
from libs.contracts.registry import UnitStatus
from tests.support import bearer

T = TypeVar("T")

MONDAY = datetime.fromisoformat("2026-11-16T08:00:00+07:00")
"""An ordinary Monday morning; centres are open."""

TICKETS = "queue.tickets.v1"
LOADS = "queue.load.v1"


def core_of(queue: httpx.AsyncClient) -> Core:
    """Give what the running service holds."""
    core: Core = queue.state["core"]  # type: ignore[attr-defined]
    return core


async def eventually(look: Callable[[], Awaitable[T]], *, within: float = 10) -> T:
    """Look again until something true is seen; the last look is given back, true or not."""
    end = monotonic() + within
    while True:
        if (seen := await look()) or monotonic() > end:
            return seen
        await asyncio.sleep(0.01)


@cache
def officer(unit: str, desk: int = 1) -> dict[str, str]:
    """Show the token of the officer who sits at a counter."""
    return bearer("officer", unit, subject=f"officer-{desk}-of-{unit}")


@cache
def manager(unit: str) -> dict[str, str]:
    """Show the token of a centre's manager."""
    return bearer("manager", unit)


def keyed(key: object, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Add an idempotency key to headers."""
    return (headers or {}) | {"Idempotency-Key": str(key)}


async def take(queue: httpx.AsyncClient, unit: str, **wish: Any) -> dict[str, Any]:
    """Take a ticket over the web."""
    answer = await queue.post("/v1/tickets", json={"unit": unit, "channel": "web"} | wish)
    assert answer.status_code == 201, answer.text
    ticket: dict[str, Any] = answer.json()
    return ticket


async def set_counter(
    queue: httpx.AsyncClient, unit: str, number: int = 1, state: str = "open", **more: Any
) -> httpx.Response:
    """Say as the manager what a counter does."""
    return await queue.put(
        f"/v1/units/{unit}/counters/{number}", json={"state": state} | more, headers=manager(unit)
    )


async def call(
    queue: httpx.AsyncClient, unit: str, number: int = 1, key: object = None
) -> httpx.Response:
    """Call the next person to a counter, as the officer who sits there."""
    headers = officer(unit, number)
    return await queue.post(
        f"/v1/units/{unit}/counters/{number}/call-next",
        headers=keyed(key, headers) if key else headers,
    )


async def step(
    queue: httpx.AsyncClient, ticket: dict[str, Any], name: str, number: int = 1, **more: Any
) -> httpx.Response:
    """Take a step of a ticket's life, as the officer who sits at a counter."""
    headers = more.pop("headers", None) or officer(ticket["unit"], number)
    return await queue.post(f"/v1/tickets/{ticket['id']}/{name}", headers=headers, **more)


async def called_numbers(queue: httpx.AsyncClient, unit: str, number: int = 1) -> list[str]:
    """Serve everybody who waits for a counter; give their numbers in the order of calling."""
    numbers = []
    while (answer := await call(queue, unit, number)).status_code == 200:
        numbers.append(answer.json()["number"])
        assert (await step(queue, answer.json(), "no-show", number)).status_code == 200
    assert answer.status_code == 204, answer.text
    return numbers


async def announced(queue: httpx.AsyncClient, unit: str, topic: str = TICKETS) -> list[Any]:
    """Give the events of a unit on the bus, in order, as (type, data)."""
    core = core_of(queue)
    assert await drained(core.db, within=10)
    rows = await core.db.hot.fetch(
        'SELECT headers, value FROM bus.log WHERE topic = $1 AND key = $2 ORDER BY "offset"',
        topic,
        unit,
    )
    return [(json.loads(row["headers"])["ce_type"], json.loads(row["value"])) for row in rows]


async def close_unit(queue: httpx.AsyncClient, unit: str) -> None:
    """Close a unit without a successor, as the registry would announce it."""
    core = core_of(queue)
    directory: Directory = queue.state["directory"]  # type: ignore[attr-defined]
    known = directory.units[unit]
    closed = known.model_copy(update={"status": UnitStatus.closed, "version": known.version + 1})
    async with core.db.sessions.begin() as session:
        publish(session, closed, at=core.clock.now())

    async def heard() -> bool:
        return directory.units[unit].status is UnitStatus.closed

    assert await eventually(heard)


async def facts(queue: httpx.AsyncClient, unit: str) -> dict[str, int]:
    """Count what a call could have changed: tickets, their versions, numbers, events, keys."""
    counts = await core_of(queue).db.hot.fetchrow(
        "SELECT (SELECT count(*) FROM tickets WHERE unit = $1) AS tickets,"
        " (SELECT coalesce(sum(version), 0) FROM tickets WHERE unit = $1) AS changes,"
        " (SELECT coalesce(sum(last), 0) FROM ticket_numbers WHERE unit = $1) AS numbers,"
        " (SELECT count(*) FROM idempotency_keys) AS keys",
        unit,
    )
    return dict(counts) | {"events": len(await announced(queue, unit))}


def seconds(number: float) -> timedelta:
    """Write a time span briefly."""
    return timedelta(seconds=number)

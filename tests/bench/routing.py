"""What the routing rule costs: the rule itself, and a call of `POST /v1/route`.

`python -m tests.bench.routing`. Figures are medians of rounds, in microseconds of processor time,
on the 168 units and centres of the city, none of which is asked anything.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from libs.common import fast_json
from libs.common.migrate import migrate
from libs.common.observability import configure_logging
from libs.common.postgres import EmbeddedPostgres
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from services.embedded import GATEWAY, city
from services.gateway import routing
from services.gateway.directory import City
from tests.gateway.city import ASKED, MONDAY, NOT_TERRITORIAL, copy_of, feed
from tests.support import FrozenClock, reachable_folder, settings_for

ROUNDS = 15
CALLS = 100
PROMISE = 1200
HERE = (10.7805, 106.704)
NIGHT = datetime.fromisoformat("2026-11-16T23:00:00+07:00")


def loads(known: City, *, asked: int, others: int, age: float = -3600) -> City:
    """Give a city whose queues tell these waits, dated ahead lest they grow old meanwhile."""
    told = copy_of(known)
    for unit in told.registry.centres:
        feed(told, unit, asked if unit == ASKED else others, age=age)
    return told


def rule(known: City, now: datetime, start: routing.Position | None) -> None:
    """Apply the rule as the route does."""
    if start is None:
        chosen = known.centre(ASKED, NOT_TERRITORIAL, now)
        assert chosen.offers
    else:
        found = routing.nearest(known.centres(NOT_TERRITORIAL, now), start)
        assert found is not None
        chosen = found
    if not chosen.open or routing.overloaded(chosen, PROMISE):
        routing.elsewhere(chosen, known.centres(NOT_TERRITORIAL, now), PROMISE, start)


def median_of(work: Callable[[], Any]) -> float:
    """Time one call of the rule."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            work()
        rounds.append((time.process_time() - started) / CALLS * 1e6)
    return statistics.median(rounds)


async def median_of_calls(call: Callable[[], Awaitable[None]]) -> float:
    """Time one call of the gateway's app, without a server or a client around it."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            await call()
        rounds.append((time.process_time() - started) / CALLS * 1e6)
    return statistics.median(rounds)


def caller_of(state: dict[str, Any], question: dict[str, Any]) -> Callable[[], Awaitable[None]]:
    """Make the call: an anonymous one, through the door, its guard and the route."""
    body = fast_json.dumps({"procedure_code": NOT_TERRITORIAL} | question)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/route", "raw_path": b"/v1/route", "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [
            (b"host", b"motcua"), (b"content-type", b"application/json"),
            (b"accept-language", b"vi-VN,vi;q=0.9,en;q=0.8"),
            (b"content-length", b"%d" % len(body)),
        ],
    }  # fmt: skip

    async def call() -> None:
        status = 0

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        await GATEWAY(scope | {"state": dict(state)}, receive, send)
        assert status == 200, status

    return call


async def measure(url: str) -> None:
    """Ask the same question in the states that a day brings."""
    settings = settings_for(url, hours="official")
    await migrate(settings, list(all_topics()))
    await seed_registry(settings)
    async with city(settings) as app:
        while "gateway" not in app._states or not app._state["city"].registry.centres:
            await asyncio.sleep(0.05)
        await asyncio.sleep(2)  # until the directory stands still
        known: City = app._state["city"]
        by_position = {"position": {"latitude": HERE[0], "longitude": HERE[1]}}
        cases: dict[str, tuple[City, datetime, dict[str, Any]]] = {
            "open, short wait": (loads(known, asked=60, others=60), MONDAY, {"at_unit": ASKED}),
            "by position": (loads(known, asked=60, others=60), MONDAY, by_position),
            "overloaded": (loads(known, asked=5000, others=60), MONDAY, {"at_unit": ASKED}),
            "all overloaded": (loads(known, asked=5000, others=5000), MONDAY, {"at_unit": ASKED}),
            "closed everywhere": (loads(known, asked=60, others=60), NIGHT, {"at_unit": ASKED}),
            "closed, all stale": (
                loads(known, asked=60, others=60, age=600), NIGHT, {"at_unit": ASKED},
            ),
        }  # fmt: skip
        print(f"{len(known.registry.centres)} centres, median of {ROUNDS} rounds of {CALLS}, us:")
        for name, (told, now, question) in cases.items():
            state = app._state | {"city": told, "clock": FrozenClock(now)}
            start = HERE if "position" in question else None
            alone = median_of(lambda told=told, now=now, start=start: rule(told, now, start))  # type: ignore[misc]
            called = await median_of_calls(caller_of(state, question))
            print(f"{name}: the rule {alone:.0f}, the call {called:.0f}")


def main() -> None:
    """Measure and print."""
    configure_logging("WARNING")
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        asyncio.run(measure(server.url))


if __name__ == "__main__":
    main()

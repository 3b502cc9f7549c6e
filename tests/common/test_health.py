"""Health that tells the truth: what makes a service unready, what degrades it, what kills it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libs.common import tasks
from libs.common.app import Core, Service, create_app
from libs.common.events import EventRouter
from libs.common.health import Health
from tests.common.helpers import admin, eventually, execute_as_owner
from tests.common.things import Counted
from tests.support import FrozenClock, running, settings_for


async def fine() -> str | None:
    """Find nothing."""
    return None


async def missing() -> str | None:
    """Find something."""
    return "the key is missing"


async def broken() -> str | None:
    """Fail while looking."""
    raise ConnectionRefusedError("nobody listens")


async def stuck() -> str | None:
    """Never answer."""
    await asyncio.Event().wait()
    return None


async def test_what_is_needed_makes_unready_and_what_is_wanted_only_degrades() -> None:
    health = Health()
    assert await health.report() == (200, {"status": "ready", "checks": {}})
    health.needed["database"], health.wanted["bus"] = fine, missing
    status, body = await health.report()
    assert (status, body["status"]) == (200, "degraded")
    assert body["degraded"] == {"bus": "the key is missing"}
    assert body["checks"] == {"database": "ok", "bus": "the key is missing"}
    health.needed |= {"migrations": broken, "start-up": missing}
    status, body = await health.report()
    assert (status, body["status"]) == (503, "not ready")
    assert body["not_ready"] == {
        "migrations": "ConnectionRefusedError: nobody listens",
        "start-up": "the key is missing",
    }


async def test_checks_that_never_answer_are_waited_for_together_and_not_long() -> None:
    health = Health()
    health.needed |= dict.fromkeys(["a", "b", "c"], stuck)
    async with asyncio.timeout(4):
        status, body = await health.report()
    assert status == 503
    assert set(body["not_ready"].values()) == {"no answer within 2 seconds"}


async def test_a_running_service_is_alive_and_ready_and_says_which_clock_it_has(
    counting_url: str,
) -> None:
    from datetime import UTC, datetime

    clock: Any = FrozenClock(datetime(2026, 11, 20, tzinfo=UTC))
    app = create_app(Service("queue", "Lives."))
    async with running(app, settings_for(counting_url), clock) as client:
        assert (await client.get("/livez")).json() == {"status": "alive", "dead_tasks": []}
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["status"] == "ready"
        assert {"database", "migrations", "bus", "relay"} <= set(ready.json()["checks"])
        about = (await client.get("/version")).json()
        assert about["service"] == "queue"
        assert about["profile"] == "development"
        assert about["clock"]["kind"] == "frozen"
        for path in ("/metrics", "/openapi.json", "/docs"):
            assert (await client.get(path)).status_code == 200


async def test_a_schema_that_was_not_migrated_is_named(counting_url: str) -> None:
    app = create_app(Service("intake", "Waits."))
    async with running(app, settings_for(counting_url)) as client:
        async with admin(counting_url) as operator:
            at = await operator.fetchval("SELECT version_num FROM intake.alembic_version")
            await operator.execute("UPDATE intake.alembic_version SET version_num = '0000'")
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert "motcua migrate" in answer.json()["not_ready"]["migrations"]
        await execute_as_owner(
            counting_url, f"UPDATE intake.alembic_version SET version_num = '{at}'"
        )
        assert (await client.get("/readyz")).status_code == 200


async def test_a_background_task_that_ends_is_named_by_livez(counting_url: str) -> None:
    go = asyncio.Event()

    async def forecast() -> None:
        await go.wait()
        raise LookupError("a defect")

    @asynccontextmanager
    async def resources(core: Core) -> AsyncIterator[dict[str, Any]]:
        core.tasks.start("forecaster", forecast())
        yield {}

    app = create_app(Service("queue", "Dies.", resources=resources))
    async with running(app, settings_for(counting_url)) as client:
        assert (await client.get("/livez")).status_code == 200
        go.set()

        async def dead() -> Any:
            answer = await client.get("/livez")
            return answer.json() if answer.status_code == 503 else None

        body = await eventually(dead)
        assert body == {"status": "dead", "dead_tasks": ["forecaster"]}


async def test_resources_of_a_service_are_entered_reach_requests_and_are_left(
    counting_url: str,
) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def resources(core: Core) -> AsyncIterator[dict[str, Any]]:
        steps.append(f"open {core.name}")
        yield {"answer": 42}
        steps.append("closed")

    app = create_app(Service("queue", "Holds.", resources=resources))
    async with running(app, settings_for(counting_url)) as client:
        assert client.state["answer"] == 42  # type: ignore[attr-defined]
    assert steps == ["open queue", "closed"]


async def test_a_service_can_stop_at_any_moment_within_a_second(counting_url: str) -> None:
    handlers = EventRouter()

    @handlers.on(Counted)
    async def ignore(event: Counted, session: Any) -> None: ...

    for turns in (0, 5, 50, 500):
        app = create_app(Service("queue", "Stops.", handlers=handlers))
        async with running(app, settings_for(counting_url)):
            for _ in range(turns):
                await asyncio.sleep(0)
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 1


async def test_a_service_that_may_only_read_the_bus_does_not_try_to_compact_it(
    counting_url: str,
) -> None:
    async def has_compaction(name: str, *, database: bool) -> bool:
        app = create_app(Service(name, "Reads.", database=database))
        async with running(app, settings_for(counting_url)) as client:
            assert (await client.get("/readyz")).json()["status"] == "ready"
            return "compaction" in client.state["core"].tasks._tasks  # type: ignore[attr-defined]

    assert await has_compaction("queue", database=True)
    assert not await has_compaction("gateway", database=False)


async def test_tasks_are_cancelled_and_waited_for_the_last_first() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async with tasks.running() as group:
        group.start("one", work("one"))
        group.start("two", work("two"))
        await asyncio.sleep(0)
        assert group.dead == []
    assert ended == ["two", "one"]

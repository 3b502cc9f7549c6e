"""`motcua lag` and `motcua outbox`: how far readers are behind, and what has not left yet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice

from libs.common.bus.base import Bus
from libs.common.bus.embedded import open_embedded_bus
from libs.common.db import connector, service_url
from libs.common.settings import SERVICES
from tests.cli.command import invoke
from tests.common.helpers import admin
from tests.reporting.history import append, past
from tests.support import PRODUCTION, settings_for

LATE = "UPDATE {}.outbox SET created_at = clock_timestamp() - interval '90 seconds'"


@asynccontextmanager
async def bus_of(url: str) -> AsyncIterator[Bus]:
    """Open the bus as reporting."""
    own = service_url(settings_for(url), "reporting")
    async with open_embedded_bus(own, connector(own, "reporting")) as bus:
        yield bus


async def wait_in_outbox(url: str, service: str, topic: str, count: int) -> None:
    """Put events into a service's outbox, as if its relay were not running."""
    async with admin(url) as operator:
        await operator.execute(
            f"INSERT INTO {service}.outbox (event_id, topic, key, type, time, traceparent) "
            "SELECT gen_random_uuid(), $1, 'k', 'T', now(), '' FROM generate_series(1, $2::int)",
            topic,
            count,
        )


async def test_lag_counts_what_each_service_has_still_to_handle(database_url: str) -> None:
    async with bus_of(database_url) as bus:
        await append(bus, islice(past(), 30))
        async with bus.subscribe("reporting", ["intake.dossiers.v1"]) as subscription:
            assert await subscription.fetch(100, 1)
            await subscription.commit()
        tickets = (await bus.lag("reporting", ["queue.tickets.v1"]))["queue.tickets.v1"]
    told = (await invoke("lag", "--json", url=database_url)).json["items"]
    behind = {(item["service"], item["topic"]): item["behind"] for item in told}
    assert behind["reporting", "queue.tickets.v1"] == tickets > 0
    assert behind["reporting", "intake.dossiers.v1"] == 0
    assert behind["queue", "registry.centres.v1"] == 0

    shown = await invoke("lag", url=database_url)
    assert shown.status == 0
    rows = [line.split() for line in shown.out.splitlines()]
    assert rows[0] == ["service", "topic", "behind"]
    assert ["reporting", "queue.tickets.v1", str(tickets)] in rows


async def test_a_script_is_told_when_a_service_is_too_far_behind(database_url: str) -> None:
    async with bus_of(database_url) as bus:
        sent = await append(bus, islice(past(), 4))
    assert (await invoke("lag", "--above", str(sent - 1), url=database_url)).status == 1
    assert (await invoke("lag", "--above", str(sent), url=database_url)).status == 0


async def test_a_missing_topic_is_named(database_url: str) -> None:
    async with admin(database_url) as operator:
        await operator.execute("DELETE FROM bus.topics WHERE name = 'queue.tickets.v1'")
    shown = await invoke("lag", url=database_url)
    assert "reporting  queue.tickets.v1     the topic is missing" in shown.out
    told = await invoke("lag", "--json", "--above", "9", url=database_url)
    assert told.status == 1
    assert {"service": "reporting", "topic": "queue.tickets.v1", "behind": None} in told.json[
        "items"
    ]


async def test_an_empty_outbox_says_so(database_url: str) -> None:
    shown = await invoke("outbox", "--older-than", "0", url=database_url)
    assert shown.status == 0
    assert [line.split()[:3] for line in shown.out.splitlines()[1:]] == [
        [service, "-", "0"] for service in SERVICES
    ]


async def test_what_waits_is_shown_with_its_age_and_what_holds_it_back(database_url: str) -> None:
    await wait_in_outbox(database_url, "queue", "queue.tickets.v1", 3)
    await wait_in_outbox(database_url, "queue", "queue.lost.v1", 2)
    async with admin(database_url) as operator:
        await operator.execute(LATE.format("queue"))
    told = await invoke("outbox", "--json", url=database_url)
    assert (told.status, told.json["bus"], told.json["unread"]) == (0, "answers", [])
    [queue] = [item for item in told.json["items"] if item["service"] == "queue"]
    assert queue["events"] == 5
    assert queue["oldest_seconds"] >= 90
    assert [(t["topic"], t["events"], t["held_back"]) for t in queue["topics"]] == [
        ("queue.lost.v1", 2, True),
        ("queue.tickets.v1", 3, False),
    ]
    shown = await invoke("outbox", url=database_url)
    [line] = [line for line in shown.out.splitlines() if "queue.lost.v1" in line]
    assert line.endswith("held back: the topic is missing")


async def test_a_script_is_told_when_events_wait_too_long_or_for_a_topic(
    database_url: str,
) -> None:
    await wait_in_outbox(database_url, "intake", "intake.dossiers.v1", 1)
    assert (await invoke("outbox", "--older-than", "60", url=database_url)).status == 0
    async with admin(database_url) as operator:
        await operator.execute(LATE.format("intake"))
    assert (await invoke("outbox", "--older-than", "60", url=database_url)).status == 1
    assert (await invoke("outbox", "--older-than", "600", url=database_url)).status == 0
    await wait_in_outbox(database_url, "intake", "intake.lost.v1", 1)
    assert (await invoke("outbox", "--older-than", "600", url=database_url)).status == 1


async def test_a_service_s_own_login_sees_its_own_outbox(database_url: str) -> None:
    await wait_in_outbox(database_url, "queue", "queue.tickets.v1", 1)
    own = service_url(settings_for(database_url), "queue")
    told = await invoke("outbox", "--json", url=own, **PRODUCTION)
    assert told.status == 0
    assert [(item["service"], item["events"]) for item in told.json["items"]] == [("queue", 1)]
    assert told.json["unread"] == ["registry", "intake", "reporting"]
    assert "may not read the outbox of registry, intake, reporting" in told.err

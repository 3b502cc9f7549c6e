"""Commands that show whether events flow: how far readers are behind, and what waits to leave."""

import asyncio
from typing import Annotated, Any

import asyncpg
import typer

from libs.common.bus.base import BusError
from libs.common.bus.opening import open_bus
from libs.common.db import transient
from libs.common.migrate import admin_url
from libs.common.settings import SERVICES, Settings
from services.cli.surroundings import (
    FAILED,
    Json,
    print_columns,
    print_json,
    run,
    settings_of_city,
    stop,
)
from services.consumers import ROUTERS

BUS_SECONDS = 10
"""How long the bus may take where the answer does not depend on it."""


def lag(
    as_json: Json = False,
    above: Annotated[
        int | None, typer.Option(min=0, help="End with 1 if any service is further behind.")
    ] = None,
) -> None:
    """Show how many events each service has still to handle, by topic.

    A number that falls is a service at work; one that only rises is a service that has stopped. The
    gateway is not shown: it handles nothing, every process of it reads for itself.
    """
    settings = settings_of_city("kafka_bootstrap")
    items = run(settings, lags(settings))
    if as_json:
        print_json({"items": items})
    else:
        print_columns(
            ("service", "topic", "behind"),
            ((item["service"], item["topic"], _or_missing(item["behind"])) for item in items),
        )
    if above is not None and any(
        item["behind"] is None or item["behind"] > above for item in items
    ):
        raise typer.Exit(FAILED)


def _or_missing(count: int | None) -> str:
    return "the topic is missing" if count is None else str(count)


async def lags(settings: Settings) -> list[dict[str, Any]]:
    """Count what every service has still to handle, topic by topic."""
    async with open_bus(settings, "registry") as bus:
        items = []
        for service, router in ROUTERS.items():
            missing = await bus.missing(router.topics)
            behind = await bus.lag(service, [name for name in router.topics if name not in missing])
            items += [
                {"service": service, "topic": topic, "behind": behind.get(topic)}
                for topic in router.topics
            ]
        return items


def outbox(
    as_json: Json = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="End with 1 if an event has waited for more seconds, or its topic is missing.",
        ),
    ] = None,
) -> None:
    """Show which events have not left their service yet, since when, and what holds them back.

    Normally there are none, or a few that are younger than a second. It answers also while the bus
    is away, from the database alone.
    """
    settings = settings_of_city()
    items, unread, problem = run(settings, outboxes(settings))
    if as_json:
        print_json({"items": items, "unread": unread, "bus": problem or "answers"})
    else:
        print_columns(("service", "topic", "events", "oldest", ""), _lines(items))
    if unread:
        stop(f"this account may not read the outbox of {', '.join(unread)}")
    if problem:
        stop(f"{problem}; whether topics are missing is not known")
    if older_than is not None and any(
        topic["held_back"] or topic["oldest_seconds"] > older_than
        for item in items
        for topic in item["topics"]
    ):
        raise typer.Exit(FAILED)


def _lines(items: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    lines: list[tuple[object, ...]] = []
    for item in items:
        if not item["topics"]:
            lines.append((item["service"], "-", 0, "-", ""))
        for topic in item["topics"]:
            held = "held back: the topic is missing" if topic["held_back"] else ""
            age = f"{topic['oldest_seconds']:.1f} s"
            lines.append((item["service"], topic["topic"], topic["events"], age, held))
    return lines


async def outboxes(settings: Settings) -> tuple[list[dict[str, Any]], list[str], str | None]:
    """Give each readable service's outbox, the services that are not, and what the bus lacks."""
    items: list[dict[str, Any]] = []
    unread = []
    connection = await asyncpg.connect(admin_url(settings), timeout=10)
    try:
        for service in SERVICES:
            if not await connection.fetchval("SELECT has_schema_privilege($1, 'USAGE')", service):
                unread.append(service)
                continue
            rows = await connection.fetch(
                "SELECT topic, count(*) AS events, "
                "extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_seconds "
                f"FROM {service}.outbox GROUP BY topic ORDER BY topic"
            )
            items.append({"service": service, "topics": [dict(row) for row in rows]})
    finally:
        await connection.close()
    problem = await _mark_held_back(settings, items)
    for item in items:
        item["events"] = sum(topic["events"] for topic in item["topics"])
        item["oldest_seconds"] = max((t["oldest_seconds"] for t in item["topics"]), default=None)
    return items, unread, problem


async def _mark_held_back(settings: Settings, items: list[dict[str, Any]]) -> str | None:
    """Mark the topics that the bus does not have; answer what kept us from asking it."""
    topics = [topic for item in items for topic in item["topics"]]
    for topic in topics:
        topic["held_back"] = None
    try:
        async with asyncio.timeout(BUS_SECONDS), open_bus(settings, "registry") as bus:
            missing = await bus.missing({topic["topic"] for topic in topics})
            for topic in topics:
                topic["held_back"] = topic["topic"] in missing
    except Exception as error:
        if not (transient(error) or isinstance(error, BusError)):
            raise
        return f"no answer from the bus: {error or type(error).__name__}"
    return None

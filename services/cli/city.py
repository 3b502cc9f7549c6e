"""Commands that prepare a city: its tables, what it starts with, and tokens to call it with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from libs.common.auth import DevelopmentIssuer
from libs.common.bus.base import Bus
from libs.common.bus.opening import open_bus
from libs.common.clock import clock_from
from libs.common.db import Database, open_database, service_url
from libs.common.migrate import make_roles
from libs.common.migrate import migrate as migrate_database
from libs.common.outbox import Relay, drained
from libs.common.settings import Settings
from libs.contracts.roles import Role
from libs.contracts.topics import all_topics
from services.cli.surroundings import (
    FAILED,
    Json,
    print_json,
    run,
    settings_of_city,
    settings_of_surroundings,
    stop,
)
from services.registry import seed as registry_seed
from services.registry.announcing import Announced, announce_all, known_to


def migrate(
    roles_only: Annotated[
        bool,
        typer.Option("--roles-only", help="Only make the services' accounts, before a restore."),
    ] = False,
) -> None:
    """Bring the database to the newest revision; run it again at any time."""
    settings = settings_of_city("admin_database_url")
    if roles_only:
        run(settings, make_roles(settings))
        print("the services' accounts are there")
        return
    run(settings, migrate_database(settings, list(all_topics())), within=None)
    print("the database is at the newest revision")


def seed() -> None:
    """Load the 168 units and the procedures; returns when their events are on the bus."""
    settings = settings_of_city()
    loaded = run(settings, seed_registry(settings), within=None)
    print("the city is loaded" if loaded else "the registry already holds the city")


async def seed_registry(settings: Settings) -> bool:
    """Fill an empty registry and carry its events to the bus, whether its service runs or not."""
    async with _registry(settings) as (database, bus):
        topics = list(all_topics(settings.facts_kept))
        if missing := await bus.missing([topic.name for topic in topics]):
            await bus.apply_topics(topic for topic in topics if topic.name in missing)
        async with database.sessions.begin() as session:
            loaded = await registry_seed.load(session, at=clock_from(settings.clock).now())
        await _carry(database, bus)
    return loaded


@asynccontextmanager
async def _registry(settings: Settings) -> AsyncIterator[tuple[Database, Bus]]:
    async with (
        open_database(service_url(settings, "registry"), "registry") as database,
        open_bus(settings, "registry") as bus,
    ):
        yield database, bus


async def _carry(database: Database, bus: Bus) -> None:
    """Bring the registry's events to the bus, whether its service runs or not."""
    relay = asyncio.create_task(Relay("registry", database, bus).run())
    try:
        if not await drained(database, within=30):
            raise TimeoutError("the registry's events did not reach the bus within 30 seconds")
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)


def announce(as_json: Json = False) -> None:
    """Announce the registry's whole state again, newer than any that the bus holds.

    After the bus was lost, or the database was restored to an earlier moment. What only the bus
    knows of is listed, and ends with 1: register it again, and run this again, or its readers take
    it for older than what they hold. It can be run at any time.
    """
    settings = settings_of_city()
    done = run(settings, _announce(settings), within=None)
    if as_json:
        print_json(asdict(done))
    else:
        print(f"{done.states} states announced")
        for topic, key in done.unknown:
            ended = ": its keys are good no more" if key in done.ended else ""
            print(f"only the bus knows of {key} ({topic}){ended}")
    if done.unknown:
        raise typer.Exit(FAILED)


async def _announce(settings: Settings) -> Announced:
    async with _registry(settings) as (database, bus):
        known = await known_to(bus)
        async with database.sessions.begin() as session:
            done = await announce_all(session, known, at=clock_from(settings.clock).now())
        await _carry(database, bus)
    return done


def token(
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    unit: Annotated[list[str] | None, typer.Option(help="A unit the role is held for.")] = None,
    subject: Annotated[str | None, typer.Option(help="Who the bearer is.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is valid.")] = 8,
) -> None:
    """Print a bearer token of the development issuer."""
    settings = settings_of_surroundings()
    if not settings.development:
        raise stop("production takes tokens of its OIDC issuer only")
    issuer = DevelopmentIssuer(settings.data_dir)
    name = subject or "-".join(["dev", role.value, *(unit or [])])
    print(issuer.token(role.value, subject=name, units=unit or [], hours=hours))

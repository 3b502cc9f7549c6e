"""The operator's command line: `motcua --help`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from pydantic import SecretStr, ValidationError

from libs.common.auth import DevelopmentIssuer
from libs.common.bus.base import Bus, Received
from libs.common.bus.opening import open_bus
from libs.common.clock import clock_from
from libs.common.db import open_database, service_url
from libs.common.dead_letters import Replayed, list_dead_letters, replay_dead_letters
from libs.common.migrate import migrate as migrate_database
from libs.common.outbox import INBOX_KEPT, Relay, drained
from libs.common.settings import Settings
from libs.contracts.roles import Role
from libs.contracts.topics import FACTS, all_topics
from services.registry import seed as registry_seed
from services.simulate.command import simulate

EMBEDDED_URL = "embedded-database-url"
"""File in the data folder by which the command line finds the embedded city's database."""

cli = typer.Typer(
    no_args_is_help=True, add_completion=False, help="motcua: one door for everybody."
)
dlq = typer.Typer(no_args_is_help=True, help="Messages that could not be handled.")
cli.add_typer(dlq, name="dlq")
cli.command()(simulate)


def _settings() -> Settings:
    try:
        settings = Settings.from_environment()
    except ValidationError as error:
        print(explain_settings(error), file=sys.stderr)
        raise typer.Exit(2) from None
    # Beside a running embedded city its database is meant, unless another one is named.
    note = settings.data_dir / EMBEDDED_URL
    if settings.database_url is None and note.exists():
        return settings.model_copy(update={"database_url": SecretStr(note.read_text("ascii"))})
    return settings


def explain_settings(error: ValidationError) -> str:
    """Say which settings are wrong, by the names they are set under, never with their values."""
    lines = []
    for entry in error.errors():
        place = ".".join(str(part) for part in entry["loc"]).upper()
        message = entry["msg"].removeprefix("Value error, ")
        lines.append(f"MOTCUA_{place}: {message}" if place else message)
    return "\n".join(lines)


@cli.command()
def migrate() -> None:
    """Bring the database to the newest revision; run it again at any time."""
    asyncio.run(migrate_database(_settings(), list(all_topics())))
    print("the database is at the newest revision")


@cli.command()
def seed() -> None:
    """Load the 168 units and the procedures; returns when their events are on the bus."""
    loaded = asyncio.run(seed_registry(_settings()))
    print("the city is loaded" if loaded else "the registry already holds the city")


async def seed_registry(settings: Settings) -> bool:
    """Fill an empty registry and carry its events to the bus, whether its service runs or not."""
    async with (
        open_database(service_url(settings, "registry"), "registry") as database,
        open_bus(settings, "registry") as bus,
    ):
        if missing := await bus.missing([topic.name for topic in all_topics()]):
            await bus.apply_topics(topic for topic in all_topics() if topic.name in missing)
        async with database.sessions.begin() as session:
            loaded = await registry_seed.load(session, at=clock_from(settings.clock).now())
        relay = asyncio.create_task(Relay("registry", database, bus).run())
        try:
            if not await drained(database, within=30):
                raise TimeoutError("the registry's events did not reach the bus within 30 seconds")
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
    return loaded


@cli.command()
def token(
    role: Annotated[Role, typer.Option(help="What the bearer may do.")],
    unit: Annotated[list[str] | None, typer.Option(help="A unit the role is held for.")] = None,
    subject: Annotated[str | None, typer.Option(help="Who the bearer is.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is valid.")] = 8,
) -> None:
    """Print a bearer token of the development issuer."""
    settings = _settings()
    if not settings.development:
        print("production takes tokens of its OIDC issuer only", file=sys.stderr)
        raise typer.Exit(2)
    issuer = DevelopmentIssuer(settings.data_dir)
    name = subject or "-".join(["dev", role.value, *(unit or [])])
    print(issuer.token(role.value, subject=name, units=unit or [], hours=hours))


@dlq.command("list")
def dlq_list() -> None:
    """List the messages that were given up, with the reason."""
    for letter in asyncio.run(_letters()):
        print(
            letter.headers["motcua_dead_at"],
            letter.headers["motcua_dead_group"],
            letter.headers["motcua_dead_topic"],
            letter.headers.get("ce_type", "?"),
            letter.headers.get("ce_id", "?"),
            letter.headers["motcua_dead_reason"],
            sep="  ",
        )


@dlq.command("replay")
def dlq_replay(
    event_id: Annotated[str, typer.Argument(help="The event's id, or `all`.")],
) -> None:
    """Send messages again that were given up; what has handled one before does not again."""
    done = asyncio.run(_replay(event_id))
    print(f"{done.sent} message(s) sent again")
    if done.superseded:
        print(f"{done.superseded} dropped: a newer state of the same key is known")
    if done.too_old:
        print(f"{done.too_old} left: older than {INBOX_KEPT.days} days, rebuild instead")
    if done == Replayed():
        print("no such dead letter", file=sys.stderr)
        raise typer.Exit(1)


@asynccontextmanager
async def _bus() -> AsyncIterator[Bus]:
    async with open_bus(_settings(), "registry") as bus:
        yield bus


async def _letters() -> list[Received]:
    async with _bus() as bus:
        return await list_dead_letters(bus, [topic.name for topic in FACTS])


async def _replay(event_id: str) -> Replayed:
    async with _bus() as bus:
        letters = await list_dead_letters(bus, [topic.name for topic in FACTS])
        chosen = [x for x in letters if event_id in ("all", x.headers.get("ce_id"))]
        compacted = {topic.name for topic in FACTS if topic.compacted}
        return await replay_dead_letters(bus, chosen, compacted=compacted)


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    main()

"""`motcua topics`: the bus's topics as `libs/contracts/topics.py` wants them."""

from typing import Any

import typer

from libs.common.bus.base import Topic, TopicRefused
from libs.common.bus.differences import Difference, differences
from libs.common.bus.opening import open_bus
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.cli.surroundings import FAILED, Json, print_json, run, settings_of_city, stop

commands = typer.Typer(no_args_is_help=True, help="The topics that events travel on.")


@commands.command()
def diff(as_json: Json = False) -> None:
    """Compare the topics of the bus with what they should be; ends with 1 if they differ."""
    settings = settings_of_city("kafka_bootstrap")
    found = run(settings, _differences(settings))
    _tell(found, as_json=as_json, otherwise="every topic is as it should be")
    if found:
        raise typer.Exit(FAILED)


@commands.command()
def apply(as_json: Json = False) -> None:
    """Make the topics that are missing, and give the others their partitions and settings.

    Run it again at any time. A topic is never made smaller: that ends with 1 and changes nothing.
    """
    settings = settings_of_city("kafka_bootstrap")
    changed = run(settings, _apply(settings))
    _tell(changed, as_json=as_json, otherwise="every topic was as it should be")


def _tell(found: list[Difference], *, as_json: bool, otherwise: str) -> None:
    if as_json:
        print_json({"items": [_item(entry) for entry in found]})
    else:
        print("\n".join(map(str, found)) or otherwise)


def _item(entry: Difference) -> dict[str, Any]:
    return {
        "topic": entry.topic, "what": entry.what, "wanted": entry.wanted, "found": entry.found,
    }  # fmt: skip


def _wanted(settings: Settings) -> list[Topic]:
    return list(all_topics(settings.facts_kept))


async def _differences(settings: Settings) -> list[Difference]:
    wanted = _wanted(settings)
    async with open_bus(settings, "registry") as bus:
        return differences(wanted, await bus.describe_topics([topic.name for topic in wanted]))


async def _apply(settings: Settings) -> list[Difference]:
    wanted = _wanted(settings)
    async with open_bus(settings, "registry") as bus:
        names = [topic.name for topic in wanted]
        before = differences(wanted, await bus.describe_topics(names))
        try:
            await bus.apply_topics(wanted)
        except TopicRefused as refusal:
            raise stop(str(refusal), FAILED) from None
        return before

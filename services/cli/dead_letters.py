"""Commands for messages that a service could not handle: look, send again, or drop for ever."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from libs.common.bus.base import Received
from libs.common.bus.opening import open_bus
from libs.common.dead_letters import (
    Replayed,
    drop_dead_letters,
    list_dead_letters,
    own_headers,
    replay_dead_letters,
)
from libs.common.outbox import INBOX_KEPT
from libs.common.settings import Settings
from libs.contracts.topics import FACTS
from services.cli.surroundings import (
    FAILED,
    Json,
    print_columns,
    print_json,
    run,
    settings_of_city,
    stop,
)

commands = typer.Typer(no_args_is_help=True, help="Messages that a service could not handle.")

Which = Annotated[str, typer.Argument(metavar="ID", help="The event's id, or `all`.")]


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """List the messages that were given up, the oldest first, with the reason."""
    settings = settings_of_city("kafka_bootstrap")
    letters = [_described(letter) for letter in run(settings, letters_of(settings, "all"))]
    if as_json:
        print_json({"items": letters})
        return
    names = ("dead_at", "group", "topic", "type", "id")
    if letters:
        print_columns(
            (*names, "reason"),
            ([*(letter[name] for name in names), _briefly(letter)] for letter in letters),
        )
    else:
        print("no dead letters")


@commands.command()
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    as_json: Json = False,
) -> None:
    """Show a message that was given up: the reason, its headers and its body.

    There are several where more than one service gave up the same event.
    """
    settings = settings_of_city("kafka_bootstrap")
    letters = run(settings, letters_of(settings, event_id))
    if as_json:
        print_json({"items": [_whole(letter) for letter in letters]})
    else:
        for letter in letters:
            print("\n".join(_as_text(letter)))
    if not letters:
        raise _none(event_id)


@commands.command()
def replay(event_id: Which, as_json: Json = False) -> None:
    """Send messages again that were given up, after what stopped them was mended.

    They go to their topic as the same events: services that have handled one before do not again.
    """
    settings = settings_of_city("kafka_bootstrap")
    done = run(settings, _replay(settings, event_id))
    if as_json:
        print_json(asdict(done))
    else:
        print(f"{done.sent} message(s) sent again")
        if done.superseded:
            print(f"{done.superseded} dropped: a newer state of the same key is known")
        if done.too_old:
            print(f"{done.too_old} left: older than {INBOX_KEPT.days} days, rebuild instead")
    if done == Replayed():
        raise _none(event_id)


@commands.command()
def drop(
    event_id: Which,
    as_json: Json = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take messages off the list for ever: what they tell will never count."""
    settings = settings_of_city("kafka_bootstrap")
    letters = run(settings, letters_of(settings, event_id))
    if not letters:
        raise _none(event_id)
    for told in map(_described, letters):
        print(told["group"], told["type"], told["id"], _briefly(told), sep="  ", file=sys.stderr)
    if not yes and not typer.confirm(f"Drop {len(letters)} message(s) for ever?", err=True):
        raise stop("nothing was dropped", FAILED)
    run(settings, _drop(settings, letters))
    if as_json:
        print_json({"dropped": len(letters)})
    else:
        print(f"{len(letters)} message(s) dropped")


def _none(event_id: str) -> typer.Exit:
    return stop("no dead letters" if event_id == "all" else f"no dead letter {event_id}", FAILED)


def _described(letter: Received) -> dict[str, Any]:
    """Tell what happened to a message, without its content."""
    headers = letter.headers
    return {
        "id": headers.get("ce_id"),
        "type": headers.get("ce_type"),
        "topic": headers["motcua_dead_topic"],
        "key": headers["motcua_dead_key"],
        "offset": int(headers["motcua_dead_offset"]),
        "group": headers["motcua_dead_group"],
        "dead_at": headers["motcua_dead_at"],
        "reason": headers["motcua_dead_reason"],
    }


def _briefly(told: dict[str, Any]) -> str:
    """Give the first line of a reason; the others are for who looks at one message."""
    return str(told["reason"]).partition("\n")[0]


def _whole(letter: Received) -> dict[str, Any]:
    return _described(letter) | {"headers": own_headers(letter), "body": _body(letter)}


def _body(letter: Received) -> Any:
    """Read a body as JSON, or as text where that is just what is wrong with it."""
    try:
        return json.loads(letter.value or b"")
    except ValueError:
        return (letter.value or b"").decode("utf-8", "replace")


def _as_text(letter: Received) -> list[str]:
    told = _whole(letter)
    headers, body = told.pop("headers"), told.pop("body")
    told["reason"] = told["reason"].replace("\n", "\n         ")
    return [
        *(f"{name:8} {value}" for name, value in told.items()),
        "headers",
        *(f"  {name}: {value}" for name, value in headers.items()),
        "body",
        json.dumps(body, ensure_ascii=False, indent=2) if not isinstance(body, str) else body,
        "",
    ]


async def letters_of(settings: Settings, event_id: str) -> list[Received]:
    """Read the messages that were given up, the oldest first: one event's, or `all`."""
    async with open_bus(settings, "registry") as bus:
        letters = await list_dead_letters(bus, [topic.name for topic in FACTS])
    chosen = [x for x in letters if event_id in ("all", x.headers.get("ce_id"))]
    return sorted(chosen, key=lambda letter: letter.headers["motcua_dead_at"])


async def _replay(settings: Settings, event_id: str) -> Replayed:
    letters = await letters_of(settings, event_id)
    compacted = {topic.name for topic in FACTS if topic.compacted}
    async with open_bus(settings, "registry") as bus:
        return await replay_dead_letters(bus, letters, compacted=compacted)


async def _drop(settings: Settings, letters: Sequence[Received]) -> None:
    async with open_bus(settings, "registry") as bus:
        await drop_dead_letters(bus, letters)

"""What every command needs: settings, the bus, words for what is away, and forms of output."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
import uvloop
from pydantic import SecretStr, ValidationError

from libs.common.bus.base import BusError
from libs.common.db import transient
from libs.common.settings import Settings, explain_settings

EMBEDDED_URL = "embedded-database-url"
"""File in the data folder by which the command line finds the embedded city's database."""

ANSWER_SECONDS = 30
"""How long database and bus may take over a question."""

FAILED, AWAY = 1, 2
"""Exit statuses: the answer is no, or there is none: wrong usage or settings, bus or database away.
Scripts rely on them."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

T = TypeVar("T")


def settings_of_surroundings() -> Settings:
    """Read the settings; beside a running embedded city its database is meant, unless named."""
    try:
        settings = Settings.from_environment()
    except ValidationError as error:
        raise stop(explain_settings(error)) from None
    note = settings.data_dir / EMBEDDED_URL
    if settings.database_url is None and note.exists():
        return settings.model_copy(update={"database_url": SecretStr(note.read_text("ascii"))})
    return settings


def settings_of_city(*instead: str) -> Settings:
    """Read the settings of a command that needs the database, or one of the settings `instead`."""
    settings = settings_of_surroundings()
    if not any(getattr(settings, name) for name in ("database_url", *instead)):
        raise stop(
            f"no city is running on {settings.data_dir}: start one with `make run`, or say where "
            "its database is with MOTCUA_DATABASE_URL=postgresql://..."
        )
    return settings


def run(
    settings: Settings,
    work: Coroutine[Any, Any, T],
    *,
    within: float | None = ANSWER_SECONDS,
    interrupted: str = "stopped",
) -> T:
    """Do a command's work; what is away, or Ctrl-C, ends the command with a sentence."""

    async def bounded() -> T:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(within):
                return await work
        except Exception as error:
            if task.cancelling():  # a statement that Ctrl-C cut off fails in words of its own
                raise asyncio.CancelledError from error
            raise

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(bounded())
    except KeyboardInterrupt:
        raise stop(interrupted, 130) from None
    except Exception as error:
        if sentence := explain(settings, error):
            raise stop(sentence) from None
        raise


def explain(settings: Settings, error: Exception) -> str | None:
    """Say what is away or not as it should be; None for a defect of ours."""
    words = f"{type(error).__name__}: {error}".strip(": ")
    if isinstance(error, BusError):
        return f"no answer from the bus: {error}"
    if isinstance(error, TimeoutError):
        return f"no answer in time from the database at {settings.database_host} or from the bus"
    if transient(error):
        return f"the database at {settings.database_host} does not answer: {words}"
    if isinstance(error, _NOT_PREPARED):
        return (
            f"the database at {settings.database_host} is not prepared for this: {words}; "
            "`motcua migrate` prepares it"
        )
    return None


_NOT_PREPARED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidParameterValueError,  # a role to act as that nobody has made
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedObjectError,
    asyncpg.InsufficientPrivilegeError,
)


def stop(sentence: str, status: int = AWAY) -> typer.Exit:
    """Say why a command ends, where people look for it and scripts do not."""
    print(sentence, file=sys.stderr)
    return typer.Exit(status)


def print_json(value: object) -> None:
    """Print a value for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for people and for `awk`: nothing is cut off, however wide the terminal."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).strip()
        )

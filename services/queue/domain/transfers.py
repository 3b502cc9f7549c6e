"""Sending a person on: to another series, counter or unit, with the arrival time kept."""

from contextlib import suppress
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from libs.common.problems import Unavailable, malformed_field
from libs.common.worktime import business_day
from services.queue import transitions
from services.queue.domain import moves
from services.queue.domain.moves import TO_COUNTER, TO_SERIES, Asked, move
from services.queue.words import say

_ATTEMPTS: Final = 50


async def to_series(pool: asyncpg.Pool, ticket_id: UUID, series: str, asked: Asked) -> str:
    """Let a ticket wait in a series of its unit; its number stays.

    Raises:
        SeriesNotServed, and what `move` raises.
    """
    return str((await move(pool, ticket_id, TO_SERIES, asked, series=series))["body"])


async def to_counter(pool: asyncpg.Pool, ticket_id: UUID, counter: int, asked: Asked) -> str:
    """Let a ticket wait for one counter of its unit alone, until that one closes.

    Raises:
        UnknownCounter, CounterNotOpen, and what `move` raises.
    """
    return str((await move(pool, ticket_id, TO_COUNTER, asked, target=counter))["body"])


async def to_unit(
    pool: asyncpg.Pool, ticket_id: UUID, unit: str, series: str | None, asked: Asked
) -> str:
    """End a ticket and issue one in another unit that continues it; that unit takes people now.

    The new ticket has a number of that unit and of today, and the arrival and turn of the old one.

    Raises:
        Malformed: the ticket is of that unit. What `move` raises.
    """
    for _ in range(_ATTEMPTS):
        row = None
        # A violation means that the key is taken.
        with suppress(asyncpg.UniqueViolationError):
            row = await pool.fetchrow(
                transitions.SEND_AWAY,
                *asked.parameters(ticket_id, None),
                uuid4(),
                unit,
                series,
                business_day(asked.now),
                uuid4(),
            )
        if row is not None:
            return str(row["body"])
        await moves.refuse(pool, ticket_id, TO_SERIES, asked)
        if await pool.fetchval("SELECT unit FROM tickets WHERE id = $1", ticket_id) == unit:
            raise malformed_field("unit", say("the ticket waits there; name a series or a counter"))
    raise Unavailable(say("the ticket is changed by others all the time; try again"))


async def procedures_of(pool: asyncpg.Pool, ticket_id: UUID) -> list[str]:
    """Give what a ticket was taken for; nothing for one that does not exist."""
    return await pool.fetchval("SELECT procedure_codes FROM tickets WHERE id = $1", ticket_id) or []

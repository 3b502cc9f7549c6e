"""Calling: whoever is due first, or whom somebody has a reason to call, to a counter."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from libs.common.idempotency import Key, replay_if_answered
from libs.common.observability import without_numbers
from libs.common.problems import Unavailable
from libs.common.trace import current_traceparent
from services.queue import statements
from services.queue.domain.moves import (
    CALL_OUT_OF_ORDER,
    HAND_BACK,
    Asked,
    move,
    steps_from,
)
from services.queue.domain.refusals import (
    CounterNotOpen,
    NothingHeld,
    StillHolding,
    UnknownCounter,
    place_of,
)
from services.queue.policy import oldest_now
from services.queue.words import say

_ATTEMPTS: Final = 200


@dataclass(frozen=True, slots=True)
class Called:
    """Who was called, as JSON, where, and how long that person had waited (seconds)."""

    body: str
    unit: str
    wait: float
    first_call: bool


async def call_next(
    pool: asyncpg.Pool, unit: str, counter: int, *, officer: str, now: datetime, key: Key | None
) -> Called | None:
    """Call whoever is due first to a counter; None only when nobody waits for it.

    A statement whose snapshot holds only tickets that others take meanwhile finds nothing although
    newer ones wait; so an empty answer is tried again until a look without locks sees nobody.

    Raises:
        Replay, UnknownCounter, CounterNotOpen, StillHolding.
    """
    for attempt in range(_ATTEMPTS):
        row = None
        # A violation means that the key, the counter or the officer is taken; the look below says
        # which.
        with suppress(asyncpg.UniqueViolationError):
            row = await pool.fetchrow(
                statements.CALL_NEXT,
                unit,
                counter,
                officer,
                now,
                uuid4(),
                current_traceparent(),
                key.digest if key else None,
                key.fingerprint if key else None,
                oldest_now(now),
            )
        if row is not None:
            return Called(row["body"], unit, row["wait"], row["first_call"])
        if not await _somebody_waits(pool, unit, counter, officer, now, key):
            return None
        if attempt > 2:
            await asyncio.sleep(random.uniform(0, 0.005))  # noqa: S311  (spreads callers, no secret)
    raise Unavailable(say("too many counters are calling at once; call again"))


async def _somebody_waits(
    pool: asyncpg.Pool, unit: str, counter: int, officer: str, now: datetime, key: Key | None
) -> bool:
    """Look, without locks, why nobody was called.

    The key comes second: what a twin in flight has changed at the desk, it has answered by then.
    """
    desk = await pool.fetchrow(statements.WHY_NOBODY, unit, counter, officer, oldest_now(now))
    await replay_if_answered(pool, key)
    if desk is None:
        raise UnknownCounter(say("{unit} has no counter {counter}", unit=unit, counter=counter))
    if desk["held_here"]:
        raise StillHolding(
            say("counter {counter} still holds {held}", counter=counter, held=desk["held_here"]),
            held=desk["held_here"],
            allowed=steps_from(desk["held_status"]),
        )
    if desk["held_by_officer"]:
        raise StillHolding(say("you still hold {held}", held=place_of(desk["held_by_officer"])))
    if desk["state"] != "open":
        raise CounterNotOpen(
            say("counter {counter} is {state}", counter=counter, state=desk["state"]),
            allowed=["open"],
        )
    return bool(desk["somebody_waits"])


async def call_out_of_order(
    pool: asyncpg.Pool, ticket_id: UUID, counter: int, reason: str, asked: Asked
) -> Called:
    """Call one ticket to a counter of its unit, whoever else waits; the reason is announced.

    An officer calls for himself and holds the ticket. A manager calls for whoever sits at the
    counter: the officer who begins there takes it over.

    Raises:
        UnknownCounter, CounterNotOpen, StillHolding, and what `move` raises.
    """
    row = await move(
        pool,
        ticket_id,
        CALL_OUT_OF_ORDER,
        asked,
        target=counter,
        holder=None if asked.over_others else asked.by.subject,
        # The reason leaves the service: what would name a person does not.
        reason=without_numbers(reason),
    )
    return Called(row["body"], row["unit"], row["wait"], row["first_call"])


async def hand_back(pool: asyncpg.Pool, unit: str, counter: int, asked: Asked) -> str:
    """Let the person whom a counter holds wait again, in the place that the arrival gives.

    Raises:
        Replay, UnknownCounter, NothingHeld.
    """
    row = None
    with suppress(asyncpg.UniqueViolationError):
        row = await pool.fetchrow(HAND_BACK.statement, *asked.parameters(unit, counter))
    if row is not None:
        return str(row["body"])
    known = await pool.fetchval(
        "SELECT true FROM counters WHERE unit = $1 AND number = $2", unit, counter
    )
    await replay_if_answered(pool, asked.key)  # second, as in `_somebody_waits`
    if not known:
        raise UnknownCounter(say("{unit} has no counter {counter}", unit=unit, counter=counter))
    raise NothingHeld(say("counter {counter} of {unit} holds nobody", counter=counter, unit=unit))

"""Calling: whoever is due first, to a counter that is free."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import uuid4

import asyncpg

from libs.common.idempotency import Key, replay_if_answered
from libs.common.problems import Unavailable
from libs.common.trace import current_traceparent
from services.queue import statements
from services.queue.domain.moves import steps_from
from services.queue.domain.refusals import CounterNotOpen, StillHolding, UnknownCounter
from services.queue.policy import oldest_now

_ATTEMPTS: Final = 200


@dataclass(frozen=True, slots=True)
class Called:
    """Who was called, as JSON, and how long that person had waited (seconds)."""

    body: str
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
            return Called(row["body"], row["wait"], row["first_call"])
        if not await _somebody_waits(pool, unit, counter, officer, now, key):
            return None
        if attempt > 2:
            await asyncio.sleep(random.uniform(0, 0.005))  # noqa: S311  (spreads callers, no secret)
    raise Unavailable("too many counters are calling at once; call again")


async def _somebody_waits(
    pool: asyncpg.Pool, unit: str, counter: int, officer: str, now: datetime, key: Key | None
) -> bool:
    """Look, without locks, why nobody was called.

    The key comes second: what a twin in flight has changed at the desk, it has answered by then.
    """
    desk = await pool.fetchrow(statements.WHY_NOBODY, unit, counter, officer, oldest_now(now))
    await replay_if_answered(pool, key)
    if desk is None:
        raise UnknownCounter(f"{unit} has no counter {counter}")
    if desk["held_here"]:
        raise StillHolding(
            f"counter {counter} still holds {desk['held_here']}",
            held=desk["held_here"],
            allowed=steps_from(desk["held_status"]),
        )
    if desk["held_by_officer"]:
        raise StillHolding(f"you still hold {desk['held_by_officer']}")
    if desk["state"] != "open":
        raise CounterNotOpen(f"counter {counter} is {desk['state']}", allowed=["open"])
    return bool(desk["somebody_waits"])

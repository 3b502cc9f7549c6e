"""What is going on now: a unit's board, and what the queue keeps open while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from libs.common import fast_json
from libs.common.app import Core
from libs.contracts.directory import Directory
from libs.contracts.following import following_registry
from services.queue.domain.appointments import release_for_ever
from services.queue.domain.endings import Nights
from services.queue.leases import LeaseKeys
from services.queue.load import BREACHES, Loads
from services.queue.memory import Remembered
from services.queue.policy import Rules, oldest_now
from services.queue.sla import Watchdog

_BOARD = """
SELECT number, status, counter, issued_at, due_at, called_at
FROM tickets WHERE unit = $1 AND status IN ('called', 'serving')
ORDER BY called_at DESC
"""

_NEXT = """
SELECT number, status, issued_at, due_at FROM tickets
WHERE unit = $1 AND status = 'waiting' AND due_at >= $2
ORDER BY due_at, issued_at, id LIMIT 10
"""

_WAITING = """
SELECT count(*)::int AS waiting, min(issued_at) AS since FROM tickets
WHERE unit = $1 AND status = 'waiting' AND due_at >= $2
"""


async def snapshot(
    pool: asyncpg.Pool, unit: str, *, now: datetime, forecast: int | None
) -> dict[str, Any]:
    """Give a unit's board: counters, who is called, who is next; nothing personal and no id."""
    oldest = oldest_now(now)
    counters = await pool.fetch(
        "SELECT number, state FROM counters WHERE unit = $1 ORDER BY number", unit
    )
    held = [_shown(row) for row in await pool.fetch(_BOARD, unit)]
    upcoming = [_shown(row) for row in await pool.fetch(_NEXT, unit, oldest)]
    total = await pool.fetchrow(_WAITING, unit, oldest)
    at_counter = {ticket["counter"]: ticket for ticket in held}
    since = total["since"]
    return {
        "unit": unit,
        "as_of": fast_json.instant(now),
        "waiting": total["waiting"],
        "oldest_wait_seconds": max(0, int((now - since).total_seconds())) if since else 0,
        "forecast_wait_seconds": forecast,
        "counters": [dict(row) | {"ticket": at_counter.get(row["number"])} for row in counters],
        "called": [ticket for ticket in held if ticket["status"] == "called"],
        "next": upcoming,
    }


def _shown(row: asyncpg.Record) -> dict[str, Any]:
    return {
        name: fast_json.instant(value) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


@asynccontextmanager
async def resources(core: Core) -> AsyncIterator[dict[str, Any]]:
    """Open what only the queue has: the directory, the loads, and the keys of kiosks' leases."""
    async with following_registry(core, Remembered(core.db.hot)) as state:
        rules = Rules.of(core.settings)
        loads = Loads(core, state["directory"])
        core.tasks.start("loads", loads.run())
        core.tasks.start("sla", Watchdog(core, state["directory"], loads).run())
        core.tasks.start("nights", Nights(core, state["directory"]).run())
        core.tasks.start("units-shown", _show_every_unit(state["directory"], loads))
        core.tasks.start("missed-appointments", release_for_ever(core))
        lease_keys = LeaseKeys.of(core.settings)
        yield state | {"loads": loads, "rules": rules, "lease_keys": lease_keys}


async def _show_every_unit(directory: Directory, loads: Loads) -> None:
    """Give every centre its metrics before its first event, or `rate()` would miss that one."""
    while True:
        for unit in directory.centres:
            loads.show(unit)
            BREACHES.labels(unit)
        await asyncio.sleep(5 if directory.centres else 0.1)

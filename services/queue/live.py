"""What the queue keeps open while it runs: directory, loads, boards and their streams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libs.common.app import Core
from libs.contracts.directory import Directory
from libs.contracts.following import following_registry
from services.queue.domain.appointments import release_for_ever
from services.queue.domain.endings import Nights
from services.queue.leases import LeaseKeys
from services.queue.load import Loads
from services.queue.memory import Remembered
from services.queue.policy import Rules
from services.queue.projection import Projection
from services.queue.shown import show_every_centre
from services.queue.sla import Watchdog
from services.queue.streams import Streams


@asynccontextmanager
async def resources(core: Core) -> AsyncIterator[dict[str, Any]]:
    """Open what only the queue has."""
    async with following_registry(core, Remembered(core.db.hot)) as state:
        rules = Rules.of(core.settings)
        loads = Loads(core, state["directory"])
        core.tasks.start("loads", loads.run())
        core.tasks.start("sla", Watchdog(core, state["directory"], loads).run())
        core.tasks.start("nights", Nights(core, state["directory"]).run())
        core.tasks.start("units-shown", show_every_centre(core, state["directory"], loads))
        core.tasks.start("missed-appointments", release_for_ever(core))
        lease_keys = LeaseKeys.of(core.settings)
        streams = _stream_boards(core, loads, state["directory"])
        own = {"loads": loads, "rules": rules, "lease_keys": lease_keys, "streams": streams}
        yield state | own


def _stream_boards(core: Core, loads: Loads, directory: Directory) -> Streams:
    projection = Projection(core)
    streams = Streams(core, projection, loads, directory)

    async def shown() -> str | None:
        return None if projection.ready.is_set() else "the boards have not been read yet"

    async def fed() -> str | None:
        return projection.problem

    core.health.needed["boards"] = shown
    core.health.wanted["boards-feed"] = fed
    core.tasks.start("boards", projection.follow())
    core.tasks.start("boards-watch", projection.watch())
    core.tasks.start("streams", streams.run())
    core.tasks.start("streams-end", streams.end_when_stopping())
    return streams

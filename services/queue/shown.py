"""What metrics show of every centre, whatever goes on there: its name and whether it is open."""

import asyncio
from typing import Final

from prometheus_client import Gauge

from libs.common.app import Core
from libs.common.worktime import is_open
from libs.contracts.directory import Directory
from services.queue.load import BREACHES, Loads

NAME: Final = Gauge(
    "motcua_unit_info", "1 for each centre: what the unit is called.", ("unit", "name")
)
DOORS: Final = Gauge(
    "motcua_queue_doors_open", "1 while a centre takes people, by its opening hours.", ("unit",)
)


async def show_every_centre(core: Core, directory: Directory, loads: Loads) -> None:
    """Give every centre its metrics before its first event, or `rate()` would miss that one."""
    names: dict[str, str] = {}
    while True:
        now = core.clock.now()
        for unit in directory.centres:
            loads.show(unit)
            BREACHES.labels(unit)
            DOORS.labels(unit).set(is_open(now, directory.hours(unit), directory.calendar))
            _name(directory, unit, names)
        await asyncio.sleep(5 if directory.centres else 0.1)


def _name(directory: Directory, unit: str, names: dict[str, str]) -> None:
    """Show what a unit is called, and not any more what it was called before."""
    known = directory.units.get(unit)
    if known is None or names.get(unit) == known.name:
        return
    if unit in names:
        NAME.remove(unit, names[unit])
    NAME.labels(unit, known.name).set(1)
    names[unit] = known.name

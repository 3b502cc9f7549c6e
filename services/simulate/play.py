"""The play: citizens with their kiosks, officers at their counters, managers who open them.

Each is a task that sleeps on the virtual clock and calls the gateway.
"""

import asyncio
from datetime import datetime, timedelta

from services.simulate.citizens import Visit
from services.simulate.officers import Officer
from services.simulate.staffing import plan
from services.simulate.stage import Floor, Stage

_LAST_PATIENCE = 15.0
"""Wall seconds for which requests are sent again once the play is to end."""


class Play(Stage):
    """A stage, and what happens on it."""

    async def run(self, overrun: timedelta) -> None:
        """Play until everybody has been served, at most `overrun` beyond the end, or a stop."""
        closing = asyncio.create_task(self._close(self.scene.until + overrun))
        try:
            async with asyncio.TaskGroup() as group:
                for floor in self.floors.values():
                    group.create_task(self._fill(floor))
        finally:
            closing.cancel()

    async def _close(self, at: datetime) -> None:
        await self.timeline.until(at)
        self.stop()

    def stop(self) -> None:
        """End soon: nobody new comes or is called, whoever stands at a counter is let go."""
        self.door.hurry(_LAST_PATIENCE)
        self.timeline.stop()

    async def _fill(self, floor: Floor) -> None:
        """Let people in and open counters as planned; the end comes when all are served."""
        openings = list(plan(floor.hall.rates))
        most = max((opening.counters for opening in openings), default=0)
        async with asyncio.TaskGroup() as group:
            floor.group = group
            for number in range(1, most + 1):
                group.create_task(Officer(floor, number).run())
            people = group.create_task(self._let_in(floor, group))
            for opening in openings[:-1]:
                await self.timeline.until(opening.at)
                floor.want(opening.counters)
            await people
            for opening in openings[-1:]:
                await self.timeline.until(opening.at)
            floor.over = True
            floor.want(0)

    async def _let_in(self, floor: Floor, group: asyncio.TaskGroup) -> None:
        for person in floor.hall.people:
            await self.timeline.until(person.at)
            if self.timeline.stopped:
                return
            floor.drawing += 1
            group.create_task(Visit(floor, person).run())

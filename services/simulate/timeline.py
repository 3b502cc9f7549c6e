"""The server's virtual clock, followed from here: sleeping until an instant of it."""

import asyncio
import time
from datetime import datetime
from typing import Any

from libs.common.clock import VirtualClock


def follow(told: dict[str, Any]) -> VirtualClock:
    """Make the clock that `/version` described, with this machine's wall as its measure.

    The anchor is worked out from the instant told rather than taken, so that two machines whose
    walls differ still agree.
    """
    start, now = (datetime.fromisoformat(told[name]) for name in ("start", "now"))
    speed = float(told["speed"])
    return VirtualClock(start, speed, time.time() - (now - start).total_seconds() / speed)


class Timeline:
    """Lets actors sleep until a virtual instant, and wakes them all when the play is stopped."""

    def __init__(self, clock: VirtualClock) -> None:
        """Follow a clock."""
        self.clock = clock
        self.stopped = False
        self._asleep: set[asyncio.Future[None]] = set()

    async def until(self, at: datetime, bell: "asyncio.Future[None] | None" = None) -> None:
        """Sleep until an instant, until the bell rings (its result is set) or until the stop."""
        if self.stopped:
            return
        wall = (at - self.clock.now()).total_seconds() / self.clock.speed
        if wall <= 0:
            return
        loop = asyncio.get_running_loop()
        bell = bell if bell is not None else loop.create_future()
        timer = loop.call_later(wall, ring, bell)
        self._asleep.add(bell)
        try:
            await bell
        finally:
            timer.cancel()
            self._asleep.discard(bell)

    def stop(self) -> None:
        """Wake everybody; from now on nobody sleeps."""
        self.stopped = True
        for bell in tuple(self._asleep):
            ring(bell)


def ring(bell: "asyncio.Future[None]") -> None:
    """Wake who sleeps on a bell, if nobody has yet."""
    if not bell.done():
        bell.set_result(None)

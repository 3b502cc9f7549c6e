"""What the actors share: the clock, the door, the books, and the hall of each unit."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from services.simulate.client import Answer, Door, Unsettled
from services.simulate.ledger import Ledger
from services.simulate.people import Person
from services.simulate.scene import Badges, Hall, Scene
from services.simulate.timeline import Timeline, ring


def _bell() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class Holder:
    """Who holds a ticket, and the bell that the first call rings."""

    person: Person
    called: "asyncio.Future[None]" = field(default_factory=_bell)
    met: int = 0
    """How often the person has come to a counter."""
    came_late: bool = False
    """Whether somebody who missed a call has turned up meanwhile."""


class Stage:
    """What all actors of a play share."""

    def __init__(self, scene: Scene, door: Door, ledger: Ledger, chance: Random) -> None:
        """Set it up for nobody yet."""
        self.scene, self.door, self.ledger, self.chance = scene, door, ledger, chance
        self.timeline = Timeline(scene.clock)
        self.badges: Badges = scene.badges
        self.lateness: list[float] = []
        self.citizens = count(1)
        """Numbers those who come."""
        self.floors = {hall.unit: Floor(self, hall) for hall in scene.halls}
        self._holders: dict[str, asyncio.Future[Holder]] = {}

    def holder_of(self, ticket: str) -> "asyncio.Future[Holder]":
        """Give who holds a ticket; a call may be answered before the issue is."""
        if ticket not in self._holders:
            self._holders[ticket] = asyncio.get_running_loop().create_future()
        return self._holders[ticket]

    def hand_over(self, ticket: str, holder: Holder) -> None:
        """Note who holds a ticket."""
        known = self.holder_of(ticket)
        if not known.done():
            known.set_result(holder)

    @contextmanager
    def forgiving(self) -> Iterator[None]:
        """Let an actor end without its answer; the ledger holds what remained unsettled."""
        with suppress(Unsettled):
            yield

    def surprise(self, asked: str, answer: Answer) -> None:
        """Note an answer that the play gives no reason for."""
        self.ledger.violations.append(
            f"{asked} was answered {answer.status}: {answer.body[:300]!r}"
        )

    async def after(
        self, at: datetime, seconds: float, bell: "asyncio.Future[None] | None" = None
    ) -> None:
        """Sleep until so many virtual seconds after an instant, until the bell, or the stop."""
        await self.timeline.until(at + timedelta(seconds=seconds), bell)


class Floor:
    """A unit's hall while it is played: who waits, who is idle, how many counters are wanted."""

    def __init__(self, stage: Stage, hall: Hall) -> None:
        """Know nobody yet."""
        self.stage, self.hall, self.unit = stage, hall, hall.unit
        self.waiting = 0
        self.drawing = 0
        """People at the kiosk, whose number is not out yet."""
        self.aside = 0
        """People who have been put aside, or missed their call, and will wait again."""
        self.wanted = 0
        self.over = False
        self.open: set[int] = set()
        self.group: asyncio.TaskGroup | None = None
        """While people come in or are served."""
        self._idle: deque[asyncio.Future[None]] = deque()
        self._off_duty: deque[asyncio.Future[None]] = deque()

    @property
    def expected(self) -> int:
        """People who wait, or will in a moment."""
        return self.waiting + self.drawing + self.aside

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let somebody else do something meanwhile."""
        assert self.group is not None
        self.group.create_task(work)

    def want(self, counters: int) -> None:
        """Plan so many counters from now on."""
        self.wanted = counters
        for bells in (self._idle, self._off_duty):
            while bells:
                ring(bells.popleft())

    def came(self) -> None:
        """Somebody waits from now on: one idle officer hears it."""
        self.waiting += 1
        while self._idle:
            bell = self._idle.popleft()
            if not bell.done():
                ring(bell)
                return

    async def idle(self, span: timedelta, *, off_duty: bool = False) -> None:
        """Let an officer wait for something to do, at most so long; off duty for a new plan."""
        bells = self._off_duty if off_duty else self._idle
        bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        bells.append(bell)
        await self.stage.timeline.until(self.stage.scene.clock.now() + span, bell)
        with suppress(ValueError):
            bells.remove(bell)

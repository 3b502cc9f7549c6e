"""The actors: citizens with their kiosks, officers at their counters, managers who open them.

Each is a task that sleeps on the virtual clock and calls the gateway. What may be added later has
its place: another thing to do with a ticket at the counter (a transfer) is a branch of
`Officer.serve`, another thing to do while waiting one of `Visit.play`.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from random import Random
from typing import Any

from services.simulate.client import Answer, Door, Unsettled
from services.simulate.ledger import Ledger
from services.simulate.people import Paper, Person
from services.simulate.scene import Badges, Hall, Scene
from services.simulate.staffing import plan
from services.simulate.timeline import Timeline, ring

_LOOK_AGAIN = timedelta(minutes=3)
_AFTER_NOBODY = timedelta(seconds=20)
_UNKNOWN_WITHIN = 5.0
_LAST_PATIENCE = 15.0
"""Wall seconds for which requests are sent again once the play is to end."""


class Play:
    """What all actors share."""

    def __init__(self, scene: Scene, door: Door, ledger: Ledger, chance: Random) -> None:
        """Take the stage; `run` plays."""
        self.scene, self.door, self.ledger, self.chance = scene, door, ledger, chance
        self.timeline = Timeline(scene.clock)
        self.badges: Badges = scene.badges
        self.lateness: list[float] = []
        self._visits: dict[str, asyncio.Future[Visit]] = {}

    async def run(self, overrun: timedelta) -> None:
        """Play until everybody has been served, at most `overrun` beyond the end, or a stop."""
        closing = asyncio.create_task(self._close(self.scene.until + overrun))
        try:
            async with asyncio.TaskGroup() as group:
                for hall in self.scene.halls:
                    group.create_task(Floor(self, hall).run())
        finally:
            closing.cancel()

    async def _close(self, at: datetime) -> None:
        await self.timeline.until(at)
        self.stop()

    def stop(self) -> None:
        """End soon: nobody new comes or is called, whoever stands at a counter is let go."""
        self.door.hurry(_LAST_PATIENCE)
        self.timeline.stop()

    def visit_of(self, ticket: str) -> "asyncio.Future[Visit]":
        """Give who holds a ticket; a call may be answered before the issue is."""
        if ticket not in self._visits:
            self._visits[ticket] = asyncio.get_running_loop().create_future()
        return self._visits[ticket]

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


class Floor:
    """A unit's hall while it is played: who waits, who is idle, how many counters are wanted."""

    def __init__(self, play: Play, hall: Hall) -> None:
        """Know nobody yet."""
        self.play, self.hall, self.unit = play, hall, hall.unit
        self.waiting = 0
        self.drawing = 0
        """People at the kiosk, whose number is not out yet."""
        self.wanted = 0
        self.over = False
        self._idle: deque[asyncio.Future[None]] = deque()
        self._off_duty: deque[asyncio.Future[None]] = deque()

    @property
    def expected(self) -> int:
        """People who wait, or will in a moment."""
        return self.waiting + self.drawing

    async def run(self) -> None:
        """Let people in and open counters as planned; the end comes when all are served."""
        openings = list(plan(self.hall.rates))
        most = max((opening.counters for opening in openings), default=0)
        async with asyncio.TaskGroup() as group:
            for number in range(1, most + 1):
                group.create_task(Officer(self, number).run())
            people = group.create_task(self._let_in(group))
            for opening in openings[:-1]:
                await self.play.timeline.until(opening.at)
                self.want(opening.counters)
            await people
            for opening in openings[-1:]:
                await self.play.timeline.until(opening.at)
            self.over = True
            self.want(0)

    async def _let_in(self, group: asyncio.TaskGroup) -> None:
        for person in self.hall.people:
            await self.play.timeline.until(person.at)
            if self.play.timeline.stopped:
                return
            self.drawing += 1
            group.create_task(Visit(self, person).run())

    def want(self, counters: int) -> None:
        """Plan so many counters from now on."""
        self.wanted = counters
        for bells in (self._idle, self._off_duty):
            while bells:
                ring(bells.popleft())

    def came(self) -> None:
        """Somebody has drawn a number: one idle officer hears it."""
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
        await self.play.timeline.until(self.play.scene.clock.now() + span, bell)
        with suppress(ValueError):
            bells.remove(bell)


class Visit:
    """A citizen: draws a number, waits, and leaves when patience ends before the call."""

    def __init__(self, floor: Floor, person: Person) -> None:
        """Come in."""
        self.floor, self.person, self.play = floor, person, floor.play
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._by_web: dict[str, str] = {}

    async def run(self) -> None:
        """Play the visit up to the call."""
        with self.play.forgiving():
            try:
                ticket = await self._draw()
            finally:
                self.floor.drawing -= 1
            if ticket is not None:
                await self._look(ticket)
                await self._wait(ticket)

    async def _draw(self) -> dict[str, Any] | None:
        person, play = self.person, self.play
        who = self._by_web if person.channel == "web" else play.badges.of("kiosk", person.unit)
        wish = {
            "unit": person.unit,
            "channel": person.channel,
            "procedure_codes": [person.procedure],
            "priority_class": person.priority_class,
        }
        answer = await play.door.post("/v1/tickets", who, wish)
        if answer.status == 409 and answer.json["type"].endswith(":centre-closed"):
            play.ledger.turned_away += 1
            return None
        if answer.status != 201:
            play.surprise("POST /v1/tickets", answer)
            return None
        ticket: dict[str, Any] = answer.json
        entry = play.ledger.note_ticket(ticket, issued=True)
        play.lateness.append((entry.issued_at - person.at).total_seconds())
        holder = play.visit_of(ticket["id"])
        if not holder.done():
            holder.set_result(self)
        self.floor.came()
        return ticket

    async def _look(self, ticket: dict[str, Any]) -> None:
        """Follow the ticket by phone, if that is where it is."""
        if self.person.channel == "web":
            answer = await self.play.door.get(f"/v1/tickets/{ticket['id']}", {})
            if not answer.ok or answer.json["number"] != ticket["number"]:
                self.play.surprise("GET a ticket", answer)

    async def _wait(self, ticket: dict[str, Any]) -> None:
        gives_up = datetime.fromisoformat(ticket["issued_at"])
        gives_up += timedelta(seconds=self.person.patience)
        if not self.called.done():
            await self.play.timeline.until(gives_up, self.called)
        # Whoever was woken by a call stays; at a stop everybody stays as they are.
        entry = self.play.ledger.tickets[ticket["id"]]
        if entry.calls or self.play.timeline.stopped:
            return
        answer = await self.play.door.post(f"/v1/tickets/{ticket['id']}/cancel", self._by_web)
        if answer.ok:
            self.play.ledger.note_ticket(answer.json)
            self.floor.waiting -= 1
        elif answer.status != 409:  # 409: called in the same moment
            self.play.surprise("cancel", answer)


class Officer:
    """Sits at one counter: opens it when it is wanted, calls, serves, closes it."""

    def __init__(self, floor: Floor, number: int) -> None:
        """Have a token of one's own."""
        self.floor, self.play, self.number = floor, floor.play, number
        self.badge = self.play.badges.of("officer", floor.unit, name=str(number))
        self._counter = f"/v1/units/{floor.unit}/counters/{number}"
        self._made = number <= floor.hall.counters_planned

    async def run(self) -> None:
        """Work until the day is over."""
        with self.play.forgiving():
            while not (self.play.timeline.stopped or self.floor.over):
                if self.number > self.floor.wanted:
                    await self.floor.idle(timedelta(days=1), off_duty=True)
                    continue
                if not await self._set("open"):
                    return
                goes_on = await self._work()
                if not (await self._set("closed") and goes_on):
                    return

    async def _set(self, state: str) -> bool:
        """Open or close the counter; one beyond the centre's plan is made by its manager."""
        who = self.badge if self._made else self.play.badges.of("manager", self.floor.unit)
        answer = await self.play.door.put(self._counter, {"state": state}, who)
        self._made = self._made or answer.ok
        if not answer.ok:
            self.play.surprise(f"PUT {self._counter}", answer)
        return answer.ok

    async def _work(self) -> bool:
        """Call and serve while the counter is wanted or people wait; False after a surprise."""
        floor = self.floor
        while not self.play.timeline.stopped:
            if self.number > floor.wanted and floor.expected <= floor.wanted:
                return True
            if floor.waiting <= 0 and self.play.chance.random() < 0.95:
                await floor.idle(_LOOK_AGAIN)
                continue
            answer = await self.play.door.post(f"{self._counter}/call-next", self.badge)
            if answer.status == 204:
                await floor.idle(_AFTER_NOBODY)
            elif answer.ok:
                floor.waiting -= 1
                if not await self.serve(answer.json):
                    return False
            else:
                self.play.surprise("call-next", answer)
                return False
        return True

    async def serve(self, ticket: dict[str, Any]) -> bool:
        """Attend to who was called, to the end of the visit."""
        person = await self._meet(ticket)
        called_at = datetime.fromisoformat(ticket["called_at"])
        await self.play.timeline.until(called_at + timedelta(seconds=person.way if person else 0))
        path = f"/v1/tickets/{ticket['id']}"
        if person is None or not person.shows_up:
            return await self._move(path, "no-show") is not None
        started = await self._move(path, "start")
        if started is None:
            return False
        begins = datetime.fromisoformat(started["started_at"])
        await self.play.timeline.until(begins + timedelta(seconds=person.service * 0.4))
        taken = [(paper, await self._take_in(paper, ticket["id"])) for paper in person.papers]
        await self.play.timeline.until(begins + timedelta(seconds=person.service))
        for paper, dossier in taken:
            if dossier is not None:
                await self._process(dossier, paper.steps)
        return await self._move(path, "finish") is not None

    async def _meet(self, ticket: dict[str, Any]) -> Person | None:
        """Enter the call and find who was called; None for a ticket of somebody else's."""
        self.play.ledger.note_ticket(ticket)
        holder = self.play.visit_of(ticket["id"])
        if not holder.done():
            patience = self.play.door.patience + _UNKNOWN_WITHIN
            await asyncio.wait([holder], timeout=patience)
        if not holder.done():
            return None
        visit = holder.result()
        ring(visit.called)
        return visit.person

    async def _move(self, path: str, step: str) -> dict[str, Any] | None:
        answer = await self.play.door.post(f"{path}/{step}", self.badge)
        if not answer.ok:
            self.play.surprise(step, answer)
            return None
        told: dict[str, Any] = answer.json
        self.play.ledger.note_ticket(told)
        return told

    async def _take_in(self, paper: Paper, ticket: str) -> dict[str, Any] | None:
        body = paper.body | {"ticket_id": ticket}
        return self._entered(await self.play.door.post("/v1/dossiers", self.badge, body), "dossier")

    async def _process(self, dossier: dict[str, Any], steps: tuple[str, ...]) -> None:
        """Take a dossier's steps: those of the competent unit by somebody who sits there."""
        competent = dossier["competent_unit"]
        elsewhere = competent != self.floor.unit
        back_office = self.play.badges.of("officer", competent, name="back")
        for step in steps:
            by = back_office if elsewhere and step in ("assign", "complete") else self.badge
            path = f"/v1/dossiers/{dossier['code']}/{step}"
            if self._entered(await self.play.door.post(path, by), step) is None:
                return

    def _entered(self, answer: Answer, asked: str) -> dict[str, Any] | None:
        if not answer.ok:
            self.play.surprise(asked, answer)
            return None
        told: dict[str, Any] = answer.json
        self.play.ledger.note_dossier(told)
        return told

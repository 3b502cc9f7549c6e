"""Officers: each sits at one counter, opens it when it is wanted, calls, serves, closes it."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from services.simulate.client import Answer
from services.simulate.people import Paper
from services.simulate.stage import Floor, Holder
from services.simulate.timeline import ring

_LOOK_AGAIN = timedelta(minutes=3)
_AFTER_NOBODY = timedelta(seconds=20)
_UNKNOWN_WITHIN = 5.0

RECALL_AFTER = 30.0
"""Virtual seconds after which who did not come is called again; the queue wants 15."""

GRACE = timedelta(seconds=600)
"""How long the queue lets somebody come after all; its default."""

AWAY_FOR = 240.0
"""Virtual seconds that a forgotten paper takes, or somebody who missed the call."""

_CLOSED = (":centre-closed", ":counter-not-open", ":unknown-counter")
"""Refusals of a transfer that happen in an ordinary day: the person is served here then."""


class Officer:
    """One of a floor's counters and who sits there."""

    def __init__(self, floor: Floor, number: int) -> None:
        """Have a token of one's own."""
        self.floor, self.stage, self.number = floor, floor.stage, number
        self.badge = self.stage.badges.of("officer", floor.unit, name=str(number))
        self._counter = f"/v1/units/{floor.unit}/counters/{number}"
        self._made = number <= floor.hall.counters_planned

    async def run(self) -> None:
        """Work until the day is over."""
        with self.stage.forgiving():
            while not (self.stage.timeline.stopped or self.floor.over):
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
        if state == "closed":
            self.floor.open.discard(self.number)
        who = self.badge if self._made else self.stage.badges.of("manager", self.floor.unit)
        answer = await self.stage.door.put(self._counter, {"state": state}, who)
        self._made = self._made or answer.ok
        if not answer.ok:
            self.stage.surprise(f"PUT {self._counter}", answer)
        elif state == "open":
            self.floor.open.add(self.number)
        return answer.ok

    async def _work(self) -> bool:
        """Call and serve while the counter is wanted or people wait; False after a surprise."""
        floor = self.floor
        while not self.stage.timeline.stopped:
            if self.number > floor.wanted and floor.expected <= floor.wanted:
                return True
            if floor.waiting <= 0 and self.stage.chance.random() < 0.95:
                await floor.idle(_LOOK_AGAIN if not floor.aside else _AFTER_NOBODY)
                continue
            answer = await self.stage.door.post(f"{self._counter}/call-next", self.badge)
            if answer.status == 204:
                await floor.idle(_AFTER_NOBODY)
            elif answer.ok:
                floor.waiting -= 1
                self.stage.ledger.note_ticket(answer.json, "call-next")
                if not await self.serve(answer.json):
                    return False
            else:
                self.stage.surprise("call-next", answer)
                return False
        return True

    # At the counter ---------------------------------------------------------------------------

    async def serve(self, ticket: dict[str, Any]) -> bool:
        """Attend to who was called, to the end of the visit or until somebody else does."""
        holder = await self._meet(ticket)
        path = f"/v1/tickets/{ticket['id']}"
        called_at = datetime.fromisoformat(ticket["called_at"])
        if holder is None or not await self._comes(holder, path, called_at):
            return await self._missed(holder, path)
        started = await self._move(path, "start")
        if started is None:
            return False
        begins = datetime.fromisoformat(started["started_at"])
        sent_on = await self._sent_on(holder, path, begins)
        if sent_on is not None:
            return sent_on
        person = holder.person
        await self.stage.after(begins, person.service * 0.4)
        taken = [(paper, await self._take_in(paper, ticket["id"])) for paper in person.papers]
        await self.stage.after(begins, person.service)
        for paper, dossier in taken:
            if dossier is not None:
                await self._process(dossier, paper.steps)
        return await self._move(path, "finish") is not None

    async def _meet(self, ticket: dict[str, Any]) -> Holder | None:
        """Find who was called; None for a ticket of somebody else's."""
        known = self.stage.holder_of(ticket["id"])
        if not known.done():
            patience = self.stage.door.patience + _UNKNOWN_WITHIN
            await asyncio.wait([known], timeout=patience)
        if not known.done():
            return None
        holder = known.result()
        ring(holder.called)
        return holder

    async def _comes(self, holder: Holder, path: str, called_at: datetime) -> bool:
        """Wait for who was called; who did not hear it is called again."""
        person = holder.person
        if person.mishap == "not_heard" and not holder.met:
            await self.stage.after(called_at, RECALL_AFTER)
            if not self.stage.timeline.stopped:
                called_at = await self._recall(path) or called_at
        await self.stage.after(called_at, person.way)
        holder.met += 1
        return person.shows_up or holder.came_late

    async def _recall(self, path: str) -> datetime | None:
        told = await self._move(path, "recall")
        return None if told is None else datetime.fromisoformat(told["called_at"])

    async def _missed(self, holder: Holder | None, path: str) -> bool:
        """Say that nobody came; some come after all, and are called again or wait again."""
        told = await self._move(path, "no-show")
        if told is None or holder is None or self.stage.timeline.stopped:
            return told is not None
        if holder.person.after_all == "soon":
            await self.stage.after(datetime.fromisoformat(told["ended_at"]), RECALL_AFTER)
            if self.stage.timeline.stopped:
                return True
            holder.came_late = True
            again = await self._move(path, "recall", missed_at=told["ended_at"])
            return again is None or await self.serve(again)
        if holder.person.after_all == "later":
            self._wait_again_later(path, holder, missed_at=told["ended_at"])
        return True

    # Sent on ----------------------------------------------------------------------------------

    async def _sent_on(self, holder: Holder, path: str, begins: datetime) -> bool | None:
        """Put a person aside or send on whose visit goes so; None: is served here and now."""
        mishap = holder.person.mishap
        if holder.met > 1 or mishap not in ("aside", "to_series", "to_counter", "away"):
            return None
        await self.stage.after(begins, holder.person.service * 0.2)
        if self.stage.timeline.stopped:
            return None
        if mishap == "aside":
            if await self._move(path, "park") is None:
                return False
            self._wait_again_later(path, holder)
            return True
        if mishap == "away":
            return await self._send_away(holder, path)
        others = sorted(self.floor.open - {self.number})
        to = {"series": "B"} if mishap == "to_series" else {"counter": (others or [99])[0]}
        answer = await self.stage.door.post(f"{path}/transfer", self.badge, to)
        if not self._granted("transfer", answer):
            return None
        self.stage.ledger.note_ticket(answer.json, "transfer")
        self.floor.came()
        return True

    async def _send_away(self, holder: Holder, path: str) -> bool | None:
        """Send a person to another hall that is played, while both have time left."""
        others = [
            floor for floor in self.stage.floors.values()
            if floor is not self.floor and floor.wanted and not floor.over
        ]  # fmt: skip
        if not others:
            return None
        there = self.stage.chance.choice(others)
        there.aside += 1  # so that nobody there goes home meanwhile
        try:
            to = {"unit": there.unit}
            answer = await self.stage.door.post(f"{path}/transfer", self.badge, to)
        finally:
            there.aside -= 1
        if not self._granted("transfer", answer):
            return None
        told = answer.json
        linked = told.pop("linked_ticket")
        self.stage.ledger.note_ticket(told, "transfer")
        self.stage.ledger.note_ticket(linked, "issue")
        # What goes with the visit is asked for there, and handed in another day.
        person = replace(holder.person, unit=there.unit, mishap="", papers=())
        self.stage.hand_over(linked["id"], Holder(person))
        there.came()
        return True

    def _granted(self, asked: str, answer: Answer) -> bool:
        if answer.ok:
            return True
        if not (answer.status in (404, 409) and answer.json["type"].endswith(_CLOSED)):
            self.stage.surprise(asked, answer)
        return False

    def _wait_again_later(self, path: str, holder: Holder, missed_at: str | None = None) -> None:
        self.floor.aside += 1
        self.floor.begin(self._wait_again(path, holder, missed_at))

    async def _wait_again(self, path: str, holder: Holder, missed_at: str | None) -> None:
        """Let who was put aside, or came late, wait in the old place."""
        with self.stage.forgiving():
            try:
                await self.stage.after(self.stage.scene.clock.now(), AWAY_FOR)
                if self.stage.timeline.stopped:
                    return
                holder.came_late = True
                told = await self._move(path, "return", missed_at=missed_at)
            finally:
                self.floor.aside -= 1
            if told is not None:
                self.floor.came()

    async def _move(
        self, path: str, step: str, *, missed_at: str | None = None
    ) -> dict[str, Any] | None:
        """Take a step; `missed_at` is when the person missed a call, which is not too long ago
        unless the machine is too slow for the clock."""
        answer = await self.stage.door.post(f"{path}/{step}", self.badge)
        if not answer.ok:
            if missed_at is None or not self._too_late(missed_at, answer):
                self.stage.surprise(step, answer)
            return None
        told: dict[str, Any] = answer.json
        self.stage.ledger.note_ticket(told, step)
        return told

    def _too_late(self, missed_at: str, answer: Answer) -> bool:
        waited = self.stage.scene.clock.now() - datetime.fromisoformat(missed_at)
        return answer.status == 409 and waited > GRACE

    # Dossiers ---------------------------------------------------------------------------------

    async def _take_in(self, paper: Paper, ticket: str) -> dict[str, Any] | None:
        body = paper.body | {"ticket_id": ticket}
        answer = await self.stage.door.post("/v1/dossiers", self.badge, body)
        return self._entered(answer, "dossier")

    async def _process(self, dossier: dict[str, Any], steps: tuple[str, ...]) -> None:
        """Take a dossier's steps: those of the competent unit by somebody who sits there."""
        competent = dossier["competent_unit"]
        elsewhere = competent != self.floor.unit
        back_office = self.stage.badges.of("officer", competent, name="back")
        for step in steps:
            by = back_office if elsewhere and step in ("assign", "complete") else self.badge
            path = f"/v1/dossiers/{dossier['code']}/{step}"
            if self._entered(await self.stage.door.post(path, by), step) is None:
                return

    def _entered(self, answer: Answer, asked: str) -> dict[str, Any] | None:
        if not answer.ok:
            self.stage.surprise(asked, answer)
            return None
        told: dict[str, Any] = answer.json
        self.stage.ledger.note_dossier(told)
        return told

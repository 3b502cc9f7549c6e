"""Citizens: they draw a number, wait, and leave when patience ends before the call."""

from datetime import datetime
from typing import Any

from services.simulate.client import Answer, own_address
from services.simulate.people import Person
from services.simulate.stage import Floor, Holder


class Visit:
    """Somebody's visit up to the first call; what follows is the officer's (`officers`)."""

    def __init__(self, floor: Floor, person: Person) -> None:
        """Come in."""
        self.floor, self.person, self.stage = floor, person, floor.stage
        self.holder = Holder(person)
        self._by_web = own_address(next(self.stage.citizens))

    async def run(self) -> None:
        """Play it."""
        with self.stage.forgiving():
            try:
                ticket = await self._draw()
                waits = ticket is not None and await self._hold_slip(ticket)
            finally:
                self.floor.drawing -= 1
            if ticket is not None and waits:
                self.floor.came()
                await self._look(ticket)
                await self._wait(ticket)

    @property
    def _kiosk(self) -> dict[str, str]:
        return self.stage.badges.of("kiosk", self.person.unit)

    async def _draw(self) -> dict[str, Any] | None:
        person, stage = self.person, self.stage
        who = self._by_web if person.channel == "web" else self._kiosk
        wish = {
            "unit": person.unit,
            "channel": person.channel,
            "procedure_codes": [person.procedure],
            "priority_class": person.priority_class,
        }
        answer = await stage.door.post("/v1/tickets", who, wish)
        if answer.status == 409 and answer.json["type"].endswith(":centre-closed"):
            stage.ledger.turned_away += 1
            return None
        if answer.status != 201:
            stage.surprise("POST /v1/tickets", answer)
            return None
        ticket: dict[str, Any] = answer.json
        entry = stage.ledger.note_ticket(ticket, "issue")
        stage.lateness.append((entry.issued_at - person.at).total_seconds())
        stage.hand_over(ticket["id"], self.holder)
        return ticket

    async def _hold_slip(self, ticket: dict[str, Any]) -> bool:
        """Take the slip out of the kiosk; without one, get another or give up: False."""
        if self.person.channel == "web":
            return True
        failed = self.person.mishap.startswith("unprinted")
        path = f"/v1/tickets/{ticket['id']}"
        printed = await self.stage.door.post(f"{path}/printed", self._kiosk, {"ok": not failed})
        if not failed:
            if not printed.ok or printed.json["printed_at"] is None:
                self.stage.surprise("printed", printed)
            return True
        if not self._left_line("print-failed", printed):
            return True
        if self.person.mishap == "unprinted_gone":
            return False
        answer = await self.stage.door.post(f"{path}/reissue", self._kiosk)
        if not answer.ok:
            self.stage.surprise("reissue", answer)
            return False
        self.stage.ledger.note_ticket(answer.json, "reissue")
        return True

    async def _look(self, ticket: dict[str, Any]) -> None:
        """Follow the ticket by phone, if that is where it is."""
        if self.person.channel == "web":
            answer = await self.stage.door.get(f"/v1/tickets/{ticket['id']}", self._by_web)
            if not answer.ok or answer.json["number"] != ticket["number"]:
                self.stage.surprise("GET a ticket", answer)

    async def _wait(self, ticket: dict[str, Any]) -> None:
        gives_up = datetime.fromisoformat(ticket["issued_at"])
        if not self.holder.called.done():
            await self.stage.after(gives_up, self.person.patience, self.holder.called)
        # Whoever was woken by a call stays; at a stop everybody stays as they are.
        entry = self.stage.ledger.tickets[ticket["id"]]
        if entry.calls or self.stage.timeline.stopped:
            return
        answer = await self.stage.door.post(f"/v1/tickets/{ticket['id']}/cancel", self._by_web)
        if self._left_line("cancel", answer):
            self.floor.waiting -= 1

    def _left_line(self, step: str, answer: Answer) -> bool:
        """Enter that somebody waits no longer; False when the call was quicker."""
        if answer.ok:
            self.stage.ledger.note_ticket(answer.json, step)
            return True
        if answer.status != 409:  # 409: called in the same moment
            self.stage.surprise(step, answer)
        return False

"""Officers at their counters: who is called, and all that may happen then."""

from typing import TYPE_CHECKING, Any

from tests.chaos.client import Answer
from tests.system.city import PROCEDURE

if TYPE_CHECKING:
    from tests.chaos.load import Load

PAPER = "000.00.00.G15-KQ1973"
STAYS_OPEN = 4
"""Counters up to this one never close: only to them people are sent."""


class Desk:
    """One counter and its officer."""

    def __init__(self, load: "Load", unit: str, number: int) -> None:
        """Sit down."""
        self._load, self._client, self._ledger = load, load.client, load.ledger
        self._dice, self._plan = load.dice, load.plan
        self._unit, self._number = unit, number
        self._who = load.bearer("officer", unit, number)
        self._path = f"/v1/units/{unit}/counters/{number}"

    async def run(self) -> None:
        """Call and serve until nobody comes any more."""
        while True:
            over = self._load.nobody_comes
            if self._dice.random() < 0.5:
                await self._look_after_who_is_aside()
            if self._plan.closing and self._number > STAYS_OPEN and self._dice.random() < 0.01:
                await self._close_and_open()
            answer = await self._client.post(f"{self._path}/call-next", self._who)
            if answer.status == 204:
                self._ledger.nobody(self._unit, self._number, answer.sent, answer.came)
                if over:
                    return
                await self._load.think()
                continue
            self._ledger.moved("call-next", answer)
            await self._with(answer.body)

    async def _with(self, ticket: dict[str, Any]) -> None:
        self._load.serving += 1
        try:
            await self._serve(ticket)
        finally:
            self._load.serving -= 1

    async def _close_and_open(self) -> None:
        manager = self._load.bearer("manager", self._unit)
        for state in ("closed", "open"):
            await self._client.set_counter(self._unit, self._number, state, manager)

    async def _serve(self, ticket: dict[str, Any]) -> None:
        await self._load.think()
        if self._twist(0.2):
            # The officer's machine has died: the manager frees what it held.
            path, manager = f"{self._path}/hand-back", self._load.bearer("manager", self._unit)
            self._ledger.moved("hand-back", await self._client.post(path, manager))
            return
        if self._dice.random() < 0.1 and await self._missed(ticket):
            return
        if not self._twist(0.3):
            await self._step(ticket, "start")
            if self._dice.random() < self._plan.dossiers:
                await self._dossier(ticket)
            if not self._twist(0.7):
                await self._step(ticket, "finish")
                return
        await self._turn_away(ticket)

    def _twist(self, share: float) -> bool:
        # Whoever is sent on at the very end might find that nobody is there any more.
        return not self._load.ending and self._dice.random() < self._plan.twists * share

    async def _missed(self, ticket: dict[str, Any]) -> bool:
        """Say that nobody came; False when the person turns up and is called again."""
        told = await self._step(ticket, "no-show")
        if not self._twist(3):
            return True
        if self._dice.random() < 0.5:
            self._load.aside.append(told.body)
            return True
        await self._step(ticket, "recall")
        return False

    async def _turn_away(self, ticket: dict[str, Any]) -> None:
        """Put aside or send on somebody who stands at the counter."""
        where = self._dice.choice(["aside", "aside", "series", "counter", "unit"])
        if where == "aside":
            self._load.aside.append((await self._step(ticket, "park")).body)
            return
        elsewhere = [unit for unit in self._plan.units if unit != self._unit]
        to: dict[str, Any] = {"series": self._dice.choice("AB")}
        if where == "unit" and elsewhere:
            to = {"unit": self._dice.choice(elsewhere)}
        elif where == "counter":
            there = [n for unit, n in self._plan.desks() if unit == self._unit and n <= STAYS_OPEN]
            to = {"counter": self._dice.choice(there)}
        await self._step(ticket, "transfer", to)

    async def _look_after_who_is_aside(self) -> None:
        """Let somebody wait again, or call them straight to this counter; some have given up."""
        mine = [ticket for ticket in self._load.aside if ticket["unit"] == self._unit]
        if not mine:
            return
        self._load.serving += 1
        try:
            ticket = self._dice.choice(mine)
            self._load.aside.remove(ticket)
            if self._dice.random() < 0.7:
                await self._step(ticket, "return", gone=409)
                return
            body = {"counter": self._number, "reason": "đã quay lại"}
            called = await self._step(ticket, "call", body, gone=409)
            if called.status == 200:
                await self._serve(ticket)
        finally:
            self._load.serving -= 1

    async def _step(
        self, ticket: dict[str, Any], name: str, body: Any = None, *, gone: int = 0
    ) -> Answer:
        path = f"/v1/tickets/{ticket['id']}/{name}"
        answer = await self._client.post(path, self._who, body, refused=[gone])
        if answer.status != gone:
            self._ledger.moved(name, answer)
        return answer

    async def _dossier(self, ticket: dict[str, Any]) -> None:
        """Take a dossier in and along; some stay where they are."""
        online = self._dice.random() < 0.3
        paper = {"component_code": PAPER}
        if self._dice.random() < 0.5:
            paper["file_sha256"] = f"{self._dice.getrandbits(256):064x}"
        draft = {
            "procedure_code": PROCEDURE,
            "receiving_unit": self._unit,
            "channel": "online" if online else self._dice.choice(["direct", "postal"]),
            "applicant": {"kind": "citizen", "name": "Trần Thị Bình"},
            "components": [paper] * self._dice.randrange(3),
            "ticket_id": ticket["id"],
        }
        taken = await self._client.post("/v1/dossiers", self._who, draft)
        self._ledger.dossier(None, taken.body)
        for step in ("receive", "assign", "complete", "return")[0 if online else 1 :]:
            if self._dice.random() < 0.08:
                return
            moved = await self._client.post(f"/v1/dossiers/{taken.body['code']}/{step}", self._who)
            self._ledger.dossier(step, moved.body)

"""The load: citizens who take tickets, officers who serve them, dossiers on their way."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from libs.common.auth import DevelopmentIssuer
from tests.chaos.client import Answer, Client
from tests.chaos.ledger import Ledger
from tests.system.city import PROCEDURE

UNITS = ("H29.26740", "H29.26743")
PAPER = "000.00.00.G15-KQ1973"


@dataclass(frozen=True)
class Plan:
    """How many clients do what."""

    units: Sequence[str] = UNITS
    officers: int = 3
    """At each unit, one to a counter."""
    citizens: int = 3
    """At each unit."""
    tickets: int | None = None
    """How many are issued in all; None: until the load is ended."""
    think: float = 0.03
    """Mean seconds between two requests of one client."""
    crowd: int = 12
    """How many may wait in a unit before newcomers stay away for a while."""
    cancelled: float = 0.08
    dossiers: float = 0.5
    """Share of visits that bring a dossier."""


class Load:
    """Clients at work until `close`."""

    def __init__(self, client: Client, data: Path, plan: Plan, ledger: Ledger, dice: Any) -> None:
        """Use `under_load` instead."""
        self.ledger = ledger
        self._client = client
        self._plan = plan
        self._dice: random.Random = dice
        self._issuer = DevelopmentIssuer(data)
        self._open = True
        self._issuing = 0
        self._left = plan.tickets
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Open the counters and let everybody in."""
        desks = [(unit, n) for unit in self._plan.units for n in range(1, self._plan.officers + 1)]
        for unit, number in desks:
            await self._client.open_counter(unit, number, self._bearer("manager", unit))
        work = [self._officer(unit, number) for unit, number in desks]
        comers = [unit for unit in self._plan.units for _ in range(self._plan.citizens)]
        work += [self._citizen(unit) for unit in comers]
        self._issuing = len(comers)
        self._tasks = [asyncio.create_task(part) for part in work]

    async def close(self) -> None:
        """Let nobody in any more and wait until everybody who was called has been served."""
        self._open = False
        await self.finished()

    async def finished(self) -> None:
        """Wait until every client is done; what one of them failed with is raised."""
        await asyncio.gather(*self._tasks)

    async def more(self, acknowledged: int, within: float = 90) -> None:
        """Wait until so many more writes have been acknowledged."""
        goal = len(self.ledger.moments) + acknowledged
        await self._until(lambda: len(self.ledger.moments) >= goal, within)

    async def served_again(self, since: float, within: float = 90) -> float:
        """Wait until something is acknowledged that was sent after an instant; answer how long
        after it (seconds)."""
        place = bisect_left(self.ledger.moments, since, key=lambda moment: moment[1])
        await self._until(lambda: self.ledger.recovered(since, place) is not None, within)
        return self.ledger.recovered(since, place) or 0.0

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within):
            while not condition():
                for task in self._tasks:
                    if task.done() and (error := task.exception()):
                        raise error
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        """End everything at once, after a failure."""
        for task in self._tasks:
            task.cancel()

    def _bearer(self, role: str, unit: str, number: int = 1) -> dict[str, str]:
        subject = f"{role}-{number}-of-{unit}"
        return {
            "Authorization": f"Bearer {self._issuer.token(role, subject=subject, units=[unit])}"
        }

    async def _think(self) -> None:
        await asyncio.sleep(self._dice.uniform(0, 2 * self._plan.think))

    def _may_issue(self) -> bool:
        if self._left is None:
            return self._open
        self._left -= 1
        return self._open and self._left >= 0

    # Citizens ---------------------------------------------------------------------------------

    async def _citizen(self, unit: str) -> None:
        while self._open and (self._left is None or self._left > 0):
            if self.ledger.waiting(unit) < self._plan.crowd and self._may_issue():
                await self._visit(unit)
            await self._think()
        self._issuing -= 1

    async def _visit(self, unit: str) -> None:
        wish = {"unit": unit, "channel": "web", "procedure_codes": [PROCEDURE]}
        answer = await self._client.post("/v1/tickets", {}, wish)
        self.ledger.issued(answer.body, answer.came)
        if self._dice.random() < self._plan.cancelled:
            path = f"/v1/tickets/{answer.body['id']}/cancel"
            given_up = await self._client.post(path, {}, refused=[409])
            if given_up.status == 200:
                self.ledger.moved("cancel", given_up.body, given_up.began)

    # Officers ---------------------------------------------------------------------------------

    async def _officer(self, unit: str, number: int) -> None:
        headers = self._bearer("officer", unit, number)
        path = f"/v1/units/{unit}/counters/{number}/call-next"
        while True:
            over = not self._open or (self._left is not None and not self._issuing)
            answer = await self._client.post(path, headers)
            if answer.status == 204:
                self.ledger.nobody(unit, answer.sent, answer.came)
                if over:
                    return
                await self._think()
                continue
            self.ledger.moved("call-next", answer.body, answer.began)
            await self._serve(answer.body, unit, headers)

    async def _serve(self, ticket: dict[str, Any], unit: str, headers: dict[str, str]) -> None:
        await self._think()
        if self._dice.random() < 0.1:
            await self._step(ticket, "no-show", headers)
            return
        await self._step(ticket, "start", headers)
        if self._dice.random() < self._plan.dossiers:
            await self._dossier(ticket, unit, headers)
        await self._step(ticket, "finish", headers)

    async def _step(self, ticket: dict[str, Any], name: str, headers: dict[str, str]) -> Answer:
        answer = await self._client.post(f"/v1/tickets/{ticket['id']}/{name}", headers)
        self.ledger.moved(name, answer.body, answer.began)
        return answer

    async def _dossier(self, ticket: dict[str, Any], unit: str, headers: dict[str, str]) -> None:
        """Take a dossier in and along; some stay where they are."""
        online = self._dice.random() < 0.3
        paper = {"component_code": PAPER}
        if self._dice.random() < 0.5:
            paper["file_sha256"] = f"{self._dice.getrandbits(256):064x}"
        draft = {
            "procedure_code": PROCEDURE,
            "receiving_unit": unit,
            "channel": "online" if online else self._dice.choice(["direct", "postal"]),
            "applicant": {"kind": "citizen", "name": "Trần Thị Bình"},
            "components": [paper] * self._dice.randrange(3),
            "ticket_id": ticket["id"],
        }
        taken = await self._client.post("/v1/dossiers", headers, draft)
        self.ledger.dossier(None, taken.body)
        for step in ("receive", "assign", "complete", "return")[0 if online else 1 :]:
            if self._dice.random() < 0.08:
                return
            moved = await self._client.post(f"/v1/dossiers/{taken.body['code']}/{step}", headers)
            self.ledger.dossier(step, moved.body)


@asynccontextmanager
async def under_load(
    doors: Sequence[str], data: Path, *, seed: int, plan: Plan | None = None,
    ledger: Ledger | None = None,
) -> AsyncIterator[Load]:  # fmt: skip
    """Let clients work at some doors; who leaves without `close` has failed."""
    dice = random.Random(seed)  # noqa: S311  (the same people each time)
    ledger = ledger or Ledger()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=15)
    ) as session:
        client = Client(session, doors, ledger, dice)
        load = Load(client, data, plan or Plan(), ledger, dice)
        await load.begin()
        try:
            yield load
        finally:
            load.stop()
            await asyncio.gather(*load._tasks, return_exceptions=True)

"""The load: citizens who take tickets, and officers who serve them (`desks`)."""

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from libs.common.auth import DevelopmentIssuer
from services.simulate.client import own_address
from tests.chaos.client import Client
from tests.chaos.desks import Desk
from tests.chaos.ledger import Ledger
from tests.system.city import PROCEDURE

UNITS = ("H29.26740", "H29.26743")

_citizens = count(1)


@dataclass(frozen=True)
class Plan:
    """How many clients do what."""

    units: Sequence[str] = UNITS
    officers: int | tuple[int, ...] = 3
    """At each unit, one to a counter; or at the first, the second, ..."""
    citizens: int = 3
    """At each unit."""
    tickets: int | None = None
    """How many are issued in all; None: until the load is ended."""
    operations: int | None = None
    """After how many answered requests nobody new comes."""
    think: float = 0.03
    """Mean seconds between two requests of one client."""
    crowd: int = 12
    """How many may wait in a unit before newcomers stay away for a while."""
    cancelled: float = 0.08
    dossiers: float = 0.5
    """Share of visits that bring a dossier."""
    twists: float = 0.2
    """Share of visits that do not go straight: put aside, sent on, handed back, called again."""
    closing: bool = False
    """Whether counters also close and open again, while others are sent people for themselves."""

    def desks(self) -> list[tuple[str, int]]:
        """List the counters."""
        per_unit = self.officers
        counts = (per_unit,) * len(self.units) if isinstance(per_unit, int) else per_unit
        return [
            (unit, number)
            for unit, count in zip(self.units, counts, strict=True)
            for number in range(1, count + 1)
        ]


class Load:
    """Clients at work until `close`."""

    def __init__(self, client: Client, data: Path, plan: Plan, ledger: Ledger, dice: Any) -> None:
        """Use `under_load` instead."""
        self.ledger = ledger
        self.client = client
        self.plan = plan
        self.dice: random.Random = dice
        self._issuer = DevelopmentIssuer(data)
        self._bearers: dict[str, dict[str, str]] = {}
        self._open = True
        self._issuing = 0
        self._left = plan.tickets
        self._tasks: list[asyncio.Task[None]] = []
        self.aside: list[dict[str, Any]] = []
        """Tickets that were put aside or missed their call, for whoever has time."""
        self.serving = 0
        """Officers who have somebody, whom they may send to others yet."""

    async def begin(self) -> None:
        """Open the counters and let everybody in."""
        for unit, number in self.plan.desks():
            await self.client.set_counter(unit, number, "open", self.bearer("manager", unit))
        work = [Desk(self, unit, number).run() for unit, number in self.plan.desks()]
        comers = [unit for unit in self.plan.units for _ in range(self.plan.citizens)]
        work += [self._citizen(unit) for unit in comers]
        self._issuing = len(comers)
        self._tasks = [asyncio.create_task(part) for part in work]

    @property
    def ending(self) -> bool:
        """Whether nobody new comes."""
        return not self._issuing and not self._may_come()

    @property
    def nobody_comes(self) -> bool:
        """Whether nobody will wait any more but those who do now."""
        return self.ending and not self.serving and not self.aside

    def _may_come(self) -> bool:
        enough = self.plan.operations
        if enough is not None and self.ledger.counts["operations"] >= enough:
            return False
        return self._open and (self._left is None or self._left > 0)

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

    def bearer(self, role: str, unit: str, number: int = 1) -> dict[str, str]:
        """Show a token of somebody at a unit."""
        subject = f"{role}-{number}-of-{unit}"
        if subject not in self._bearers:
            token = self._issuer.token(role, subject=subject, units=[unit])
            self._bearers[subject] = {"Authorization": f"Bearer {token}"}
        return self._bearers[subject]

    async def think(self) -> None:
        """Let a moment pass."""
        await asyncio.sleep(self.dice.uniform(0, 2 * self.plan.think))

    # Citizens ---------------------------------------------------------------------------------

    async def _citizen(self, unit: str) -> None:
        while self._may_come():
            if self.ledger.waiting(unit) < self.plan.crowd:
                if self._left is not None:
                    self._left -= 1
                await self._visit(unit)
            await self.think()
        self._issuing -= 1

    async def _visit(self, unit: str) -> None:
        kiosk = self.dice.random() < self.plan.twists
        phone = own_address(next(_citizens))
        who = self.bearer("kiosk", unit) if kiosk else phone
        wish = {
            "unit": unit,
            "channel": "kiosk" if kiosk else "web",
            "procedure_codes": [PROCEDURE],
        }
        answer = await self.client.post("/v1/tickets", who, wish)
        self.ledger.issued(answer.body, answer.came)
        path = f"/v1/tickets/{answer.body['id']}"
        if kiosk and self.dice.random() < 0.3:
            await self._slip_fails(path, who)
        elif self.dice.random() < self.plan.cancelled:
            given_up = await self.client.post(f"{path}/cancel", phone, refused=[409])
            if given_up.status == 200:
                self.ledger.moved("cancel", given_up)

    async def _slip_fails(self, path: str, who: dict[str, str]) -> None:
        """Say that no slip came out, and mostly get one after all."""
        failed = await self.client.post(f"{path}/printed", who, {"ok": False}, refused=[409])
        if failed.status != 200:
            return
        self.ledger.moved("print-failed", failed)
        if self.dice.random() < 0.8:
            again = await self.client.post(f"{path}/reissue", who)
            self.ledger.moved("reissue", again)


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

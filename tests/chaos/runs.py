"""The runs: each breaks a city under load in its own way and gives what came of it."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import asyncpg

from libs.common.auth import DevelopmentIssuer
from libs.common.bus.base import Bus
from libs.common.bus.embedded import open_embedded_bus
from libs.common.db import connector
from libs.common.faults import POINTS
from services.reporting.periods import week_containing
from tests.chaos.check import Findings, check, check_report, settled
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, Plan, under_load
from tests.chaos.programs import (
    Apart,
    EmbeddedCity,
    Program,
    holds_port,
    kill_own_server,
    service,
    started,
)

KILLS = ("postgres", "city", "both", "backend", "starting")
"""What is killed of an embedded city: the server, the city, both, one connection's process, or
the city again while it starts after a kill."""

AT_START = ("relay.locked", "relay.opened", "bus.taken")
"""Points that are passed only when a process has started."""


ENDS = {"finished", "no_show", "cancelled", "transferred"}


@dataclass
class Outcome:
    """What came of a run."""

    name: str
    seed: int
    ledger: Ledger = field(default_factory=Ledger)
    findings: Findings = field(default_factory=Findings)
    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    recovery: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from each kill to the first acknowledgement of a request sent after it."""
    seconds: float = 0.0

    def killed(self, what: str, seconds: float) -> None:
        """Note a kill and how long nobody was served."""
        self.kills[what] += 1
        self.recovery.setdefault(what, []).append(seconds)

    def __str__(self) -> str:
        """Tell the counts in a line, the seed first: it gives the same run again."""
        counts = dict(sorted(self.ledger.counts.items()))
        longest = {what: round(max(times), 2) for what, times in self.recovery.items()}
        return (
            f"{self.name}: seed {self.seed}, {self.seconds:.1f} s, {counts}, events "
            f"{self.findings.events} (+{self.findings.sent_again} sent again), kills "
            f"{dict(self.kills)}, restarts {self.restarts}, longest recovery {longest}, wrong "
            f"{len(self.findings.all())}"
        )


async def kill_embedded(
    folder: Path, kills: Sequence[str], *, seed: int, plan: Plan | None = None
) -> Outcome:
    """Kill parts of an embedded city at random moments while clients go on."""
    outcome = Outcome("embedded city", seed)
    dice = random.Random(seed)  # noqa: S311  (the same moments each time)
    city = EmbeddedCity.on(folder)
    async with _standing(outcome, city) as load_on, load_on([city.base], folder, plan) as load:
        for what in kills:
            await load.more(dice.randint(5, 80))
            await asyncio.sleep(dice.uniform(0, 0.5))
            at = monotonic()
            await _kill(city, what, dice, outcome)
            outcome.killed(what, await load.served_again(at))
            await city.ready()
        await load.more(30)
        await load.close()
        await _hold_to_account(outcome, folder, city.base, city.database_url())
    return outcome


async def _kill(city: EmbeddedCity, what: str, dice: random.Random, outcome: Outcome) -> None:
    if what == "postgres":
        city.kill_postgres()
        return
    if what == "backend":
        city.kill_backend(dice)
        return
    if what == "both":
        city.kill_postgres()
    city.kill()
    for _ in range(what == "starting"):
        city.start()
        outcome.restarts += 1
        await asyncio.sleep(dice.uniform(0, 2.5))
        city.kill()
    city.start()
    outcome.restarts += 1


async def reach_every_fault(
    folder: Path, *, seed: int, points: Sequence[str] = tuple(POINTS), check_each: bool = False
) -> Outcome:
    """Let the city kill itself at each fault point under load; it is started again each time.

    Without `check_each` the start after a point is already armed for the next one, and the account
    is drawn up once, at the end.
    """
    outcome = Outcome("fault points", seed)
    dice = random.Random(seed)  # noqa: S311  (the same passings each time)
    city = EmbeddedCity.on(folder)
    async with _standing(outcome, city) as load_on, AsyncExitStack() as stack:
        load = await stack.enter_async_context(load_on([city.base], folder, None))
        city.kill()
        for point in points:
            passing = dice.randint(1, 3 if point in AT_START else 4)
            at = monotonic()
            await _start_until(city, f"{point}:{passing}", outcome)
            if not check_each:
                continue
            city.start()
            outcome.restarts += 1
            await load.served_again(at)
            await load.close()
            await city.ready()
            await _hold_to_account(outcome, folder, city.base, city.database_url())
            assert not outcome.findings.all(), (point, outcome.findings.all()[:20])
            load = await stack.enter_async_context(load_on([city.base], folder, None))
            city.kill()
        city.start()
        outcome.restarts += 1
        await load.more(30)
        await load.close()
        await city.ready()
        await _hold_to_account(outcome, folder, city.base, city.database_url())
    return outcome


async def _start_until(city: EmbeddedCity, fault: str, outcome: Outcome) -> None:
    """Start a city that will kill itself, and see that it did so at that point."""
    said = city.log.stat().st_size
    city.start(fault)
    outcome.restarts += 1
    code = await city.ends()
    with city.log.open("rb") as log:
        log.seek(said)
        last = log.read().decode("utf-8", "replace")
    point = fault.partition(":")[0]
    assert code == -9, (fault, code, last[-2000:])
    assert '"fault.reached"' in last, (fault, last[-2000:])
    outcome.kills[point] += 1


# Apart ----------------------------------------------------------------------------------------


async def kill_apart(
    url: str, folder: Path, kills: Sequence[str], *, seed: int, plan: Plan | None = None
) -> Outcome:
    """Kill processes of a city that runs apart, with two queue and two reporting processes.

    `kills` names programs, `relay` for the queue process that holds the relay's lock, or
    `postgres` for the server, if this process has started it and supervises it.
    """
    outcome = Outcome("city apart", seed)
    dice = random.Random(seed)  # noqa: S311  (the same moments each time)
    city = Apart.on(folder, database_url=url, database_pool=3, database_hot_pool=4)
    programs, queues = city.programs, city.queues
    async with (
        _standing(outcome, *programs.values()) as load_on,
        load_on(city.bases, folder, plan) as load,
    ):
        for what in kills:
            await load.more(dice.randint(20, 80))
            await asyncio.sleep(dice.uniform(0, 0.5))
            if what == "postgres":
                at = monotonic()
                kill_own_server()
                outcome.killed(what, await load.served_again(at))
                continue
            victim = programs[await _holder(url, queues) if what == "relay" else what]
            at = monotonic()
            victim.kill()
            if what == "intake":  # has no twin: soon every officer would wait for it
                victim.start()
            outcome.killed(what, await load.served_again(at))
            if what == "relay":
                await _holder(url, queues, victim.name)
                outcome.recovery.setdefault("relay taken over", []).append(monotonic() - at)
            if not victim.alive:
                await load.more(20)
                victim.start()
            outcome.restarts += 1
            await victim.ready()
        await load.more(30)
        await load.close()
        await _hold_to_account(outcome, folder, city.bases[0], url)
    return outcome


async def _holder(url: str, queues: dict[str, Program], dead: str = "") -> str:
    """Wait until a living queue process, another than the dead one, holds the relay's lock."""
    end = monotonic() + 60
    while True:
        with suppress(LookupError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            holder = await _relay_holder(url, queues)
            if holder != dead:
                return holder
        assert monotonic() < end, "nobody has taken the relay over"
        await asyncio.sleep(0.02)


async def _relay_holder(url: str, queues: dict[str, Program]) -> str:
    """Name the queue process whose connection holds the lock of the queue's relay."""
    connection = await asyncpg.connect(url)
    try:
        port = await connection.fetchval(
            "SELECT a.client_port FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) "
            "WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database() "
            "AND ((l.classid::bigint << 32) | l.objid::bigint) = "
            "hashtextextended('relay:queue', 0)"
        )
    finally:
        await connection.close()
    for name, program in queues.items():
        if port and program.alive and holds_port(program.pid, port):
            return name
    raise LookupError("nobody holds the relay's lock")


async def contend(
    url: str, folder: Path, *, seed: int, officers: tuple[int, int] = (32, 4), **until: int
) -> Outcome:
    """Let officers at two units work through two queue processes until everybody is served.

    `until` says when nobody comes any more: after so many `tickets`, or `operations`. A third of
    the visits does not go straight: people are put aside, sent on, handed back, called again.
    """
    outcome = Outcome("contention", seed)
    queues = [
        # A second call may follow at once: no run lasts as long as people would wait for it.
        service(name, folder, database_url=url, recall_interval_seconds=0)
        for name in ("queue-a", "queue-b")
    ]
    plan = Plan(
        units=("H29.25747", "H29.25750"), officers=officers, citizens=8, think=0.004, crowd=60,
        dossiers=0, twists=0.35, closing=True, **until,
    )  # fmt: skip
    bases = [queue.base for queue in queues]
    async with _standing(outcome, *queues) as load_on, load_on(bases, folder, plan) as load:
        await load.finished()
        async with bus_of(url) as bus:
            await settled(url, bus, ["queue"])
            outcome.findings = await check(url, bus, outcome.ledger, services=["queue"])
        if "tickets" in until:
            told = outcome.ledger.counts["tickets"]
            outcome.findings.compare("tickets issued", until["tickets"], told)
        left = {t["status"] for t in outcome.ledger.tickets.values()} - ENDS
        outcome.findings.compare("statuses of who is still there", set(), left)
    return outcome


# What all have in common ----------------------------------------------------------------------


@asynccontextmanager
async def _standing(outcome: Outcome, *programs: Program) -> AsyncIterator[Any]:
    """Run programs while their health is watched; gives what lets clients work at them."""
    began = monotonic()

    def load_on(
        doors: Sequence[str], data: Path, plan: Plan | None
    ) -> AbstractAsyncContextManager[Load]:
        return under_load(doors, data, seed=outcome.seed, plan=plan, ledger=outcome.ledger)

    with started(*programs):
        for program in programs:
            await program.ready()
        wrong = outcome.ledger.surprises
        watching = [asyncio.create_task(program.watch(wrong)) for program in programs]
        try:
            yield load_on
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            outcome.seconds = monotonic() - began
    for program in programs:
        if isinstance(program, EmbeddedCity):
            await program.gone()


async def _hold_to_account(outcome: Outcome, folder: Path, base: str, url: str) -> None:
    closed = monotonic()
    async with bus_of(url) as bus:
        await settled(url, bus)
        outcome.recovery.setdefault("every event handled", []).append(monotonic() - closed)
        outcome.findings = await check(url, bus, outcome.ledger)
    report = await _weekly_report(base, folder)
    check_report(report, outcome.ledger, outcome.findings)


@asynccontextmanager
async def bus_of(url: str) -> AsyncIterator[Bus]:
    """Open the bus of a city, to read what was announced."""
    async with open_embedded_bus(url, connector(url, "bus")) as bus:
        yield bus


async def _weekly_report(base: str, folder: Path) -> Any:
    token = DevelopmentIssuer(folder).token("city", subject="city")
    week = week_containing(datetime.now(UTC)).name
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get(f"{base}/v1/reports/weekly/{week}") as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()

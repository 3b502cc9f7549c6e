"""A day played under fire: processes are killed and started again, and the books must agree."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import time as clock_time
from pathlib import Path

from deploy.kafka import Broker
from libs.common.clock import VirtualClock
from libs.common.worktime import ZONE
from services.simulate import Outcome as Play
from services.simulate.run import simulate
from services.simulate.settings import Settings
from tests.chaos.programs import Apart, Program, started

MONDAY = datetime(2026, 11, 16, 7, 25, tzinfo=ZONE)


@dataclass
class Day:
    """What came of a day under fire."""

    seed: int
    play: Play
    kills: Counter[str]
    health: list[str]
    """Answers of `livez` that were not 200 while the process ran: a task had died in silence."""

    @property
    def exact(self) -> bool:
        """Whether books and report agree to the last digit, and no process was half dead."""
        return self.play.exact and not self.health

    def __str__(self) -> str:
        """Tell the counts in a line."""
        cost, ledger = self.play.cost, self.play.ledger
        return (
            f"day under fire: seed {self.seed}, {cost.wall_seconds:.0f} s, "
            f"{len(ledger.tickets)} tickets, {len(ledger.dossiers)} dossiers, {cost.calls} calls, "
            f"{cost.retries} tried again, {cost.repeats} repeated on purpose, "
            f"kill -9 {self.kills.total()} {dict(self.kills)}, "
            f"lines of the report that agree {len(self.play.lines) - len(self.play.differences)} "
            f"of {len(self.play.lines)}, promises broken {len(ledger.violations)}, "
            f"fates unknown {len(ledger.unsettled)}, half dead {len(self.health)}"
        )

    def wrong(self) -> list[str]:
        """Name everything that is not as it should be."""
        return [
            *map(str, self.play.differences), *self.play.ledger.violations,
            *self.play.ledger.unsettled, *self.health,
        ]  # fmt: skip


async def play_under_fire(
    url: str,
    folder: Path,
    *,
    seed: int,
    kills: int,
    units: int = 4,
    speed: float = 60,
    broker: Broker | None = None,
) -> Day:
    """Play from 7:30 on a Monday, at two doors, until so many processes were killed.

    With a broker the city speaks over Kafka, and the broker is among those that are killed.
    """
    clock = VirtualClock(MONDAY, speed, time.time())
    kafka = {"kafka_bootstrap": broker.bootstrap} if broker else {}
    city = Apart.on(
        folder, database_url=url, database_pool=3, database_hot_pool=4, clock=str(clock),
        hours="official", **kafka,
    )  # fmt: skip
    played = Settings(
        url=",".join(city.bases), data_dir=folder, seed=seed, units=units,
        since=clock_time(7, 30), settle=60,
    )  # fmt: skip
    fallen: Counter[str] = Counter()
    health: list[str] = []
    with started(*city.programs.values()):
        for program in city.programs.values():
            await program.ready()
        tasks = [asyncio.create_task(p.watch(health)) for p in city.programs.values()]
        stop = asyncio.Event()
        tasks.append(asyncio.create_task(_shoot(city.programs, broker, seed, kills, fallen, stop)))
        try:
            play = await simulate(played, stop=stop)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert fallen.total() == kills, f"the day was over after {fallen.total()} of {kills} kills"
    return Day(seed, play, fallen, health)


async def _shoot(
    programs: Mapping[str, Program],
    broker: Broker | None,
    seed: int,
    kills: int,
    fallen: Counter[str],
    stop: asyncio.Event,
) -> None:
    """Kill one after the other at random moments, each started again a moment later; then let the
    play come to its end."""
    dice = random.Random(seed)  # noqa: S311  (the same victims each time)
    victims = sorted(programs) + (["kafka"] if broker else [])
    bag: list[str] = []
    for _ in range(kills):
        bag = bag or dice.sample(victims, len(victims))
        name = bag.pop()
        await asyncio.sleep(dice.uniform(0.2, 1.5))
        fallen[name] += 1
        if name == "kafka":
            assert broker is not None
            broker.kill()
            await asyncio.sleep(dice.uniform(0, 2))
            await asyncio.to_thread(broker.start)
            continue
        programs[name].kill()
        await asyncio.sleep(dice.uniform(0, 1))
        programs[name].start()
        await programs[name].ready()
    await asyncio.sleep(3)
    stop.set()

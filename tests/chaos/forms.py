"""How long the runs are: short in `make test`, long in `make chaos`, as the environment says."""

import os
import random
from dataclasses import dataclass
from itertools import cycle, islice

from tests.chaos.runs import KILLS

SHORT = ("postgres", "both", "backend")
APART = (
    "relay", "reporting-a", "queue-a", "relay", "postgres", "intake", "reporting-b", "queue-b",
    "gateway-a",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What the runs do."""

    seed: int
    embedded: tuple[str, ...]
    apart: tuple[str, ...]
    tickets: int
    check_each_fault: bool
    day: int
    """Kills during the day over Kafka."""

    @classmethod
    def short(cls) -> "Form":
        """Read the environment; without it: what every landing passes."""
        return cls._read("0", "2", "320", "9", seed="20261116")

    @classmethod
    def long(cls) -> "Form":
        """Read the environment; without it: some ten minutes, another seed each time."""
        return cls._read("40", "16", "5000", "60", seed=str(random.SystemRandom().randrange(10**8)))

    @classmethod
    def _read(cls, kills: str, apart: str, tickets: str, day: str, *, seed: str) -> "Form":
        chosen = int(os.environ.get("MOTCUA_CHAOS_KILLS") or kills)
        dice = random.Random(int(os.environ.get("MOTCUA_CHAOS_SEED") or seed))  # noqa: S311
        # Ten times in a row the server alone: its tasks must come back from each.
        several = [*["postgres"] * 10, *(dice.choice(KILLS) for _ in range(chosen - 10))]
        processes = int(os.environ.get("MOTCUA_CHAOS_APART_KILLS") or apart)
        return cls(
            seed=int(os.environ.get("MOTCUA_CHAOS_SEED") or seed),
            embedded=tuple(several[:chosen]) if chosen else SHORT,
            apart=tuple(islice(cycle(APART), processes)),
            tickets=int(os.environ.get("MOTCUA_CHAOS_TICKETS") or tickets),
            check_each_fault=bool(chosen),
            day=int(os.environ.get("MOTCUA_CHAOS_DAY_KILLS") or day),
        )

"""What to play, what came of it, and why a play is refused."""

from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

from services.simulate.compare import Line, differences
from services.simulate.ledger import Ledger
from services.simulate.week import Week


class Refused(Exception):
    """The play cannot begin; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A play, described."""

    url: str = "http://127.0.0.1:8000"
    """The gateway; several, separated by commas, are taken in turn."""
    data_dir: Path = Path(".motcua")
    """The server's data folder, whose key signs the actors' tokens."""
    seed: int = 1
    units: int | tuple[str, ...] = 168
    """The first so many of the seed's order, or these codes."""
    since: time | None = None
    """Local time of the clock's day from which people come; None: from its now."""
    until: time = time(17)
    overrun_minutes: float = 60
    """Virtual time after `until` in which those who wait are still served."""
    connections: int = 48
    patience: float = 60
    """Wall seconds for which a request is sent again before it is given up."""
    repeats: float = 0.05
    """Share of answered POSTs that are sent once more."""
    settle: float = 15
    """Wall seconds within which the report must catch up."""


@dataclass(slots=True)
class Cost:
    """What a play took, in wall seconds unless said otherwise."""

    speed: float = 1.0
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    own_cpu_seconds: float = 0.0
    calls: int = 0
    retries: int = 0
    repeats: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    busiest_calls_a_second: float = 0.0
    call_p50: float = 0.0
    call_p95: float = 0.0
    call_max: float = 0.0
    late_p95: float = 0.0
    """Virtual seconds between when people were to draw their number and when they got it."""
    settled_after: float = 0.0

    @property
    def calls_a_second(self) -> float:
        """Over the whole play."""
        return self.calls / self.wall_seconds if self.wall_seconds else 0.0


@dataclass(slots=True)
class Outcome:
    """A play that was played: the books, the lines of the comparison, what it took."""

    week: Week
    units: list[str]
    ledger: Ledger
    lines: list[Line]
    interrupted: bool
    cost: Cost

    @property
    def differences(self) -> list[Line]:
        """The lines in which ledger and report differ."""
        return differences(self.lines)

    @property
    def exact(self) -> bool:
        """Whether every line agrees, no promise was broken and no request's fate is unknown."""
        return not (self.differences or self.ledger.violations or self.ledger.unsettled)

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return 0 if self.exact else 1

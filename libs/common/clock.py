"""The one source of "now" for business facts: the system's clock, or a virtual one for tests.

Tokens, limits, time-outs, heartbeats, outbox age and metrics do not use it: they follow the wall.
"""

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Something that tells the instant, in UTC, at which business facts happen."""

    def now(self) -> datetime:
        """Give the instant, aware, in UTC."""
        ...

    def describe(self) -> dict[str, object]:
        """Tell `/version` which clock this is."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Give the instant of the machine's clock."""
        return datetime.now(UTC)

    def describe(self) -> dict[str, object]:
        """Tell that time is real."""
        return {"kind": "system", "now": self.now().isoformat()}


@dataclass(frozen=True, slots=True)
class VirtualClock:
    """A clock that starts at `start` when the wall shows `anchor` (Unix seconds), `speed` × faster.

    Several processes given the same three values agree on the time without talking.
    """

    start: datetime
    speed: float = 1.0
    anchor: float = field(default_factory=time.time)

    def now(self) -> datetime:
        """Give the virtual instant."""
        return self.start + timedelta(seconds=(time.time() - self.anchor) * self.speed)

    def describe(self) -> dict[str, object]:
        """Tell everything a client needs to follow this clock by itself."""
        return {
            "kind": "virtual",
            "now": self.now().isoformat(),
            "start": self.start.isoformat(),
            "speed": self.speed,
            "anchor": self.anchor,
        }

    def __str__(self) -> str:
        """Write the setting from which another process makes the same clock."""
        return f"{self.start.isoformat()},x{self.speed!r},{self.anchor!r}"


_VIRTUAL = re.compile(r"(?P<start>[^,]+)(,x(?P<speed>\d+(\.\d+)?))?(,(?P<anchor>\d+(\.\d+)?))?")


def clock_from(setting: str) -> Clock:
    """Make the clock that `MOTCUA_CLOCK` asks for.

    `system`, or `<start>,x<speed>,<wall seconds>` such as `2026-11-16T07:25+07:00,x60,1763252700`;
    speed defaults to 1, the anchor to this moment (then only one process can follow it).

    Raises:
        ValueError: what is written is neither; the message shows the form.
    """
    if setting == "system":
        return SystemClock()
    match = _VIRTUAL.fullmatch(setting)
    try:
        assert match is not None
        start = datetime.fromisoformat(match["start"])
        assert start.tzinfo is not None
        speed = float(match["speed"] or 1)
        assert speed > 0
    except (AssertionError, ValueError):
        raise ValueError(
            f"MOTCUA_CLOCK is {setting!r}: write 'system', or a start with offset, a speed and "
            "the wall's Unix seconds, like 2026-11-16T07:25+07:00,x60,1763252700"
        ) from None
    anchor = float(match["anchor"]) if match["anchor"] else time.time()
    return VirtualClock(start.astimezone(UTC), speed, anchor)

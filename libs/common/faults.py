"""Fault points: the places between two steps at which a test kills this process with SIGKILL.

`MOTCUA_FAULT="relay.sent:3"` kills it at the third passing of that point; several are separated by
commas, and a point without a number is the first passing. `Settings` refuses it in production.
Off, a point is one look at a module's variable.
"""

import os
import signal
from typing import Final

import structlog

log = structlog.get_logger()

SETTING: Final = "MOTCUA_FAULT"

POINTS: Final = {
    "outbox.flushed": "the effect is written, its events are not",
    "outbox.written": "effect and events are written, not committed",
    "outbox.committed": "committed; neither relay nor caller has been told",
    "relay.locked": "the relay is the only one; a predecessor is not fenced yet",
    "relay.opened": "a predecessor is fenced; nothing has been sent",
    "relay.read": "a batch was read from the outbox, not sent",
    "bus.appended": "the batch is in the log, not committed",
    "bus.committed": "the batch is committed in the log; the relay does not know",
    "relay.sent": "the batch was acknowledged, its rows are still in the outbox",
    "relay.deleted": "the rows are gone from the outbox",
    "bus.taken": "a group's topic was taken, nothing of it read",
    "consumer.fetched": "a batch was read from the bus, nothing of it handled",
    "inbox.claimed": "the events are claimed, not handled",
    "inbox.handled": "the events are handled, not committed",
    "inbox.committed": "the effect is committed, the offset is not",
    "consumer.committed": "the offset is committed",
}
"""Every point, in the order in which an event passes them, and what is true there."""

_armed: dict[str, int] | None = None


def reach(point: str) -> None:
    """Pass a point; if it is armed and its time has come, this process does not come back."""
    if _armed is not None:
        _pass(_armed, point)


def arm(setting: str | None) -> None:
    """Arm the points that a setting names, once; without a setting nothing changes.

    Raises:
        ValueError: the setting names no point or passing.
    """
    global _armed
    if not setting:
        return
    wanted = parse(setting)
    if _armed is None:
        log.warning("fault.armed", points=wanted)
        _armed = wanted


def parse(setting: str) -> dict[str, int]:
    """Read `point:passing,…`.

    Raises:
        ValueError: there is no such point, or no such passing.
    """
    wanted = {}
    for part in setting.split(","):
        point, _, passing = part.strip().partition(":")
        if point not in POINTS:
            raise ValueError(f"{SETTING} names {point!r}; the points are {', '.join(POINTS)}")
        if not (passing or "1").isdecimal() or int(passing or 1) < 1:
            raise ValueError(f"{SETTING}: {passing!r} is no passing of {point}; 1 is the first")
        wanted[point] = int(passing or 1)
    return wanted


def _pass(armed: dict[str, int], point: str) -> None:
    left = armed.get(point)
    if left is None:
        return
    armed[point] = left - 1
    if left == 1:
        log.warning("fault.reached", point=point)
        os.kill(os.getpid(), signal.SIGKILL)

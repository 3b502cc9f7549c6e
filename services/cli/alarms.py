"""Which alerts would fire, judged from one look: the rules' thresholds, without their history."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

from libs.common.settings import Settings
from services.cli.asking import Samples, Seen

UNMEASURED_SECONDS: Final = 60
"""Waits are measured once a second."""
FORESEEN_SECONDS: Final = 1800
"""How far ahead a breach that is foreseen is told: time enough to open a counter."""
IDLE_SECONDS: Final = 600
"""An open counter that calls nobody for so long, although people wait for it, has been left."""
HELD_SECONDS: Final = 3600
"""Nobody sits at a counter for so long: it was forgotten to say that the visit is over."""
OUTBOX_SECONDS: Final = 60
"""An event that waits longer for the bus is late; normally none is older than a second."""
LAG_EVENTS: Final = 1000
"""Events behind which a service is; at rest none, and a rebuild handles thousands a second."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's queue, as the queue's gauges tell it."""

    code: str
    name: str
    waiting: int
    oldest_seconds: float
    forecast_seconds: float | None
    """None while no counter is open."""
    open_counters: int
    open: bool
    """Whether it is open by its hours."""
    idle_seconds: float
    """For how long an open counter has called nobody although people wait for it."""
    held_seconds: float
    """For how long a counter has had the same person."""
    breach_seconds: float | None
    """When waits will pass the promise; None: not within the hour."""

    @property
    def worst_seconds(self) -> float:
        """What the promise is held against: the longest wait, or a newcomer's if that is longer."""
        return max(self.oldest_seconds, self.forecast_seconds or 0)


@dataclass(frozen=True, slots=True)
class Flow:
    """How a service's events flow; None where it could not be asked."""

    behind: Mapping[str, int | None]
    """Records still to handle, by topic; None for a topic that is missing."""
    outbox_events: int | None
    outbox_seconds: float | None
    held_back: Sequence[str]
    """Topics that its events wait for because they are missing."""
    dead_letters: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that one look has shown."""

    settings: Settings
    services: Sequence[Seen]
    units: Sequence[Unit]
    flows: Mapping[str, Flow]
    unmeasured_seconds: float = 0
    """For how long no process has measured waits: then their figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alert that would fire."""

    name: str
    severity: str
    text: str


def units_of(samples: Samples) -> list[Unit]:
    """Read every unit's queue, the worst wait first; replicas tell the same, the larger counts."""
    names = {labels["unit"]: labels["name"] for labels, _ in samples.of("motcua_unit_info")}

    def gauge(name: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for labels, value in samples.of(f"motcua_queue_{name}"):
            if not isnan(value):
                found[labels["unit"]] = max(value, found.get(labels["unit"], value))
        return found

    oldest, forecast = gauge("oldest_wait_seconds"), gauge("forecast_wait_seconds")
    counters, doors = gauge("open_counters"), gauge("doors_open")
    idle, held = gauge("counter_idle_seconds"), gauge("counter_held_seconds")
    breach = gauge("breach_expected_seconds")
    units = [
        Unit(
            code, names.get(code, ""), int(waiting), oldest.get(code, 0), forecast.get(code),
            int(counters.get(code, 0)), bool(doors.get(code)), idle.get(code, 0),
            held.get(code, 0), breach.get(code),
        )
        for code, waiting in gauge("waiting_tickets").items()
    ]  # fmt: skip
    return sorted(units, key=lambda unit: (-unit.worst_seconds, -unit.waiting, unit.code))


# One function for each rule: what it says of whom, for everybody it would fire for. -------------


def _silent(facts: Facts) -> Iterator[str]:
    for seen in facts.services:
        if seen.state == "away":
            yield f"{seen.service}: {'; '.join(seen.reasons.values())}"


def _not_measured(facts: Facts) -> Iterator[str]:
    if facts.unmeasured_seconds > UNMEASURED_SECONDS:
        yield f"waits were last measured {minutes(facts.unmeasured_seconds)} ago"


def _breached(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        if unit.oldest_seconds > facts.settings.sla_seconds:
            yield f"{_called(unit)}: somebody has waited for {minutes(unit.oldest_seconds)}"


def _at_risk(facts: Facts) -> Iterator[str]:
    risk = facts.settings.at_risk_seconds
    for unit in facts.units:
        foretold = unit.forecast_seconds or 0
        if unit.oldest_seconds > risk or (unit.waiting and foretold > risk):
            waits = f"{minutes(unit.oldest_seconds)}, foretold {minutes(unit.forecast_seconds)}"
            yield f"{_called(unit)}: waits of {waits}"


def _breach_foreseen(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        if unit.breach_seconds is not None and unit.breach_seconds <= FORESEEN_SECONDS:
            yield f"{_called(unit)}: waits will pass the promise in {minutes(unit.breach_seconds)}"


def _stuck(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        if unit.open and unit.idle_seconds > IDLE_SECONDS:
            yield f"{_called(unit)}: a counter has called nobody for {minutes(unit.idle_seconds)}"
        if unit.open and unit.held_seconds > HELD_SECONDS:
            yield f"{_called(unit)}: a counter has had one person for {minutes(unit.held_seconds)}"


def _unattended(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        if unit.open and unit.waiting and not unit.open_counters:
            yield f"{_called(unit)}: {unit.waiting} wait and no counter is open"


def _outbox_old(facts: Facts) -> Iterator[str]:
    for service, flow in facts.flows.items():
        if (flow.outbox_seconds or 0) > OUTBOX_SECONDS:
            yield f"{service}: an event has waited for {minutes(flow.outbox_seconds)}"


def _behind(facts: Facts) -> Iterator[str]:
    for service, flow in facts.flows.items():
        for topic, count in flow.behind.items():
            if (count or 0) > LAG_EVENTS:
                yield f"{service} is {count} events of {topic} behind"


def _buried(facts: Facts) -> Iterator[str]:
    for service, flow in facts.flows.items():
        if flow.dead_letters:
            yield f"{service} has given up {flow.dead_letters} message(s): motcua dlq list"


RULES: Final[Sequence[tuple[str, str, Callable[[Facts], Iterable[str]]]]] = (
    ("MotcuaServiceSilent", "critical", _silent),
    ("MotcuaWaitsNotMeasured", "critical", _not_measured),
    ("MotcuaWaitBreached", "critical", _breached),
    ("MotcuaNoCounterOpen", "critical", _unattended),
    ("MotcuaWaitAtRisk", "warning", _at_risk),
    ("MotcuaBreachForecast", "warning", _breach_foreseen),
    ("MotcuaCounterStuck", "warning", _stuck),
    ("MotcuaOutboxOld", "warning", _outbox_old),
    ("MotcuaConsumerBehind", "warning", _behind),
    ("MotcuaDeadLetters", "warning", _buried),
)
"""The rules that one look can judge; those that need the past (how fast the month's budget is
spent, the share of requests that fail) are Prometheus' alone."""


def alarms(facts: Facts) -> list[Alarm]:
    """Name what would fire if it lasted, the gravest first."""
    return [Alarm(name, grave, text) for name, grave, told in RULES for text in told(facts)]


def minutes(seconds: float | None) -> str:
    """Write a time as people read it."""
    if seconds is None:
        return "-"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _called(unit: Unit) -> str:
    return f"{unit.code} {unit.name}".strip()

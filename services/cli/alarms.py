"""Which alerts would fire, judged from one look: the rules' thresholds, without their history."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

from libs.common.settings import Settings
from services.cli.asking import Samples, Seen

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


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alert that would fire."""

    name: str
    severity: str
    text: str


def units_of(samples: Samples) -> list[Unit]:
    """Read every unit's queue, the worst wait first; replicas tell the same, the larger counts."""
    names = {labels["unit"]: labels["name"] for labels, _ in samples.of("motcua_unit_info")}
    gauges = {
        name: _largest(samples, f"motcua_queue_{name}")
        for name in (
            "waiting_tickets", "oldest_wait_seconds", "forecast_wait_seconds", "open_counters"
        )
    }  # fmt: skip
    units = [
        Unit(
            code,
            names.get(code, ""),
            int(waiting),
            gauges["oldest_wait_seconds"].get(code, 0),
            gauges["forecast_wait_seconds"].get(code),
            int(gauges["open_counters"].get(code, 0)),
        )
        for code, waiting in gauges["waiting_tickets"].items()
    ]
    return sorted(units, key=lambda unit: (-unit.worst_seconds, -unit.waiting, unit.code))


def _largest(samples: Samples, name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for labels, value in samples.of(name):
        if not isnan(value):
            found[labels["unit"]] = max(value, found.get(labels["unit"], value))
    return found


# One function for each rule: what it says of whom, for everybody it would fire for. -------------


def _away(facts: Facts) -> Iterator[str]:
    for seen in facts.services:
        if seen.state in ("away", "dead", "not ready"):
            yield f"{seen.service} is {seen.state}: {'; '.join(seen.reasons.values())}"


def _breached(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        if unit.oldest_seconds > facts.settings.sla_seconds:
            yield f"{_called(unit)}: somebody has waited for {minutes(unit.oldest_seconds)}"


def _at_risk(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        risk, promise = facts.settings.at_risk_seconds, facts.settings.sla_seconds
        if risk < unit.oldest_seconds <= promise or risk < (unit.forecast_seconds or 0):
            foretold = minutes(unit.forecast_seconds)
            yield f"{_called(unit)}: waits of {minutes(unit.oldest_seconds)}, foretold {foretold}"


def _unattended(facts: Facts) -> Iterator[str]:
    for unit in facts.units:
        if unit.waiting and not unit.open_counters:
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
    ("ServiceDown", "critical", _away),
    ("WaitBreached", "critical", _breached),
    ("NoCounterOpen", "critical", _unattended),
    ("WaitAtRisk", "warning", _at_risk),
    ("OutboxStuck", "warning", _outbox_old),
    ("ConsumerLag", "warning", _behind),
    ("DeadLetters", "warning", _buried),
)
"""The rules that one look can judge; those that need the past (burn rates, a counter that has been
still for long) are Prometheus' alone."""


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

"""What the gateway knows without asking: the registry's directory and each unit's load."""

import time
from dataclasses import dataclass, field

from libs.common.bus.base import Received
from libs.contracts.directory import Directory
from libs.contracts.queue import QueueLoad

STALE_SECONDS = 30
"""A load older than this says nothing about now; a quiet unit is told every 10 seconds."""


@dataclass
class City:
    """The registry and the loads, both fed by events."""

    registry: Directory
    _loads: dict[str, QueueLoad] = field(default_factory=dict)

    def take_load(self, record: Received) -> None:
        """Apply one record of `queue.load.v1`."""
        if record.value is None:
            return
        load = QueueLoad.model_validate_json(record.value)
        known = self._loads.get(load.unit)
        if known is None or known.version < load.version:
            self._loads[load.unit] = load

    def load(self, unit: str) -> QueueLoad | None:
        """Give a unit's last known load, however old."""
        return self._loads.get(unit)

    def load_age(self, unit: str) -> float | None:
        """Tell how many seconds ago, by the wall clock, a unit's load was measured."""
        load = self._loads.get(unit)
        return None if load is None else max(0.0, time.time() - load.version / 1000)

    def forecast(self, unit: str) -> int | None:
        """Give a newcomer's expected wait in seconds; None where it is unknown or too old."""
        age = self.load_age(unit)
        if age is None or age > STALE_SECONDS:
            return None
        return self._loads[unit].forecast_wait_seconds

"""What the gateway knows without asking: the registry's directory and each unit's load."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from libs.common.bus.base import Received
from libs.common.worktime import is_open
from libs.contracts.directory import Directory
from libs.contracts.queue import QueueLoad
from services.gateway.routing import Position

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
        load = QueueLoad.read(record.value)
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

    def centre(self, unit: str, procedure_code: str, now: datetime) -> "CentreNow":
        """Look at one centre as the routing rule does."""
        return CentreNow(self, unit, procedure_code, now)

    def centres(self, procedure_code: str, now: datetime) -> Iterator["CentreNow"]:
        """Look at every centre as the routing rule does."""
        return (CentreNow(self, unit, procedure_code, now) for unit in self.registry.centres)


@dataclass(frozen=True)
class CentreNow:
    """A centre seen with one procedure in mind at one instant; what nobody asks is not computed."""

    city: City
    unit: str
    procedure_code: str
    now: datetime

    @property
    def position(self) -> Position | None:
        """Latitude and longitude, if both are known."""
        state = self.city.registry.centres[self.unit]
        if state.latitude is None or state.longitude is None:
            return None
        return state.latitude, state.longitude

    @property
    def forecast_seconds(self) -> int | None:
        """A newcomer's expected wait; None where it is unknown or too old."""
        return self.city.forecast(self.unit)

    @cached_property
    def offers(self) -> bool:
        """Whether an active unit's centre receives dossiers of the procedure."""
        return self._active and self.city.registry.offers(self.unit, self.procedure_code, self.now)

    @cached_property
    def open(self) -> bool:
        """Whether an active unit's centre takes people now."""
        registry = self.city.registry
        return self._active and is_open(self.now, registry.hours(self.unit), registry.calendar)

    @property
    def _active(self) -> bool:
        known = self.city.registry.units.get(self.unit)
        return known is not None and known.active

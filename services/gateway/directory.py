"""What the gateway knows without asking: the registry's directory and each unit's load."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from libs.common.bus.base import Received
from libs.common.worktime import Calendar, OpeningHours, closing, is_open, next_opening
from libs.contracts.directory import Directory
from libs.contracts.queue import QueueLoad
from services.gateway.routing import Position, stale


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether a centre's door is open, and the stretch of time in which that holds."""

    hours: OpeningHours
    calendar: Calendar
    since: datetime
    until: datetime | None
    open: bool

    def tells_of(self, now: datetime, hours: OpeningHours, calendar: Calendar) -> bool:
        """Tell whether it still holds: for the same hours, on the same calendar."""
        same = self.hours is hours and self.calendar is calendar
        return same and self.until is not None and self.since <= now < self.until


@dataclass
class City:
    """The registry and the loads, both fed by events."""

    registry: Directory
    _loads: dict[str, QueueLoad] = field(default_factory=dict)
    _latest: int | None = None
    """When the queue was last heard of, whichever unit it told of (milliseconds)."""
    _openings: dict[str, Opening] = field(default_factory=dict)

    def take_load(self, record: Received) -> None:
        """Apply one record of `queue.load.v1`."""
        if record.value is None:
            return
        load = QueueLoad.read(record.value)
        known = self._loads.get(load.unit)
        if known is None or known.version < load.version:
            self._loads[load.unit] = load
            self._latest = max(load.version, self._latest or 0)

    def load(self, unit: str) -> QueueLoad | None:
        """Give a unit's last known load, however old."""
        return self._loads.get(unit)

    def load_age(self, unit: str) -> int | None:
        """Tell how many seconds ago, by the wall clock, a unit's load was known to be so.

        The queue tells of a unit every 10 seconds, but once only that nobody waits and no counter
        is open: then, while it tells of any other, that still holds.
        """
        load = self._loads.get(unit)
        busy = load is not None and (load.waiting or load.open_counters)
        known = load.version if load is not None and busy else self._latest
        return None if known is None else max(0, round(time.time() - known / 1000))

    def opening(self, unit: str, now: datetime) -> Opening:
        """Tell whether a centre is open, and until when; working it out for all would take long."""
        hours, calendar = self.registry.hours(unit), self.registry.calendar
        known = self._openings.get(unit)
        if known is None or not known.tells_of(now, hours, calendar):
            opened = is_open(now, hours, calendar)
            until = (closing if opened else next_opening)(now, hours, calendar)
            known = self._openings[unit] = Opening(hours, calendar, now, until, opened)
        return known

    def name_of(self, unit: str) -> str:
        """Give a unit's name, or its code where the registry has not told it yet."""
        known = self.registry.units.get(unit)
        return known.name if known else unit

    def centre(self, unit: str, procedure_code: str, now: datetime) -> "CentreNow":
        """Look at one centre as the routing rule does."""
        return CentreNow(self, unit, procedure_code, now, self.load_age(unit))

    def centres(self, procedure_code: str, now: datetime) -> Iterator["CentreNow"]:
        """Look at every centre as the routing rule does."""
        for unit in self.registry.centres:
            yield CentreNow(self, unit, procedure_code, now, self.load_age(unit))


class CentreNow(NamedTuple):
    """A centre seen with one procedure in mind at one instant; what nobody asks is not computed."""

    city: City
    unit: str
    procedure_code: str
    now: datetime
    load_age_seconds: int | None
    """How long ago its load was known to be so; None if none was ever told."""

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
        load = self.city.load(self.unit)
        if load is None or stale(self.load_age_seconds):
            return None
        return load.forecast_wait_seconds

    @property
    def offers(self) -> bool:
        """Whether an active unit's centre receives dossiers of the procedure."""
        return self._active and self.city.registry.offers(self.unit, self.procedure_code, self.now)

    @property
    def open(self) -> bool:
        """Whether an active unit's centre takes people now."""
        return self._active and self.city.opening(self.unit, self.now).open

    @property
    def opens_at(self) -> datetime | None:
        """When a centre that is closed opens; None if that is not known."""
        return None if self.open else self.city.opening(self.unit, self.now).until

    @property
    def _active(self) -> bool:
        known = self.city.registry.units.get(self.unit)
        return known is not None and known.active

"""The registry as every service knows it: in memory, fed by events, asked without a call."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from libs.common.bus.base import Received
from libs.common.problems import Conflict, NotFound
from libs.common.worktime import (
    OFFICIAL_HOURS,
    ROUND_THE_CLOCK,
    Calendar,
    DayOverride,
    OpeningHours,
    business_day,
)
from libs.contracts.registry import (
    CalendarDayChanged,
    CentreChanged,
    Level,
    ProcedureChanged,
    ProcedureVersion,
    UnitChanged,
    UnitStatus,
)

TOPICS = (
    UnitChanged.topic,
    CentreChanged.topic,
    ProcedureChanged.topic,
    CalendarDayChanged.topic,
)


class UnknownUnit(NotFound):
    """No unit has this code.

    Search with `GET /v1/units?q=`.
    """


class UnitNotActive(Conflict):
    """The unit is not in service.

    Name a unit in service; `GET /v1/units/{unit}` tells what became of this one.
    """


class UnitSplit(Conflict):
    """The unit was split: say which successor is meant.

    Send one of `candidates` instead.
    """


class UnknownProcedure(NotFound):
    """No procedure in force has this code.

    Search with `GET /v1/procedures?q=`.
    """


@dataclass
class Directory:
    """Units, centres, procedures and calendar; older versions of a state are dropped."""

    round_the_clock: bool = False
    """Demo hours: every centre is open at any time."""
    units: dict[str, UnitChanged] = field(default_factory=dict)
    centres: dict[str, CentreChanged] = field(default_factory=dict)
    procedures: dict[str, ProcedureChanged] = field(default_factory=dict)
    calendar: Calendar = field(default_factory=lambda: Calendar(()))
    _overrides: dict[date, CalendarDayChanged] = field(default_factory=dict)
    # A set, as an alias may move between units whose events come in any order.
    _aliases: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _by_gso: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def take(self, record: Received) -> None:
        """Apply one record of the registry's topics."""
        if record.value is None:
            return
        if record.topic == UnitChanged.topic:
            self.put_unit(UnitChanged.read(record.value))
        elif record.topic == CentreChanged.topic:
            self._put(self.centres, CentreChanged.read(record.value))
        elif record.topic == ProcedureChanged.topic:
            self._put(self.procedures, ProcedureChanged.read(record.value))
        elif record.topic == CalendarDayChanged.topic:
            self._put_day(CalendarDayChanged.read(record.value))

    @staticmethod
    def _put(known: dict[str, Any], state: Any) -> bool:
        present = known.get(state.key)
        if present is not None and present.version >= state.version:
            return False
        known[state.key] = state
        return True

    def put_unit(self, unit: UnitChanged) -> None:
        """Note a unit's state and every name it goes by."""
        before = self.units.get(unit.code)
        if not self._put(self.units, unit):
            return
        for alias in before.aliases if before else ():
            self._aliases[alias].discard(unit.code)
        for alias in unit.aliases:
            self._aliases[alias].add(unit.code)
        if before is not None and before.gso_code:
            self._by_gso[before.gso_code].discard(unit.code)
        if unit.gso_code:
            self._by_gso[unit.gso_code].add(unit.code)

    def _put_day(self, day: CalendarDayChanged) -> None:
        known = self._overrides.get(day.day)
        if known is not None and known.version >= day.version:
            return
        overrides = self._overrides | {day.day: day}
        self.calendar = Calendar(
            DayOverride(
                date=d.day, kind=d.kind, decision=d.decision, note=d.note, in_lieu_of=d.in_lieu_of
            )
            for d in overrides.values()
            if d.kind is not None
        )
        self._overrides = overrides  # last: a day that cannot be kept must not spoil the others

    # Units ------------------------------------------------------------------------------------

    def named(self, query: str, at: date | None = None) -> list[UnitChanged]:
        """Find the units that go by a code, closed ones too; with `at` those valid on that day."""
        if query.startswith("gso:"):
            codes: Iterable[str] = sorted(self._by_gso.get(query[4:], ()))
        else:
            codes = [query] if query in self.units else sorted(self._aliases.get(query, ()))
        found = [self.units[code] for code in codes if code in self.units]
        return [unit for unit in found if at is None or valid_on(unit, at)]

    def resolve(self, query: str, at: date | None = None) -> list[UnitChanged]:
        """Find the unit a code stands for now, or the candidates that a split one leaves open.

        With `at` it is the unit that went by the code on that day. Without, a current unit wins
        over a closed one of the same number; a closed one leads to its active successors.
        """
        found = self.named(query, at)
        if at is not None:
            return found
        current = [unit for unit in found if unit.active]
        if current:
            return current
        heirs: dict[str, UnitChanged] = {}
        for unit in found:
            heirs |= {heir.code: heir for heir in self.heirs(unit)}
        return list(heirs.values())

    def heirs(self, unit: UnitChanged, seen: frozenset[str] = frozenset()) -> list[UnitChanged]:
        """Follow succession to the active units at its end."""
        heirs: dict[str, UnitChanged] = {}
        for successor in unit.successors:
            heir = self.units.get(successor.code)
            if heir is None or heir.code in seen:
                continue
            ends = [heir] if heir.active else self.heirs(heir, seen | {unit.code})
            heirs |= {end.code: end for end in ends}
        return list(heirs.values())

    def current(self, query: str) -> UnitChanged:
        """Give the one active unit that a code stands for.

        Raises:
            UnknownUnit: nothing has this code. UnitNotActive: it is planned, or closed without a
            successor. UnitSplit: several successors are possible; the problem lists them.
        """
        unit = self.units.get(query)
        if unit is not None and unit.active:
            return unit
        found = self.resolve(query)
        if len(found) == 1:
            return found[0]
        if found:
            raise UnitSplit(
                f"{query} was split; name one of its successors",
                candidates=[{"unit": heir.code, "name": heir.name} for heir in found],
            )
        named = self.named(query)
        if not named:
            raise UnknownUnit(f"no unit has the code {query}")
        state = named[0].status
        raise UnitNotActive(
            f"{query} is {state.value}"
            + (" and no successor is registered" if state is UnitStatus.closed else "")
        )

    def centre(self, unit: str) -> CentreChanged:
        """Give the centre of an active unit.

        Raises:
            UnitNotActive: the unit keeps no one-stop centre.
        """
        centre = self.centres.get(unit)
        if centre is None:
            raise UnitNotActive(f"{unit} keeps no one-stop centre")
        return centre

    def hours(self, unit: str) -> OpeningHours:
        """Give the hours at which a unit's centre takes people."""
        if self.round_the_clock:
            return ROUND_THE_CLOCK
        return self.office_hours(unit)

    def office_hours(self, unit: str) -> OpeningHours:
        """Give the hours that working time is counted by, demo or not."""
        centre = self.centres.get(unit)
        return centre.hours if centre else OFFICIAL_HOURS

    # Procedures -------------------------------------------------------------------------------

    def procedure(self, code: str, at: datetime) -> ProcedureVersion:
        """Give the version of a procedure that is in force at an instant.

        Raises:
            UnknownProcedure: the code is unknown or nothing of it is in force yet.
        """
        known = self.procedures.get(code) or self.procedures.get(short_code(code))
        version = known.in_force(business_day(at)) if known else None
        if version is None:
            raise UnknownProcedure(f"no procedure in force has the code {code}")
        return version

    def offers(self, unit: str, code: str, at: datetime) -> bool:
        """Tell whether a centre receives dossiers of a procedure."""
        centre = self.centres.get(unit)
        if centre is None:
            return False
        if centre.procedures is not None:
            return short_code(code) in centre.procedures
        return self.procedure(code, at).competent_level is Level.commune


def short_code(code: str) -> str:
    """Drop the older suffix of a procedure code: 1.001193.000.00.00.H29 is 1.001193."""
    return code.partition(".000.00.00.")[0]


def valid_on(unit: UnitChanged, day: date) -> bool:
    """Tell whether a unit was in service on a day."""
    if unit.status is UnitStatus.planned:
        return False
    started = unit.valid_from is None or unit.valid_from <= day
    return started and (unit.valid_to is None or day <= unit.valid_to)

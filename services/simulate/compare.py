"""The ledger beside the report, line by line. Pure functions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.simulate import count
from services.simulate.ledger import Ledger
from services.simulate.week import Week


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: whose row it stands in, its name, and what both sides say."""

    row: str
    name: str
    ours: Any
    theirs: Any

    @property
    def same(self) -> bool:
        """Whether they agree exactly; a number and nothing are not the same."""
        return bool(self.ours == self.theirs) and (self.ours is None) == (self.theirs is None)


def compare(ledger: Ledger, week: Week, told: Mapping[str, Any]) -> list[Line]:
    """Put every figure the ledger has beside the report's: the city, each unit, each field.

    A row that one side does not show is taken as a row of zeros. What else the report holds is
    its own affair.
    """
    as_of = datetime.fromisoformat(told["as_of"])
    own = count.report(ledger, week, as_of=as_of, sla_seconds=told["sla_seconds"])
    nothing = count.empty(week, as_of)
    no_queue = nothing | {"queue": dict.fromkeys(nothing["queue"])}
    lines = [
        Line("report", "week", week.name, told["week"]),
        Line("report", "from", week.begins, datetime.fromisoformat(told["from"])),
        Line("report", "to", week.ends, datetime.fromisoformat(told["to"])),
        Line("report", "rows that break 3 = 7 + 11", 0, len(told["identity"]["violated"])),
        *_lines("city", own["city"], told["city"]),
    ]
    for table, name, blank in (("units", "unit", nothing), ("fields", "field", no_queue)):
        theirs = {row[name]: row for row in told[table]}
        for key in sorted({*own[table], *theirs}):
            lines += _lines(key, own[table].get(key, blank), theirs.get(key, blank))
    return lines


def alone(ledger: Ledger, week: Week, as_of: datetime, sla_seconds: int) -> list[Line]:
    """Give the city's lines where there is no report to put beside them: each one differs."""
    own = count.report(ledger, week, as_of=as_of, sla_seconds=sla_seconds)
    return list(_lines("city", own["city"], {}))


def differences(lines: list[Line]) -> list[Line]:
    """Leave the lines in which the sides differ."""
    return [line for line in lines if not line.same]


_ABSENT = "absent"


def _lines(row: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Line]:
    told = dict(_flat(theirs))
    for name, value in _flat(ours):
        yield Line(row, name, value, told.get(name, _ABSENT))


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

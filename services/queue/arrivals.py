"""How many people a centre may expect when, from its own past or the city's. Pure functions.

Weekdays differ, and the first day after a holiday from all of them. Where a centre has seen enough
days like the one asked for, these are what is expected; else its usual number of people comes as
people come in the city.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from statistics import fmean
from typing import Final, Literal

from libs.common.worktime import Calendar, OpeningHours, Span, local, periods
from services.queue.erlang import Stretch

SLOT: Final = timedelta(minutes=5)
"""The past is counted in slots of a day, numbered from midnight."""

PART: Final = timedelta(minutes=30)
"""A day is planned in half hours."""

WEEKS: Final = 8
"""How far back the past goes: seasons change."""

ENOUGH: Final = 4
"""Days of one kind that make a past."""

_CITY_ENOUGH: Final = 500
"""People that make the city's past."""

MONDAY, OTHER_DAY, AFTER_HOLIDAY = 1.2, 0.95, 1.3
"""How many people come compared with the mean of Monday to Friday. Mondays and first days after a
holiday are the busiest; by how much is our assumption, used only where a centre's own days are too
few to tell."""

USUAL_DAY: Final = 80.0
"""People a day at a centre that has no past: the mean of the city's units."""

PROFILE: Final = (
    (time(7, 30), time(8), 0.07), (time(8), time(10), 0.333), (time(10), time(11), 0.14),
    (time(11), time(11, 30), 0.05), (time(13), time(15), 0.24), (time(15), time(16), 0.10),
    (time(16), time(17), 0.067),
)  # fmt: skip
"""Which share of a day's people comes when, in a city without a past; a third 8:00-10:00."""

Slots = Mapping[int, float]
"""People by slot of a day."""

Basis = Literal["own", "city", "profile"]
"""What an expectation rests on: the centre's own days like this one, its usual number of people
spread as people came in the city, or spread by the built-in profile."""


@dataclass(frozen=True, slots=True)
class PastDay:
    """Who came to a centre on a day that is over."""

    day: date
    slots: Slots

    @property
    def people(self) -> float:
        """How many came altogether."""
        return sum(self.slots.values())


@dataclass(frozen=True, slots=True)
class Expected:
    """Who is expected on a day, by half hour of the opening periods."""

    parts: tuple[tuple[datetime, datetime], ...]
    stretches: tuple[Stretch, ...]
    """The same half hours; seconds from the day's first opening."""
    basis: Basis
    days: int
    """How many past days it rests on."""


def expected(
    day: date,
    hours: OpeningHours,
    calendar: Calendar,
    past: Sequence[PastDay],
    city: Slots,
) -> Expected:
    """Give who is expected on a day; no part where the centre is closed.

    `past` holds the centre's days of the last weeks, `city` how many came to all centres by slot.
    """
    spans = periods(day, hours, calendar)
    alike = [
        each
        for each in past
        if each.day.weekday() == day.weekday()
        and each.people
        and not after_holiday(each.day, hours, calendar)
    ]
    rush = after_holiday(day, hours, calendar)
    if len(alike) >= ENOUGH:
        more = max(1.0, AFTER_HOLIDAY / _weekday(day)) if rush else 1.0
        slots = {
            slot: more * fmean(each.slots.get(slot, 0.0) for each in alike)
            for slot in {slot for each in alike for slot in each.slots}
        }
        return _cut(spans, slots, "own", len(alike))
    seen = [each for each in past if each.people]
    usual = [each.people / _factor(each.day, hours, calendar) for each in seen]
    people = (fmean(usual) if usual else USUAL_DAY) * _factor(day, hours, calendar)
    basis: Basis = "city" if sum(city.values()) >= _CITY_ENOUGH else "profile"
    course = city if basis == "city" else _built_in()
    total = sum(course.values())
    slots = {slot: people * each / total for slot, each in course.items()}
    return _cut(spans, slots, basis, len(seen))


def after_holiday(day: date, hours: OpeningHours, calendar: Calendar) -> bool:
    """Tell whether a day is the first open one after a day off on which it usually opens."""
    for ahead in range(1, 31):
        before = day - timedelta(days=ahead)
        if periods(before, hours, calendar):
            return False
        if hours.on(before.weekday()):
            return True
    return False


def _factor(day: date, hours: OpeningHours, calendar: Calendar) -> float:
    return AFTER_HOLIDAY if after_holiday(day, hours, calendar) else _weekday(day)


def _weekday(day: date) -> float:
    return MONDAY if day.weekday() == 0 else OTHER_DAY


def _built_in() -> Slots:
    slots: dict[int, float] = {}
    for begins, ends, share in PROFILE:
        own = range(slot_of(begins), slot_of(ends))
        slots |= dict.fromkeys(own, share / len(own))
    return slots


def slot_of(at: time) -> int:
    """Give the slot that holds a local time."""
    return (at.hour * 60 + at.minute) // 5


def _cut(spans: Iterable[Span], slots: Slots, basis: Basis, days: int) -> Expected:
    parts: list[tuple[datetime, datetime]] = []
    stretches: list[Stretch] = []
    for opens, closes in spans:
        crowd = _at_door(opens, slots) if basis == "own" else 0.0
        begins = opens
        while begins < closes:
            ends = min(closes, _next_half(begins))
            first = parts[0][0] if parts else begins
            people = _between(begins, ends, slots)
            stretches.append(
                Stretch(
                    (begins - first).total_seconds(),
                    (ends - first).total_seconds(),
                    max(0.0, people - crowd),
                    min(crowd, people),
                )
            )
            parts.append((begins, ends))
            begins, crowd = ends, 0.0
    return Expected(tuple(parts), tuple(stretches), basis, days)


def _next_half(at: datetime) -> datetime:
    minutes = (at.hour * 60 + at.minute) % 30
    return at + PART - timedelta(minutes=minutes)


def _between(begins: datetime, ends: datetime, slots: Slots) -> float:
    first = slot_of(begins.time())
    return sum(slots.get(first + n, 0.0) for n in range((ends - begins) // SLOT))


def _at_door(opens: datetime, slots: Slots) -> float:
    """Give how many stand at the door: who comes in the first minutes beyond the usual rate."""
    first = slot_of(opens.time())
    usual = fmean(slots.get(first + n, 0.0) for n in range(1, 6))
    crowd = slots.get(first, 0.0) - usual
    return crowd if crowd >= 1 else 0.0


def coming(now: datetime, lately: float, open_for: float) -> tuple[tuple[float, float], ...]:
    """Give the rates at which people will come within two hours, as those came `lately`.

    Each is (seconds from now until which it holds, people per second). The day's usual course
    bends what was seen in the last half hour, within bounds, as mornings rise. When the door
    closes, `open_for` seconds from now, nobody comes any more.
    """
    course, here = _built_in(), slot_of(local(now).time())
    before = fmean(course.get(here - n, 0.0) for n in range(1, 7))
    found = []
    for part in range(8):
        ahead = fmean(course.get(here + 3 * part + n, 0.0) for n in range(3))
        bend = min(2.0, max(0.5, ahead / before)) if before and ahead else 1.0
        until = (part + 1) * 900.0
        found.append((min(until, open_for), lately * bend))
        if until >= open_for:
            break
    return tuple(found)

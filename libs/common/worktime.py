"""Working time in Ho Chi Minh City: opening hours, days off, legal limits and appointments.

Pure functions: instants come in as arguments, aware, in any zone, and go out in `ZONE`. Two
questions are kept apart. *Is the door open?* (`periods`, `is_open`, `next_opening`, `closing`)
follows the opening hours, so a centre may open on Saturday mornings. *Does the clock of a legal
limit run?* (`working_time`, `add_working_time`, `deadline`, `appointment`) follows the opening
hours on working days only: no weekends, holidays or supplement intervals.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Annotated, Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

import holidays
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from libs.common.words import say

ZONE: Final = ZoneInfo("Asia/Ho_Chi_Minh")
CUT_OFF: Final = time(15, 0)
SEARCH_DAYS: Final = 60

Span = tuple[datetime, datetime]  # Two instants, half-open.
Pause = tuple[datetime, datetime | None]  # Time that does not count; None: it still lasts.
Pauses = Iterable[Pause]  # In any order, overlapping or not.

_DAY, _MICROSECOND = timedelta(days=1), timedelta(microseconds=1)
_EVER, _FOREVER = datetime.min.replace(tzinfo=ZONE), datetime.max.replace(tzinfo=ZONE)
_Date = date  # A model's field called `date` would hide the type from the fields after it.


class NoDeadlineError(ValueError):
    """The hours hold no working time, or an open-ended pause begins before the limit is used up."""


def local(at: datetime) -> datetime:
    """Give the same instant on the clocks of Ho Chi Minh City; ValueError for a naive one."""
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone: pass an aware datetime")
    return at.astimezone(ZONE)


def business_day(at: datetime) -> date:
    """Give the local date of an instant, the day its numbers belong to; ValueError if naive."""
    return local(at).date()


def _clock(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        return time.fromisoformat(value)
    if isinstance(value, time) and value == value.replace(second=0, microsecond=0, tzinfo=None):
        return value
    raise ValueError(
        say("{value} is not a local time in whole minutes: write HH:MM", value=repr(value))
    )


def _closing_clock(value: object) -> object:
    if value == "00:00":
        raise ValueError(say("write 24:00 for a period that closes at midnight"))
    return time.min if value == "24:00" else _clock(value)


class Period(NamedTuple):
    """One stretch of a day's opening hours, half-open: [opens, closes), in local whole minutes.

    `closes` equal to `time(0, 0)` is the midnight that ends the day, written "24:00" in JSON.
    """

    opens: Annotated[time, BeforeValidator(_clock)]
    closes: Annotated[time, BeforeValidator(_closing_clock)]

    def on(self, day: date) -> Span:
        """Give the two instants of this period on a local date."""
        until = day if self.closes != time.min else day + _DAY
        return datetime.combine(day, self.opens, ZONE), datetime.combine(until, self.closes, ZONE)

    def written(self) -> tuple[str, str]:
        """Give the period as JSON has it, like `("07:30", "11:30")`."""
        closes = "24:00" if self.closes == time.min else f"{self.closes:%H:%M}"
        return f"{self.opens:%H:%M}", closes


def _ordered(day: tuple[Period, ...]) -> tuple[Period, ...]:
    day = tuple(sorted(day))
    for period in map(Period.written, day):
        if period[0] >= period[1]:
            raise ValueError(
                say("a period must open before it closes, not {period}", period="-".join(period))
            )
    for earlier, later in pairwise(map("-".join, map(Period.written, day))):
        if later[:5] < earlier[-5:]:
            raise ValueError(
                say("the periods {earlier} and {later} overlap", earlier=earlier, later=later)
            )
    return day


def _written(day: tuple[Period, ...]) -> list[list[str]]:
    return [list(period.written()) for period in day]


def _schema(schema: dict[str, Any]) -> None:
    clock = {"type": "string", "pattern": r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"}
    schema["items"] = {"type": "array", "items": clock, "minItems": 2, "maxItems": 2}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Periods = Annotated[
    tuple[Period, ...],
    AfterValidator(_ordered),
    PlainSerializer(_written, when_used="json"),
    Field(json_schema_extra=_schema),
]


class OpeningHours(_Frozen):
    """The opening periods of each weekday: sorted, not overlapping, none where closed.

    JSON is `{"monday": [["07:30", "11:30"], ["13:00", "17:00"]], ..., "holidays": false}`; weekdays
    that are left out are closed. `holidays` means open on days off as well, and then every day
    with periods counts as a working day. Overlaps, periods that close before they open and
    unknown days are refused with pydantic's ValidationError.
    """

    monday: Periods = ()
    tuesday: Periods = ()
    wednesday: Periods = ()
    thursday: Periods = ()
    friday: Periods = ()
    saturday: Periods = ()
    sunday: Periods = ()
    holidays: Annotated[bool, Field(strict=True)] = False

    def on(self, weekday: int) -> tuple[Period, ...]:
        """Give the periods of a weekday, 0 being Monday."""
        found: tuple[Period, ...] = getattr(self, WEEKDAYS[weekday])
        return found


WEEKDAYS: Final = tuple(OpeningHours.model_fields)[:7]
_OFFICE_DAY = (Period(time(7, 30), time(11, 30)), Period(time(13), time(17)))
_WHOLE_DAY = (Period(time.min, time.min),)

OFFICIAL_HOURS: Final = OpeningHours(**dict.fromkeys(WEEKDAYS[:5], _OFFICE_DAY))
"""7:30-11:30 and 13:00-17:00, Monday to Friday. Unconfirmed: seen at one ward, in no decree that
was read. It is the default of a setting, never a rule."""

ROUND_THE_CLOCK: Final = OpeningHours(**dict.fromkeys(WEEKDAYS, _WHOLE_DAY), holidays=True)
"""Every day from 00:00 to 24:00, days off included: for demonstrations at any hour."""


class DayOverride(_Frozen):
    """One day declared off or worked, against weekday or holiday (hoán đổi ngày làm việc).

    `decision` is the number of the deciding document. `in_lieu_of` is the swapped day whose
    weekday pattern a worked day follows; on a day off it is a note and changes nothing.
    """

    date: _Date
    kind: Literal["off", "work"]
    decision: Annotated[str, Field(min_length=1)]
    note: str = ""
    in_lieu_of: _Date | None = None


class CalendarDay(_Frozen):
    """What a date is: worked or not, for which reason, and by which document if one decided it.

    `reason` is an override's note (or "override"), a holiday's Vietnamese name, "weekend",
    "swapped weekend" for one that the `holidays` package knows as worked, or nothing.
    """

    date: _Date
    working: bool
    reason: str | None = None
    decision: str | None = None


@lru_cache(maxsize=64)
def _national(year: int) -> Mapping[date, tuple[bool, str]]:
    """Give what the `holidays` package says of a year: (worked, reason) of its special days."""
    # The language is named because the package would otherwise follow the locale of the process.
    vietnam = holidays.country_holidays("VN", years=year, language="vi")
    days = dict.fromkeys(vietnam.weekend_workdays, (True, "swapped weekend"))
    return days | {day: (False, name) for day, name in vietnam.items()}


class Calendar:
    """The working days of Vietnam: weekends, public holidays, and overrides, which win.

    Immutable. Holidays are read once per year and process, whatever the number of calendars.
    Of two overrides of one date the later in the iterable counts.
    """

    def __init__(self, overrides: Iterable[DayOverride] = ()) -> None:
        """Take the overrides, in any order."""
        self._overrides = {override.date: override for override in overrides}

    def override(self, day: date) -> DayOverride | None:
        """Give the override of a local date, if there is one."""
        return self._overrides.get(day)

    def with_override(self, override: DayOverride) -> "Calendar":
        """Give a calendar in which this override replaces whatever its date had."""
        return Calendar([*self._overrides.values(), override])

    def without_override(self, day: date) -> "Calendar":
        """Give a calendar in which a date follows weekday and holidays again."""
        return Calendar(known for known in self._overrides.values() if known.date != day)

    def working_day(self, day: date) -> bool:
        """Tell whether a local date is a working day; TypeError for a datetime."""
        return self._look_up(day)[0]

    def day(self, day: date) -> CalendarDay:
        """Tell what a local date is; TypeError for a datetime."""
        working, reason, decision = self._look_up(day)
        return CalendarDay(date=day, working=working, reason=reason, decision=decision)

    def _look_up(self, day: date) -> tuple[bool, str | None, str | None]:
        if isinstance(day, datetime):
            raise TypeError("a calendar knows dates: take business_day() of an instant first")
        if override := self._overrides.get(day):
            return override.kind == "work", override.note or "override", override.decision
        weekend = day.weekday() >= 5
        ordinary = (not weekend, "weekend" if weekend else None)
        return *_national(day.year).get(day, ordinary), None


def periods(day: date, hours: OpeningHours, calendar: Calendar) -> tuple[Span, ...]:
    """Give the opening periods of a local date as instants, in order; none when closed.

    A day declared worked follows the weekday pattern of the day it replaces; a worked weekend day
    that names none keeps its own weekday's pattern, or Monday's when its own has none. A public
    holiday and a day declared off are closed unless `hours.holidays`.
    """
    override, pattern = calendar.override(day), hours.on(day.weekday())
    if calendar.working_day(day):
        if override and override.in_lieu_of:
            pattern = hours.on(override.in_lieu_of.weekday())
        elif day.weekday() >= 5:
            pattern = pattern or hours.on(0)
    elif not hours.holidays and (override or day in _national(day.year)):
        return ()
    return tuple(period.on(day) for period in pattern)


def is_open(at: datetime, hours: OpeningHours, calendar: Calendar) -> bool:
    """Tell whether the door is open at an instant; at the closing time it no longer is."""
    at = local(at)
    return any(opens <= at < closes for opens, closes in periods(at.date(), hours, calendar))


def next_opening(at: datetime, hours: OpeningHours, calendar: Calendar) -> datetime | None:
    """Give `at` itself if open, else the next opening within `SEARCH_DAYS` days, else None."""
    at = local(at)
    for ahead in range(SEARCH_DAYS + 1):
        for opens, closes in periods(at.date() + ahead * _DAY, hours, calendar):
            if at < closes:
                return max(at, opens)
    return None


def closing(at: datetime, hours: OpeningHours, calendar: Calendar) -> datetime | None:
    """Give the end of the period running at `at`, else of that day's last one; None if closed."""
    at = local(at)
    today = periods(at.date(), hours, calendar)
    running = (closes for opens, closes in today if opens <= at < closes)
    return next(running, today[-1][1] if today else None)


def _working(day: date, hours: OpeningHours, calendar: Calendar) -> tuple[Span, ...]:
    """Give the periods of a local date that count for limits."""
    counts = hours.holidays or calendar.working_day(day)
    return periods(day, hours, calendar) if counts else ()


def _working_days(
    day: date, hours: OpeningHours, calendar: Calendar
) -> Iterator[tuple[date, tuple[Span, ...]]]:
    """Walk the working days from `day` on; NoDeadlineError after `SEARCH_DAYS` without one."""
    idle = 0
    while idle <= SEARCH_DAYS:
        spans = _working(day, hours, calendar)
        if spans:
            yield day, spans
        idle = 0 if spans else idle + 1
        day += _DAY
    raise NoDeadlineError(
        say("no working time in the {days} days before {day}", days=SEARCH_DAYS, day=day)
    )


def _merged(pauses: Pauses, *stops: Span) -> list[Span]:
    """Bring pauses and stops into sorted spans with gaps between them."""
    spans = list(stops)
    for since, until in pauses:
        spans.append((local(since), _FOREVER if until is None else local(until)))
        if spans[-1][0] > spans[-1][1]:
            raise ValueError(f"a pause from {since} cannot end before it begins, at {until}")
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _without(stops: list[Span], spans: Iterable[Span]) -> Iterator[Span]:
    """Cut the sorted, disjoint stops out of spans; nothing empty comes out."""
    for begin, end in spans:
        rest = begin
        for stop, resume in stops:
            if stop >= end:
                break
            if rest < stop:
                yield rest, stop
            rest = max(rest, resume)
        if rest < end:
            yield rest, end


def _microseconds(spans: Iterable[Span]) -> int:
    return sum((end - begin) // _MICROSECOND for begin, end in spans)


def _use_up(
    need: int | timedelta, start: datetime, hours: OpeningHours, calendar: Calendar, pauses: Pauses
) -> datetime:
    """Find the first instant at which so many whole days, or so much working time, have passed."""
    start = local(start)
    stops = _merged(pauses, (_EVER, start))
    left = Fraction(need if isinstance(need, int) else need // _MICROSECOND)
    for _, spans in _working_days(start.date(), hours, calendar):
        if stops[-1][1] == _FOREVER and stops[-1][0] <= spans[0][0]:
            break
        unit = _microseconds(spans) if isinstance(need, int) else 1
        for begin, end in _without(stops, spans):
            share = Fraction((end - begin) // _MICROSECOND, unit)
            if left <= share:
                return begin + ceil(left * unit) * _MICROSECOND
            left -= share
    raise NoDeadlineError(say("an open-ended pause comes before the limit is used up"))


def add_working_time(
    start: datetime, amount: timedelta, hours: OpeningHours, calendar: Calendar, pauses: Pauses = ()
) -> datetime:
    """Give the first instant, not before `start`, at which `amount` of working time has passed.

    So an amount that uses a day up ends at its closing, not at the next opening, and nothing
    added is `start` itself. `working_time(start, result)` is `amount` again. Walks days.

    Raises:
        ValueError: the amount is negative, a pause ends before it begins, an instant is naive.
        NoDeadlineError: no working day within 60 days, or an open-ended pause before the end.
    """
    if amount < timedelta():
        raise ValueError(f"working time is added, not taken away: {amount}")
    if not amount:
        return local(start)
    return _use_up(amount, start, hours, calendar, pauses)


def working_time(
    start: datetime, end: datetime, hours: OpeningHours, calendar: Calendar, pauses: Pauses = ()
) -> timedelta:
    """Give the working time in [start, end) that no pause covers; zero when `end` is not later.

    A pause with no end lasts to `end` and beyond. ValueError as in `add_working_time`.
    """
    start, end = local(start), local(end)
    stops = _merged(pauses, (_EVER, start), (end, _FOREVER))
    ahead = range((end.date() - start.date()).days + 1)
    days = (_working(start.date() + n * _DAY, hours, calendar) for n in ahead)
    return sum((_microseconds(_without(stops, spans)) for spans in days), 0) * _MICROSECOND


class Limit(_Frozen):
    """How long a procedure may take (thời hạn giải quyết): a whole number of a unit, 1 or more."""

    value: Annotated[int, Field(gt=0, strict=True)]
    unit: Literal["working_day", "working_hour", "calendar_day"]


def deadline(
    start: datetime, limit: Limit, hours: OpeningHours, calendar: Calendar, pauses: Pauses = ()
) -> datetime:
    """Give the instant at which a limit that starts at `start` is used up.

    *Working hours* are working time. A *working day* is the whole opening time of one working day,
    whatever its length: open time counts as a share of its own day. Between days alike this is
    "same clock time, N working days later" (Tuesday 10:00 and three days: Friday 10:00), and
    pauses can stop it at any minute. It is not 8 hours, because the law counts days: one that
    closes at noon is a day too, and the same share of it is taken (10:00 of a full day is 08:45 of
    a morning). It rises strictly with the limit and never falls with the start, which clipping
    clock times into opening periods would not give. Received outside opening hours counts from
    the next opening: before the doors open, one day ends at that day's closing.

    *Calendar days* run from the next opening too, pauses excluded, and end with the last opening
    period of the last day, or of the next working day if that one is off (Civil Code 2015, art.
    148, clauses 1 and 5; clause 6 says midnight, but a result is handed over while doors are open).

    Raises: what `add_working_time` raises.
    """
    if limit.unit == "working_day":
        return _use_up(limit.value, start, hours, calendar, pauses)
    if limit.unit == "working_hour":
        return add_working_time(start, timedelta(hours=limit.value), hours, calendar, pauses)
    received = next_opening(start, hours, calendar)
    if received is None:
        raise NoDeadlineError(
            say("no opening in the {days} days after {start}", days=SEARCH_DAYS, start=start)
        )
    left = limit.value * _DAY
    for begin, end in _without(_merged(pauses), [(received, _FOREVER)]):
        if left <= end - begin:
            _, spans = next(_working_days((begin + left).date(), hours, calendar))
            return spans[-1][1]
        left -= end - begin
    raise NoDeadlineError(say("an open-ended pause comes before the limit is used up"))


def appointment(
    received_at: datetime,
    limit: Limit,
    *,
    same_day: bool,
    hours: OpeningHours,
    calendar: Calendar,
    handed_over: bool = False,
    cut_off: time = CUT_OFF,
) -> datetime:
    """Give the date printed on the receipt (ngày hẹn trả kết quả).

    A *same-day* procedure is due at the end of the working day on which it was received before
    `cut_off` (local time), else at the end of the next working day; its `limit` is not used. A
    boundary-independent dossier *handed over* to another competent body starts its limit when that
    body receives it (Decree 309/2026): at once if received before `cut_off` on a working day,
    else at the start of the next one. Received after the day's last closing, or on a day off,
    counts for the next working day; any other dossier follows `deadline`.

    Raises: what `deadline` raises.
    """
    if not (same_day or handed_over):
        return deadline(received_at, limit, hours, calendar)
    at = local(received_at)
    for day, spans in _working_days(at.date(), hours, calendar):
        if day > at.date() or (at.time() < cut_off and at < spans[-1][1]):
            break
    if same_day:
        return spans[-1][1]
    return deadline(max(at, spans[0][0]), limit, hours, calendar)

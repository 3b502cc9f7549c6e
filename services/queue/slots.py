"""Appointment slots: which a centre has on a day, and how many people each takes.

Pure functions. Slots lie inside the opening periods of the day, so none is at lunch or on a day
off, and a Saturday that is worked instead of a Friday has Friday's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from libs.common.settings import Settings
from libs.common.worktime import Calendar, OpeningHours, business_day, periods
from services.queue.forecast import USUAL_SERVICE_SECONDS


@dataclass(frozen=True, slots=True)
class Plan:
    """By which rules a centre gives appointments."""

    length: timedelta
    capacity: int
    """People per slot."""
    web_capacity: int
    """How many of them may come without credentials: the rest is kept for those who are booked by
    the centre itself, on the telephone or at the door, whatever a robot does."""
    days_ahead: int
    early: timedelta
    late: timedelta

    @property
    def minutes(self) -> int:
        """Give the length of a slot in minutes."""
        return self.length // timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Slot:
    """A time for which people are promised a place (khung giờ hẹn)."""

    starts_at: datetime
    ends_at: datetime
    check_in_from: datetime
    check_in_until: datetime


def plan_of(settings: Settings, counters_planned: int, own: Mapping[str, int | None]) -> Plan:
    """Give a centre's rules: its own where it has some, else the settings' for its size."""
    length = timedelta(minutes=own.get("slot_minutes") or settings.appointment_slot_minutes)
    capacity, days_ahead = own.get("capacity"), own.get("days_ahead")
    if capacity is None:
        served = counters_planned * length.total_seconds() / USUAL_SERVICE_SECONDS
        capacity = _part(served, settings.appointment_share)
    return Plan(
        length=length,
        capacity=capacity,
        web_capacity=_part(capacity, settings.appointment_web_share),
        days_ahead=settings.appointment_days_ahead if days_ahead is None else days_ahead,
        early=timedelta(minutes=settings.appointment_early_minutes),
        late=timedelta(minutes=settings.appointment_late_minutes),
    )


def _part(people: float, share: float) -> int:
    """Give a share of some people: whole people, and one at the least where there is any."""
    return max(1, int(people * share)) if people and share else 0


def slots_of(day: date, plan: Plan, hours: OpeningHours, calendar: Calendar) -> Iterator[Slot]:
    """List the slots of a local date, in order.

    Each opening period is cut from its beginning; what is left at its end is too short for one.
    Nobody is told to check in while the door is shut.
    """
    for opens, closes in periods(day, hours, calendar):
        for place in range((closes - opens) // plan.length):
            starts = opens + place * plan.length
            yield Slot(
                starts_at=starts,
                ends_at=starts + plan.length,
                check_in_from=max(opens, starts - plan.early),
                check_in_until=min(closes, starts + plan.late),
            )


def slot_at(
    starts_at: datetime, plan: Plan, hours: OpeningHours, calendar: Calendar
) -> Slot | None:
    """Give the slot that begins at an instant, if there is one."""
    day = slots_of(business_day(starts_at), plan, hours, calendar)
    return next((slot for slot in day if slot.starts_at == starts_at), None)

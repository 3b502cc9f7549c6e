"""Booking: the free slots of a centre's day, and a place in one of them, promised once."""

import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from uuid import uuid4

import asyncpg
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import fast_json
from libs.common.auth import Principal
from libs.common.idempotency import Key, replay_if_answered
from libs.common.problems import Conflict, Unavailable, malformed_field
from libs.common.settings import Settings
from libs.common.trace import current_traceparent
from libs.common.worktime import ZONE, business_day
from libs.contracts.directory import Directory
from services.queue import appointment_statements as statements
from services.queue.domain import issuing
from services.queue.models import AppointmentRules
from services.queue.slots import Plan, Slot, plan_of, slot_at, slots_of

CODE_LETTERS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""No 0 and O, 1, I and L, U and V: what is read aloud in a hall is understood."""

_CODE_LENGTH: Final = 6
_ATTEMPTS: Final = 5
_FAR: Final = timedelta(days=366)


class NoAppointments(Conflict):
    """The centre gives no appointments.

    Take a ticket on the day.
    """


class NoSuchSlot(Conflict):
    """No appointment slot begins at this time.

    Choose one of `slots`.
    """


class SlotFull(Conflict):
    """Everybody whom the centre takes at this time is booked already.

    Choose another slot of `GET /v1/appointments`.
    """


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants an appointment for."""

    starts_at: datetime
    series: str
    channel: str
    procedure_codes: list[str]


# A centre's rules ---------------------------------------------------------------------------------


async def plan_for(pool: asyncpg.Pool, directory: Directory, settings: Settings, unit: str) -> Plan:
    """Give the rules by which a unit's centre gives appointments.

    Raises:
        UnitNotActive: the unit keeps no centre.
    """
    centre = directory.centre(unit)
    own = await pool.fetchrow(
        "SELECT slot_minutes, capacity, days_ahead FROM appointment_rules WHERE unit = $1", unit
    )
    return plan_of(settings, centre.counters_planned, own or {})


async def set_rules(session: AsyncSession, unit: str, rules: Mapping[str, Any]) -> None:
    """Give a centre rules of its own; those who are booked keep what they were promised."""
    row = insert(AppointmentRules).values(unit=unit, **rules)
    await session.execute(row.on_conflict_do_update(index_elements=["unit"], set_=rules))


# A day --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlotSeen:
    """A slot as it is listed: whom it still takes, and, for its centre, whom it expects."""

    starts_at: datetime
    ends_at: datetime
    free: int
    capacity: int | None = None
    appointments: list[Mapping[str, Any]] | None = None


def check_day(day: date, now: datetime) -> None:
    """Refuse a day that no calendar of ours reaches.

    Raises:
        Malformed.
    """
    if abs(day - business_day(now)) > _FAR:
        raise malformed_field("date", f"name a day within {_FAR.days} days of today")


async def free_slots(
    pool: asyncpg.Pool,
    directory: Directory,
    unit: str,
    day: date,
    plan: Plan,
    *,
    seats: int,
    now: datetime,
) -> list[SlotSeen]:
    """List the slots of a day that may be booked; `seats` is how many of each the caller may fill.

    A full one is listed with none free. There are none in the past or beyond the days ahead.
    """
    if day > business_day(now) + timedelta(days=plan.days_ahead) or plan.capacity == 0:
        return []
    taken = await pool.fetch(
        "SELECT starts_at, ends_at, booked FROM appointment_slots"
        " WHERE unit = $1 AND ends_at > $2 AND starts_at < $3",
        unit,
        *_bounds(day),
    )

    def free(slot: Slot) -> int:
        """Count as `BOOK` does: whoever is expected in a time that overlaps takes a place."""
        overlapping = (
            int(other["booked"])
            for other in taken
            if other["starts_at"] < slot.ends_at and other["ends_at"] > slot.starts_at
        )
        return max(0, seats - sum(overlapping))

    return [
        SlotSeen(slot.starts_at, slot.ends_at, free(slot))
        for slot in slots_of(day, plan, directory.hours(unit), directory.calendar)
        if slot.starts_at > now
    ]


async def whole_day(
    pool: asyncpg.Pool,
    directory: Directory,
    unit: str,
    day: date,
    plan: Plan,
    *,
    now: datetime,
) -> list[SlotSeen]:
    """List a day as its centre sees it: every slot with those who are expected or were.

    Also such as no slot has room for any more, since the day was declared off or the hours changed.
    """
    free = {
        slot.starts_at: slot.free
        for slot in await free_slots(pool, directory, unit, day, plan, seats=plan.capacity, now=now)
    }
    ends = {
        slot.starts_at: slot.ends_at
        for slot in slots_of(day, plan, directory.hours(unit), directory.calendar)
    }
    expected: dict[datetime, list[Mapping[str, Any]]] = defaultdict(list)
    for row in await pool.fetch(
        statements.SHOW + "WHERE a.unit = $2 AND a.starts_at >= $3 AND a.starts_at < $4"
        " ORDER BY a.starts_at, a.booked_at, a.id",
        now,
        unit,
        *_bounds(day),
    ):
        expected[row["starts_at"]].append(dict(row))
        ends.setdefault(row["starts_at"], row["ends_at"])
    return [
        SlotSeen(starts, ends[starts], free.get(starts, 0), plan.capacity, expected[starts])
        for starts in sorted(ends)
    ]


def _bounds(day: date) -> tuple[datetime, datetime]:
    """Give the instants at which a local date begins and ends."""
    begins = datetime.combine(day, time.min, tzinfo=ZONE)
    return begins, begins + timedelta(days=1)


# Booking ------------------------------------------------------------------------------------------


def check_wish(directory: Directory, unit: str, plan: Plan, wish: Wish, now: datetime) -> Slot:
    """Give the slot that a wish names, if anybody may have it.

    Raises:
        Malformed: the time has passed or is too far ahead, or a procedure is unknown.
        UnitNotActive, ProcedureNotOffered, CentreClosed: a ticket would be refused then too.
        NoAppointments. NoSuchSlot: with the slots of that day.
    """
    if plan.capacity == 0:
        raise NoAppointments(f"{unit} gives no appointments; take a ticket when you come")
    last_day = business_day(now) + timedelta(days=plan.days_ahead)
    if wish.starts_at <= now:
        raise malformed_field("starts_at", f"has passed: it is {fast_json.instant(now)}")
    if business_day(wish.starts_at) > last_day:
        raise malformed_field("starts_at", f"{unit} gives appointments until {last_day}")
    issuing.check_issue(directory, unit, wish.procedure_codes, wish.starts_at)
    hours = directory.hours(unit)
    slot = slot_at(wish.starts_at, plan, hours, directory.calendar)
    if slot is None:
        day = slots_of(business_day(wish.starts_at), plan, hours, directory.calendar)
        raise NoSuchSlot(
            f"slots of {unit} last {plan.minutes} minutes; none begins at "
            f"{fast_json.instant(wish.starts_at)}",
            slots=[fast_json.instant(s.starts_at) for s in day if s.starts_at > now],
        )
    return slot


async def book(
    pool: asyncpg.Pool,
    unit: str,
    wish: Wish,
    slot: Slot,
    plan: Plan,
    *,
    principal: Principal,
    now: datetime,
    key: Key | None,
) -> str:
    """Promise a place in a slot; answer the appointment as JSON.

    Raises:
        Replay. SlotFull.
    """
    for _ in range(_ATTEMPTS):
        try:
            row = await pool.fetchrow(
                statements.BOOK,
                uuid4(),
                unit,
                slot.starts_at,
                slot.ends_at,
                plan.capacity,
                plan.web_capacity if principal.anonymous else plan.capacity,
                _new_code(),
                slot.check_in_from,
                slot.check_in_until,
                wish.series,
                wish.channel,
                wish.procedure_codes,
                now,
                uuid4(),
                current_traceparent(),
                key.digest if key else None,
                key.fingerprint if key else None,
            )
        except asyncpg.UniqueViolationError:
            # The key was answered, or, once in a very long while, somebody has the same code.
            await replay_if_answered(pool, key)
            continue
        if row is not None:
            return str(row["body"])
        await replay_if_answered(pool, key)
        raise SlotFull(
            f"{unit} takes nobody else at {fast_json.instant(slot.starts_at)}; choose a slot that "
            f"is free: GET /v1/appointments?unit={unit}&date={business_day(slot.starts_at)}"
        )
    raise Unavailable("no code was free for the appointment; try again")


def _new_code() -> str:
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(_CODE_LENGTH))

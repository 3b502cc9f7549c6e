"""What comes of an appointment: a ticket for who comes in time, else its place is free again."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import structlog

from libs.common import fast_json
from libs.common.app import Core
from libs.common.db import transient
from libs.common.idempotency import Key, replay_if_answered
from libs.common.problems import Conflict, NotFound, Problem, Unavailable
from libs.common.trace import current_traceparent
from libs.contracts.directory import Directory
from services.queue import appointment_statements as statements
from services.queue.domain import issuing
from services.queue.domain.refusals import NotYourUnit
from services.queue.policy import Promise

log = structlog.get_logger()


class UnknownAppointment(NotFound):
    """There is no such appointment.

    Check the id, or the code as it stands on the confirmation.
    """


class AppointmentOver(Conflict):
    """The appointment was checked in, cancelled or missed.

    Book again, or take a ticket; one that was checked in has its ticket in `ticket_id`.
    """


class TooEarly(Conflict):
    """It is too early to check in.

    Check in between `check_in_from` and `check_in_until`.
    """


@dataclass(frozen=True, slots=True)
class Visit:
    """What a ticket is issued for when somebody with an appointment comes; see `issuing.Wish`."""

    series: str
    channel: str
    procedure_codes: list[str]
    priority_class: str = "appointment"
    dossier_code: str | None = None


async def shown(pool: asyncpg.Pool, appointment_id: UUID, now: datetime) -> Mapping[str, Any]:
    """Give an appointment by its id.

    Raises:
        UnknownAppointment.
    """
    row: Mapping[str, Any] | None = await pool.fetchrow(_BY_ID, now, appointment_id)
    if row is None:
        raise UnknownAppointment(f"no appointment has the id {appointment_id}")
    return row


_BY_ID = statements.SHOW + "WHERE a.id = $2"


async def with_code(pool: asyncpg.Pool, unit: str, code: str, now: datetime) -> Mapping[str, Any]:
    """Give the appointment that goes by a code at a centre; of several the one still booked.

    Raises:
        UnknownAppointment.
    """
    row: Mapping[str, Any] | None = await pool.fetchrow(
        statements.SHOW + "WHERE a.unit = $2 AND a.code = $3"
        " ORDER BY a.status = 'booked' DESC, a.starts_at DESC LIMIT 1",
        now,
        unit,
        code,
    )
    if row is None:
        raise UnknownAppointment(f"no appointment at {unit} has the code {code}")
    return row


async def cancel(
    pool: asyncpg.Pool,
    appointment_id: UUID,
    *,
    units: Sequence[str] | None,
    now: datetime,
    key: Key | None,
) -> str:
    """Give an appointment up, which frees its place; answer it as JSON.

    `units` are those the caller acts for; None: the id is the claim.

    Raises:
        Replay, UnknownAppointment, NotYourUnit, AppointmentOver.
    """
    row = None
    try:
        row = await pool.fetchrow(
            statements.CANCEL,
            appointment_id,
            units,
            now,
            uuid4(),
            current_traceparent(),
            key.digest if key else None,
            key.fingerprint if key else None,
        )
    except asyncpg.UniqueViolationError:
        await replay_if_answered(pool, key)
    if row is not None:
        return str(row["body"])
    appointment = await pool.fetchrow(_BY_ID, now, appointment_id)
    await replay_if_answered(pool, key)  # second: what a twin has changed it has answered by then
    _check_open(appointment, appointment_id, units)
    raise Unavailable("the appointment was changed at the same time; try again")


async def check_in(
    pool: asyncpg.Pool,
    appointment_id: UUID,
    *,
    units: Sequence[str] | None,
    channel: str,
    directory: Directory,
    promise: Promise,
    waits: Callable[[str, str], list[list[int]] | None],
    now: datetime,
    key: Key | None,
) -> str:
    """Turn an appointment into a ticket of class `appointment`; answer the ticket as JSON.

    One transaction, in which the appointment's row is locked first: of two who check it in at
    once the second finds it checked in.

    Raises:
        Replay, UnknownAppointment, NotYourUnit, AppointmentOver, TooEarly. UnitNotActive,
        CentreClosed: no ticket is given there now.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM appointments WHERE id = $1 FOR UPDATE", appointment_id
        )
        row = await connection.fetchrow(_BY_ID, now, appointment_id)
        try:
            appointment = _check_open(row, appointment_id, units)
            _check_time(appointment, now)
            issuing.check_issue(directory, appointment["unit"], (), now)
        except Problem:
            await replay_if_answered(connection, key)
            raise
        unit = appointment["unit"]
        ticket = await issuing.issue(
            connection,
            unit,
            Visit(appointment["series"], channel, appointment["procedure_codes"]),
            now=now,
            promise=promise,
            waits=waits(unit, appointment["series"]),
            key=key,
        )
        await connection.execute(
            statements.CHECKED_IN,
            appointment_id,
            UUID(fast_json.loads(ticket)["id"]),
            now,
            uuid4(),
            current_traceparent(),
        )
    return ticket


def _check_open(
    appointment: Mapping[str, Any] | None, appointment_id: UUID, units: Sequence[str] | None
) -> Mapping[str, Any]:
    """Refuse who may not act for an appointment, or has nothing to act on any more."""
    if appointment is None:
        raise UnknownAppointment(f"no appointment has the id {appointment_id}")
    if units is not None and appointment["unit"] not in units:
        raise NotYourUnit(f"{appointment['code']} is an appointment at {appointment['unit']}")
    status = appointment["status"]
    if status == "booked":
        return appointment
    told: dict[str, Any] = {"appointment_status": status, "allowed": []}
    if status == "checked_in":
        raise AppointmentOver(
            f"{appointment['code']} was checked in: its ticket is {appointment['ticket_number']}",
            ticket_id=str(appointment["ticket_id"]),
            ticket_number=appointment["ticket_number"],
            **told,
        )
    if status == "missed":
        until = fast_json.instant(appointment["check_in_until"])
        raise AppointmentOver(
            f"{appointment['code']} could be checked in until {until}; take a ticket instead",
            check_in_until=until,
            **told,
        )
    raise AppointmentOver(f"{appointment['code']} was cancelled; book again", **told)


def _check_time(appointment: Mapping[str, Any], now: datetime) -> None:
    if now < appointment["check_in_from"]:
        since = fast_json.instant(appointment["check_in_from"])
        until = fast_json.instant(appointment["check_in_until"])
        raise TooEarly(
            f"{appointment['code']} can be checked in from {since} until {until}",
            check_in_from=since,
            check_in_until=until,
        )


# Those who did not come ---------------------------------------------------------------------------


async def release_missed(pool: asyncpg.Pool, now: datetime) -> int:
    """Write down who did not come in time, and announce it; answer how many."""
    return int(await pool.fetchval(statements.MISS, now, current_traceparent()))


async def release_for_ever(core: Core, every_seconds: float = 5) -> None:
    """Release missed appointments until cancelled; any replica may, one at a time does."""
    while True:
        try:
            if await release_missed(core.db.hot, core.clock.now()) and core.relay is not None:
                core.relay.wake()
        except Exception as error:
            if not transient(error):
                raise
            log.warning("appointments.not_released", error=type(error).__name__)
        await asyncio.sleep(every_seconds)

"""Kiosks without network: numbers lent ahead, and what was issued from them taken in afterwards."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final, Literal
from uuid import uuid4

from sqlalchemy import insert, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import fast_json
from libs.common.auth import Principal
from libs.common.events import publish
from libs.common.problems import Conflict, Forbidden, Malformed, NotFound, malformed_field
from libs.common.worktime import ZONE, business_day, next_opening, periods
from libs.contracts.directory import Directory
from libs.contracts.queue import (
    TicketCalled,
    TicketCancelled,
    TicketEvent,
    TicketFinished,
    TicketIssued,
    TicketNoShow,
    TicketStarted,
)
from services.queue import policy
from services.queue.domain.refusals import CentreClosed, check_unit
from services.queue.leases import (
    LETTERS,
    IssuedOffline,
    LeaseKeys,
    contents_of,
    line_of,
    mistakes,
    sequence_of,
    ticket_id,
)
from services.queue.models import KioskLease, KioskSeries, Ticket, TicketNumber
from services.queue.statements import TICKET

OPEN_LEASES: Final = 5
"""How many leases of a day and line a kiosk may hold at once: one that lost its memory gets
another, one that asks in a loop does not use up the numbers."""

RECONCILE_WITHIN: Final = timedelta(days=7)
"""How long after its end a lease is still taken in: later, the week's report has been sealed."""

_NAMED_AT_MOST: Final = 100


class NotYourKiosk(Forbidden):
    """A kiosk acts for itself alone.

    Name the kiosk that the credentials are of.
    """


class TooManyLeases(Conflict):
    """The kiosk holds leases that it has not accounted for.

    Reconcile those that `leases` lists, also with no tickets, and ask again.
    """


class NoSeriesLeft(Conflict):
    """Every series that kiosks of this unit may have on this day is taken.

    Issue online; a series is free again on the next day.
    """


class UnknownLease(NotFound):
    """There is no such lease.

    Ask for a new lease.
    """


class AlreadyReconciled(Conflict):
    """The lease was accounted for before, with other contents.

    Nothing is to be sent again: what was sent at `reconciled_at` counts.
    """


class LeaseTooOld(Conflict):
    """The lease ended too long ago to be accounted for.

    Tell the centre's manager; these numbers can no longer be counted.
    """


def check_kiosk(kiosk: str, principal: Principal) -> None:
    """Let a kiosk act for itself alone.

    Raises:
        NotYourKiosk.
    """
    if principal.subject != kiosk:
        raise NotYourKiosk(f"this token speaks for the kiosk {principal.subject}")


# Lending ------------------------------------------------------------------------------------------


def day_to_lend(
    directory: Directory, unit: str, asked: date | None, *, now: datetime, days_ahead: int
) -> date:
    """Give the business day of a lease: the one asked for, else that of the next opening.

    Raises:
        Malformed: the day is over or too far ahead. UnitNotActive, CentreClosed: nobody is there.
    """
    directory.centre(unit)
    hours, today = directory.hours(unit), business_day(now)
    if asked is not None and not today <= asked <= today + timedelta(days=days_ahead):
        raise malformed_field(
            "business_day", f"numbers are lent for {today} to {today + timedelta(days=days_ahead)}"
        )
    if asked is not None and periods(asked, hours, directory.calendar):
        return asked
    since = now if asked is None else max(now, _midnight(asked))
    opens = next_opening(since, hours, directory.calendar)
    if asked is None and opens is not None:
        return business_day(opens)
    written = fast_json.instant(opens) if opens else None
    raise CentreClosed(
        f"{unit} is closed on {asked}; it opens at {written}"
        if written
        else f"{unit} does not open",
        next_opening=written,
    )


async def lend(
    session: AsyncSession,
    kiosk: str,
    unit: str,
    *,
    line: str,
    day: date,
    count: int,
    now: datetime,
) -> KioskLease:
    """Lend a kiosk the next numbers of a series of its own.

    The series is the letter of the line in which people will wait and one of the kiosk's own. The
    numbers come from the row that gives all of them, so they are nobody else's; what is not used
    is not given again.

    Raises:
        TooManyLeases, NoSeriesLeft.
    """
    now = now.replace(microsecond=0)  # as the signed form tells it, and as kiosks tell theirs
    series = line + await _letter(session, unit, day, kiosk)
    await _check_few(session, unit, series, day)
    taken = upsert(TicketNumber).values(unit=unit, series=series, business_day=day, last=count)
    last = await session.scalar(
        taken.on_conflict_do_update(
            index_elements=["unit", "series", "business_day"],
            set_={"last": TicketNumber.last + count},
        ).returning(TicketNumber.last)
    )
    assert last is not None
    lease = KioskLease(
        id=uuid4(),
        kiosk=kiosk,
        unit=unit,
        series=series,
        business_day=day,
        first=last - count + 1,
        last=last,
        granted_at=now,
        valid_from=max(now, _midnight(day)),
        expires_at=_midnight(day + timedelta(days=1)),
    )
    session.add(lease)
    await session.flush()
    return lease


async def _letter(session: AsyncSession, unit: str, day: date, kiosk: str) -> str:
    """Give the letter of a kiosk on a day, a free one at first; its row is locked afterwards."""
    row = KioskSeries
    own = select(row.letter).where(row.unit == unit, row.business_day == day, row.kiosk == kiosk)
    for _ in range(len(LETTERS) + 1):
        letter = await session.scalar(own.with_for_update())
        if letter is not None:
            return letter
        taken = set(
            await session.scalars(
                select(row.letter).where(row.unit == unit, row.business_day == day)
            )
        )
        free = next((letter for letter in LETTERS if letter not in taken), None)
        if free is None:
            break
        # Whoever was quicker has this letter, or is this kiosk: the next look tells.
        values = {"unit": unit, "business_day": day, "kiosk": kiosk, "letter": free}
        await session.execute(upsert(row).values(values).on_conflict_do_nothing())
    raise NoSeriesLeft(f"{unit} has {len(LETTERS)} kiosks with numbers for {day} already")


async def _check_few(session: AsyncSession, unit: str, series: str, day: date) -> None:
    lease = KioskLease
    held = await session.scalars(
        select(lease.id).where(
            lease.unit == unit,
            lease.business_day == day,
            lease.series == series,
            lease.reconciled_at.is_(None),
        )
    )
    ids = [str(held_id) for held_id in held]
    if len(ids) >= OPEN_LEASES:
        raise TooManyLeases(
            f"this kiosk holds {len(ids)} leases of {series} for {day}: reconcile them first, also "
            "with no tickets",
            leases=ids,
        )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=ZONE)


# Taking in ----------------------------------------------------------------------------------------


async def reconcile(
    session: AsyncSession,
    kiosk: str,
    signed: str,
    issued: Sequence[IssuedOffline],
    *,
    keys: LeaseKeys,
    principal: Principal,
    promise: policy.Promise,
    now: datetime,
) -> tuple[KioskLease, list[str]]:
    """Take in what was issued from a lease, with its real times.

    Answers the lease and its tickets, each of them as JSON, in the order of their numbers. The same
    contents again change nothing, and are answered with the tickets as they are now.

    Raises:
        Malformed: the lease is not ours or another kiosk's, or entries cannot be; each is named.
        UnknownLease, NotYourUnit, LeaseTooOld, AlreadyReconciled.
    """
    lease = await session.get(KioskLease, keys.lease_id(signed), with_for_update=True)
    if lease is None:
        raise UnknownLease("this lease is not in the books: ask for a new one")
    if lease.kiosk != kiosk:
        raise malformed_field("signed", f"was given to another kiosk than {kiosk}")
    check_unit(lease.unit, principal)
    contents = contents_of(issued)
    if lease.reconciled_at is None:
        await _take_in(session, lease, issued, promise=promise, now=now)
        lease.reconciled_at, lease.issued, lease.contents = now, len(issued), contents
        await session.flush()
    elif lease.contents != contents:
        raise AlreadyReconciled(
            f"this lease was reconciled at {fast_json.instant(lease.reconciled_at)} with "
            f"{lease.issued} tickets, and not with these",
            reconciled_at=fast_json.instant(lease.reconciled_at),
            issued=lease.issued,
        )
    ids = [ticket_id(lease, entry.number) for entry in issued]
    return lease, list(await session.scalars(_TICKETS, {"ids": ids}))


_TICKETS = text(
    f"SELECT {TICKET}::text FROM tickets AS t WHERE id = ANY(:ids) ORDER BY t.sequence"  # noqa: S608  (a constant)
)


async def _take_in(
    session: AsyncSession,
    lease: KioskLease,
    issued: Sequence[IssuedOffline],
    *,
    promise: policy.Promise,
    now: datetime,
) -> None:
    if now > lease.expires_at + RECONCILE_WITHIN:
        raise LeaseTooOld(
            f"it ended at {fast_json.instant(lease.expires_at)}, more than "
            f"{RECONCILE_WITHIN.days} days ago"
        )
    if errors := list(mistakes(issued, lease, now)):
        fields = ", ".join(dict.fromkeys(error["field"] for error in errors))
        raise Malformed(
            f"{len(errors)} value(s) to mend: {fields}"[:2000], errors=errors[:_NAMED_AT_MOST]
        )
    lives = [_life(lease, entry, promise) for entry in issued]
    if lives:
        await session.execute(insert(Ticket), [ticket for ticket, _ in lives])
    for _, events in lives:
        for event in events:
            publish(session, event, at=event.at)


def _life(
    lease: KioskLease, entry: IssuedOffline, promise: policy.Promise
) -> tuple[dict[str, Any], list[TicketEvent]]:
    """Give the row of a ticket that was issued offline, and the events that it missed."""
    started_at = entry.started_at or (entry.called_at if entry.status == "finished" else None)
    due_at = promise.due_at(entry.issued_at, entry.priority_class)
    events = list(_events(lease, entry, due_at, started_at))
    ticket = {
        "id": ticket_id(lease, entry.number),
        "version": len(events),
        "unit": lease.unit,
        "series": line_of(lease),
        "business_day": lease.business_day,
        "sequence": sequence_of(lease, entry.number),
        "number": entry.number,
        "status": entry.status,
        "priority_class": entry.priority_class,
        "channel": "kiosk",
        "procedure_codes": entry.procedure_codes,
        "issued_at": entry.issued_at,
        "due_at": due_at,
        "called_at": entry.called_at,
        "first_called_at": entry.called_at,
        "started_at": started_at,
        "ended_at": entry.ended_at,
        "counter": entry.counter,
    }
    return ticket, events


def _events(
    lease: KioskLease, entry: IssuedOffline, due_at: datetime, started_at: datetime | None
) -> Iterator[TicketEvent]:
    """Tell what became of a number as if it had been told at the time."""
    head = {
        "ticket_id": ticket_id(lease, entry.number),
        "unit": lease.unit,
        "number": entry.number,
        "series": line_of(lease),
        "issued_at": entry.issued_at,
        "due_at": due_at,
    }
    yield TicketIssued(
        **head,
        version=1,
        at=entry.issued_at,
        business_day=lease.business_day,
        priority_class=entry.priority_class,
        channel="kiosk",
        procedure_codes=tuple(entry.procedure_codes),
    )
    if entry.ended_at is None:
        return
    if entry.called_at is None:
        waited = (entry.ended_at - entry.issued_at).total_seconds()
        yield TicketCancelled(**head, version=2, at=entry.ended_at, wait_seconds=waited)
        return
    assert entry.counter is not None
    yield TicketCalled(
        **head,
        version=2,
        at=entry.called_at,
        counter=entry.counter,
        wait_seconds=(entry.called_at - entry.issued_at).total_seconds(),
        first_call=True,
    )
    if started_at is None:
        yield TicketNoShow(**head, version=3, at=entry.ended_at, counter=entry.counter)
        return
    yield TicketStarted(**head, version=3, at=started_at, counter=entry.counter)
    yield TicketFinished(
        **head,
        version=4,
        at=entry.ended_at,
        counter=entry.counter,
        service_seconds=(entry.ended_at - started_at).total_seconds(),
    )


# Seeing -------------------------------------------------------------------------------------------

LeaseStatus = Literal["open", "expired", "reconciled"]


def status_of(lease: KioskLease, now: datetime) -> LeaseStatus:
    """Tell whether a lease is accounted for, may still be issued from, or was lost so far."""
    if lease.reconciled_at is not None:
        return "reconciled"
    return "open" if now < lease.expires_at else "expired"


async def listed(
    session: AsyncSession,
    unit: str,
    *,
    day: date | None,
    status: LeaseStatus | None,
    now: datetime,
    limit: int,
    after: tuple[date, str, int] | None,
) -> list[KioskLease]:
    """List a unit's leases, newest day first; one more than `limit` says that there are others."""
    lease = KioskLease
    rows = select(lease).where(lease.unit == unit)
    if day is not None:
        rows = rows.where(lease.business_day == day)
    if status == "reconciled":
        rows = rows.where(lease.reconciled_at.is_not(None))
    elif status is not None:
        alive = lease.expires_at > now
        rows = rows.where(lease.reconciled_at.is_(None), alive if status == "open" else ~alive)
    place = tuple_(lease.business_day, lease.series, lease.first)
    if after is not None:
        rows = rows.where(place < after)
    ordered = rows.order_by(lease.business_day.desc(), lease.series.desc(), lease.first.desc())
    return list(await session.scalars(ordered.limit(limit + 1)))

"""What the tests of reporting share: events as the queue and intake would announce them."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.bus.base import Received
from libs.common.events import Envelope, Event
from libs.common.worktime import ZONE
from libs.contracts.directory import Directory
from libs.contracts.intake import DossierCompleted, DossierEvent, DossierStatus
from libs.contracts.queue import (
    TicketCalled,
    TicketCancelled,
    TicketEvent,
    TicketFinished,
    TicketIssued,
    TicketNoShow,
    TicketParked,
    TicketReissued,
    TicketReturned,
    TicketStarted,
    TicketTransferred,
)
from libs.contracts.registry import UnitChanged, UnitStatus
from services.reporting import domain
from services.reporting.handlers import router
from services.reporting.periods import week_named

WEEK = week_named("2026-W47")
A, B, DEPARTMENT = "H29.25747", "H29.25750", "H29.S01"


def at(written: str) -> datetime:
    """Read a local instant: `at("2026-11-16 08:00")`."""
    return datetime.fromisoformat(written).replace(tzinfo=ZONE)


LATER = at("2026-11-25 12:00")
"""An instant at which the week is over."""


def dossier(kind: type[DossierEvent] = DossierCompleted, /, **told: Any) -> DossierEvent:
    """Announce a dossier that unit A received on the Monday, directly, unless told otherwise."""
    event: dict[str, Any] = {
        "code": f"{A}-261116-{uuid4().int % 9999:04d}",
        "version": 2,
        "at": LATER,
        "status": DossierStatus.processing,
        "procedure_code": "1.001193",
        "field": "Hộ tịch",
        "receiving_unit": A,
        "competent_unit": A,
        "channel": "direct",
        "boundary_independent": True,
        "submitted_at": at("2026-11-16 08:00"),
        "received_at": at("2026-11-16 08:00"),
        "appointment_at": at("2026-11-18 17:00"),
    }
    return kind.model_validate(event | told)


def ticket(
    issued: datetime,
    *,
    called: float | None = None,
    ends: str = "",
    ends_after: float = 0,
    unit: str = A,
    id: UUID | None = None,  # noqa: A002  (a ticket's id)
) -> list[TicketEvent]:
    """Announce a ticket's life: called and ended so many seconds after its issue."""
    same = {"ticket_id": id or uuid4(), "unit": unit, "number": "A001"}
    events: list[TicketEvent] = []

    def add(kind: type[TicketEvent], after: float, **more: Any) -> None:
        moment = issued + timedelta(seconds=after)
        told = same | {"version": len(events) + 1, "at": moment} | more
        events.append(kind.model_validate(told))

    add(TicketIssued, 0, series="A", business_day=date(2026, 11, 16), priority_class="normal",
        channel="kiosk", due_at=issued + timedelta(minutes=20))  # fmt: skip
    if called is not None:
        add(TicketCalled, called, counter=1, wait_seconds=called, first_call=True)
    if ends == "finished":
        add(TicketStarted, ends_after - 1, counter=1)
        add(TicketFinished, ends_after, counter=1, service_seconds=1)
    elif ends == "no_show":
        add(TicketNoShow, ends_after, counter=1)
    elif ends == "cancelled":
        add(TicketCancelled, ends_after, wait_seconds=ends_after)
    return events


STEPS: dict[str, tuple[type[TicketEvent], tuple[str, ...], str]] = {
    "call": (TicketCalled, ("waiting", "parked"), "called"),
    "recall": (TicketCalled, ("called", "no_show"), "called"),
    "start": (TicketStarted, ("called",), "serving"),
    "finish": (TicketFinished, ("serving",), "finished"),
    "no-show": (TicketNoShow, ("called",), "no_show"),
    "park": (TicketParked, ("called", "serving"), "parked"),
    "return": (TicketReturned, ("parked", "no_show"), "waiting"),
    "send-on": (TicketTransferred, ("waiting", "called", "serving", "parked"), "waiting"),
    "send-away": (TicketTransferred, ("waiting", "called", "serving", "parked"), "transferred"),
    "fail": (TicketCancelled, ("waiting",), "cancelled"),
    "reissue": (TicketReissued, ("waiting", "cancelled"), "waiting"),
}
"""What may happen to a ticket: the event, from which states, and what it is then."""

_TELLS: dict[type[TicketEvent], dict[str, Any]] = {
    TicketStarted: {"counter": 1},
    TicketFinished: {"counter": 1, "service_seconds": 1},
    TicketNoShow: {"counter": 1},
    TicketParked: {"counter": 1, "service_seconds": 0},
    TicketReturned: {"cause": "parked"},
    TicketReissued: {"reissues": 1},
}


def walk(
    issued: datetime,
    *steps: tuple[str, float],
    unit: str = A,
    continues: UUID | None = None,
) -> list[TicketEvent]:
    """Announce a ticket's life step by step, each so many seconds after its issue."""
    events = ticket(issued, unit=unit)
    events[0] = events[0].model_copy(update={"transferred_from": continues})
    called = False
    for name, after in steps:
        kind, _, status = STEPS[name]
        told: dict[str, Any] = _TELLS.get(kind, {})
        if kind is TicketCalled:
            told = {"counter": 1, "wait_seconds": after, "first_call": not called}
            called = True
        elif kind is TicketCancelled:
            told = {"wait_seconds": after, "cause": "print_failed"}
        elif status == "transferred":
            told = {"to_unit": B, "linked_ticket": uuid4()}
        head = {
            "ticket_id": events[0].ticket_id, "unit": unit, "number": "A001",
            "version": len(events) + 1, "at": issued + timedelta(seconds=after),
        }  # fmt: skip
        events.append(kind.model_validate(head | told))
    return events


async def apply(session: AsyncSession, events: Iterable[Event]) -> None:
    """Hand events to their handlers, in the order given."""
    for event in events:
        found = router.find(event.topic, event.type_name())
        assert found is not None
        await found[1](event, session)


def received(event: Event, event_id: UUID | None = None) -> Received:
    """Make the record that the bus would bring."""
    envelope = Envelope(
        event_id or uuid4(), event.type_name(), "/motcua/test", datetime.now(UTC), ""
    )
    body = event.model_dump_json().encode()
    return Received(event.topic, event.key, body, envelope.headers())


def small_city() -> Directory:
    """Make a city of two wards and a department."""
    city = Directory()
    for code, name, kind in (
        (A, "Phường A", "ward"),
        (B, "Phường B", "ward"),
        (DEPARTMENT, "Sở", "department"),
    ):
        city.put_unit(
            UnitChanged(code=code, version=1, name=name, type=kind, status=UnitStatus.active)
        )
    return city


async def report(
    session: AsyncSession,
    *events: Event,
    unit: str | None = None,
    now: datetime = LATER,
    week: str = WEEK.name,
) -> dict[str, Any]:
    """Apply events and compute the small city's report."""
    await apply(session, events)
    return await domain.weekly(
        session, week_named(week), unit=unit, at=now, sla_seconds=1200, directory=small_city()
    )

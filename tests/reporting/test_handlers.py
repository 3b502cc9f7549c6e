"""Projections: events come more than once, late, and out of order."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.bus.embedded import open_embedded_bus
from libs.common.consumer import Consumer
from libs.common.db import Database, connector, service_url
from libs.contracts.intake import DossierCompleted, DossierReceived, DossierStatus
from libs.contracts.queue import TicketIssued
from services.reporting.handlers import router, span_of
from services.reporting.models import Dossier, Ticket
from tests.reporting.support import STEPS, A, B, apply, at, dossier, received, ticket, walk
from tests.support import settings_for

ISSUED = at("2026-11-16 08:00")


@pytest.fixture
async def consumer(database_url: str, database: Database) -> AsyncIterator[Consumer]:
    """Give reporting's consumer, to be handed messages by the test."""
    url = service_url(settings_for(database_url), "reporting")
    async with open_embedded_bus(url, connector(url, "reporting")) as bus:
        yield Consumer("reporting", router, database, bus)


async def ticket_row(session: AsyncSession, ticket_id: UUID) -> dict[str, Any]:
    """Read a ticket's row."""
    columns = Ticket.__table__.columns
    rows = await session.execute(select(*columns).where(Ticket.ticket_id == ticket_id))
    return dict(rows.mappings().one())


async def test_a_redelivered_event_changes_nothing(consumer: Consumer, database: Database) -> None:
    life = ticket(ISSUED, called=60)
    messages = [received(event) for event in (*life, dossier(), dossier())]
    await consumer.handle(messages)
    async with database.sessions() as session:
        before = await ticket_row(session, life[0].ticket_id)
    await consumer.handle(messages)
    await consumer.handle(list(reversed(messages)))
    async with database.sessions() as session:
        assert await ticket_row(session, life[0].ticket_id) == before
        assert await session.scalar(select(func.count()).select_from(Ticket)) == 1
        assert await session.scalar(select(func.count()).select_from(Dossier)) == 2


async def test_an_older_version_of_a_dossier_never_overwrites_a_newer(
    session: AsyncSession,
) -> None:
    ended = at("2026-11-17 09:00")
    newest = dossier(DossierCompleted, version=3, status=DossierStatus.processed, ended_at=ended)
    older = dossier(DossierReceived, code=newest.code, version=2, status=DossierStatus.received)
    await apply(session, [newest, older])
    row = await session.get_one(Dossier, newest.code)
    assert (row.version, row.status, row.ended_at) == (3, DossierStatus.processed, ended)


async def test_a_call_that_comes_before_its_issue_is_not_lost(session: AsyncSession) -> None:
    issued, called, started, finished = ticket(
        ISSUED, called=75.25, ends="finished", ends_after=300
    )
    await apply(session, [finished, called])
    row = await ticket_row(session, issued.ticket_id)
    assert (row["status"], row["issued_at"]) == ("finished", None)
    await apply(session, [issued, started])
    row = await ticket_row(session, issued.ticket_id)
    assert row == {
        "ticket_id": issued.ticket_id, "unit": A, "version": 4, "status": "finished",
        "issued_at": ISSUED, "first_called_at": called.at, "first_wait_seconds": 75.25,
        "ended_at": finished.at, "transferred_from": None,
    }  # fmt: skip


async def test_a_later_call_does_not_change_the_first_wait(session: AsyncSession) -> None:
    issued, called = ticket(ISSUED, called=30)
    again = called.model_copy(
        update={"version": 3, "wait_seconds": 900.0, "first_call": False,
                "at": at("2026-11-16 08:15")}
    )  # fmt: skip
    await apply(session, [issued, called, again])
    row = await ticket_row(session, issued.ticket_id)
    assert (row["version"], row["first_wait_seconds"], row["first_called_at"]) == (
        3, 30, called.at,
    )  # fmt: skip


async def test_a_ticket_that_waits_again_has_not_ended(session: AsyncSession) -> None:
    issued, called, absent = ticket(ISSUED, called=30, ends="no_show", ends_after=60)
    recalled = called.model_copy(update={"version": 4, "first_call": False})
    await apply(session, [issued, called, absent, recalled])
    row = await ticket_row(session, issued.ticket_id)
    assert (row["status"], row["ended_at"]) == ("called", None)


@pytest.mark.parametrize(
    ("steps", "status", "ended"),
    [
        (("call", "park"), "parked", False),
        (("call", "start", "park", "return"), "waiting", False),
        (("call", "no-show", "return"), "waiting", False),
        (("call", "no-show", "recall"), "called", False),
        (("send-on",), "waiting", False),
        (("call", "start", "send-on", "call"), "called", False),
        (("call", "start", "send-away"), "transferred", True),
        (("fail",), "cancelled", True),
        (("fail", "reissue"), "waiting", False),
    ],
)
async def test_every_step_leaves_the_state_that_the_queue_has(
    session: AsyncSession, steps: tuple[str, ...], status: str, ended: bool
) -> None:
    life = walk(ISSUED, *((name, 60.0 * n) for n, name in enumerate(steps, start=1)))
    await apply(session, life)
    row = await ticket_row(session, life[0].ticket_id)
    assert (row["status"], row["version"]) == (status, len(life))
    assert row["ended_at"] == (life[-1].at if ended else None)
    wait = 60.0 * (steps.index("call") + 1) if "call" in steps else None
    assert row["first_wait_seconds"] == wait


async def test_a_ticket_sent_here_names_the_one_it_continues(session: AsyncSession) -> None:
    sent = walk(ISSUED, ("send-away", 300.0))
    linked = walk(ISSUED, ("call", 900.0), unit=B, continues=sent[0].ticket_id)
    await apply(session, [*linked, *sent])
    row = await ticket_row(session, linked[0].ticket_id)
    assert (row["transferred_from"], row["unit"]) == (sent[0].ticket_id, B)
    assert (row["issued_at"], row["first_wait_seconds"]) == (ISSUED, 900)


async def test_an_event_with_fields_unknown_here_is_taken(
    consumer: Consumer, database: Database
) -> None:
    class Tomorrow(TicketIssued):
        """The same event of a later release."""

        mood: str = "cheerful"

        @classmethod
        def type_name(cls) -> str:
            return "TicketIssued"

    event = Tomorrow(**ticket(ISSUED)[0].model_dump())
    await consumer.handle([received(event)])
    async with database.sessions() as session:
        assert (await ticket_row(session, event.ticket_id))["issued_at"] == ISSUED


@pytest.mark.parametrize(
    ("told", "begins", "ends"),
    [
        ({}, "2026-11-16 08:00", None),
        ({"ended_at": "2026-11-17 08:00"}, "2026-11-16 08:00", "2026-11-17 08:00"),
        (
            {"ended_at": "2026-11-17 08:00", "returned_at": "2026-11-18 08:00"},
            "2026-11-16 08:00",
            "2026-11-18 08:00",
        ),
        ({"returned_at": "2026-11-18 08:00"}, "2026-11-16 08:00", None),
        ({"ended_at": "2026-11-12 08:00"}, "2026-11-12 08:00", "2026-11-16 08:00"),
    ],
)
def test_the_span_covers_everything_a_report_may_say(
    told: dict[str, str], begins: str, ends: str | None
) -> None:
    moments: dict[str, datetime] = {name: at(written) for name, written in told.items()}
    span = span_of(dossier(**moments))
    assert span is not None
    assert (span.lower, span.upper) == (at(begins), at(ends) if ends else None)


async def test_a_dossier_refused_after_all_leaves_every_report(session: AsyncSession) -> None:
    first = dossier(version=1)
    refused = dossier(code=first.code, version=2, status=DossierStatus.refused)
    await apply(session, [first, refused])
    assert (await session.get_one(Dossier, first.code)).span is None


async def test_every_transition_of_a_dossier_and_every_step_of_a_ticket_is_handled() -> None:
    handled = {kind.type_name() for kind in router}
    assert handled >= {"DossierSubmitted", "DossierReceived", "DossierAssigned",
                       "DossierCompleted", "DossierReturned"}  # fmt: skip
    assert {event.type_name() for event in ticket(ISSUED, called=1, ends="finished")} <= handled
    assert {kind.type_name() for kind, _, _ in STEPS.values()} <= handled

"""Random histories against a slow reference in plain Python, and against the identities."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.worktime import business_day
from libs.contracts.intake import DossierEvent, DossierStatus
from libs.contracts.queue import (
    TicketCalled,
    TicketCancelled,
    TicketEvent,
    TicketIssued,
    TicketTransferred,
)
from services.reporting.forms import DossierCounts
from tests.reporting.support import (
    DEPARTMENT,
    STEPS,
    WEEK,
    A,
    B,
    apply,
    at,
    dossier,
    report,
    ticket,
    walk,
)

PROFILE = settings(
    max_examples=100,
    deadline=None,
    # The transaction is shared by the examples; each works in a savepoint of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

BEGINS, ENDS = WEEK.begins, WEEK.ends
TICK = timedelta(microseconds=1)
MOMENTS = st.one_of(
    st.sampled_from([BEGINS - TICK, BEGINS, BEGINS + TICK, ENDS - TICK, ENDS, ENDS + TICK]),
    st.builds(
        lambda day, hour: at(f"2026-11-{day} {hour}"),
        st.integers(10, 24),
        st.sampled_from(["00:00", "09:00", "23:59"]),
    ),
)
NOWS = MOMENTS.filter(lambda moment: moment >= BEGINS)
CODES = st.sampled_from([A, B, DEPARTMENT])
Mine = Callable[[DossierEvent], bool]


@st.composite
def histories(draw: st.DrawFn) -> DossierEvent:
    """Draw the last state of a dossier; what happens to it happens in order."""
    status = draw(st.sampled_from(DossierStatus))
    submitted, *moments = sorted(draw(st.lists(MOMENTS, min_size=4, max_size=4)))
    received, ended, returned = moments
    never = status in (DossierStatus.submitted, DossierStatus.refused)
    over = draw(st.booleans())
    return dossier(
        code=f"{A}-261116-{draw(st.integers(1, 9_999_999)):04d}",
        status=status,
        submitted_at=submitted,
        received_at=None if never and draw(st.booleans()) else received,
        ended_at=ended if over else None,
        returned_at=returned if over and draw(st.booleans()) else None,
        appointment_at=draw(st.none() | MOMENTS),
        field=draw(st.sampled_from(["Hộ tịch", "Đất đai"])),
        receiving_unit=draw(CODES),
        competent_unit=draw(CODES),
        channel=draw(st.sampled_from(["online", "direct", "postal"])),
        boundary_independent=draw(st.booleans()),
        supplement_requests=draw(st.integers(0, 2)),
        components=3,
        components_digitised=draw(st.integers(0, 3)),
        components_reused=draw(st.integers(0, 1)),
    )


def having(column: str, row: dict[str, Any]) -> Mine:
    """Make the test for dossiers of a unit's or field's row."""
    wanted = row["field" if column == "field" else "unit"]
    return lambda told: bool(getattr(told, column) == wanted)


def anything(_: DossierEvent) -> bool:
    """Take every dossier: the city's row."""
    return True


def by_hand(
    dossiers: Sequence[DossierEvent], mine: Mine, here: Mine, now: datetime
) -> DossierCounts:
    """Count one row as somebody with the definitions on paper would; slow and plain."""
    never = (DossierStatus.submitted, DossierStatus.refused)
    valid = [(d, d.received_at) for d in dossiers if d.received_at and d.status not in never]
    own = [(d, came) for d, came in valid if mine(d)]
    new = [d for d, came in own if BEGINS <= came < ENDS]

    def verdict(d: DossierEvent, end: datetime) -> str:
        if d.supplement_requests > 1:
            return "late"
        if d.appointment_at is None or business_day(end) == business_day(d.appointment_at):
            return "on_time"
        return "early" if business_day(end) < business_day(d.appointment_at) else "late"

    ends = [verdict(d, d.ended_at) for d, _ in own if d.ended_at and BEGINS <= d.ended_at < ENDS]
    left = [
        verdict(d, min(now, ENDS)) == "late"
        for d, came in own
        if came < ENDS and not (d.ended_at and d.ended_at < ENDS)
    ]
    return DossierCounts(
        online=sum(d.channel == "online" for d in new),
        direct=sum(d.channel != "online" for d in new),
        carried_over=sum(
            came < BEGINS and not (d.ended_at and d.ended_at < BEGINS) for d, came in own
        ),
        early=ends.count("early"),
        on_time=ends.count("on_time"),
        late=ends.count("late"),
        in_time=left.count(False),
        overdue=left.count(True),
        returned=sum(bool(d.returned_at and BEGINS <= d.returned_at < ENDS) for d, _ in own),
        received_for_others=sum(
            here(d) and d.receiving_unit != d.competent_unit and BEGINS <= came < ENDS
            for d, came in valid
        ),
        received_elsewhere=sum(d.receiving_unit != d.competent_unit for d in new),
        boundary_independent=sum(d.boundary_independent for d in new),
        components=sum(d.components for d in new),
        components_digitised=sum(d.components_digitised for d in new),
        components_reused=sum(d.components_reused for d in new),
    )


def of_row(row: dict[str, Any]) -> DossierCounts:
    """Read a row of the report back into counts."""
    parts = row["received"] | row["resolved"] | row["pending"] | row
    papers = row["digitisation"]
    parts |= {"components": papers["components"], "components_digitised": papers["digitised"],
              "components_reused": papers["reused"]}  # fmt: skip
    return DossierCounts(**{name: parts[name] for name in DossierCounts._fields})


def total(rows: Sequence[dict[str, Any]]) -> DossierCounts:
    """Add rows up, column by column."""
    return DossierCounts(*map(sum, zip(*map(of_row, rows), strict=True))) if rows else (
        DossierCounts()
    )  # fmt: skip


@PROFILE
@given(dossiers=st.lists(histories(), max_size=12, unique_by=lambda d: d.code), now=NOWS)
async def test_every_row_is_as_counted_by_hand_and_the_identities_hold(
    session: AsyncSession, dossiers: list[DossierEvent], now: datetime
) -> None:
    async with session.begin_nested() as savepoint:
        answer = await report(session, *dossiers, now=now)
        alone = await report(session, unit=A, now=now)
        await savepoint.rollback()
    for row in answer["units"]:
        competent, receiving = having("competent_unit", row), having("receiving_unit", row)
        assert of_row(row) == by_hand(dossiers, competent, receiving, now)
    for row in answer["fields"]:
        of_field = having("field", row)
        assert of_row(row) == by_hand(dossiers, of_field, of_field, now)
    assert of_row(answer["city"]) == by_hand(dossiers, anything, anything, now)
    assert of_row(answer["city"]) == total(answer["units"]) == total(answer["fields"])
    assert answer["identity"] == {"holds": True, "violated": []}
    for row in (answer["city"], *answer["units"], *answer["fields"]):
        assert row["received"]["total"] == row["resolved"]["total"] + row["pending"]["total"]
    assert of_row(alone["city"]) == total(alone["units"]) == total(alone["fields"])
    assert alone["units"] == [row for row in answer["units"] if row["unit"] == A]


@st.composite
def lives(draw: st.DrawFn) -> list[TicketEvent]:
    """Draw a ticket's life: any steps that follow from one another, at rising instants."""
    status, after = "waiting", 0.0
    steps: list[tuple[str, float]] = []
    for _ in range(draw(st.integers(0, 6))):
        allowed = [name for name, (_, before, _) in STEPS.items() if status in before]
        if not allowed:
            break
        name = draw(st.sampled_from(allowed))
        after += draw(st.sampled_from([0.0, 0.001, 1.0, 599.5, 1200.0, 1200.5, 90_000.0]))
        steps.append((name, after))
        status = STEPS[name][2]
    continues = draw(st.none() | st.uuids())
    unit = draw(st.sampled_from([A, B]))
    return walk(draw(MOMENTS), *steps, unit=unit, continues=continues)


def has_ended(last: TicketEvent) -> bool:
    """Tell whether a ticket whose last event this is waits no longer, called or not."""
    away = isinstance(last, TicketTransferred) and last.to_unit is not None
    return away or isinstance(last, TicketCancelled)


def queue_by_hand(tickets: Sequence[Sequence[TicketEvent]], now: datetime) -> dict[str, Any]:
    """Count a cohort as somebody with the definitions on paper would."""
    cohort = [life for life in tickets if BEGINS <= life[0].at < ENDS]
    waits: list[float] = []
    uncalled: list[float] = []
    for life in cohort:
        calls = [event.wait_seconds for event in life if isinstance(event, TicketCalled)]
        end = life[-1].at if has_ended(life[-1]) else now
        (waits if calls else uncalled).append(
            calls[0] if calls else (end - life[0].at).total_seconds()
        )
    waits.sort()

    def rank(percent: int) -> float | None:
        return waits[(percent * len(waits) + 99) // 100 - 1] if waits else None

    within = sum(wait <= 1200 for wait in waits)
    beyond = sum(wait > 1200 for wait in uncalled)
    last = [type(life[-1]).__name__ for life in cohort]
    sent = sum(isinstance(life[0], TicketIssued) and bool(life[0].transferred_from)
               for life in cohort)  # fmt: skip
    return {
        "tickets": len(cohort) - sent,
        "transferred_in": sent,
        "called": len(waits),
        "finished": last.count("TicketFinished"),
        "no_show": last.count("TicketNoShow"),
        "cancelled": last.count("TicketCancelled"),
        "within_sla": within,
        "uncalled_beyond_sla": beyond,
        "wait_p50_seconds": rank(50),
        "wait_p95_seconds": rank(95),
        "wait_max_seconds": rank(100),
        "share_within_sla": within / (len(waits) + beyond) if waits or beyond else None,
    }


@PROFILE
@given(tickets=st.lists(lives(), max_size=25), now=NOWS)
async def test_the_queue_figures_are_as_counted_by_hand(
    session: AsyncSession, tickets: list[list[TicketEvent]], now: datetime
) -> None:
    async with session.begin_nested() as savepoint:
        answer = await report(session, *(event for life in tickets for event in life), now=now)
        await savepoint.rollback()
    assert answer["city"]["queue"] == queue_by_hand(tickets, now)
    for row in answer["units"]:
        of_unit = [life for life in tickets if life[0].unit == row["unit"]]
        assert row["queue"] == queue_by_hand(of_unit, now)


@PROFILE
@given(life=lives(), data=st.data())
async def test_a_tickets_events_tell_the_same_in_any_order_and_number(
    session: AsyncSession, life: list[TicketEvent], data: st.DataObject
) -> None:
    jumbled = data.draw(st.permutations([*life, *data.draw(st.lists(st.sampled_from(life)))]))
    answers = []
    for events in (life, jumbled):
        async with session.begin_nested() as savepoint:
            answers.append(await report(session, *events))
            await savepoint.rollback()
    assert answers[0] == answers[1]


@PROFILE
@given(states=st.lists(histories(), min_size=1, max_size=4), data=st.data())
async def test_a_dossiers_newest_state_wins_in_any_order(
    session: AsyncSession, states: list[DossierEvent], data: st.DataObject
) -> None:
    told = [
        state.model_copy(update={"code": f"{A}-261116-0001", "version": version})
        for version, state in enumerate(states, start=1)
    ]
    jumbled = data.draw(st.permutations([*told, data.draw(st.sampled_from(told))]))
    answers = []
    for events in ([told[-1]], jumbled):
        async with session.begin_nested() as savepoint:
            answers.append(await report(session, *events))
            await savepoint.rollback()
    assert answers[0] == answers[1]


async def test_a_life_that_is_applied_twice_is_one_ticket(session: AsyncSession) -> None:
    life = ticket(at("2026-11-16 08:00"), called=60, ends="finished", ends_after=90)
    assert isinstance(life[0], TicketIssued)
    await apply(session, life)
    answer = await report(session, *life)
    assert answer["city"]["queue"]["tickets"] == answer["city"]["queue"]["finished"] == 1

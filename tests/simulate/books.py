"""What the tests of the books share: entries drawn at random, and a report made of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from libs.common.worktime import business_day
from services.simulate import count
from services.simulate.ledger import Dossier, Ledger, Ticket
from services.simulate.week import week_of

WEEK = week_of(datetime(2026, 11, 16, tzinfo=UTC))
SLA = 1200
UNITS = ["H29.1", "H29.2", "H29.3"]

_instants = st.datetimes(
    WEEK.begins.replace(tzinfo=None) - timedelta(days=3),
    WEEK.ends.replace(tzinfo=None) + timedelta(days=3),
    timezones=st.just(WEEK.begins.tzinfo),  # type: ignore[arg-type]
)
_edges = st.sampled_from(
    [
        edge + step
        for edge in (WEEK.begins, WEEK.ends)
        for step in (-timedelta(microseconds=1), timedelta(), timedelta(microseconds=1))
    ]
)
instants = _instants | _edges
_waits = st.integers(0, 3 * SLA * 1_000_000) | st.sampled_from(
    [SLA * 1_000_000 + step for step in (-1, 0, 1)]
)


@st.composite
def tickets(draw: st.DrawFn) -> Ticket:
    """Draw a ticket in any state it may be in."""
    issued = draw(instants)
    status = draw(
        st.sampled_from(
            ["waiting", "called", "serving", "finished", "no_show", "cancelled", "parked",
             "transferred"]
        )
    )  # fmt: skip
    wait = timedelta(microseconds=draw(_waits))
    uncalled = status in ("waiting", "cancelled", "transferred") and draw(st.booleans())
    called = None if uncalled else issued + wait
    ended = None
    if status in ("finished", "no_show", "cancelled", "transferred"):
        ended = (called or issued) + timedelta(microseconds=draw(_waits))
    return Ticket(
        id=str(draw(st.uuids())), unit=draw(st.sampled_from(UNITS)), number="A001", version=1,
        status=status, issued_at=issued, business_day=business_day(issued), asked_for=True,
        transferred_from=draw(st.none() | st.uuids().map(str)), first_called_at=called,
        ended_at=ended,
    )  # fmt: skip


@st.composite
def dossiers(draw: st.DrawFn) -> Dossier:
    """Draw a dossier, possible or not: the books count what is told."""
    return Dossier(
        code=str(draw(st.uuids())),
        version=1,
        status=draw(st.integers(1, 10)),
        field=draw(st.sampled_from(["Chứng thực", "Hộ tịch"])),
        receiving_unit=draw(st.sampled_from(UNITS)),
        competent_unit=draw(st.sampled_from(UNITS)),
        channel=draw(st.sampled_from(["online", "direct", "postal"])),
        boundary_independent=draw(st.booleans()),
        received_at=draw(st.none() | instants),
        appointment_at=draw(st.none() | instants),
        ended_at=draw(st.none() | instants),
        returned_at=draw(st.none() | instants),
        supplement_requests=draw(st.integers(0, 3)),
        components=draw(st.integers(0, 9)),
        digitised=draw(st.integers(0, 9)),
        reused=draw(st.integers(0, 9)),
    )


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """Draw books."""
    ledger = Ledger()
    for ticket in draw(st.lists(tickets(), max_size=12)):
        ledger.tickets[ticket.id] = ticket
    for dossier in draw(st.lists(dossiers(), max_size=12)):
        ledger.dossiers[dossier.code] = dossier
    return ledger


def report_of(ledger: Ledger, as_of: datetime) -> dict[str, Any]:
    """Write the report that agrees with the books."""
    own = count.report(ledger, WEEK, as_of=as_of, sla_seconds=SLA)
    return {
        "week": WEEK.name,
        "from": WEEK.begins.isoformat(),
        "to": WEEK.ends.isoformat(),
        "as_of": as_of.isoformat(),
        "sla_seconds": SLA,
        "identity": {"holds": True, "violated": []},
        "city": own["city"],
        "units": [{"unit": unit, "name": "?"} | row for unit, row in own["units"].items()],
        "fields": [{"field": name} | row for name, row in own["fields"].items()],
    }

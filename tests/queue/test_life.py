"""Tickets and counters of one unit against a small model, through any sequence of calls.

`MOTCUA_TEST_LIFE_EXAMPLES` makes a longer run, each time with other sequences.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from libs.common.worktime import business_day, local
from services.queue.main import app
from services.queue.policy import HEAD_START, PRIORITY_CLASSES
from tests.queue.hall import MONDAY, manager, officer
from tests.support import FrozenClock, running, settings_for

T = TypeVar("T")

UNIT = "H29.25747"
FEW = 25
EXAMPLES = int(os.environ.get("MOTCUA_TEST_LIFE_EXAMPLES", str(FEW)))
OFFICERS = (1, 2, 3)
COUNTERS = (1, 2, 3, 4)
"""Counter 4 is not there before a manager makes it."""

STEPS = {
    "start": ("called", "serving"),
    "finish": ("serving", "finished"),
    "no-show": ("called", "no_show"),
    "cancel": ("waiting", "cancelled"),
}


class Hall:
    """A running queue behind a loop of its own, so that plain functions may call it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = FrozenClock(MONDAY)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hall")
        self._stack = AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something that is done in the hall's loop."""
        result: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return result.result(timeout=30)

    def open(self) -> None:
        """Start the queue."""
        self._thread.start()
        self.run(self._open())

    async def _open(self) -> None:
        queue = running(app, settings_for(self.url), self.clock)
        self.queue: httpx.AsyncClient = await self._stack.enter_async_context(queue)
        self.admin = await asyncpg.connect(self.url)

    def close(self) -> None:
        """Stop the queue and the loop."""
        self.run(self.admin.close())
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def empty(self) -> None:
        """Begin a new day with three closed counters and nobody there."""
        self.clock.at = MONDAY
        self.run(
            self.admin.execute(
                "TRUNCATE queue.tickets, queue.ticket_numbers, queue.idempotency_keys;"
                f" DELETE FROM queue.counters WHERE unit = '{UNIT}';"
                f" INSERT INTO queue.counters SELECT '{UNIT}', n, 'closed'"
                " FROM generate_series(1, 3) AS n"
            )
        )

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request."""
        return self.run(self.queue.request(method, path, **more))

    def stored(self) -> list[Any]:
        """Read the tickets as they are stored."""
        rows: list[Any] = self.run(self.admin.fetch("SELECT * FROM queue.tickets"))
        return rows


@dataclass
class Ticket:
    """A ticket of the model."""

    id: UUID
    series: str
    number: str
    issued_at: datetime
    due_at: datetime
    status: str = "waiting"
    version: int = 1
    counter: int | None = None
    officer: int | None = None

    @property
    def turn(self) -> tuple[datetime, datetime, UUID]:
        """Say when it is this ticket's turn."""
        return self.due_at, self.issued_at, self.id

    @property
    def held(self) -> bool:
        """Whether the person is at a counter, or on the way to it."""
        return self.status in ("called", "serving")


@dataclass
class Desk:
    """A counter of the model."""

    state: str = "closed"
    series: list[str] = field(default_factory=list)


class Life(RuleBasedStateMachine):
    """What may happen in a hall, and what the rules say of it."""

    hall: ClassVar[Hall]

    def __init__(self) -> None:
        super().__init__()
        self.tickets: list[Ticket] = []
        self.desks = {number: Desk() for number in (1, 2, 3)}
        self.last: dict[tuple[str, object], int] = {}

    @initialize()
    def begin(self) -> None:
        """Clear the hall."""
        self.hall.empty()

    @property
    def now(self) -> datetime:
        """Tell the time in the hall."""
        at: datetime = self.hall.clock.at
        return at

    @property
    def line(self) -> list[Ticket]:
        """List who may be called, in the order of the rules."""
        midnight = local(self.now).replace(hour=0, minute=0, second=0, microsecond=0)
        since = min(midnight, self.now - timedelta(hours=12))
        waiting = (t for t in self.tickets if t.status == "waiting" and t.due_at >= since)
        return sorted(waiting, key=lambda ticket: ticket.turn)

    def holds(self, **of: int) -> Ticket | None:
        """Find what a counter or an officer holds."""
        [(what, which)] = of.items()
        return next((t for t in self.tickets if t.held and getattr(t, what) == which), None)

    @rule(span=st.sampled_from([1, 60, 300, 601, 1200, 3600]))
    def wait(self, span: int) -> None:
        """Let time pass."""
        self.hall.clock.at += timedelta(seconds=span)

    @precondition(lambda self: len(self.tickets) > 2)
    @rule(hours=st.sampled_from([7, 11, 12, 13, 16]))
    def wait_long(self, hours: int) -> None:
        """Let most of a day pass: whoever still waits may belong to a day that is over."""
        self.hall.clock.at += timedelta(hours=hours)

    @rule(series=st.sampled_from("AAB"), class_=st.sampled_from(PRIORITY_CLASSES))
    def issue(self, series: str, class_: str) -> None:
        """Take a ticket."""
        wish = {"unit": UNIT, "channel": "web", "series": series, "priority_class": class_}
        answer = self.hall.ask("POST", "/v1/tickets", json=wish)
        assert answer.status_code == 201, answer.text
        day = (series, business_day(self.now))
        self.last[day] = self.last.get(day, 0) + 1
        due = self.now + timedelta(seconds=1200) - HEAD_START[class_]
        number = f"{series}{self.last[day]:03}"
        body = answer.json()
        ticket = Ticket(UUID(body["id"]), series, number, self.now, due)
        ahead = sum(other.due_at <= ticket.due_at for other in self.line)
        self.tickets.append(ticket)
        assert (body["number"], body["position"]) == (number, ahead + 1)
        assert datetime.fromisoformat(body["due_at"]) == due

    @rule(
        number=st.sampled_from(COUNTERS),
        state=st.sampled_from(["open", "open", "paused", "closed"]),
        series=st.sampled_from([[], [], ["A"], ["B"], ["B", "A"]]),
        boss=st.booleans(),
    )
    def set_counter(self, number: int, state: str, series: list[str], boss: bool) -> None:
        """Open, pause or close a counter."""
        answer = self.hall.ask(
            "PUT",
            f"/v1/units/{UNIT}/counters/{number}",
            json={"state": state, "series": series},
            headers=manager(UNIT) if boss else officer(UNIT, 1),
        )
        if number not in self.desks and not boss:
            assert answer.status_code == 404
        elif state == "closed" and self.holds(counter=number):
            assert answer.status_code == 409
        else:
            assert answer.status_code == 200
            self.desks[number] = Desk(state, series)

    @rule(number=st.sampled_from(COUNTERS), who=st.sampled_from(OFFICERS))
    def call(self, number: int, who: int) -> None:
        """Call the next person."""
        path = f"/v1/units/{UNIT}/counters/{number}/call-next"
        answer = self.hall.ask("POST", path, headers=officer(UNIT, who))
        desk = self.desks.get(number)
        held = self.holds(counter=number) or self.holds(officer=who)
        line = [t for t in self.line if desk and (not desk.series or t.series in desk.series)]
        if desk is None:
            assert answer.status_code == 404
        elif held:
            assert answer.json()["type"] == "urn:motcua:problem:still-holding"
        elif desk.state != "open":
            assert answer.json()["type"] == "urn:motcua:problem:counter-not-open"
        elif not line:
            assert answer.status_code == 204
        else:
            assert answer.status_code == 200, answer.text
            ticket = line[0]
            assert UUID(answer.json()["id"]) == ticket.id
            ticket.status, ticket.counter, ticket.officer = "called", number, who
            ticket.version += 1

    @precondition(lambda self: self.tickets)
    @rule(
        data=st.data(),
        name=st.sampled_from(list(STEPS)),
        who=st.sampled_from(("holder", *OFFICERS)),
        counter=st.sampled_from((None, None, None, 1, 2)),
    )
    def move(self, data: st.DataObject, name: str, who: int | str, counter: int | None) -> None:
        """Take a step of some ticket, most often one at a counter."""
        held = [ticket for ticket in self.tickets if ticket.held]
        ticket = data.draw(st.sampled_from(held * 3 + self.tickets[-6:]))
        acting = ticket.officer or 1 if who == "holder" else int(who)
        answer = self.hall.ask(
            "POST",
            f"/v1/tickets/{ticket.id}/{name}",
            json={"counter": counter} if counter else None,
            headers=officer(UNIT, acting),
        )
        allowed, after = STEPS[name]
        stranger = name != "cancel" and ticket.officer != acting
        if ticket.status != allowed:
            assert answer.json()["type"] == "urn:motcua:problem:not-allowed-now"
            steps = {step for step, (from_, _) in STEPS.items() if from_ == ticket.status}
            assert set(answer.json()["allowed"]) - {"call-next"} == steps
        elif stranger or (counter and counter != ticket.counter):
            assert answer.json()["type"] == "urn:motcua:problem:held-elsewhere"
        else:
            assert answer.status_code == 200, answer.text
            ticket.status = after
            ticket.version += 1

    @invariant()
    def tickets_are_as_the_model_says(self) -> None:
        """Compare every ticket, and the board."""
        stored = {
            row["id"]: (row["number"], row["status"], row["version"], row["counter"])
            for row in self.hall.stored()
        }
        assert stored == {t.id: (t.number, t.status, t.version, t.counter) for t in self.tickets}
        board = self.hall.ask("GET", f"/v1/units/{UNIT}/queue").json()
        assert board["waiting"] == len(self.line)
        assert [row["number"] for row in board["next"]] == [t.number for t in self.line[:10]]
        called = [t.number for t in self.tickets if t.status == "called"]
        assert sorted(row["number"] for row in board["called"]) == sorted(called)
        shown = {row["number"]: row for row in board["counters"]}
        assert {n: row["state"] for n, row in shown.items()} == {
            n: desk.state for n, desk in self.desks.items()
        }
        for number, row in shown.items():
            at = self.holds(counter=number)
            assert (row["ticket"] or {}).get("number") == (at.number if at else None)
            assert not (at and row["state"] == "closed")


@pytest.fixture
def hall(city_url: str) -> Iterator[Hall]:
    """Give a running queue with a loop of its own."""
    hall = Hall(city_url)
    hall.open()
    yield hall
    hall.close()


def test_tickets_and_counters_live_as_the_model_does(hall: Hall) -> None:
    Life.hall = hall
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            derandomize=EXAMPLES == FEW,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Tickets and counters of one unit against a small model, through any sequence of calls.

`MOTCUA_TEST_LIFE_EXAMPLES` makes a longer run, each time with other sequences.
"""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

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

from services.queue.domain.endings import Nights
from services.queue.policy import HEAD_START, PRIORITY_CLASSES
from tests.queue.hall import MONDAY, core_of, manager, officer
from tests.queue.model import ELSEWHERE, STEPS, UNIT, Actor, Book, Hall, Ticket

FEW = 25
EXAMPLES = int(os.environ.get("MOTCUA_TEST_LIFE_EXAMPLES", str(FEW)))
OFFICERS = (1, 2, 3)
COUNTERS = (1, 2, 3, 4)
"""Counter 4 is not there before a manager makes it."""

COLUMNS = (
    "unit", "series", "number", "issued_at", "due_at", "status", "version", "counter", "officer",
    "for_counter", "called_at", "first_called_at", "started_at", "ended_at", "reissues",
    "cancel_cause", "transferred_from", "transferred_to",
)  # fmt: skip

_BOSS = "boss"
_HOLDER = "holder"
_actors = st.sampled_from((_HOLDER, _HOLDER, _HOLDER, *OFFICERS, _BOSS))


def subject(number: int) -> str:
    """Name an officer as the token does."""
    return f"officer-{number}-of-{UNIT}"


class Life(RuleBasedStateMachine):
    """What may happen in a hall, and what the rules say of it."""

    hall: ClassVar[Hall]

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()

    @initialize(crowd=st.lists(st.sampled_from("AAB"), min_size=1, max_size=5))
    def begin(self, crowd: list[str]) -> None:
        """Open two counters in an empty hall, and let some people in."""
        self.hall.empty()
        for number in (1, 2):
            self.set_counter(number, "open", [], boss=False)
        for series in crowd:
            self.issue(series, "normal")
            self.hall.clock.at += timedelta(seconds=1)

    @property
    def now(self) -> datetime:
        """Tell the time in the hall."""
        at: datetime = self.hall.clock.at
        return at

    def actor(self, who: int | str, ticket: Ticket) -> tuple[Actor, dict[str, str]]:
        """Find out who acts, and give the token."""
        if who == _BOSS:
            return Actor(f"manager-{UNIT}", boss=True), manager(UNIT)
        number = next((n for n in OFFICERS if subject(n) == ticket.officer), 1)
        number = number if who == _HOLDER else int(who)
        return Actor(subject(number)), officer(UNIT, number)

    # Time -------------------------------------------------------------------------------------

    @rule(
        span=st.sampled_from(
            [1, 14, 16, 60, 300, 601, 1200, 3600, -1, -20, -900]
            # Most of a day: whoever still waits may belong to a day that is over.
            + [3600 * hours for hours in (7, 12, 16, -12)]
        )
    )
    def wait(self, span: int) -> None:
        """Let time pass; a clock is set back as well."""
        self.hall.clock.at += timedelta(seconds=span)

    @precondition(lambda self: self.now - MONDAY > timedelta(hours=12))
    @rule(leap=st.sampled_from([0, 0, 24, -24]))
    def sweep(self, leap: int) -> None:
        """Look twice for what is left of a day that is over, the clock leaping in between."""
        queue = self.hall.queue
        nights = Nights(core_of(queue), queue.state["directory"])  # type: ignore[attr-defined]
        self.hall.run(nights.look())
        before = self.book.oldest(self.now)
        self.hall.clock.at += timedelta(hours=leap)
        self.hall.run(nights.look())
        self.book.end_what_is_left_of(min(before, self.book.oldest(self.now)), self.now)

    # Tickets and counters ---------------------------------------------------------------------

    @rule(series=st.sampled_from("AAB"), class_=st.sampled_from(PRIORITY_CLASSES))
    def issue(self, series: str, class_: str) -> None:
        """Take a ticket."""
        wish = {"unit": UNIT, "channel": "web", "series": series, "priority_class": class_}
        answer = self.hall.ask("POST", "/v1/tickets", json=wish)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        due = self.now + timedelta(seconds=1200) - HEAD_START[class_]
        number = self.book.number(UNIT, series, self.now)
        ticket = Ticket(UUID(body["id"]), UNIT, series, number, self.now, due)
        line = self.book.line(self.now)
        earlier = [other for other in line if other.due_at <= ticket.due_at]
        position = self.book.ahead(ticket, earlier) + 1
        self.book.tickets.append(ticket)
        assert (body["number"], body["position"]) == (number, position)
        assert datetime.fromisoformat(body["due_at"]) == due

    @precondition(lambda self: self.book.line(self.now))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """Follow a ticket that waits."""
        line = self.book.line(self.now)
        place = data.draw(st.integers(0, len(line) - 1))
        shown = self.hall.ask("GET", f"/v1/tickets/{line[place].id}").json()
        assert shown["position"] == self.book.ahead(line[place], line[:place]) + 1

    @rule(
        number=st.sampled_from(COUNTERS),
        state=st.sampled_from(["open", "open", "open", "paused", "closed"]),
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
        assert answer.status_code == self.book.set_counter(number, state, series, boss)

    @rule(number=st.sampled_from((1, 2, *COUNTERS)), who=st.sampled_from(OFFICERS))
    def call(self, number: int, who: int) -> None:
        """Call the next person."""
        path = f"/v1/units/{UNIT}/counters/{number}/call-next"
        answer = self.hall.ask("POST", path, headers=officer(UNIT, who))
        if why := self.book.refused_call(number, Actor(subject(who))):
            assert answer.json()["type"] == f"urn:motcua:problem:{why}"
            return
        line = [t for t in self.book.line(self.now) if self.book.calls(number, t)]
        if not line:
            assert answer.status_code == 204
            return
        assert answer.status_code == 200, answer.text
        assert UUID(answer.json()["id"]) == line[0].id
        self.book.call(line[0], number, subject(who), self.now)

    @precondition(lambda self: any(ticket.held for ticket in self.book.tickets))
    @rule(number=st.sampled_from(COUNTERS))
    def hand_back(self, number: int) -> None:
        """Free what a counter holds."""
        path = f"/v1/units/{UNIT}/counters/{number}/hand-back"
        answer = self.hall.ask("POST", path, headers=manager(UNIT))
        if number not in self.book.desks:
            assert answer.status_code == 404
        elif ticket := self.book.hand_back(number):
            assert (answer.status_code, UUID(answer.json()["id"])) == (200, ticket.id)
        else:
            assert answer.json()["type"] == "urn:motcua:problem:nothing-held"

    # Steps of a ticket ------------------------------------------------------------------------

    @rule(data=st.data(), whos=st.lists(_actors, min_size=1, max_size=4))
    def steps(self, data: st.DataObject, whos: list[int | str]) -> None:
        """Take some steps, each seen through to what is stored."""
        for who in whos:
            self.step(data, who)
            self.tickets_are_as_the_model_says()

    def step(self, data: st.DataObject, who: int | str) -> None:
        """Take some step of some ticket, most often one that its state allows."""
        here = [ticket for ticket in self.book.tickets if ticket.unit == UNIT]
        live = [ticket for ticket in here if ticket.held or ticket.status in ("parked", "no_show")]
        ticket = data.draw(st.sampled_from(live * 3 + here[-6:]))
        allowed = [name for name, states in STEPS.items() if ticket.status in states]
        often = [name for name in allowed if name not in ("cancel", "printed", "reissue")]
        name = data.draw(st.sampled_from([*often * 6, *STEPS]))
        counter = data.draw(st.sampled_from(COUNTERS))
        if name == "call":
            to = {"counter": counter}
            self.take(name, ticket, who, to, to | {"reason": "khẩn"})
        elif name == "transfer":
            to = data.draw(
                st.sampled_from([{"series": "A"}, {"series": "B"}, {"counter": counter}])
            )
            away = data.draw(st.sampled_from([None, {}, {"series": "C"}]))
            if away is None:
                self.take(name, ticket, who, to, to)
            else:
                self.send_away(ticket, who, away)
        elif name in ("printed", "reissue"):
            self.take(name, ticket, who, {}, {"ok": False} if name == "printed" else None)
        else:
            to = {"counter": counter} if data.draw(st.integers(0, 3)) == 0 else {}
            self.take(name, ticket, who, to, to or None)

    def send_away(self, ticket: Ticket, who: int | str, series: dict[str, str]) -> None:
        """Send somebody to another unit."""
        acting, headers = self.actor(who, ticket)
        path = f"/v1/tickets/{ticket.id}/transfer"
        answer = self.hall.ask("POST", path, json={"unit": ELSEWHERE} | series, headers=headers)
        if self.refused(answer, "transfer", ticket, acting, {}):
            return
        assert answer.status_code == 200, answer.text
        told = answer.json()["linked_ticket"]
        linked = self.book.send_away(ticket, UUID(told["id"]), series.get("series"), self.now)
        assert (told["number"], told["unit"]) == (linked.number, ELSEWHERE)

    def take(
        self,
        name: str,
        ticket: Ticket,
        who: int | str,
        to: dict[str, Any],
        body: dict[str, Any] | None,
    ) -> None:
        """Take a step and compare what comes of it."""
        acting, headers = self.actor(who, ticket)
        path = f"/v1/tickets/{ticket.id}/{name}"
        answer = self.hall.ask("POST", path, json=body, headers=headers)
        if self.refused(answer, name, ticket, acting, to):
            return
        assert answer.status_code == 200, answer.text
        self.book.take(name, ticket, acting, self.now, to)
        assert (answer.json()["version"], answer.json()["status"]) == (
            ticket.version,
            ticket.status,
        )

    def refused(
        self, answer: Any, name: str, ticket: Ticket, who: Actor, to: dict[str, Any]
    ) -> bool:
        """Tell whether a step is refused, for the reason that the rules give."""
        why = self.book.refused(name, ticket, who, self.now, to)
        if why is None:
            return False
        assert answer.json()["type"] == f"urn:motcua:problem:{why}", answer.text
        return True

    # Looking ----------------------------------------------------------------------------------

    @invariant()
    def tickets_are_as_the_model_says(self) -> None:
        """Compare every ticket, and the board."""
        stored = {row["id"]: {name: row[name] for name in COLUMNS} for row in self.hall.stored()}
        tickets = self.book.tickets
        assert stored == {t.id: {name: getattr(t, name) for name in COLUMNS} for t in tickets}
        board = self.hall.ask("GET", f"/v1/units/{UNIT}/queue").json()
        line = self.book.line(self.now)
        assert board["waiting"] == len(line)
        assert [row["number"] for row in board["next"]] == [t.number for t in line[:10]]
        called = [t.number for t in tickets if t.status == "called"]
        assert sorted(row["number"] for row in board["called"]) == sorted(called)
        shown = {row["number"]: row for row in board["counters"]}
        assert {n: row["state"] for n, row in shown.items()} == {
            n: desk.state for n, desk in self.book.desks.items()
        }
        for number, row in shown.items():
            at = self.book.held_by("counter", number)
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

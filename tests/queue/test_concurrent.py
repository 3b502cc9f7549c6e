"""Officers at work at the same time: whatever they were answered, some order explains it.

Random programs run at once on two replicas. Afterwards a search looks for one order of all
requests in which each answer, granted or refused, is what the rules (`model.Book`) say, in which
no request comes before one that had been answered when it was sent, and which ends in what is
stored. So no number is given twice, nobody is called twice at once or lost, and nobody waits while
a caller is told that nobody does.

`MOTCUA_TEST_CONCURRENT_EXAMPLES` makes a longer run, each time with other programs.
"""

import asyncio
import copy
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.queue.main import app
from tests.queue.hall import MONDAY, announced, core_of, manager, officer
from tests.queue.model import ELSEWHERE, UNIT, Actor, Book, Desk, Ticket
from tests.support import FrozenClock, running, settings_for

FEW = 30
EXAMPLES = int(os.environ.get("MOTCUA_TEST_CONCURRENT_EXAMPLES", str(FEW)))
COUNTERS = (1, 2, 3)
COLUMNS = (
    "unit", "series", "number", "status", "version", "counter", "officer", "for_counter",
    "cancel_cause", "reissues", "transferred_from", "transferred_to",
)  # fmt: skip


@dataclass(frozen=True)
class Op:
    """One thing to do: what, at which counter, with which of the tickets known by then."""

    name: str
    counter: int = 1
    which: int = 0
    """0: the one called last by the same officer; else a place in what is known to all."""


@dataclass
class Done:
    """A request and its answer."""

    name: str
    who: Actor
    to: dict[str, Any]
    ticket: UUID | None
    sent: float
    came: float
    status: int
    body: dict[str, Any]

    @property
    def refused(self) -> str | None:
        """The kind of refusal."""
        kind: str = self.body.get("type", "")
        return kind.removeprefix("urn:motcua:problem:") or None

    def __str__(self) -> str:
        """Tell it in a line."""
        told = self.refused or {k: self.body.get(k) for k in ("number", "status", "version")}
        who = self.who.subject.split("-of-")[0]
        return f"{self.sent:.4f}-{self.came:.4f} {who} {self.name} {self.to} {self.ticket} {told}"


_steps = ("start", "finish", "no-show", "recall", "park", "return", "cancel", "printed", "reissue")
_ops = st.one_of(
    st.just(Op("issue")),
    st.builds(Op, st.just("call-next"), st.sampled_from(COUNTERS)),
    st.builds(Op, st.sampled_from(_steps), which=st.integers(0, 5)),
    st.builds(
        Op,
        st.sampled_from(("call", "to-counter", "to-series", "away")),
        st.sampled_from(COUNTERS),
        st.integers(0, 5),
    ),
    st.builds(
        Op, st.sampled_from(("hand-back", "open", "pause", "close")), st.sampled_from(COUNTERS)
    ),
)
_work = st.builds(
    Op, st.sampled_from(("start", "park", "finish", "no-show", "away", "return", "recall"))
)
_calls = st.builds(Op, st.just("call-next"), st.sampled_from(COUNTERS))
_programs = st.lists(
    st.lists(st.one_of(_ops, _calls, _work), min_size=2, max_size=7), min_size=2, max_size=4
)


# Running --------------------------------------------------------------------------------------


@dataclass
class Run:
    """Programs that are run at once, and what they were answered."""

    replicas: list[httpx.AsyncClient]
    done: list[Done] = field(default_factory=list)
    known: list[dict[str, Any]] = field(default_factory=list)
    last: dict[int, dict[str, Any]] = field(default_factory=dict)

    async def officer(self, number: int, program: list[Op]) -> None:
        """Work through a program."""
        for op in program:
            await self.do(number, op)

    async def do(self, number: int, op: Op) -> None:
        """Send one request, if there is a ticket to send it for."""
        subject = f"officer-{number}-of-{UNIT}"
        who, headers = Actor(subject), officer(UNIT, number)
        ticket = self.last.get(number) if op.which == 0 else None
        if op.which and self.known:
            ticket = self.known[op.which % len(self.known)]
        desk = f"/v1/units/{UNIT}/counters/{op.counter}"
        to: dict[str, Any] = {}
        body: dict[str, Any] | None = None
        method, path, needs = "POST", "", False
        if op.name == "issue":
            path, body = "/v1/tickets", {"unit": UNIT, "channel": "counter"}
        elif op.name == "call-next":
            path, to = f"{desk}/call-next", {"counter": op.counter}
        elif op.name in ("hand-back", "open", "pause", "close"):
            who, headers = Actor(f"manager-{UNIT}", boss=True), manager(UNIT)
            to = {"counter": op.counter}
            path = f"{desk}/hand-back"
            if op.name != "hand-back":
                state = {"open": "open", "pause": "paused", "close": "closed"}[op.name]
                method, path, body = "PUT", desk, {"state": state}
                to |= body
        else:
            needs = True
            name, to, body = _step(op)
            path = f"/v1/tickets/{ticket['id'] if ticket else ''}/{name}"
        if needs and ticket is None:
            return
        replica = self.replicas[number % len(self.replicas)]
        sent = monotonic()
        answer = await replica.request(method, path, json=body, headers=headers)
        came = monotonic()
        told = answer.json() if answer.content else {}
        self.done.append(
            Done(op.name, who, to, UUID(ticket["id"]) if needs and ticket else None, sent, came,
                 answer.status_code, told)
        )  # fmt: skip
        if answer.status_code == 201:
            self.known.append(told)
        if op.name in ("call-next", "call") and answer.status_code == 200:
            self.last[number] = told


def _step(op: Op) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Give a step's path, what the model is told of it, and its body."""
    if op.name == "call":
        return "call", {"counter": op.counter}, {"counter": op.counter, "reason": "khẩn"}
    if op.name == "to-counter":
        return "transfer", {"counter": op.counter}, {"counter": op.counter}
    if op.name == "to-series":
        return "transfer", {"series": "B"}, {"series": "B"}
    if op.name == "away":
        return "transfer", {}, {"unit": ELSEWHERE}
    return op.name, {}, {"ok": False} if op.name == "printed" else None


# Explaining -----------------------------------------------------------------------------------


class Search:
    """Looks for an order of what was done that the rules explain."""

    def __init__(self, done: list[Done], final: dict[UUID, dict[str, Any]]) -> None:
        self.done = sorted(done, key=lambda one: one.sent)
        self.final = final
        self.dead: set[tuple[int, bytes]] = set()
        self.furthest: list[Done] = []

    def explained(self, book: Book) -> bool:
        """Tell whether there is one, from a state of the hall on."""
        return self._from(0, book, [])

    def _from(self, taken: int, book: Book, order: list[Done]) -> bool:
        if len(order) > len(self.furthest):
            self.furthest = list(order)
        left = [place for place in range(len(self.done)) if not taken >> place & 1]
        if not left:
            return _shown(book) == self.final
        mark = (taken, repr((sorted(_shown(book).items()), book.desks)).encode())
        if mark in self.dead:
            return False
        # Whatever was answered first must come before all that was sent later.
        first_answer = min(self.done[place].came for place in left)
        for place in left:
            one = self.done[place]
            if one.sent > first_answer:
                break
            then = copy.deepcopy(book)
            if self._explains(one, then) and self._from(taken | 1 << place, then, [*order, one]):
                return True
        self.dead.add(mark)
        return False

    def _explains(self, one: Done, book: Book) -> bool:
        """Take a request in the model; tell whether its answer is the one that was given."""
        if one.name == "issue":
            book.tickets.append(_issued(one.body))
            return bool(one.body["number"] == book.number(UNIT, "A", MONDAY))
        if one.name == "call-next":
            return self._explains_call(one, book)
        if one.name == "hand-back":
            freed = book.hand_back(one.to["counter"])
            if freed is None:
                return one.refused == "nothing-held"
            return one.body.get("id") == str(freed.id)
        if "state" in one.to:
            return one.status == book.set_counter(one.to["counter"], one.to["state"], [], boss=True)
        return self._explains_step(one, book)

    def _explains_call(self, one: Done, book: Book) -> bool:
        number = one.to["counter"]
        if why := book.refused_call(number, one.who):
            return one.refused == why
        line = [ticket for ticket in book.line(MONDAY) if book.calls(number, ticket)]
        if one.status != 200 or not line:
            return one.status == 204 and not line
        # Who calls alone calls the first; of those who call at once one may pass over whom
        # another has just let go again.
        alone = all(o is one or o.came < one.sent or o.sent > one.came for o in self.done)
        chosen = next(
            (t for t in line[: 1 if alone else None] if str(t.id) == one.body["id"]), None
        )
        if chosen is None:
            return False
        book.call(chosen, number, one.who.subject, MONDAY)
        return bool(chosen.version == one.body["version"])

    def _explains_step(self, one: Done, book: Book) -> bool:
        ticket = next((t for t in book.tickets if t.id == one.ticket), None)
        if ticket is None:
            return False
        name = "transfer" if one.name in ("to-counter", "to-series", "away") else one.name
        if why := book.refused(name, ticket, one.who, MONDAY, one.to):
            return one.refused == why
        if one.status != 200:
            return False
        if one.name == "away":
            linked = one.body["linked_ticket"]
            new = book.send_away(ticket, UUID(linked["id"]), None, MONDAY)
            return (new.number, ticket.version) == (linked["number"], one.body["version"])
        book.take(name, ticket, one.who, MONDAY, one.to)
        return bool(ticket.version == one.body["version"])


def _issued(body: dict[str, Any]) -> Ticket:
    return Ticket(UUID(body["id"]), UNIT, "A", body["number"], MONDAY, MONDAY)


def _shown(book: Book) -> dict[UUID, dict[str, Any]]:
    return {t.id: {name: getattr(t, name) for name in COLUMNS} for t in book.tickets}


# The test -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def replicas(hall_url: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Give two replicas that stand at the same instant and let anybody be recalled at once."""
    chosen = settings_for(hall_url, recall_interval_seconds=0)
    clock = FrozenClock(MONDAY)
    async with running(app, chosen, clock) as one, running(app, chosen, clock) as two:
        yield [one, two]


@pytest.fixture(scope="module")
async def admin(hall_url: str) -> AsyncIterator[Any]:
    """Give a connection that may do anything."""
    connection = await asyncpg.connect(hall_url)
    yield connection
    await connection.close()


async def emptied(admin: Any) -> None:
    """Begin with nobody there, counters 1 and 2 open, 3 closed."""
    await admin.execute(
        "DELETE FROM queue.tickets; DELETE FROM queue.ticket_numbers;"
        f" DELETE FROM queue.counters WHERE unit = '{UNIT}';"
        f" INSERT INTO queue.counters SELECT '{UNIT}', n, CASE WHEN n < 3 THEN 'open'"
        " ELSE 'closed' END FROM generate_series(1, 3) AS n"
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == FEW,
    suppress_health_check=list(HealthCheck),
)
@given(programs=_programs, crowd=st.integers(0, 3))
async def test_some_order_explains_what_officers_at_work_at_once_were_answered(
    replicas: list[httpx.AsyncClient], admin: Any, programs: list[list[Op]], crowd: int
) -> None:
    await emptied(admin)
    run = Run(replicas)
    for _ in range(crowd):
        await run.do(1, Op("issue"))
    await asyncio.gather(
        *(run.officer(number, program) for number, program in enumerate(programs, start=1))
    )
    assert {one.status for one in run.done} <= {200, 201, 204, 409}, "\n".join(map(str, run.done))
    rows = await admin.fetch("SELECT * FROM queue.tickets")
    final = {row["id"]: {name: row[name] for name in COLUMNS} for row in rows}
    book = Book(interval=timedelta(0))
    book.desks = {1: Desk("open"), 2: Desk("open"), 3: Desk("closed")}
    search = Search(run.done, final)
    if not search.explained(book):
        told = "\n".join(f"{'  ' if one in search.furthest else '??'} {one}" for one in search.done)
        raise AssertionError(f"no order explains this:\n{told}\nstored: {final}")
    await _each_change_was_announced_once(replicas[0], final)


async def _each_change_was_announced_once(
    queue: httpx.AsyncClient, final: dict[UUID, dict[str, Any]]
) -> None:
    versions: dict[str, list[int]] = {}
    for unit in (UNIT, ELSEWHERE):
        for _, body in await announced(queue, unit):
            versions.setdefault(body["ticket_id"], []).append(body["version"])
    for ticket, row in final.items():
        assert versions[str(ticket)] == list(range(1, row["version"] + 1))
    assert core_of(queue).clock.now() == MONDAY

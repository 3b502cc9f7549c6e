"""A unit's board: who waits, who is called where, and what was told of it lately."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nsmallest
from typing import Any, Final
from uuid import UUID

import asyncpg

from libs.common import fast_json
from libs.common.bus.base import Positions
from libs.contracts.queue import TicketEvent
from services.queue.policy import oldest_now

ON_BOARD: Final = frozenset({"waiting", "called", "serving"})
NEXT_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as a board knows it, at one version of its life."""

    version: int
    number: str
    status: str
    counter: int | None
    issued_at: datetime
    due_at: datetime
    called_at: datetime | None
    called_before: bool = False
    """Whether its first wait, which the promise is about, is over."""

    def shown(self) -> dict[str, Any]:
        """Give what people see of it: nothing personal and no id."""
        return {
            "number": self.number,
            "status": self.status,
            "counter": self.counter,
            "issued_at": fast_json.instant(self.issued_at),
            "due_at": fast_json.instant(self.due_at),
            "called_at": fast_json.instant(self.called_at) if self.called_at else None,
        }


class Step(TicketEvent):
    """Any step of a ticket, as far as boards care."""

    counter: int | None = None
    to_unit: str | None = None


_BECOMES: Final = {
    "TicketIssued": "waiting",
    "TicketReissued": "waiting",
    "TicketCalled": "called",
    "TicketStarted": "serving",
    "TicketFinished": "finished",
    "TicketNoShow": "no_show",
    "TicketParked": "parked",
    "TicketReturned": "waiting",
    "TicketTransferred": "waiting",
    "TicketCancelled": "cancelled",
}


def after(type_: str, step: Step, before: Ticket | None) -> Ticket:
    """Tell what a step made of a ticket.

    Raises:
        ValueError: the step is none we know, or an event of the time when steps told less.
    """
    status = "transferred" if step.to_unit else _BECOMES.get(type_)
    if status is None or step.issued_at is None or step.due_at is None:
        raise ValueError(f"what {type_} made of the ticket cannot be told from it")
    away = status in ("waiting", "cancelled")
    called_at = step.at if status == "called" else before.called_at if before else None
    if before is None:  # new, or put aside, missed or cancelled before
        called_before = type_ not in ("TicketIssued", "TicketReissued")
    else:
        called_before = before.called_before or before.status != "waiting"
    return Ticket(
        version=step.version,
        number=step.number,
        status=status,
        counter=None if away else step.counter,
        issued_at=step.issued_at,
        due_at=step.due_at,
        called_at=None if away else called_at,
        called_before=called_before or status == "called",
    )


@dataclass(frozen=True, slots=True)
class Desk:
    """A counter as a board knows it."""

    version: int
    state: str


@dataclass(frozen=True, slots=True)
class Told:
    """A change of a board, and where in the log it was told."""

    topic: str
    partition: int
    offset: int
    ticket: Ticket | None
    """What the ticket became; None if it was a counter that changed."""
    counters: frozenset[int]
    """The counters that may show something else since."""

    def beyond(self, place: Positions) -> bool:
        """Tell whether somebody who has read up to a place has not read this."""
        return self.offset >= place[self.topic][self.partition]


@dataclass(slots=True, eq=False)
class Board:
    """The board of one unit.

    State and memory are kept apart: a version that the tables have told before is no news for the
    state, but somebody whose stream broke may still have to be told of it.
    """

    unit: str
    tickets: dict[UUID, Ticket] = field(default_factory=dict)
    desks: dict[int, Desk] = field(default_factory=dict)
    _told: deque[Told] = field(default_factory=lambda: deque(maxlen=256))
    _lost: dict[tuple[str, int], int] = field(default_factory=dict)
    """Per topic and partition, the offset of the last change that is not remembered any more."""
    _versions: dict[UUID | int, int] = field(default_factory=dict)
    """The newest version of each ticket and counter that the log told of lately."""

    versions_kept = 1000

    def same(self, other: "Board") -> bool:
        """Tell whether two boards show the same."""
        return self.tickets == other.tickets and self.desks == other.desks

    # Being told ---------------------------------------------------------------------------------

    def ticket_changed(
        self, ticket_id: UUID, ticket: Ticket, topic: str, partition: int, offset: int
    ) -> Told | None:
        """Take a step of a ticket from the log; give the change, or None if it is no news."""
        if not self._news(ticket_id, ticket.version):
            return None
        before = self.tickets.get(ticket_id)
        at = {t.counter for t in (before, ticket) if t is not None and t.counter is not None}
        if before is None or before.version < ticket.version:
            if ticket.status in ON_BOARD:
                self.tickets[ticket_id] = ticket
            else:
                self.tickets.pop(ticket_id, None)
        return self._remember(Told(topic, partition, offset, ticket, frozenset(at)))

    def desk_changed(
        self, number: int, desk: Desk, topic: str, partition: int, offset: int
    ) -> Told | None:
        """Take a counter's new state from the log; give the change, or None if it is no news."""
        if not self._news(number, desk.version):
            return None
        before = self.desks.get(number)
        if before is None or before.version < desk.version:
            self.desks[number] = desk
        return self._remember(Told(topic, partition, offset, None, frozenset({number})))

    def desks_made(self, desks: dict[int, Desk]) -> bool:
        """Take counters that were made without a word, by a plan; answer whether there were any."""
        made = {number: desk for number, desk in desks.items() if number not in self.desks}
        self.desks |= made
        return bool(made)

    def forget_told(self, topic: str, partition: int, offset: int) -> None:
        """Give up resuming from before a place: something there could not be read."""
        self._lost[topic, partition] = offset

    def forget_waiting(self, before: datetime) -> None:
        """Drop tickets whose day is long over and that nobody ever called."""
        over = [
            ticket_id
            for ticket_id, ticket in self.tickets.items()
            if ticket.status == "waiting" and ticket.due_at < before
        ]
        for ticket_id in over:
            del self.tickets[ticket_id]

    def _news(self, key: UUID | int, version: int) -> bool:
        """Tell whether the log says this for the first time; a relay that crashed says it again."""
        if self._versions.get(key, 0) >= version:
            return False
        self._versions.pop(key, None)  # the newest stand last
        self._versions[key] = version
        if len(self._versions) > self.versions_kept:
            del self._versions[next(iter(self._versions))]
        return True

    def _remember(self, told: Told) -> Told:
        if len(self._told) == self._told.maxlen:
            oldest = self._told[0]
            self._lost[oldest.topic, oldest.partition] = oldest.offset
        self._told.append(told)
        return told

    # Telling ------------------------------------------------------------------------------------

    def missed(self, place: Positions) -> list[Told] | None:
        """List what was told beyond a place, in order; None if it is not remembered any more."""
        if any(at >= place[topic][number] for (topic, number), at in self._lost.items()):
            return None
        return [told for told in self._told if told.beyond(place)]

    def figures(self, now: datetime, forecast: int | None) -> dict[str, Any]:
        """Count who waits; times in seconds."""
        waiting = self._waiting(now)
        first = (ticket.issued_at for ticket in waiting if not ticket.called_before)
        since = min(first, default=now)
        return {
            "unit": self.unit,
            "as_of": fast_json.instant(now),
            "waiting": len(waiting),
            "oldest_wait_seconds": max(0, int((now - since).total_seconds())),
            "forecast_wait_seconds": forecast,
        }

    def snapshot(self, now: datetime, forecast: int | None) -> dict[str, Any]:
        """Give the whole board."""
        held = [ticket for ticket in self.tickets.values() if ticket.status != "waiting"]
        at_counter = {ticket.counter: ticket.shown() for ticket in held}
        called = [ticket for ticket in held if ticket.status == "called"]
        called.sort(key=lambda ticket: ticket.called_at or now, reverse=True)
        return self.figures(now, forecast) | {
            "counters": [
                {"number": number, "state": desk.state, "ticket": at_counter.get(number)}
                for number, desk in sorted(self.desks.items())
            ],
            "called": [ticket.shown() for ticket in called],
            "next": [ticket.shown() for ticket in self._next(now)],
        }

    def change(self, told: Told, now: datetime, forecast: int | None) -> dict[str, Any]:
        """Give what a board needs to show a change: lists anew, and the counters concerned."""
        whole = self.snapshot(now, forecast)
        return whole | {
            "ticket": told.ticket.shown() if told.ticket else None,
            "counters": [c for c in whole["counters"] if c["number"] in told.counters],
        }

    def _waiting(self, now: datetime) -> list[Ticket]:
        oldest = oldest_now(now)
        return [
            ticket
            for ticket in self.tickets.values()
            if ticket.status == "waiting" and ticket.due_at >= oldest
        ]

    def _next(self, now: datetime) -> Iterable[Ticket]:
        oldest = oldest_now(now)
        first = nsmallest(
            NEXT_SHOWN,
            (
                (ticket.due_at, ticket.issued_at, ticket_id)
                for ticket_id, ticket in self.tickets.items()
                if ticket.status == "waiting" and ticket.due_at >= oldest
            ),
        )
        return (self.tickets[ticket_id] for _, _, ticket_id in first)


# From the tables --------------------------------------------------------------------------------

_TICKETS = """
SELECT id, unit, version, number, status, counter, issued_at, due_at, called_at,
    first_called_at IS NOT NULL AS called_before
FROM tickets
WHERE status = 'waiting' AND due_at >= $1
UNION ALL
SELECT id, unit, version, number, status, counter, issued_at, due_at, called_at,
    first_called_at IS NOT NULL AS called_before
FROM tickets
WHERE status IN ('called', 'serving')
"""

_TICKETS_OF_ONE = """
SELECT id, unit, version, number, status, counter, issued_at, due_at, called_at,
    first_called_at IS NOT NULL AS called_before
FROM tickets
WHERE unit = $2 AND status = 'waiting' AND due_at >= $1
UNION ALL
SELECT id, unit, version, number, status, counter, issued_at, due_at, called_at,
    first_called_at IS NOT NULL AS called_before
FROM tickets
WHERE unit = $2 AND status IN ('called', 'serving')
"""

_DESKS = "SELECT unit, number, version, state FROM counters"


async def read_boards(pool: asyncpg.Pool, now: datetime) -> dict[str, Board]:
    """Read the boards of all units that have a counter or a ticket."""
    boards = await read_desks(pool)
    for row in await pool.fetch(_TICKETS, oldest_now(now)):
        board = boards.setdefault(row["unit"], Board(row["unit"]))
        board.tickets[row["id"]] = _ticket(row)
    return boards


async def read_board(pool: asyncpg.Pool, unit: str, now: datetime) -> Board:
    """Read one unit's board."""
    board = Board(unit)
    for row in await pool.fetch(_DESKS + " WHERE unit = $1", unit):
        board.desks[row["number"]] = Desk(row["version"], row["state"])
    for row in await pool.fetch(_TICKETS_OF_ONE, oldest_now(now), unit):
        board.tickets[row["id"]] = _ticket(row)
    return board


async def read_desks(pool: asyncpg.Pool) -> dict[str, Board]:
    """Read every unit's counters: boards on which nobody stands."""
    boards: dict[str, Board] = {}
    for row in await pool.fetch(_DESKS):
        board = boards.setdefault(row["unit"], Board(row["unit"]))
        board.desks[row["number"]] = Desk(row["version"], row["state"])
    return boards


def _ticket(row: asyncpg.Record) -> Ticket:
    # Whoever was called and waits again keeps the time of that call in the table.
    called_at = None if row["status"] == "waiting" else row["called_at"]
    return Ticket(
        row["version"], row["number"], row["status"], row["counter"], row["issued_at"],
        row["due_at"], called_at, row["called_before"],
    )  # fmt: skip

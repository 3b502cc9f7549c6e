"""A hall as the rules say it is: tickets and counters of one unit, slow and plain."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx

from libs.common.worktime import business_day, local
from services.queue.main import app
from tests.queue.hall import MONDAY
from tests.support import FrozenClock, running, settings_for

T = TypeVar("T")

UNIT = "H29.25747"
ELSEWHERE = "H29.25750"
INTERVAL, GRACE = timedelta(seconds=15), timedelta(seconds=600)

STEPS: dict[str, tuple[str, ...]] = {
    "start": ("called",),
    "finish": ("serving",),
    "no-show": ("called",),
    "recall": ("called", "no_show"),
    "park": ("called", "serving"),
    "return": ("parked", "no_show"),
    "call": ("waiting", "parked", "no_show"),
    "transfer": ("waiting", "called", "serving", "parked"),
    "cancel": ("waiting", "parked"),
    "printed": ("waiting",),
    "reissue": ("waiting",),
}
"""From which states a step is allowed; `printed` is one that failed."""


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
        return result.result(timeout=60)

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
    """A ticket of the model; the columns are those of the table."""

    id: UUID
    unit: str
    series: str
    number: str
    issued_at: datetime
    due_at: datetime
    status: str = "waiting"
    version: int = 1
    counter: int | None = None
    officer: str | None = None
    for_counter: int | None = None
    called_at: datetime | None = None
    first_called_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reissues: int = 0
    cancel_cause: str | None = None
    transferred_from: UUID | None = None
    transferred_to: UUID | None = None

    @property
    def turn(self) -> tuple[datetime, datetime, UUID]:
        """Say when it is this ticket's turn."""
        return self.due_at, self.issued_at, self.id

    @property
    def held(self) -> bool:
        """Whether the person is at a counter, or on the way to it."""
        return self.status in ("called", "serving")

    def since(self, now: datetime, *others: datetime | None) -> datetime:
        """Give the instant of a step: never before one of the ticket's own."""
        return max(now, self.issued_at, *(at for at in others if at is not None))


@dataclass
class Desk:
    """A counter of the model."""

    state: str = "closed"
    series: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Actor:
    """Who acts: the token's subject, and whether it is the manager's."""

    subject: str
    boss: bool = False


class Book:
    """What there is, and what the rules make of each step."""

    def __init__(self, interval: timedelta = INTERVAL) -> None:
        self.interval = interval
        self.tickets: list[Ticket] = []
        self.desks = {number: Desk() for number in (1, 2, 3)}
        self.last: dict[tuple[str, str, object], int] = {}

    # Looking ----------------------------------------------------------------------------------

    @staticmethod
    def oldest(now: datetime) -> datetime:
        """Give the turn before which a ticket belongs to a day that is over."""
        midnight = local(now).replace(hour=0, minute=0, second=0, microsecond=0)
        return min(midnight, now - timedelta(hours=12))

    def line(self, now: datetime) -> list[Ticket]:
        """List who may be called, in the order of the rules."""
        waiting = (
            t for t in self.tickets
            if t.unit == UNIT and t.status == "waiting" and t.due_at >= self.oldest(now)
        )  # fmt: skip
        return sorted(waiting, key=lambda ticket: ticket.turn)

    def calls(self, number: int, ticket: Ticket) -> bool:
        """Tell whether a counter calls a ticket when it is open."""
        if ticket.for_counter is not None:
            return ticket.for_counter == number
        series = self.desks[number].series
        return not series or ticket.series in series

    def ahead(self, ticket: Ticket, earlier: list[Ticket]) -> int:
        """Count who of those with an earlier turn is really called before a ticket."""
        rivals = [
            number for number, desk in self.desks.items()
            if desk.state != "closed" and self.calls(number, ticket)
        ]  # fmt: skip
        return sum(
            not rivals or any(self.calls(number, other) for number in rivals) for other in earlier
        )

    def held_by(self, what: str, which: object, but: Ticket | None = None) -> Ticket | None:
        """Find what a counter or an officer holds beside a ticket."""
        return next(
            (
                t for t in self.tickets
                if t.held and getattr(t, what) == which and t is not but and which is not None
            ),
            None,
        )  # fmt: skip

    # Issuing ----------------------------------------------------------------------------------

    def number(self, unit: str, series: str, now: datetime) -> str:
        """Give the next number of a series."""
        day = (unit, series, business_day(now))
        self.last[day] = self.last.get(day, 0) + 1
        return f"{series}{self.last[day]:03}"

    # Counters ---------------------------------------------------------------------------------

    def set_counter(self, number: int, state: str, series: list[str], boss: bool) -> int:
        """Open, pause or close a counter; give the status of the answer."""
        if number not in self.desks and not boss:
            return 404
        if state == "closed" and self.held_by("counter", number):
            return 409
        self.desks[number] = Desk(state, series)
        for ticket in self.tickets:
            if state == "closed" and ticket.for_counter == number:
                ticket.for_counter = None
                ticket.version += 1
        return 200

    def refused_call(self, number: int, who: Actor) -> str | None:
        """Say why a counter may not call the next one."""
        if number not in self.desks:
            return "unknown-counter"
        if self.held_by("counter", number) or self.held_by("officer", who.subject):
            return "still-holding"
        return None if self.desks[number].state == "open" else "counter-not-open"

    def call(self, ticket: Ticket, number: int, officer: str | None, now: datetime) -> None:
        """Call a ticket to a counter."""
        ticket.called_at = ticket.since(now, ticket.called_at)
        ticket.first_called_at = ticket.first_called_at or ticket.called_at
        ticket.status, ticket.counter, ticket.officer = "called", number, officer
        ticket.for_counter = ticket.started_at = ticket.ended_at = None
        ticket.version += 1

    def hand_back(self, number: int) -> Ticket | None:
        """Let the person whom a counter holds wait again."""
        ticket = self.held_by("counter", number)
        if ticket is not None:
            self._wait_again(ticket)
        return ticket

    # Steps ------------------------------------------------------------------------------------

    def refused(
        self, name: str, ticket: Ticket, who: Actor, now: datetime, to: dict[str, Any]
    ) -> str | None:
        """Say why a step is refused, or nothing."""
        revivable = ticket.cancel_cause == "print_failed"
        missed = (
            ticket.status == "no_show" and ticket.ended_at is not None
            and ticket.ended_at < now - GRACE
        )  # fmt: skip
        if name == "reissue" and (revivable or ticket.status == "waiting"):
            if ticket.due_at < self.oldest(now):
                return "day-over"
        elif ticket.status not in STEPS[name] or missed:
            return "not-allowed-now"
        stranger = ticket.officer not in (None, who.subject) and not who.boss
        named = None if name in ("call", "transfer") else to.get("counter")
        if (ticket.held and stranger) or named not in (None, ticket.counter):
            return "held-elsewhere"
        if name == "recall" and ticket.status == "called":
            assert ticket.called_at is not None
            early = ticket.called_at <= now < ticket.called_at + self.interval
            return "called-too-recently" if early else None
        if (
            name == "transfer"
            and "series" in to
            and not any(
                not desk.series or to["series"] in desk.series for desk in self.desks.values()
            )
        ):
            return "series-not-served"
        return self._refused_desk(name, ticket, who, to)

    def _refused_desk(
        self, name: str, ticket: Ticket, who: Actor, to: dict[str, Any]
    ) -> str | None:
        number = ticket.counter if name == "recall" else to.get("counter")
        if name in ("call", "recall") or (name == "transfer" and number is not None):
            if number not in self.desks:
                return "unknown-counter"
            open_enough = ("open", "paused") if name == "transfer" else ("open",)
            if self.desks[number].state not in open_enough:
                return "counter-not-open"
        if name in ("call", "recall") and self.held_by("counter", number, ticket):
            return "still-holding"
        holder = {
            "call": None if who.boss else who.subject,
            "recall": ticket.officer if who.boss else who.subject,
            "start": ticket.officer or who.subject,
        }.get(name)
        return "still-holding" if self.held_by("officer", holder, ticket) else None

    def take(
        self, name: str, ticket: Ticket, who: Actor, now: datetime, to: dict[str, Any]
    ) -> None:
        """Take a step that is allowed."""
        if name == "call":
            self.call(ticket, to["counter"], None if who.boss else who.subject, now)
            return
        ticket.version += 1
        if name == "start":
            ticket.started_at = ticket.since(now, ticket.called_at)
            ticket.status, ticket.officer = "serving", ticket.officer or who.subject
        elif name in ("finish", "no-show", "cancel", "printed"):
            ticket.ended_at = ticket.since(now, ticket.called_at, ticket.started_at)
            ticket.status = {"finish": "finished", "no-show": "no_show"}.get(name, "cancelled")
            ticket.cancel_cause = {"cancel": "asked", "printed": "print_failed"}.get(name)
            ticket.for_counter = None
        elif name == "recall":
            ticket.called_at = ticket.since(now, ticket.called_at)
            ticket.status, ticket.ended_at = "called", None
            ticket.officer = ticket.officer if who.boss else who.subject
        elif name == "park":
            ticket.status = "parked"
        elif name == "reissue":
            ticket.reissues += 1
            ticket.status, ticket.ended_at, ticket.cancel_cause = "waiting", None, None
        else:
            ticket.version -= 1
            self._wait_again(ticket)
            if name == "transfer":
                ticket.series = to.get("series", ticket.series)
                ticket.for_counter = to.get("counter")

    def send_away(self, ticket: Ticket, linked: UUID, series: str | None, now: datetime) -> Ticket:
        """End a ticket and issue the one that continues it elsewhere."""
        series = series or ticket.series
        new = Ticket(
            linked, ELSEWHERE, series, self.number(ELSEWHERE, series, now), ticket.issued_at,
            ticket.due_at, transferred_from=ticket.id,
        )  # fmt: skip
        self.tickets.append(new)
        ticket.ended_at = ticket.since(now, ticket.called_at, ticket.started_at)
        ticket.status, ticket.transferred_to, ticket.for_counter = "transferred", linked, None
        ticket.version += 1
        return new

    def _wait_again(self, ticket: Ticket) -> None:
        ticket.status = "waiting"
        ticket.counter = ticket.officer = ticket.for_counter = None
        ticket.started_at = ticket.ended_at = None
        ticket.version += 1

    def end_what_is_left_of(self, turn: datetime, now: datetime) -> None:
        """End who waits or was put aside and whose turn was before an instant."""
        for ticket in self.tickets:
            if ticket.status in ("waiting", "parked") and ticket.due_at < turn:
                ticket.ended_at = ticket.since(now, ticket.called_at, ticket.started_at)
                ticket.status, ticket.cancel_cause = "cancelled", "day_over"
                ticket.for_counter = None
                ticket.version += 1

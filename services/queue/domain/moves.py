"""The ticket's life: which step is allowed from which state, and what it does."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from libs.common import fast_json
from libs.common.auth import Principal
from libs.common.idempotency import Key, replay_if_answered
from libs.common.problems import Unavailable
from libs.common.trace import current_traceparent
from libs.contracts.roles import Role
from services.queue import policy, transitions
from services.queue.domain.refusals import (
    CalledTooRecently,
    CounterNotOpen,
    DayOver,
    HeldElsewhere,
    NotAllowedNow,
    NotYourUnit,
    SeriesNotServed,
    StillHolding,
    UnknownCounter,
    UnknownTicket,
    place_of,
)
from services.queue.statements import CALL, CALLED_AT
from services.queue.transitions import SITTING
from services.queue.words import say

_ATTEMPTS: Final = 50

_AWAY_FROM_COUNTERS = "counter = NULL, officer = NULL, started_at = NULL, ended_at = NULL"
_WAIT_UNTIL_END = "'wait_seconds', extract(epoch FROM t.ended_at - t.issued_at)"
_IN_GRACE = "ticket.status = 'no_show' AND ticket.ended_at >= {no_show_since}"
_CALLED = (
    f"called_at = {CALLED_AT.format(now='$5')}, "
    f"first_called_at = coalesce(first_called_at, {CALLED_AT.format(now='$5')})"
)
_RETURNED = (
    "'cause', CASE t.was_status WHEN 'parked' THEN 'parked' WHEN 'no_show' THEN 'no_show' "
    "ELSE 'handed_back' END"
)


@dataclass(frozen=True)
class Move:
    """A step of a ticket's life: from which states it is allowed, and what it does.

    In the SQL, `{name}` stands for a parameter that `more` names.
    """

    name: str
    """As it stands in the path, and in what a refusal allows."""
    event: str
    allowed: tuple[str, ...]
    changes: str
    body: str
    when: str = ""
    """Where the state alone does not say whether it is allowed."""
    desk: str = ""
    more: tuple[str, ...] = ()
    which: str = "ticket.id = $1"
    at: str = transitions.AT

    @cached_property
    def statement(self) -> str:
        """Its SQL."""
        places = {name: f"${place}" for place, name in enumerate(self.more, start=11)}
        states = ", ".join(f"'{state}'" for state in self.allowed)
        return transitions.transition(
            self.event,
            when=(self.when or f"ticket.status IN ({states})").format(**places),
            changes=self.changes.format(**places),
            body=self.body.format(**places),
            desk=self.desk.format(**places),
            which=self.which,
            at=self.at,
        )


START = Move(
    "start",
    "TicketStarted",
    ("called",),
    "status = 'serving', started_at = greatest($5, called_at), officer = coalesce(officer, $3)",
    "'counter', t.counter",
)
FINISH = Move(
    "finish",
    "TicketFinished",
    ("serving",),
    "status = 'finished', ended_at = greatest($5, started_at)",
    SITTING,
)
NO_SHOW = Move(
    "no-show",
    "TicketNoShow",
    ("called",),
    "status = 'no_show', ended_at = greatest($5, called_at)",
    "'counter', t.counter",
)
PARK = Move("park", "TicketParked", ("called", "serving"), "status = 'parked'", SITTING)
RETURN = Move(
    "return",
    "TicketReturned",
    ("parked", "no_show"),
    f"status = 'waiting', {_AWAY_FROM_COUNTERS}",
    _RETURNED,
    when=f"ticket.status = 'parked' OR {_IN_GRACE}",
    more=("no_show_since",),
)
HAND_BACK = Move(
    "hand-back",
    "TicketReturned",
    (),
    f"status = 'waiting', {_AWAY_FROM_COUNTERS}",
    _RETURNED,
    when=transitions.HELD,
    which="ticket.unit = $1",
)
RECALL = Move(
    "recall",
    "TicketCalled",
    ("called", "no_show"),
    # Whoever calls again holds the ticket; a manager calls for who holds it.
    "status = 'called', ended_at = NULL, called_at = greatest($5, called_at), "
    "officer = CASE WHEN $10::bool THEN officer ELSE $3 END",
    f"{CALL}, 'recall', true",
    # A clock that was set back must not forbid a call for as long as it was.
    when="ticket.counter = desk.number AND (ticket.status = 'called' "
    "AND (ticket.called_at <= {called_before} OR ticket.called_at > $5) "
    f"OR desk.state = 'open' AND {_IN_GRACE})",
    desk=transitions.desk_of_ticket("(SELECT counter FROM tickets WHERE id = $1)", "<> 'closed'"),
    more=("called_before", "no_show_since"),
    at="t.called_at",
)
CALL_OUT_OF_ORDER = Move(
    "call",
    "TicketCalled",
    ("waiting", "parked", "no_show"),
    f"status = 'called', {_CALLED}, counter = {{target}}, officer = {{holder}}, "
    "call_reason = {reason}, for_counter = NULL, started_at = NULL, ended_at = NULL",
    f"{CALL}, 'reason', t.call_reason",
    when=f"ticket.status IN ('waiting', 'parked') OR {_IN_GRACE}",
    desk=transitions.desk_of_ticket("{target}::int", "= 'open'"),
    more=("target", "holder", "reason", "no_show_since"),
    at="t.called_at",
)
_SENT_ON = f"{SITTING}, 'for_counter', t.for_counter"
_ALIVE = ("waiting", "called", "serving", "parked")
TO_SERIES = Move(
    "transfer",
    "TicketTransferred",
    _ALIVE,
    f"status = 'waiting', series = {{series}}, for_counter = NULL, {_AWAY_FROM_COUNTERS}",
    _SENT_ON,
    when=f"ticket.status IN {_ALIVE} AND EXISTS (SELECT FROM counters AS calling "
    "WHERE calling.unit = ticket.unit "
    "AND (calling.series = '{{}}' OR {series}::text = ANY (calling.series)))",
    more=("series",),
)
TO_COUNTER = Move(
    "transfer",
    "TicketTransferred",
    _ALIVE,
    f"status = 'waiting', for_counter = {{target}}, {_AWAY_FROM_COUNTERS}",
    _SENT_ON,
    desk=transitions.desk_of_ticket("{target}::int", "<> 'closed'"),
    more=("target",),
)
CANCEL = Move(
    "cancel",
    "TicketCancelled",
    ("waiting", "parked"),
    "status = 'cancelled', cancel_cause = 'asked', for_counter = NULL, "
    "ended_at = greatest($5, issued_at, called_at, started_at)",
    f"{_WAIT_UNTIL_END}, 'cause', t.cancel_cause",
)
PRINT_FAILED_CAUSE: Final = "print_failed"
PRINT_FAILED = Move(
    "printed",
    "TicketCancelled",
    ("waiting",),
    "status = 'cancelled', cancel_cause = 'print_failed', for_counter = NULL, "
    "ended_at = greatest($5, issued_at, called_at)",
    f"{_WAIT_UNTIL_END}, 'cause', t.cancel_cause",
)
REISSUE = Move(
    "reissue",
    "TicketReissued",
    ("waiting",),
    "status = 'waiting', reissues = reissues + 1, cancel_cause = NULL, ended_at = NULL",
    "'reissues', t.reissues",
    when="ticket.due_at >= {oldest} AND (ticket.status = 'waiting' "
    "OR ticket.status = 'cancelled' AND ticket.cancel_cause = 'print_failed')",
    more=("oldest",),
)

MOVES: Final = (
    START, FINISH, NO_SHOW, RECALL, PARK, RETURN, CALL_OUT_OF_ORDER, TO_SERIES, TO_COUNTER, CANCEL,
    PRINT_FAILED, REISSUE,
)  # fmt: skip
"""The ticket's life: waiting → called (`call_next`) → serving → finished, and the ways out."""


def steps_from(status: str) -> list[str]:
    """Name the steps that a ticket of a status allows."""
    steps = dict.fromkeys(move.name for move in MOVES if status in move.allowed)
    return ["call-next", *steps] if status == "waiting" else list(steps)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for a step, and when; `key` is the request's idempotency key."""

    by: Principal
    now: datetime
    rules: policy.Rules
    key: Key | None = None

    @property
    def units(self) -> list[str] | None:
        """The units that may be acted for; a citizen's claim to a ticket is its id alone."""
        return None if self.by.anonymous else sorted(self.by.units)

    @property
    def over_others(self) -> bool:
        """Whether tickets may be moved that others hold, as a manager may."""
        return self.by.role != Role.officer

    def parameters(self, what: UUID | str, counter: int | None) -> tuple[Any, ...]:
        """Give what every statement of `transitions` takes first."""
        digest, fingerprint = (self.key.digest, self.key.fingerprint) if self.key else (None, None)
        return (
            what, self.units, self.by.subject, counter, self.now, uuid4(), current_traceparent(),
            digest, fingerprint, self.over_others,
        )  # fmt: skip

    def bounds(self) -> dict[str, datetime]:
        """Give the instants that steps are measured by."""
        return {
            "called_before": self.now - self.rules.recall_interval,
            "no_show_since": self.now - self.rules.no_show_grace,
            "oldest": policy.oldest_now(self.now),
        }


async def move(
    pool: asyncpg.Pool,
    ticket_id: UUID,
    step: Move,
    asked: Asked,
    *,
    counter: int | None = None,
    **more: Any,
) -> asyncpg.Record:
    """Take one step of a ticket's life; `body` of the answer is the ticket as JSON.

    `counter`, when given, must be the one that called the ticket. `more` are the step's own
    parameters.

    Raises:
        Replay, UnknownTicket, NotYourUnit, HeldElsewhere, NotAllowedNow, and as the step needs
        CalledTooRecently, DayOver, UnknownCounter, CounterNotOpen, StillHolding, SeriesNotServed.
    """
    values = asked.bounds() | more
    last = [values[name] for name in step.more]
    for _ in range(_ATTEMPTS):
        row = None
        # A violation means that the key, the counter or the officer is taken; see below.
        with suppress(asyncpg.UniqueViolationError):
            row = await pool.fetchrow(step.statement, *asked.parameters(ticket_id, counter), *last)
        if row is not None:
            return row
        # Whoever was in the way may be gone again when the look comes.
        await refuse(pool, ticket_id, step, asked, counter=counter, **more)
    raise Unavailable(say("the ticket is changed by others all the time; try again"))


async def refuse(
    pool: asyncpg.Pool,
    ticket_id: UUID,
    step: Move,
    asked: Asked,
    *,
    counter: int | None = None,
    target: int | None = None,
    series: str | None = None,
    **_: Any,
) -> None:
    """Look, without locks, why a step was not taken; return where nothing speaks against it.

    The key comes second: what a twin in flight has changed, it has answered by then.
    """
    ticket = await pool.fetchrow(transitions.WHY_NOT, ticket_id, target, asked.by.subject, series)
    await replay_if_answered(pool, asked.key)
    if ticket is None:
        raise UnknownTicket(say("no ticket has the id {ticket_id}", ticket_id=ticket_id))
    if asked.units is not None and ticket["unit"] not in asked.units:
        raise NotYourUnit(
            say("{number} is a ticket of {unit}", number=ticket["number"], unit=ticket["unit"])
        )
    _check_state(ticket, step, asked)
    held_by = ticket["officer"] if ticket["status"] in ("called", "serving") else None
    stranger = held_by not in (None, asked.by.subject) and not asked.over_others
    if stranger or counter not in (None, ticket["counter"]):
        raise HeldElsewhere(
            say(
                "{number} was called by counter {counter}",
                number=ticket["number"],
                counter=ticket["counter"],
            )
        )
    _check_interval(ticket, step, asked)
    if not ticket["series_served"]:
        raise SeriesNotServed(
            say("no counter of {unit} calls the series {name}", unit=ticket["unit"], name=series)
        )
    if step.desk:
        _check_desk(ticket, step, target)
    _check_free(ticket, step, asked)


def _check_state(ticket: asyncpg.Record, step: Move, asked: Asked) -> None:
    """Refuse what the state does not allow, and say what it does."""
    status, bounds = ticket["status"], asked.bounds()
    unprinted = status == "cancelled" and ticket["cancel_cause"] == PRINT_FAILED_CAUSE
    missed = status == "no_show" and ticket["ended_at"] < bounds["no_show_since"]
    if step is REISSUE and (unprinted or status == "waiting"):
        if ticket["due_at"] < bounds["oldest"]:
            number, due = ticket["number"], ticket["due_at"]
            raise DayOver(say("{number} was due at {due}", number=number, due=due))
    elif status not in step.allowed or missed:
        allowed = [REISSUE.name] if unprinted else [] if missed else steps_from(status)
        sentence = say("{number} is {status}", number=ticket["number"], status=status)
        if missed:
            sentence = say(
                "{it} since {ended}, too long ago", it=sentence, ended=ticket["ended_at"]
            )
        raise NotAllowedNow(sentence, ticket_status=status, allowed=allowed)


def _check_interval(ticket: asyncpg.Record, step: Move, asked: Asked) -> None:
    if step is not RECALL or ticket["status"] != "called":
        return
    called_at = ticket["called_at"]
    again = called_at + asked.rules.recall_interval
    if called_at <= asked.now < again:
        raise CalledTooRecently(
            say(
                "{number} was called at {called_at}; call again at {again}",
                number=ticket["number"],
                called_at=called_at,
                again=again,
            ),
            not_before=fast_json.instant(again),
        )


def _check_desk(ticket: asyncpg.Record, step: Move, target: int | None) -> None:
    """Refuse a counter that is not there or not open; whoever is called there stays so."""
    if step is RECALL and ticket["status"] == "called":
        return
    if ticket["desk"] is None:
        raise UnknownCounter(
            say("{unit} has no counter {counter}", unit=ticket["unit"], counter=target)
        )
    needed = ["open", "paused"] if step is TO_COUNTER else ["open"]
    if ticket["desk_state"] not in needed:
        raise CounterNotOpen(
            say("counter {counter} is {state}", counter=ticket["desk"], state=ticket["desk_state"]),
            allowed=needed,
        )


def _check_free(ticket: asyncpg.Record, step: Move, asked: Asked) -> None:
    """Refuse a call to who has somebody already, counter or officer."""
    if step in (CALL_OUT_OF_ORDER, RECALL) and ticket["held_here"]:
        raise StillHolding(
            say(
                "counter {counter} still holds {held}",
                counter=ticket["desk"],
                held=ticket["held_here"],
            ),
            held=ticket["held_here"],
            allowed=steps_from(ticket["held_status"]),
        )
    takes = step in (CALL_OUT_OF_ORDER, RECALL) and not asked.over_others
    if (takes or (step is START and ticket["officer"] is None)) and ticket["held_by_caller"]:
        raise StillHolding(say("you still hold {held}", held=place_of(ticket["held_by_caller"])))
    if step is RECALL and asked.over_others and ticket["held_by_officer"]:
        raise StillHolding(
            say("the officer still holds {held}", held=place_of(ticket["held_by_officer"]))
        )

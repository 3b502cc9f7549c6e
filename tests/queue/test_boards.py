"""Boards in memory: what the log tells, in whatever order the tables told it before."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.board import ON_BOARD, Board, Desk, Step, Ticket, after
from tests.queue.hall import MONDAY
from tests.queue.screen import Screen, Sent

TICKETS, COUNTERS = "queue.tickets.v1", "queue.counters.v1"
STEPS = {
    "waiting": ("called", "cancelled"),
    "called": ("serving", "no_show", "parked", "waiting"),
    "serving": ("finished", "parked"),
    "parked": ("waiting", "cancelled"),
}


def a_ticket(number: int, version: int = 1, status: str = "waiting") -> Ticket:
    """Make a ticket that was issued so many minutes after eight."""
    at = MONDAY + timedelta(minutes=number)
    counter = number % 5 + 1 if status in ("called", "serving", "finished") else None
    called = at + timedelta(minutes=5) if counter else None
    due = at + timedelta(minutes=20)
    return Ticket(version, f"A{number:03}", status, counter, at, due, called)


def identity(number: int) -> UUID:
    """Give the id of a ticket by its number."""
    return UUID(int=number)


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[UUID, Ticket]]:
    """Draw what the log of a unit says: lives of tickets, interleaved."""
    alive: dict[int, Ticket] = {}
    log: list[tuple[UUID, Ticket]] = []
    issued = 0
    for _ in range(draw(st.integers(0, 40))):
        if not alive or draw(st.booleans()):
            issued += 1
            alive[issued] = a_ticket(issued)
            log.append((identity(issued), alive[issued]))
            continue
        number = draw(st.sampled_from(sorted(alive)))
        known = alive.pop(number)
        status = draw(st.sampled_from(STEPS[known.status]))
        moved = a_ticket(number, known.version + 1, status)
        log.append((identity(number), moved))
        if status in STEPS:
            alive[number] = moved
    return log


def state_after(log: list[tuple[UUID, Ticket]]) -> dict[UUID, Ticket]:
    """Give what a board must hold once a log is told."""
    newest = dict(log)
    return {i: ticket for i, ticket in newest.items() if ticket.status in ON_BOARD}


def test_the_next_are_those_due_first_and_yesterdays_are_not_shown() -> None:
    board = Board("U")
    for number in (3, 1, 2, 15, 14, 13, 12, 11, 10, 9, 8, 7):
        board.tickets[uuid4()] = a_ticket(number)
    board.tickets[uuid4()] = replace(a_ticket(99), due_at=MONDAY - timedelta(days=1))
    shown = board.snapshot(MONDAY + timedelta(minutes=30), None)
    numbers = [f"A{number:03}" for number in (1, 2, 3, 7, 8, 9, 10, 11, 12, 13)]
    assert [ticket["number"] for ticket in shown["next"]] == numbers
    assert (shown["waiting"], shown["oldest_wait_seconds"]) == (12, 29 * 60)


def a_step(**more: Any) -> Step:
    """Make a step of a ticket."""
    told = {"ticket_id": identity(1), "unit": "U", "version": 2, "number": "A001", "at": MONDAY}
    return Step(**(told | {"issued_at": MONDAY, "due_at": MONDAY, "counter": 3} | more))


@pytest.mark.parametrize(
    ("type_", "status", "counter", "called_before"),
    [
        ("TicketIssued", "waiting", None, False),
        ("TicketReissued", "waiting", None, False),
        ("TicketCalled", "called", 3, True),
        ("TicketStarted", "serving", 3, True),
        ("TicketParked", "parked", 3, True),
        ("TicketReturned", "waiting", None, True),
        ("TicketNoShow", "no_show", 3, True),
        ("TicketFinished", "finished", 3, True),
        ("TicketTransferred", "waiting", None, True),
    ],
)
def test_a_step_tells_what_the_ticket_became_whether_or_not_it_was_known(
    type_: str, status: str, counter: int | None, called_before: bool
) -> None:
    ticket = after(type_, a_step(), None)
    assert (ticket.status, ticket.counter, ticket.called_before) == (status, counter, called_before)
    first = after(type_, a_step(), a_ticket(1))
    assert first.called_before == (status == "called"), "who only waited was not called before"


def test_a_ticket_that_is_sent_to_another_unit_leaves_the_board() -> None:
    assert after("TicketTransferred", a_step(to_unit="V"), None).status == "transferred"


@pytest.mark.parametrize(
    ("type_", "more"),
    [
        ("TicketFolded", {}),
        ("TicketCalled", {"due_at": None}),
        ("TicketCalled", {"issued_at": None}),
    ],
)
def test_a_step_that_says_too_little_is_not_guessed(type_: str, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=type_):
        after(type_, a_step(**more), None)


@given(log=logs(), data=st.data())
def test_a_log_that_says_things_twice_is_told_once(
    log: list[tuple[UUID, Ticket]], data: st.DataObject
) -> None:
    """A relay that crashed sends its last batch again, from somewhere on."""
    again = data.draw(st.integers(0, len(log)))
    board, told = Board("U"), []
    for offset, (ticket_id, ticket) in enumerate([*log, *log[again:]]):
        if change := board.ticket_changed(ticket_id, ticket, TICKETS, 0, offset):
            told.append(change)
    assert [change.ticket for change in told] == [ticket for _, ticket in log]
    assert board.tickets == state_after(log)


@given(log=logs(), data=st.data())
def test_tables_read_ahead_of_the_log_make_no_difference_once_it_is_level(
    log: list[tuple[UUID, Ticket]], data: st.DataObject
) -> None:
    begun = data.draw(st.integers(0, len(log)))
    read = data.draw(st.integers(begun, len(log)))
    board = Board("U", tickets=state_after(log[:read]))
    for offset, (ticket_id, ticket) in enumerate(log[begun:], begun):
        board.ticket_changed(ticket_id, ticket, TICKETS, 0, offset)
    assert board.tickets == state_after(log)
    missed = board.missed({TICKETS: [begun], COUNTERS: [0]})
    assert missed is not None
    assert [told.ticket for told in missed] == [ticket for _, ticket in log[begun:]]


@given(log=logs(), data=st.data())
def test_a_screen_that_takes_a_snapshot_and_all_changes_after_it_shows_the_board(
    log: list[tuple[UUID, Ticket]], data: st.DataObject
) -> None:
    now, cut = MONDAY + timedelta(hours=1), data.draw(st.integers(0, len(log)))
    board, screen = Board("U", desks={n: Desk(1, "open") for n in range(1, 6)}), Screen()
    for offset, (ticket_id, ticket) in enumerate(log):
        if offset == cut:
            screen.take(Sent("snapshot", None, board.snapshot(now, 60)))
        told = board.ticket_changed(ticket_id, ticket, TICKETS, 0, offset)
        assert told is not None
        if offset >= cut:
            screen.take(Sent("change", None, board.change(told, now, 60)))
    if cut == len(log):
        screen.take(Sent("snapshot", None, board.snapshot(now, 60)))
    assert screen.board == board.snapshot(now, 60)
    assert len(screen.moves) == len(log) - cut


def test_what_is_not_remembered_any_more_cannot_be_resumed_from() -> None:
    board = Board("U")
    for offset in range(300):
        board.ticket_changed(identity(offset), a_ticket(offset % 100), TICKETS, 0, offset)
    board.desk_changed(1, Desk(1, "open"), COUNTERS, 0, 7)
    assert board.missed({TICKETS: [44], COUNTERS: [0]}) is None
    missed = board.missed({TICKETS: [45], COUNTERS: [0]})
    assert missed is not None
    assert [told.offset for told in missed] == [*range(45, 300), 7]
    board.forget_told(COUNTERS, 0, 8)
    assert board.missed({TICKETS: [299], COUNTERS: [8]}) is None
    assert board.missed({TICKETS: [300], COUNTERS: [9]}) == []


def test_an_older_state_of_a_counter_changes_nothing_but_is_remembered() -> None:
    board = Board("U", desks={1: Desk(5, "paused")})
    for offset, (version, state) in enumerate([(4, "open"), (5, "paused"), (5, "paused")]):
        board.desk_changed(1, Desk(version, state), COUNTERS, 0, offset)
    assert board.desks == {1: Desk(5, "paused")}
    assert len(board.missed({TICKETS: [0], COUNTERS: [0]}) or ()) == 2

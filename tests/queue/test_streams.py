"""Boards live: several replicas on the real bus, screens that lose their connection, no bus."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.bus.base import Record
from services.queue.main import app
from services.queue.projection import Projection
from services.queue.streams import Streams
from tests.queue.hall import (
    LOADS,
    TICKETS,
    announced,
    call,
    core_of,
    eventually,
    manager,
    seconds,
    set_counter,
    step,
    take,
)
from tests.queue.screen import Screen, line, watch
from tests.serving import serving, with_state
from tests.support import FrozenClock, running, settings_for, wait_until

COUNTERS = "queue.counters.v1"


@dataclass
class Replica:
    """A process of the queue on a port of its own."""

    client: httpx.AsyncClient
    port: int

    @property
    def streams(self) -> Streams:
        """Give what it streams from."""
        streams: Streams = self.client.state["streams"]  # type: ignore[attr-defined]
        return streams

    @property
    def projection(self) -> Projection:
        """Give its boards."""
        return self.streams._projection


@pytest.fixture(scope="module", autouse=True)
def _patient_and_lively() -> Iterator[None]:
    """Hearts beat every second; a machine that is busy is not taken for a bus that lags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Streams, "heartbeat_seconds", 1)
        patch.setattr(Projection, "late_seconds", 30.0)
        patch.setattr(Projection, "desks_seconds", 0.5)
        yield


@pytest.fixture(scope="module")
async def replicas(
    queue: httpx.AsyncClient, hall_url: str, hall_clock: FrozenClock
) -> AsyncIterator[list[Replica]]:
    """Give three processes of one queue."""
    async with AsyncExitStack() as stack:
        clients = [queue]
        for _ in range(2):
            start = running(app, settings_for(hall_url, hours="official"), hall_clock)
            clients.append(await stack.enter_async_context(start))
        found = []
        for client in clients:
            served = serving(with_state(app, client.state))  # type: ignore[attr-defined]
            found.append(Replica(client, await stack.enter_async_context(served)))
        await wait_until(lambda: all(replica.projection.level for replica in found))
        yield found


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


def stream_of(unit: str) -> str:
    """Give the address of a unit's stream."""
    return f"/v1/units/{unit}/queue/stream"


BECOMES = {
    "TicketIssued": "waiting", "TicketCalled": "called", "TicketStarted": "serving",
    "TicketFinished": "finished", "TicketNoShow": "no_show", "TicketParked": "parked",
    "TicketReturned": "waiting", "TicketCancelled": "cancelled", "TicketTransferred": "waiting",
    "TicketReissued": "waiting",
}  # fmt: skip


async def told_of(replica: Replica, unit: str) -> list[tuple[str, str, int | None]]:
    """Give what the bus tells of a unit's tickets: number, status and counter of each step."""
    told = []
    for name, body in await announced(replica.client, unit):
        status = "transferred" if body.get("to_unit") else BECOMES[name]
        away = status in ("waiting", "cancelled")
        told.append((body["number"], status, None if away else body.get("counter")))
    return told


async def board_of(replica: Replica, unit: str) -> dict[str, Any]:
    """Give the board as the tables have it."""
    answer = await replica.client.get(f"/v1/units/{unit}/queue")
    board: dict[str, Any] = answer.json()
    return board


def shown(board: dict[str, Any]) -> dict[str, Any]:
    """Give what of a board does not move with the clock or the forecast."""
    return {name: board[name] for name in ("unit", "waiting", "counters", "called", "next")}


async def visit(client: httpx.AsyncClient, unit: str, counter: int = 1) -> None:
    """Serve one person: four steps of a ticket."""
    await take(client, unit)
    ticket = (await call(client, unit, counter)).json()
    for name in ("start", "finish"):
        assert (await step(client, ticket, name, counter)).status_code == 200


async def is_open(replica: Replica, unit: str) -> None:
    """Wait until a replica was told that counter 1 is open, beside the other planned ones."""

    def told() -> bool:
        desks = replica.projection.board(unit).desks
        return len(desks) == 5 and desks[1].state == "open"

    await wait_until(told)


# What is sent ---------------------------------------------------------------------------------


async def test_a_stream_begins_with_the_board_and_goes_on_with_every_change(
    replicas: list[Replica], unit: str
) -> None:
    here, there, _ = replicas
    await set_counter(there.client, unit)
    waiting = await take(there.client, unit)
    expected = shown(await board_of(here, unit))
    await is_open(here, unit)
    await wait_until(lambda: bool(here.projection.board(unit).tickets))
    screen = Screen()
    async with line(here.port, stream_of(unit)) as opened:
        assert b"text/event-stream" in opened.head
        assert b"x-accel-buffering: no" in opened.head
        await watch(screen, opened, lambda: screen.board and shown(screen.board) == expected)
        await call(there.client, unit)
        await step(there.client, waiting, "start")
        await step(there.client, waiting, "finish")
        await set_counter(there.client, unit, 1, "paused")
        await watch(screen, opened, lambda: len(screen.of("change")) == 4)
        assert screen.moves == [("A001", "called", 1), ("A001", "serving", 1),
                                ("A001", "finished", 1)]  # fmt: skip
        assert [e.data["ticket"] for e in screen.of("change")].count(None) == 1
        assert shown(screen.board) == shown(await board_of(here, unit))
        ids = [event.id for event in screen.sent if event.event != "heartbeat"]
        assert len(set(ids)) == len(ids)
        await watch(screen, opened, lambda: screen.of("heartbeat"))
        assert screen.of("heartbeat")[0].id is None
    for event in screen.sent:
        assert waiting["id"] not in str(event.data)


async def test_a_heartbeat_counts_on_while_nothing_happens(
    replicas: list[Replica], clock: FrozenClock, unit: str
) -> None:
    here = replicas[0]
    await take(here.client, unit)
    screen = Screen()
    async with line(here.port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.board.get("waiting") == 1)
        clock.at += seconds(90)
        await watch(screen, opened, lambda: screen.board["oldest_wait_seconds"] == 90)
        clock.at += seconds(24 * 3600)
        await watch(screen, opened, lambda: screen.board["waiting"] == 0)
        assert screen.board["next"] == [], "yesterday's tickets are called no more"


async def test_the_longest_wait_is_that_of_those_who_wait_for_their_first_call(
    replicas: list[Replica], clock: FrozenClock, unit: str
) -> None:
    here, screen = replicas[0], Screen()
    await set_counter(here.client, unit)
    await take(here.client, unit)
    async with line(here.port, stream_of(unit)) as opened:
        ticket = (await call(here.client, unit)).json()
        for name in ("start", "park", "return"):
            assert (await step(here.client, ticket, name)).status_code == 200
        clock.at += seconds(70)
        await take(here.client, unit)
        await watch(screen, opened, lambda: screen.board.get("waiting") == 2)
        clock.at += seconds(5)
        await watch(screen, opened, lambda: screen.board["oldest_wait_seconds"] == 5)
    assert (await board_of(here, unit))["oldest_wait_seconds"] == 5


async def test_a_board_that_is_not_known_to_be_true_falls_silent(
    replicas: list[Replica], unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, screen = replicas[0], Screen()
    async with line(here.port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.of("heartbeat"))
        monkeypatch.setattr(Projection, "sound", False)
        with suppress(TimeoutError):
            await opened.next(within=0.2)  # one may be on its way
        with pytest.raises(TimeoutError):
            await opened.next(within=1.5)
        monkeypatch.undo()
        await watch(screen, opened, lambda: len(screen.of("heartbeat")) > 1)


async def test_unknown_units_and_methods_are_refused_before_a_stream_begins(
    replicas: list[Replica],
) -> None:
    client = replicas[0].client
    assert (await client.get(stream_of("H29.99999"))).status_code == 404
    assert (await client.get(stream_of("nonsense!"))).status_code == 422
    assert (await client.post(stream_of("H29.26740"))).status_code == 405


# Resuming -------------------------------------------------------------------------------------


ACTS = (
    "visit", "take", "pause", "open", "park", "return", "missed", "cancel", "to-counter", "away",
)  # fmt: skip
ELSEWHERE = "H29.26740"


async def do(client: httpx.AsyncClient, unit: str, act: str) -> None:
    """Let something happen at a unit."""
    if act in ("pause", "open"):
        await set_counter(client, unit, 2, "paused" if act == "pause" else "open")
    elif act == "visit":
        await visit(client, unit)
    elif act == "return":
        path = f"/v1/units/{unit}/tickets"
        parked = await client.get(path, params={"status": "parked"}, headers=manager(unit))
        for ticket in parked.json()["items"]:
            await step(client, {**ticket, "unit": unit}, "return", headers=manager(unit))
    else:
        ticket = await take(client, unit)
        if act in ("park", "missed", "to-counter"):
            ticket = (await call(client, unit)).json()
        name, body = {
            "take": ("", {}), "park": ("park", {}), "missed": ("no-show", {}),
            "cancel": ("cancel", {}), "to-counter": ("transfer", {"counter": 1}),
            "away": ("transfer", {"unit": ELSEWHERE}),
        }[act]  # fmt: skip
        if name:
            answer = await step(client, ticket, name, headers=manager(unit), json=body)
            assert answer.status_code == 200, answer.text


@given(
    steps=st.lists(st.sampled_from(ACTS), min_size=2, max_size=8),
    cuts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=6),
)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_a_screen_whose_line_breaks_anywhere_misses_nothing_and_sees_nothing_twice(
    replicas: list[Replica],
    units: Iterator[str],
    steps: list[str],
    cuts: list[tuple[int, int]],
) -> None:
    """Each cut names the replica to read from and after how many events the line breaks."""
    unit, writer, screen = next(units), replicas[2].client, Screen()
    await set_counter(writer, unit)
    await is_open(replicas[0], unit)

    async def happen() -> None:
        for act in steps:
            await do(writer, unit, act)

    async with line(replicas[0].port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
    happening = asyncio.create_task(happen())
    for replica, events in cuts:
        async with line(replicas[replica].port, stream_of(unit), screen.last_id) as opened:
            with suppress(TimeoutError):  # everything may have happened by now
                for _ in range(events):
                    screen.take(await opened.next(within=0.2))
    await happening
    await take(writer, unit)  # whatever comes twice has come before these two
    await set_counter(writer, unit, 3, "paused")
    told = await told_of(replicas[0], unit)

    def told_the_last() -> bool:
        last = [counter["state"] for counter in screen.board["counters"]][2]
        return screen.moves[-1:] == told[-1:] and last == "paused"

    async with line(replicas[1].port, stream_of(unit), screen.last_id) as opened:
        await watch(screen, opened, told_the_last)
    assert len(screen.of("snapshot")) == 1, "every resume found what it had missed"
    assert screen.moves == told
    counted = len([name for name in steps if name in ("pause", "open")])
    assert len(screen.of("change")) == len(told) + counted + 1
    assert shown(screen.board) == shown(await board_of(replicas[1], unit))


async def test_a_place_that_nobody_can_resume_from_is_answered_with_the_whole_board(
    replicas: list[Replica], unit: str
) -> None:
    here = replicas[0]
    await take(here.client, unit)
    await wait_until(lambda: bool(here.projection.board(unit).tickets))
    for place in ("", "tables", "0-0-0", "-1", "1e3-0", "9" * 18 + "-0", "1.1-1.1", "9" * 3000,
                  "0-0\u00e9"):  # fmt: skip
        async with line(here.port, stream_of(unit), place) as opened:
            first = await opened.next()
        assert (first.event, first.data["waiting"]) == ("snapshot", 1), place
        assert (first.comment is not None) == bool(place)


async def test_a_process_that_has_just_started_knows_what_a_broken_stream_missed(
    replicas: list[Replica], hall_url: str, hall_clock: FrozenClock, unit: str
) -> None:
    here, screen = replicas[0], Screen()
    await set_counter(here.client, unit)
    await is_open(here, unit)
    async with line(here.port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
    for _ in range(3):
        await visit(here.client, unit)
    told = await told_of(here, unit)
    async with (
        running(app, settings_for(hall_url, hours="official"), hall_clock) as fresh,
        serving(with_state(app, fresh.state)) as port,  # type: ignore[attr-defined]
    ):
        await wait_until(lambda: Replica(fresh, port).projection.level)
        async with line(port, stream_of(unit), screen.last_id) as opened:
            await watch(screen, opened, lambda: len(screen.moves) == len(told))
    assert len(screen.of("snapshot")) == 1
    assert screen.moves == told


async def test_a_replica_that_is_told_to_stop_ends_its_streams_and_another_goes_on(
    replicas: list[Replica], hall_url: str, hall_clock: FrozenClock, unit: str
) -> None:
    screen = Screen()
    async with (
        running(app, settings_for(hall_url, hours="official"), hall_clock) as leaving,
        serving(with_state(app, leaving.state)) as port,  # type: ignore[attr-defined]
    ):
        await wait_until(lambda: Replica(leaving, port).projection.level)
        async with line(port, stream_of(unit), "") as opened:
            await watch(screen, opened, lambda: screen.board)
            core_of(leaving).stopping.set()
            with pytest.raises(EOFError):
                await watch(screen, opened, lambda: False)
    await take(replicas[0].client, unit)
    async with line(replicas[1].port, stream_of(unit), screen.last_id) as opened:
        await watch(screen, opened, lambda: screen.moves == [("A001", "waiting", None)])
    assert len(screen.of("snapshot")) == 1


# Without the bus ------------------------------------------------------------------------------


@pytest.fixture
def soon_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lag be noticed within the second."""
    monkeypatch.setattr(Projection, "late_seconds", 0.8)


async def _people_are_called(replica: Replica, unit: str) -> None:
    for _ in range(5):
        await visit(replica.client, unit)
    await take(replica.client, unit)
    await call(replica.client, unit)
    await take(replica.client, unit)


async def test_boards_go_on_from_the_tables_while_the_bus_is_away_and_all_is_told_afterwards(
    replicas: list[Replica], hall_url: str, unit: str, soon_late: None
) -> None:
    here, there, _ = replicas
    screen = Screen()
    await set_counter(here.client, unit)
    await is_open(here, unit)
    async with line(here.port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
        before = screen.last_id
        connection = await asyncpg.connect(hall_url)
        try:
            stillness = connection.transaction()
            await stillness.start()
            await connection.execute("LOCK TABLE bus.log, bus.topics IN ACCESS EXCLUSIVE MODE")
            await _people_are_called(here, unit)
            wanted = shown(await board_of(here, unit))
            await watch(screen, opened, lambda: shown(screen.board) == wanted)
            assert screen.board["called"][0]["number"] == "A006"
            assert "tables" in str(here.projection.problem)
            assert (await here.client.get("/readyz")).json()["status"] == "degraded"
            async with line(there.port, stream_of(unit), before) as other:
                whole = await other.next()
            assert (whole.event, shown(whole.data)) == ("snapshot", wanted)
            await stillness.rollback()
        finally:
            await connection.close()
        await watch(screen, opened, lambda: screen.last_id != "tables")
        assert here.projection.level
        assert shown(screen.board) == wanted
        assert screen.moves == [], "calls of long ago are not announced as if they were new"
        assert len(await told_of(here, unit)) == 23
        await take(here.client, unit)
        await watch(screen, opened, lambda: screen.moves == [("A008", "waiting", None)])


async def test_boards_go_on_while_no_relay_carries_events(
    replicas: list[Replica], unit: str, soon_late: None
) -> None:
    here, screen = replicas[0], Screen()
    await set_counter(here.client, unit)
    await is_open(here, unit)
    relays = [core_of(replica.client).relay for replica in replicas]
    async with line(here.port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
        for replica in replicas:
            core_of(replica.client).tasks._tasks["relay"].cancel()
        await _people_are_called(here, unit)
        wanted = shown(await board_of(here, unit))
        await watch(screen, opened, lambda: shown(screen.board) == wanted)
        assert screen.last_id == "tables"
        for replica, relay in zip(replicas, relays, strict=True):
            assert relay is not None
            core_of(replica.client).tasks.start("relay", relay.run())
        await watch(screen, opened, lambda: screen.last_id != "tables")
        assert shown(screen.board) == wanted
    assert len(await told_of(here, unit)) == 23


async def test_a_record_that_nobody_can_read_is_made_up_for_from_the_tables(
    replicas: list[Replica], unit: str
) -> None:
    here, screen = replicas[0], Screen()
    await set_counter(here.client, unit)
    await is_open(here, unit)
    async with line(here.port, stream_of(unit)) as opened:
        await watch(screen, opened, lambda: screen.board)
        before = screen.last_id
        async with core_of(here.client).bus.producer("vandal") as vandal:
            await vandal.send([Record(TICKETS, unit, b"{}"), Record(COUNTERS, unit, b"\xff")])
        await visit(here.client, unit)
        ticket = await take(here.client, unit)
        wanted = shown(await board_of(here, unit))
        await watch(screen, opened, lambda: here.projection.level
                    and shown(screen.board) == wanted and screen.last_id != "tables")  # fmt: skip
    async with line(here.port, stream_of(unit), before) as opened:
        assert (await opened.next()).event == "snapshot", "nobody knows what it would have said"
    async with line(here.port, stream_of(unit), screen.last_id) as opened:
        await step(here.client, ticket, "cancel", headers=manager(unit))
        await watch(screen, opened, lambda: screen.moves[-1:] == [("A002", "cancelled", None)])


# The city -------------------------------------------------------------------------------------


async def test_the_city_is_followed_from_replica_to_replica(
    replicas: list[Replica], unit: str
) -> None:
    here, there, _ = replicas
    path, screen = "/v1/queue/overview/stream", Screen()

    def shows(waiting: int, counters: int) -> bool:
        items = {item["unit"]: item for item in screen.board.get("items", [])}
        item = items.get(unit, {"waiting": 0, "open_counters": 0})
        return (item["waiting"], item["open_counters"]) == (waiting, counters)

    async with line(here.port, path) as opened:
        await watch(screen, opened, lambda: screen.of("heartbeat"))
        await set_counter(here.client, unit)
        await take(here.client, unit)
        await watch(screen, opened, lambda: shows(1, 1))
    ticket = (await call(here.client, unit)).json()
    await step(here.client, ticket, "no-show")
    await set_counter(here.client, unit, 1, "closed")
    await eventually(lambda: _quiet(here, unit))
    async with line(there.port, path, screen.last_id) as opened:
        await watch(screen, opened, lambda: shows(0, 0))
        await take(here.client, unit)
        await watch(screen, opened, lambda: shows(1, 0))
    assert [event.event for event in screen.sent].count("snapshot") == 1
    ids = [event.id for event in screen.sent if event.event == "change"]
    assert len(ids) == len(set(ids))
    assert screen.board["waiting"] == sum(item["waiting"] for item in screen.board["items"])


async def _quiet(replica: Replica, unit: str) -> bool:
    loads = await announced(replica.client, unit, LOADS)
    return bool(loads) and loads[-1][1]["open_counters"] == 0


# Many -----------------------------------------------------------------------------------------


async def test_three_hundred_screens_are_told_and_freed(replicas: list[Replica], unit: str) -> None:
    """`python -m tests.bench.streams` does it with a thousand and measures."""
    here, screens = replicas[0], [Screen() for _ in range(300)]
    await set_counter(here.client, unit)
    await is_open(here, unit)
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(line(here.port, stream_of(unit))) for _ in screens]
        assert len(here.streams._of_units[unit]) == 300
        await visit(here.client, unit)
        await asyncio.gather(
            *(watch(screen, opened, lambda screen=screen: len(screen.moves) == 4)
              for screen, opened in zip(screens, lines, strict=True))
        )  # fmt: skip
        assert len({tuple(screen.moves) for screen in screens}) == 1
    await wait_until(lambda: unit not in here.streams._of_units)

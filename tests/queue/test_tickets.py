"""A ticket's life over HTTP: who is called when, what is answered, what is refused."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue import policy
from services.queue.api.edge import TicketOut
from services.queue.api.tickets import TicketAhead
from services.queue.main import app
from tests.queue.hall import (
    MONDAY,
    announced,
    call,
    called_numbers,
    core_of,
    eventually,
    manager,
    officer,
    seconds,
    set_counter,
    step,
    take,
)
from tests.support import FrozenClock, bearer, fields_of, running, settings_for

BIRTH = "1.001193"
DRIVING_LICENCE = "3.000347"
PROMISE = timedelta(seconds=1200)


def at(text: str) -> datetime:
    """Read a local time."""
    return datetime.fromisoformat(f"{text}+07:00")


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


# A life ---------------------------------------------------------------------------------------


async def test_a_ticket_is_issued_called_started_and_finished(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    issued = await take(queue, unit, procedure_codes=[BIRTH], priority_class="elderly")
    assert (issued["status"], issued["number"], issued["version"]) == ("waiting", "A001", 1)
    clock.at += seconds(90)
    called = (await call(queue, unit)).json()
    assert called["id"] == issued["id"]
    assert (called["status"], called["counter"], called["wait_seconds"]) == ("called", 1, 90)
    clock.at += seconds(10)
    started = (await step(queue, called, "start")).json()
    assert (started["status"], started["started_at"]) == ("serving", "2026-11-16T08:01:40+07:00")
    clock.at += seconds(300)
    finished = (await step(queue, called, "finish", json={"counter": 1})).json()
    assert (finished["status"], finished["ended_at"]) == ("finished", "2026-11-16T08:06:40+07:00")
    assert (finished["version"], finished["wait_seconds"]) == (4, 90)
    shown = (await queue.get(f"/v1/tickets/{issued['id']}")).json()
    foretold = [f"forecast_{name}_seconds" for name in ("wait", "low", "high")]
    expected = finished | dict.fromkeys(["position", *foretold])
    assert {name: shown[name] for name in expected} == expected


async def test_each_step_is_announced_once_with_a_rising_version(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    for last in ("finish", "no-show"):
        ticket = await take(queue, unit)
        clock.at += seconds(60)
        await call(queue, unit)
        if last == "finish":
            await step(queue, ticket, "start")
            clock.at += seconds(480)
        await step(queue, ticket, last)
    gone = await take(queue, unit)
    clock.at += seconds(30)
    await step(queue, gone, "cancel", headers={"X-Nobody": "1"})
    events = await announced(queue, unit)
    assert [(type_, body["number"], body["version"]) for type_, body in events] == [
        ("TicketIssued", "A001", 1),
        ("TicketCalled", "A001", 2),
        ("TicketStarted", "A001", 3),
        ("TicketFinished", "A001", 4),
        ("TicketIssued", "A002", 1),
        ("TicketCalled", "A002", 2),
        ("TicketNoShow", "A002", 3),
        ("TicketIssued", "A003", 1),
        ("TicketCancelled", "A003", 2),
    ]
    by_type = dict(events)
    assert by_type["TicketFinished"]["service_seconds"] == 480
    assert by_type["TicketCalled"]["wait_seconds"] == 60
    assert by_type["TicketCalled"]["first_call"] is True
    assert by_type["TicketCancelled"]["wait_seconds"] == 30
    assert not any("officer" in body for _, body in events)


async def test_the_answers_have_the_shape_that_is_documented(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit)
    issued = await take(queue, unit, procedure_codes=[BIRTH], dossier_code=f"{unit}-261116-0001")
    assert set(issued) == set(TicketAhead.model_fields)
    TicketAhead.model_validate(issued)
    called = (await call(queue, unit)).json()
    assert set(called) == set(TicketOut.model_fields)
    TicketOut.model_validate(called)
    assert (issued["unit"], issued["series"], issued["channel"]) == (unit, "A", "web")
    assert issued["issued_at"] == "2026-11-16T08:00:00+07:00"
    assert issued["due_at"] == "2026-11-16T08:20:00+07:00"
    assert issued["business_day"] == "2026-11-16"
    assert issued["dossier_code"] == f"{unit}-261116-0001"


async def test_nobody_is_called_where_nobody_waits(queue: httpx.AsyncClient, unit: str) -> None:
    await set_counter(queue, unit)
    answer = await call(queue, unit)
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_wait_is_never_negative_where_clocks_disagree(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """A call may have looked at its clock before the ticket that it takes was issued."""
    await set_counter(queue, unit)
    await take(queue, unit)
    clock.at -= seconds(1)
    called = (await call(queue, unit)).json()
    assert called["wait_seconds"] == 0
    assert called["called_at"] == called["issued_at"]
    events = dict(await announced(queue, unit))
    assert events["TicketCalled"]["wait_seconds"] == 0


# Refused steps --------------------------------------------------------------------------------

_WAYS = {
    "waiting": [],
    "called": ["call"],
    "serving": ["call", "start"],
    "finished": ["call", "start", "finish"],
    "no_show": ["call", "no-show"],
    "parked": ["call", "park"],
    "cancelled": ["cancel"],
}
_ALLOWED = {
    "waiting": ["call-next", "call", "transfer", "cancel", "printed", "reissue"],
    "called": ["start", "no-show", "recall", "park", "transfer"],
    "serving": ["finish", "park", "transfer"],
    "finished": [],
    "no_show": ["recall", "return", "call"],
    "parked": ["return", "call", "transfer", "cancel"],
    "cancelled": [],
}
_BODIES = {
    "call": {"counter": 1, "reason": "khẩn cấp"},
    "transfer": {"series": "B"},
    "printed": {"ok": False},
}


@pytest.mark.parametrize("status", _WAYS)
async def test_a_step_that_the_state_does_not_allow_is_refused_with_those_it_does(
    queue: httpx.AsyncClient, unit: str, status: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    for name in _WAYS[status]:
        answer = await (call(queue, unit) if name == "call" else step(queue, ticket, name))
        assert answer.status_code == 200, answer.text
    before = (await queue.get(f"/v1/tickets/{ticket['id']}")).json()
    assert before["status"] == status
    for name in dict.fromkeys(chain(*_ALLOWED.values())):
        if name in _ALLOWED[status] or name == "call-next":
            continue
        refused = await step(queue, ticket, name, json=_BODIES.get(name))
        assert refused.status_code == 409, (status, name, refused.text)
        problem = refused.json()
        assert problem["type"] == "urn:motcua:problem:not-allowed-now"
        assert problem["ticket_status"] == status
        assert sorted(problem["allowed"]) == sorted(_ALLOWED[status])
    assert (await queue.get(f"/v1/tickets/{ticket['id']}")).json() == before


async def test_only_who_called_a_ticket_moves_it_and_the_manager(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    await call(queue, unit)
    other = await step(queue, ticket, "start", number=2)
    assert (other.status_code, other.json()["type"]) == (409, "urn:motcua:problem:held-elsewhere")
    wrong_counter = await step(queue, ticket, "start", json={"counter": 2})
    assert wrong_counter.status_code == 409
    assert wrong_counter.json()["type"] == "urn:motcua:problem:held-elsewhere"
    assert (await step(queue, ticket, "start", headers=manager(unit))).status_code == 200
    assert (await step(queue, ticket, "finish")).status_code == 200


async def test_a_counter_and_an_officer_hold_one_person_at_a_time(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for number in (1, 2):
        await set_counter(queue, unit, number)
    held = await take(queue, unit)
    clock.at += seconds(1)
    await take(queue, unit)
    await call(queue, unit, 1)
    again = await call(queue, unit, 1)
    assert (again.status_code, again.json()["held"]) == (409, held["number"])
    assert again.json()["allowed"] == _ALLOWED["called"]
    elsewhere = await queue.post(f"/v1/units/{unit}/counters/2/call-next", headers=officer(unit, 1))
    assert elsewhere.status_code == 409
    assert "you still hold A001 at counter 1" in elsewhere.json()["detail"]
    somebody_else = await queue.post(
        f"/v1/units/{unit}/counters/1/call-next", headers=officer(unit, 2)
    )
    assert somebody_else.status_code == 409
    await step(queue, held, "start")
    assert (await call(queue, unit, 1)).json()["allowed"] == _ALLOWED["serving"]


async def test_what_does_not_exist_is_404_and_what_is_no_id_422(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for name in ("start", "finish", "no-show", "cancel"):
        unknown = await queue.post(f"/v1/tickets/{uuid4()}/{name}", headers=officer(unit))
        assert unknown.status_code == 404, name
        nonsense = await queue.post(f"/v1/tickets/A001/{name}", headers=officer(unit))
        assert nonsense.status_code == 422, name
    assert (await queue.get(f"/v1/tickets/{uuid4()}")).status_code == 404
    assert (await call(queue, unit, 77)).status_code == 404


# Closed centres -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "opens"),
    [
        ("2026-11-16T07:29:59", "2026-11-16T07:30:00+07:00"),
        ("2026-11-16T11:30:00", "2026-11-16T13:00:00+07:00"),
        ("2026-11-16T12:15:00", "2026-11-16T13:00:00+07:00"),
        ("2026-11-16T17:00:00", "2026-11-17T07:30:00+07:00"),
        ("2026-11-16T23:59:59", "2026-11-17T07:30:00+07:00"),
        ("2026-11-17T00:00:00", "2026-11-17T07:30:00+07:00"),
        ("2026-11-20T17:00:00", "2026-11-23T07:30:00+07:00"),
        ("2026-11-21T09:00:00", "2026-11-23T07:30:00+07:00"),
        ("2026-09-02T09:00:00", "2026-09-03T07:30:00+07:00"),
        ("2027-01-01T09:00:00", "2027-01-04T07:30:00+07:00"),
    ],
)
async def test_a_closed_centre_says_when_it_opens(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, when: str, opens: str
) -> None:
    clock.at = at(when)
    refused = await queue.post("/v1/tickets", json={"unit": unit, "channel": "web"})
    assert refused.status_code == 409, refused.text
    assert refused.json()["type"] == "urn:motcua:problem:centre-closed"
    if when != "2026-09-02T09:00:00":  # which days around it are off is the calendar's matter
        assert refused.json()["next_opening"] == opens
    clock.at = datetime.fromisoformat(refused.json()["next_opening"])
    assert (await take(queue, unit))["number"] == "A001"


async def test_who_got_a_ticket_is_called_though_the_centre_closes(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    clock.at = at("2026-11-16T11:29:59")
    await take(queue, unit)
    clock.at = at("2026-11-16T11:45:00")
    assert (await call(queue, unit)).status_code == 200


# Units and procedures -------------------------------------------------------------------------


async def test_a_unit_goes_by_its_old_names_and_the_answer_carries_the_current_one(
    queue: httpx.AsyncClient,
) -> None:
    closed = next(
        known.code
        for known in queue.state["directory"].units.values()  # type: ignore[attr-defined]
        if known.gso_code == "27595" and not known.active
    )
    for name in ("H29.27595", "gso:27595", closed):
        assert (await take(queue, name))["unit"] == "H29.27595"
    board = await queue.get(f"/v1/units/{closed}/queue")
    assert (board.json()["unit"], board.json()["waiting"]) == ("H29.27595", 3)


async def test_a_split_unit_asks_which_successor_is_meant(queue: httpx.AsyncClient) -> None:
    refused = await queue.post("/v1/tickets", json={"unit": "gso:27625", "channel": "web"})
    assert refused.status_code == 409
    assert {one["unit"] for one in refused.json()["candidates"]} == {"H29.27424", "H29.27637"}
    assert all(one["name"] for one in refused.json()["candidates"])


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("H29.99999", 404),
        ("gso:99999", 404),
        ("Z99.1", 404),
        ("H29", 409),  # the city: active, but it keeps no centre
        ("000.00.00.H29", 409),
        ("H29.S01", 409),
        ("gso:", 422),
        ("h29.26734", 422),
        ("H29.26734' --", 422),
        ("", 422),
    ],
)
async def test_a_unit_that_cannot_be_meant_is_refused(
    queue: httpx.AsyncClient, name: str, status: int
) -> None:
    refused = await queue.post("/v1/tickets", json={"unit": name, "channel": "web"})
    assert refused.status_code == status, refused.text


async def test_a_procedure_that_the_centre_does_not_receive_is_409_and_an_unknown_one_422(
    queue: httpx.AsyncClient, unit: str
) -> None:
    wish = {"unit": unit, "channel": "web", "procedure_codes": [BIRTH, DRIVING_LICENCE]}
    not_offered = await queue.post("/v1/tickets", json=wish)
    assert not_offered.status_code == 409
    assert DRIVING_LICENCE in not_offered.json()["detail"]
    unknown = await queue.post("/v1/tickets", json=wish | {"procedure_codes": [BIRTH, "9.999999"]})
    assert unknown.status_code == 422
    assert fields_of(unknown) == {"procedure_codes.1"}
    assert (await take(queue, unit, procedure_codes=[f"{BIRTH}.000.00.00.H29"]))["number"] == "A001"


async def test_all_wrong_fields_are_named_at_once(queue: httpx.AsyncClient, unit: str) -> None:
    refused = await queue.post(
        "/v1/tickets",
        json={"unit": unit, "channel": "pigeon", "series": "a", "priority_class": "vip", "n": 1},
    )
    assert refused.status_code == 422
    assert fields_of(refused) == {"channel", "series", "priority_class", "n"}
    bodies: tuple[Any, ...] = ({"unit": unit, "channel": "web", "series": 1}, [], None)
    for body in bodies:
        assert (await queue.post("/v1/tickets", json=body)).status_code == 422
    assert (await queue.get(f"/v1/units/{unit}/queue")).json()["waiting"] == 0


# Who may --------------------------------------------------------------------------------------

_UNKNOWN = "H29.99999"


@pytest.mark.parametrize(
    ("role", "channel", "own", "other", "unknown"),
    [
        ("nobody", "web", 201, 201, 404),
        ("nobody", "kiosk", 401, 401, 404),
        ("nobody", "counter", 401, 401, 404),
        ("nobody", "portal", 401, 401, 404),
        ("kiosk", "kiosk", 201, 403, 404),
        ("kiosk", "web", 403, 403, 404),
        ("kiosk", "counter", 403, 403, 404),
        ("officer", "counter", 201, 403, 404),
        ("officer", "kiosk", 201, 403, 404),
        ("officer", "web", 403, 403, 404),
        ("manager", "counter", 201, 403, 404),
        ("manager", "portal", 403, 403, 404),
        ("portal", "portal", 201, 201, 404),
        ("portal", "web", 403, 403, 404),
        ("city", "web", 403, 403, 403),
        ("ops", "web", 403, 403, 403),
        ("visitor", "web", 403, 403, 403),
    ],
)
async def test_a_role_hands_out_tickets_of_its_units_by_its_channels(
    queue: httpx.AsyncClient,
    units: Iterator[str],
    role: str,
    channel: str,
    own: int,
    other: int,
    unknown: int,
) -> None:
    mine, theirs = next(units), next(units)
    headers = bearer(role, mine) if role != "nobody" else {}
    for unit, status in ((mine, own), (theirs, other), (_UNKNOWN, unknown)):
        wish = {"unit": unit, "channel": channel}
        answer = await queue.post("/v1/tickets", json=wish, headers=headers)
        assert answer.status_code == status, (unit, answer.text)
    for unit, status in ((mine, own), (theirs, other)):
        board = (await queue.get(f"/v1/units/{unit}/queue")).json()
        assert board["waiting"] == int(status == 201)


@pytest.mark.parametrize(
    ("role", "cancels", "works"),
    [
        ("nobody", 200, 401),
        ("kiosk", 200, 403),
        ("officer", 200, 200),
        ("manager", 200, 200),
        ("portal", 403, 403),
        ("city", 403, 403),
        ("ops", 403, 403),
        ("visitor", 403, 403),
    ],
)
async def test_a_role_cancels_and_works_at_counters_of_its_units_only(
    queue: httpx.AsyncClient, units: Iterator[str], role: str, cancels: int, works: int
) -> None:
    mine, theirs = next(units), next(units)
    headers = bearer(role, mine, subject=f"{role}-{mine}") if role != "nobody" else {}
    for unit in (mine, theirs):
        await set_counter(queue, unit)
        stranger = unit == theirs and role != "nobody"
        first, _ = await take(queue, unit), await take(queue, unit)
        answer = await step(queue, first, "cancel", headers=headers | {"X-Any": "1"})
        assert answer.status_code == (403 if stranger else cancels), answer.text
        refused = works if works != 200 else 403
        expected = refused if stranger or works != 200 else 200
        counter = f"/v1/units/{unit}/counters/1"
        for method, path, body in (
            ("PUT", counter, {"state": "open"}),
            ("POST", f"{counter}/call-next", None),
            ("GET", f"/v1/units/{unit}/tickets", None),
        ):
            answer = await queue.request(method, path, json=body, headers=headers)
            assert answer.status_code == expected, (path, answer.text)
    unknown = await queue.put(
        f"/v1/units/{_UNKNOWN}/counters/1", json={"state": "open"}, headers=headers
    )
    assert unknown.status_code == (404 if works == 200 else works)


async def test_an_officer_of_another_unit_moves_nobody(
    queue: httpx.AsyncClient, units: Iterator[str]
) -> None:
    mine, theirs = next(units), next(units)
    await set_counter(queue, theirs)
    ticket = await take(queue, theirs)
    await call(queue, theirs)
    for name in ("start", "finish", "no-show", "cancel"):
        answer = await step(queue, ticket, name, headers=officer(mine))
        assert answer.status_code == 403, (name, answer.text)
        assert (await step(queue, ticket, name, headers=manager(mine))).status_code == 403


async def test_a_token_that_nobody_trusts_is_401(queue: httpx.AsyncClient, unit: str) -> None:
    for credentials in ("Bearer nonsense", "Bearer a.b.c", "Basic eDp5"):
        answer = await queue.put(
            f"/v1/units/{unit}/counters/1",
            json={"state": "open"},
            headers={"Authorization": credentials},
        )
        assert answer.status_code == 401, credentials
        assert answer.headers["WWW-Authenticate"] == "Bearer"


# Board, position, forecast --------------------------------------------------------------------


async def test_the_board_shows_counters_who_is_called_and_who_is_next_without_ids(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for number in (1, 2, 3):
        await set_counter(queue, unit, number)
    await set_counter(queue, unit, 3, "paused")
    tickets = [await take(queue, unit, procedure_codes=[BIRTH])]
    for _ in range(13):
        clock.at += seconds(1)
        tickets.append(await take(queue, unit))
    await call(queue, unit, 1)
    await step(queue, tickets[0], "start")
    await call(queue, unit, 2)
    clock.at += seconds(60)
    answer = await queue.get(f"/v1/units/{unit}/queue")
    board = answer.json()
    assert set(board) == {
        "unit", "as_of", "waiting", "oldest_wait_seconds", "forecast_wait_seconds", "counters",
        "called", "next",
    }  # fmt: skip
    assert (board["waiting"], board["oldest_wait_seconds"]) == (12, 71)
    at_counter = {row["number"]: row["ticket"] for row in board["counters"]}
    assert (at_counter[1]["number"], at_counter[1]["status"]) == ("A001", "serving")
    assert (at_counter[2]["number"], at_counter[2]["status"]) == ("A002", "called")
    assert at_counter[3] is at_counter[4] is None
    assert [row["number"] for row in board["called"]] == ["A002"]
    assert [row["number"] for row in board["next"]] == [f"A{n:03}" for n in range(3, 13)]
    for ticket in tickets:
        assert ticket["id"] not in answer.text
    shown = [*board["called"], *board["next"], at_counter[1]]
    allowed = {"number", "status", "counter", "issued_at", "due_at", "called_at"}
    assert all(set(row) <= allowed for row in shown)
    assert "officer" not in answer.text
    assert BIRTH not in answer.text


async def test_the_position_counts_who_is_called_before(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    first = await take(queue, unit)
    clock.at += seconds(1)
    second = await take(queue, unit)
    clock.at += seconds(1)
    elderly = await take(queue, unit, priority_class="elderly")
    assert [t["position"] for t in (first, second, elderly)] == [1, 2, 1]

    async def positions() -> list[int | None]:
        return [
            (await queue.get(f"/v1/tickets/{ticket['id']}")).json()["position"]
            for ticket in (first, second, elderly)
        ]

    assert await positions() == [2, 3, 1]
    await call(queue, unit)
    assert await positions() == [1, 2, None]


async def test_nobody_is_told_a_position_past_999(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await core_of(queue).db.hot.execute(
        "INSERT INTO tickets (id, version, unit, series, business_day, sequence, number, status,"
        " priority_class, channel, procedure_codes, issued_at, due_at)"
        " SELECT gen_random_uuid(), 1, $1, 'B', '2026-11-16', n, 'B' || n, 'waiting', 'normal',"
        " 'web', '{}', $2::timestamptz - interval '1 hour', $2::timestamptz - interval '40 minutes'"
        " FROM generate_series(1, 998) AS n",
        unit,
        MONDAY,
    )
    tickets = []
    for _ in range(2):
        tickets.append(await take(queue, unit))
        clock.at += seconds(1)
    assert [ticket["position"] for ticket in tickets] == [999, None]
    shown = [(await queue.get(f"/v1/tickets/{ticket['id']}")).json() for ticket in tickets]
    assert [ticket["position"] for ticket in shown] == [999, None]


async def test_the_forecast_is_null_until_a_counter_opens(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    closed = await take(queue, unit)
    assert closed["forecast_wait_seconds"] is None
    clock.at += seconds(1)
    await set_counter(queue, unit)

    async def forecast() -> int | None:
        board = (await queue.get(f"/v1/units/{unit}/queue")).json()
        return board["forecast_wait_seconds"]  # type: ignore[no-any-return]

    # One waits, the only counter is free: the newcomer waits for one visit.
    assert 360 < (await eventually(forecast, within=3) or 0) < 600
    told = (await queue.get(f"/v1/units/{unit}/queue")).json()["forecast_wait_seconds"]
    assert (await take(queue, unit))["forecast_wait_seconds"] == told
    shown = (await queue.get(f"/v1/tickets/{closed['id']}")).json()
    assert (shown["position"], shown["forecast_wait_seconds"]) == (1, 0)


# Numbers and days -----------------------------------------------------------------------------


async def test_numbers_grow_past_999_and_each_series_counts_for_itself(
    queue: httpx.AsyncClient, unit: str
) -> None:
    assert (await take(queue, unit))["number"] == "A001"
    await core_of(queue).db.hot.execute(
        "UPDATE ticket_numbers SET last = 998 WHERE unit = $1", unit
    )
    numbers = [(await take(queue, unit))["number"] for _ in range(3)]
    assert numbers == ["A999", "A1000", "A1001"]
    assert (await take(queue, unit, series="B"))["number"] == "B001"
    listed = await queue.get(
        f"/v1/units/{unit}/tickets", params={"number": "A1000"}, headers=officer(unit)
    )
    assert [row["number"] for row in listed.json()["items"]] == ["A1000"]


@pytest.fixture(scope="module")
async def night(
    queue: httpx.AsyncClient, hall_url: str, hall_clock: FrozenClock
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a replica of the queue whose centres are open round the clock."""
    async with running(app, settings_for(hall_url, hours="demo"), hall_clock) as client:
        yield client


async def test_numbers_start_again_at_midnight_of_ho_chi_minh_city(
    night: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for when, number, day in (
        ("2026-11-16T23:59:58", "A001", "2026-11-16"),
        ("2026-11-16T23:59:59.999999", "A002", "2026-11-16"),
        ("2026-11-17T00:00:00", "A001", "2026-11-17"),
        ("2026-11-17T06:59:59", "A002", "2026-11-17"),
        ("2026-11-17T07:00:00", "A003", "2026-11-17"),  # midnight in UTC is nothing here
    ):
        clock.at = at(when)
        ticket = await take(night, unit)
        assert (ticket["number"], ticket["business_day"]) == (number, day), when


async def test_who_waits_over_midnight_is_called_and_who_came_yesterday_morning_is_not(
    night: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(night, unit)
    clock.at = at("2026-11-16T09:00:00")
    morning = await take(night, unit)
    clock.at = at("2026-11-16T23:50:00")
    late = await take(night, unit)
    clock.at = at("2026-11-17T00:05:00")
    after = await take(night, unit)
    assert after["position"] == 2
    board = (await night.get(f"/v1/units/{unit}/queue")).json()
    assert (board["waiting"], board["oldest_wait_seconds"]) == (2, 15 * 60)
    forgotten = (await night.get(f"/v1/tickets/{morning['id']}")).json()
    assert (forgotten["status"], forgotten["position"]) == ("waiting", None)
    called = (await call(night, unit)).json()
    assert (called["id"], called["wait_seconds"]) == (late["id"], 15 * 60)
    await step(night, called, "no-show")
    assert await called_numbers(night, unit) == [after["number"]]
    assert (await call(night, unit)).status_code == 204
    assert (await night.get(f"/v1/tickets/{morning['id']}")).json()["status"] == "waiting"


# Order ----------------------------------------------------------------------------------------


async def test_the_earliest_due_is_called_first(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    for minute, wish in (
        (0, {}),  # A001, due 8:20
        (5, {"priority_class": "appointment"}),  # A002, due 8:10
        (6, {"priority_class": "pregnant"}),  # A003, due 8:16
        (9, {"priority_class": "seriously_ill"}),  # A004, due 8:19
        (9.5, {}),  # A005, due 8:29:30
        (11, {"priority_class": "elderly"}),  # A006, due 8:21
    ):
        clock.at = MONDAY + timedelta(minutes=minute)
        await take(queue, unit, **wish)
    order = await called_numbers(queue, unit)
    assert order == ["A002", "A003", "A004", "A001", "A006", "A005"]


_arrivals = st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=10))
_classes = st.sampled_from(policy.PRIORITY_CLASSES)


@given(_arrivals, _classes, _arrivals, _classes)
def test_a_head_start_is_never_starvation(
    first: timedelta, class_: str, second: timedelta, other: str
) -> None:
    """Who has waited the promise comes before every newcomer, whatever either's class."""
    came = MONDAY + first
    newcomer = MONDAY + second
    promise = policy.Promise(PROMISE)
    mine = promise.due_at(came, class_)
    theirs = promise.due_at(newcomer, other)
    assert came <= mine <= came + PROMISE
    if newcomer - came >= PROMISE:
        assert mine < theirs or mine == theirs == came + PROMISE
        assert mine <= theirs
    if other == class_:
        assert (mine < theirs) == (came < newcomer)
    if newcomer >= came and policy.HEAD_START[class_] >= policy.HEAD_START[other]:
        assert mine <= theirs


@given(_arrivals, _classes, st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)))
def test_nobody_is_due_before_arriving_however_short_the_promise(
    arrival: timedelta, class_: str, promise: timedelta
) -> None:
    came = MONDAY + arrival
    assert came <= policy.Promise(promise).due_at(came, class_) <= came + promise


# Counters -------------------------------------------------------------------------------------


async def test_a_counter_calls_only_while_it_is_open(queue: httpx.AsyncClient, unit: str) -> None:
    await take(queue, unit)
    for state in ("closed", "paused"):
        changed = await set_counter(queue, unit, 1, state, reason="lunch")
        assert (changed.status_code, changed.json()["state"]) == (200, state)
        assert changed.json()["changed_at"] == "2026-11-16T08:00:00+07:00"
        refused = await call(queue, unit)
        assert (refused.status_code, refused.json()["allowed"]) == (409, ["open"])
        assert refused.json()["type"] == "urn:motcua:problem:counter-not-open"
    reopened = await set_counter(queue, unit)
    assert reopened.json()["reason"] is None
    assert (await call(queue, unit)).status_code == 200


async def test_a_counter_calls_its_series_only(queue: httpx.AsyncClient, unit: str) -> None:
    await set_counter(queue, unit, 1, series=["B", "C"])
    await set_counter(queue, unit, 2)
    for series in ("A", "B", "C", "A"):
        await take(queue, unit, series=series)
    assert sorted(await called_numbers(queue, unit, 1)) == ["B001", "C001"]
    assert sorted(await called_numbers(queue, unit, 2)) == ["A001", "A002"]


async def test_a_manager_makes_a_counter_and_an_officer_does_not(
    queue: httpx.AsyncClient, unit: str
) -> None:
    path = f"/v1/units/{unit}/counters"
    listed = (await queue.get(path)).json()
    assert [(row["number"], row["state"]) for row in listed["items"]] == [
        (number, "closed") for number in range(1, 6)
    ]
    refused = await queue.put(f"{path}/9", json={"state": "open"}, headers=officer(unit))
    assert refused.status_code == 404
    made = await queue.put(f"{path}/9", json={"state": "paused"}, headers=manager(unit))
    assert (made.status_code, made.json()["state"]) == (200, "paused")
    opened = await queue.put(f"{path}/9", json={"state": "open"}, headers=officer(unit))
    assert (opened.status_code, opened.json()["state"]) == (200, "open")
    assert len((await queue.get(path)).json()["items"]) == 6


async def test_a_counter_that_holds_somebody_pauses_but_does_not_close(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    await call(queue, unit)
    refused = await set_counter(queue, unit, 1, "closed")
    assert (refused.status_code, ticket["number"] in refused.json()["detail"]) == (409, True)
    assert (await set_counter(queue, unit, 1, "paused")).status_code == 200
    assert (await step(queue, ticket, "start")).status_code == 200
    assert (await set_counter(queue, unit, 1, "closed")).status_code == 409
    assert (await step(queue, ticket, "finish")).status_code == 200
    assert (await set_counter(queue, unit, 1, "closed")).status_code == 200


async def test_who_is_called_while_the_counter_closes_is_not_left_at_a_closed_counter(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    for _ in range(25):
        called, closed = await asyncio.gather(
            call(queue, unit), set_counter(queue, unit, 1, "closed")
        )
        assert {called.status_code, closed.status_code} == {200, 409}, (called.text, closed.text)
        if called.status_code == 200:
            await step(queue, called.json(), "no-show")
            await take(queue, unit)
        await set_counter(queue, unit)


@pytest.mark.parametrize("number", ["0", "100", "-1", "x", "1.5"])
async def test_counters_are_numbered_1_to_99(
    queue: httpx.AsyncClient, unit: str, number: str
) -> None:
    path = f"/v1/units/{unit}/counters/{number}"
    answer = await queue.put(path, json={"state": "open"}, headers=manager(unit))
    assert answer.status_code == 422
    assert fields_of(answer) == {"number"}
    assert (await queue.post(f"{path}/call-next", headers=officer(unit))).status_code == 422


async def test_what_a_counter_cannot_do_is_refused_field_by_field(
    queue: httpx.AsyncClient, unit: str
) -> None:
    answer = await set_counter(queue, unit, 1, "ajar", series=["A", "bb"], reason="")
    assert answer.status_code == 422
    assert fields_of(answer) == {"state", "series.1", "reason"}


# The officers' list ---------------------------------------------------------------------------


async def test_the_list_is_read_page_by_page_in_the_order_of_issue(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for series in ("B", "A", "A", "B", "A", "A", "A"):
        clock.at += seconds(1)
        await take(queue, unit, series=series)
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = await queue.get(
            f"/v1/units/{unit}/tickets",
            params={"limit": 3} | ({"cursor": cursor} if cursor else {}),
            headers=officer(unit),
        )
        seen += [row["number"] for row in page.json()["items"]]
        assert all(UUID(row["id"]) for row in page.json()["items"])
        cursor, pages = page.json()["next_cursor"], pages + 1
    assert seen == ["A001", "A002", "A003", "A004", "A005", "B001", "B002"]
    assert pages == 3


async def test_the_list_is_narrowed_by_status_number_and_counter(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit, 2)
    for _ in range(3):
        clock.at += seconds(1)
        await take(queue, unit)
    await call(queue, unit, 2)

    async def listed(**params: object) -> list[str]:
        answer = await queue.get(
            f"/v1/units/{unit}/tickets",
            params=params,  # type: ignore[arg-type]
            headers=officer(unit),
        )
        return [row["number"] for row in answer.json()["items"]]

    assert await listed(status="waiting") == ["A002", "A003"]
    assert await listed(status="called", counter=2) == ["A001"]
    assert await listed(counter=1) == []
    assert await listed(number="A003") == ["A003"]
    clock.at += timedelta(days=1)
    assert await listed() == []


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": "many"},
        {"cursor": "A"},
        {"cursor": "A-1"},
        {"cursor": "A9999999999"},
        {"cursor": ""},
        {"status": "asleep"},
        {"number": "1"},
        {"counter": 100},
    ],
)
async def test_a_list_that_cannot_be_is_422(
    queue: httpx.AsyncClient, unit: str, params: dict[str, str]
) -> None:
    answer = await queue.get(f"/v1/units/{unit}/tickets", params=params, headers=officer(unit))
    assert answer.status_code == 422, answer.text
    assert fields_of(answer) == set(params)

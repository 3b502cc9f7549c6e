"""Kiosks over HTTP: numbers lent ahead of a bad day, and its people taken in when it is over."""

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from libs.common.worktime import local
from services.queue.domain.kiosks import OPEN_LEASES
from services.queue.leases import LETTERS, ticket_id
from services.queue.models import KioskLease
from tests.queue.hall import (
    announced,
    call,
    called_numbers,
    core_of,
    facts,
    keyed,
    manager,
    officer,
    seconds,
    set_counter,
    take,
)
from tests.queue.visits import at, borrow, kiosk, lease, offline, reconcile
from tests.support import FrozenClock, bearer, fields_of

BIRTH = "1.001193"
EIGHT = "2026-11-16T08:00:00+07:00"


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


# Lending ------------------------------------------------------------------------------------------


async def test_a_kiosk_is_lent_a_block_of_a_series_of_its_own(
    queue: httpx.AsyncClient, unit: str
) -> None:
    lent = await lease(queue, unit, count=100)
    assert lent == lent | {
        "kiosk": "kiosk-1", "unit": unit, "series": "AA", "business_day": "2026-11-16",
        "first": 1, "last": 100, "granted_at": EIGHT, "valid_from": EIGHT,
        "expires_at": "2026-11-17T00:00:00+07:00", "status": "open", "reconciled_at": None,
        "issued": None,
    }  # fmt: skip
    [key] = jwt.PyJWKSet.from_dict((await queue.get("/v1/kiosks/keys")).json()).keys
    claims = jwt.decode(
        lent["signed"], key, algorithms=["EdDSA"], audience="urn:motcua:kiosk",
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )  # fmt: skip
    assert (claims["jti"], claims["sub"]) == (lent["id"], "kiosk-1")
    more = await lease(queue, unit)
    assert (more["series"], more["first"], more["last"]) == ("AA", 101, 300)
    other_line = await lease(queue, unit, series="C", count=1)
    assert (other_line["series"], other_line["first"], other_line["last"]) == ("CA", 1, 1)
    assert (await lease(queue, unit, "kiosk-2"))["series"] == "AB"
    assert [(await take(queue, unit))["number"] for _ in range(2)] == ["A001", "A002"]


async def test_a_kiosk_that_counts_in_seconds_may_issue_in_the_one_of_its_lease(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = at("2026-11-16T08:00:00.750000")
    lent = await lease(queue, unit)
    assert (lent["granted_at"], lent["valid_from"]) == (EIGHT, EIGHT)
    assert (await reconcile(queue, lent, [offline(lent, 1, EIGHT)])).status_code == 200


async def test_a_repeated_wish_is_lent_one_block(queue: httpx.AsyncClient, unit: str) -> None:
    key = uuid4()
    answers = await asyncio.gather(*(borrow(queue, unit, key=key) for _ in range(4)))
    assert {(answer.status_code, answer.content) for answer in answers} == {
        (201, answers[0].content)
    }
    assert (await lease(queue, unit))["first"] == 201


@pytest.mark.parametrize(
    ("now", "wish", "day", "valid_from"),
    [
        ("2026-11-16T08:00:00", {}, "2026-11-16", "2026-11-16T08:00:00"),
        ("2026-11-16T12:00:00", {}, "2026-11-16", "2026-11-16T12:00:00"),
        ("2026-11-16T18:00:00", {}, "2026-11-17", "2026-11-17T00:00:00"),
        ("2026-11-20T17:00:00", {}, "2026-11-23", "2026-11-23T00:00:00"),
        ("2026-11-16T08:00:00", {"business_day": "2026-11-17"}, "2026-11-17",
         "2026-11-17T00:00:00"),
        ("2026-11-16T18:00:00", {"business_day": "2026-11-16"}, "2026-11-16",
         "2026-11-16T18:00:00"),
    ],
)  # fmt: skip
async def test_numbers_are_for_the_day_of_the_next_opening_or_the_one_asked_for(
    queue: httpx.AsyncClient,
    clock: FrozenClock,
    unit: str,
    now: str,
    wish: dict[str, str],
    day: str,
    valid_from: str,
) -> None:
    clock.at = at(now)
    lent = await lease(queue, unit, **wish)
    assert (lent["business_day"], lent["valid_from"]) == (day, f"{valid_from}+07:00")


@pytest.mark.parametrize(
    ("wish", "status", "field"),
    [
        ({"business_day": "2026-11-15"}, 422, "business_day"),
        ({"business_day": "2026-11-24"}, 422, "business_day"),
        ({"business_day": "2026-11-21"}, 409, "opens at 2026-11-23T07:30"),
        ({"count": 0}, 422, "count"),
        ({"count": 501}, 422, "count"),
        ({"series": "AB"}, 422, "series"),
        ({"unit": "H29.99999"}, 404, ""),
        ({"unit": "H29.26740"}, 403, ""),
        ({"until": "noon"}, 422, "until"),
    ],
)
async def test_a_wish_that_cannot_be_is_refused(
    queue: httpx.AsyncClient, unit: str, wish: dict[str, Any], status: int, field: str
) -> None:
    answer = await borrow(queue, unit, **wish)
    assert answer.status_code == status, answer.text
    if status == 422:
        assert fields_of(answer) == {field}
    assert field in answer.json()["detail"]
    assert (await lease(queue, unit))["first"] == 1, "nothing was spent"


async def test_a_kiosk_acts_for_itself_and_its_units(queue: httpx.AsyncClient, unit: str) -> None:
    path = "/v1/kiosks/kiosk-1/lease"
    for headers, status in (
        ({}, 401),
        (officer(unit), 403),
        (manager(unit), 403),
        (kiosk(unit, "kiosk-2"), 403),
        (bearer("kiosk", subject="kiosk-1"), 422),
        (bearer("kiosk", unit, "H29.26740", subject="kiosk-1"), 422),
        (kiosk(unit), 201),
    ):
        assert (await queue.post(path, headers=headers)).status_code == status, headers
    both = bearer("kiosk", unit, "H29.26740", subject="kiosk-1")
    answer = await queue.post(path, json={"unit": unit}, headers=both)
    assert (answer.status_code, answer.json()["unit"]) == (201, unit)


async def test_a_kiosk_that_asks_in_a_loop_does_not_use_up_the_numbers(
    queue: httpx.AsyncClient, unit: str
) -> None:
    answers = await asyncio.gather(*(borrow(queue, unit, count=1) for _ in range(OPEN_LEASES + 3)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses == {201: OPEN_LEASES, 409: 3}
    held = [answer.json() for answer in answers if answer.status_code == 201]
    [refused, *_] = [answer.json() for answer in answers if answer.status_code == 409]
    assert sorted(refused["leases"]) == sorted(lent["id"] for lent in held)
    assert (await borrow(queue, unit, business_day="2026-11-17")).status_code == 201
    assert (await borrow(queue, unit, series="B")).status_code == 201
    assert (await reconcile(queue, held[0], [])).status_code == 200
    assert (await borrow(queue, unit, count=1)).status_code == 201


async def test_kiosks_that_ask_at_once_never_share_a_series_or_a_number(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, unit: str
) -> None:
    names = [f"kiosk-{n}" for n in range(len(LETTERS))]
    answers = await asyncio.gather(
        *(
            borrow((queue, replica)[place % 2], unit, name, count=5)
            for name in names
            for place in range(2)
        )
    )
    lent = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} == {201}
    of_kiosk: dict[str, set[str]] = {}
    for one in lent:
        of_kiosk.setdefault(one["kiosk"], set()).add(one["series"])
    assert all(len(series) == 1 for series in of_kiosk.values())
    assert len({next(iter(series)) for series in of_kiosk.values()}) == len(names)
    numbers = [(one["series"], n) for one in lent for n in range(one["first"], one["last"] + 1)]
    assert len(numbers) == len(set(numbers)) == len(names) * 10
    one_more = await borrow(queue, unit, "one-more")
    assert one_more.json()["type"] == "urn:motcua:problem:no-series-left"
    assert (await borrow(queue, unit, "one-more", business_day="2026-11-17")).status_code == 201


# Taking in ----------------------------------------------------------------------------------------


async def test_who_came_while_the_network_was_away_is_called_in_the_order_of_arrival(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit, 1, series=["A"])
    lent = await lease(queue, unit)
    before = await take(queue, unit)
    clock.at = at("2026-11-16T09:00:00")
    after = await take(queue, unit)
    answer = await reconcile(
        queue,
        lent,
        [
            offline(lent, 2, at("2026-11-16T08:20:00"), priority_class="elderly"),
            offline(lent, 1, at("2026-11-16T08:15:00"), procedure_codes=[BIRTH]),
        ],
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["lease"]["status"], body["lease"]["issued"]) == ("reconciled", 2)
    first, second = body["tickets"]
    assert (first["number"], second["number"]) == ("AA001", "AA002")
    assert (first["issued_at"], first["due_at"]) == (
        "2026-11-16T08:15:00+07:00",
        "2026-11-16T08:35:00+07:00",
    )
    assert (first["status"], first["channel"], first["version"]) == ("waiting", "kiosk", 1)
    assert first["procedure_codes"] == [BIRTH]
    shown = (await queue.get(f"/v1/tickets/{after['id']}")).json()
    assert shown["position"] == 4
    called = (await call(queue, unit)).json()
    assert called["id"] == before["id"]
    await queue.post(f"/v1/tickets/{called['id']}/no-show", headers=officer(unit))
    # AA002 came later, and is due at 8:30 as an elderly person.
    assert await called_numbers(queue, unit) == ["AA002", "AA001", "A002"]


async def test_the_slip_that_was_printed_offline_leads_to_the_ticket(
    queue: httpx.AsyncClient, unit: str
) -> None:
    lent = await lease(queue, unit)
    printed = ticket_id(KioskLease(id=UUID(lent["id"])), "AA007")
    assert (await queue.get(f"/v1/tickets/{printed}")).status_code == 404
    await reconcile(queue, lent, [offline(lent, 7, EIGHT)])
    shown = (await queue.get(f"/v1/tickets/{printed}")).json()
    assert (shown["number"], shown["status"]) == ("AA007", "waiting")
    listed = await queue.get(
        f"/v1/units/{unit}/tickets", params={"number": "AA007"}, headers=officer(unit)
    )
    assert [row["id"] for row in listed.json()["items"]] == [str(printed)]


async def test_what_became_of_people_meanwhile_is_told_with_its_real_times(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    lent = await lease(queue, unit)
    clock.at = at("2026-11-16T10:00:00")
    minutes = {"issued_at": "05", "called_at": "15", "started_at": "16", "ended_at": "24"}
    times = {name: f"2026-11-16T08:{minute}:00+07:00" for name, minute in minutes.items()}
    issued = times["issued_at"]
    answer = await reconcile(
        queue,
        lent,
        [
            offline(lent, 1, issued, status="finished", counter=2)
            | {name: times[name] for name in ("called_at", "started_at", "ended_at")},
            offline(lent, 2, issued, status="finished", counter=2, called_at=times["called_at"],
                    ended_at=times["ended_at"]),
            offline(lent, 3, issued, status="no_show", counter=3, called_at=times["called_at"],
                    ended_at=times["started_at"]),
            offline(lent, 4, issued, status="cancelled", ended_at=times["ended_at"]),
            offline(lent, 5, issued),
        ],
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    tickets = answer.json()["tickets"]
    assert [t["status"] for t in tickets] == [
        "finished", "finished", "no_show", "cancelled", "waiting",
    ]  # fmt: skip
    assert [t["version"] for t in tickets] == [4, 4, 3, 2, 1]
    assert [t["wait_seconds"] for t in tickets] == [600, 600, 600, None, None]
    assert [t["counter"] for t in tickets] == [2, 2, 3, None, None]
    events = await announced(queue, unit)
    told = [
        (
            body["number"],
            type_,
            body["version"],
            f"{local(datetime.fromisoformat(body['at'])):%H:%M}",
        )
        for type_, body in events
    ]
    assert told == [
        ("AA001", "TicketIssued", 1, "08:05"), ("AA001", "TicketCalled", 2, "08:15"),
        ("AA001", "TicketStarted", 3, "08:16"), ("AA001", "TicketFinished", 4, "08:24"),
        ("AA002", "TicketIssued", 1, "08:05"), ("AA002", "TicketCalled", 2, "08:15"),
        ("AA002", "TicketStarted", 3, "08:15"), ("AA002", "TicketFinished", 4, "08:24"),
        ("AA003", "TicketIssued", 1, "08:05"), ("AA003", "TicketCalled", 2, "08:15"),
        ("AA003", "TicketNoShow", 3, "08:16"),
        ("AA004", "TicketIssued", 1, "08:05"), ("AA004", "TicketCancelled", 2, "08:24"),
        ("AA005", "TicketIssued", 1, "08:05"),
    ]  # fmt: skip
    by_number = {(body["number"], type_): body for type_, body in events}
    assert by_number["AA001", "TicketCalled"]["wait_seconds"] == 600
    assert by_number["AA001", "TicketFinished"]["service_seconds"] == 480
    assert by_number["AA002", "TicketFinished"]["service_seconds"] == 540
    assert by_number["AA004", "TicketCancelled"]["wait_seconds"] == 1140
    board = (await queue.get(f"/v1/units/{unit}/queue")).json()
    assert (board["waiting"], board["oldest_wait_seconds"]) == (1, 115 * 60)


async def test_an_account_is_given_once(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    lent = await lease(queue, unit)
    account = [offline(lent, n, f"2026-11-16T08:00:0{n}+07:00") for n in (1, 2)]
    clock.at += seconds(10)
    key = uuid4()
    first = await reconcile(queue, lent, account, key=key)
    assert first.status_code == 200
    before = await facts(queue, unit)
    again = await reconcile(queue, lent, account, key=key)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
    assert await facts(queue, unit) == before
    await call(queue, unit)
    clock.at += seconds(60)
    # Another key, another order, another way to write the instant: the same account.
    account = [offline(lent, n, f"2026-11-16T01:00:0{n}Z") for n in (2, 1)]
    same = await reconcile(queue, lent, account)
    assert same.status_code == 200
    assert [t["status"] for t in same.json()["tickets"]] == ["called", "waiting"]
    assert same.json()["lease"]["reconciled_at"] == "2026-11-16T08:00:10+07:00"
    for other in ([*account, offline(lent, 3, EIGHT)], account[:1], []):
        refused = await reconcile(queue, lent, other)
        assert (refused.status_code, refused.json()["issued"]) == (409, 2)
        assert refused.json()["type"] == "urn:motcua:problem:already-reconciled"
    changed = await reconcile(queue, lent, [account[0]], key=key)
    assert (changed.status_code, fields_of(changed)) == (422, {"Idempotency-Key"})
    assert (await facts(queue, unit))["tickets"] == 2


async def test_twins_account_once(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, unit: str
) -> None:
    lent = await lease(queue, unit)
    accounts = [[offline(lent, n, EIGHT) for n in range(1, 4)], [offline(lent, 9, EIGHT)]]
    answers = await asyncio.gather(
        *(
            reconcile((queue, replica)[n % 2], lent, accounts[n % 3 == 0], key=uuid4())
            for n in range(9)
        )
    )
    taken = {
        tuple(ticket["number"] for ticket in answer.json()["tickets"])
        for answer in answers
        if answer.status_code == 200
    }
    assert len(taken) == 1, "one account, whichever came first"
    assert {answer.status_code for answer in answers} == {200, 409}
    [numbers] = taken
    count = "SELECT count(*) FROM tickets WHERE unit = $1"
    assert await core_of(queue).db.hot.fetchval(count, unit) == len(numbers)


async def test_every_entry_that_cannot_be_is_named_and_nothing_is_changed(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = at("2026-11-16T08:10:00")
    lent = await lease(queue, unit, count=10)
    clock.at = at("2026-11-16T09:00:00")
    before = await facts(queue, unit)
    good = at("2026-11-16T08:30:00")
    answer = await reconcile(
        queue,
        lent,
        [
            offline(lent, 1, good),
            offline(lent, 11, good),
            offline(lent, 1, good),
            offline(lent, 2, at("2026-11-16T08:09:59")),
            offline(lent, 3, at("2026-11-16T09:00:01")),
            offline(lent | {"series": "AB"}, 4, good),
            offline(lent, 5, good, status="finished", counter=1),
        ],
        key=uuid4(),
    )
    assert answer.status_code == 422
    assert fields_of(answer) == {
        "tickets.1.number",
        "tickets.2.number",
        "tickets.3.issued_at",
        "tickets.4.issued_at",
        "tickets.5.number",
        "tickets.6.called_at",
        "tickets.6.ended_at",
    }
    messages = {error["field"]: error["message"] for error in answer.json()["errors"]}
    assert messages["tickets.1.number"] == "AA011 is outside the lease, which is AA001 to AA010"
    assert messages["tickets.2.number"] == "AA001 is told twice: tickets.0 has it too"
    assert "it is 2026-11-16T09:00:00+07:00 here" in messages["tickets.4.issued_at"]
    assert await facts(queue, unit) == before
    shapeless = await reconcile(
        queue,
        lent,
        [offline(lent, 1, "yesterday", priority_class="vip", status="serving", counter=100)],
    )
    assert fields_of(shapeless) == {
        f"tickets.0.{name}" for name in ("issued_at", "priority_class", "status", "counter")
    }
    many = await reconcile(queue, lent, [offline(lent, 1, good)] * 501)
    assert (many.status_code, fields_of(many)) == (422, {"tickets"})
    assert (await reconcile(queue, lent, [offline(lent, 1, good)])).status_code == 200


async def test_a_lease_that_was_tampered_with_or_is_anothers_is_refused(
    queue: httpx.AsyncClient, unit: str
) -> None:
    lent = await lease(queue, unit)
    other = await lease(queue, unit, "kiosk-2")
    before = await facts(queue, unit)
    head, _, signature = lent["signed"].split(".")
    _, claims, _ = other["signed"].split(".")
    for signed in (f"{head}.{claims}.{signature}", "x", lent["signed"][:-10]):
        forged = await reconcile(queue, lent, [], signed=signed)
        assert (forged.status_code, fields_of(forged)) == (422, {"signed"})
    anothers = await reconcile(queue, lent, [], signed=other["signed"])
    assert (anothers.status_code, fields_of(anothers)) == (422, {"signed"})
    assert "another kiosk" in anothers.json()["detail"]
    moved = bearer("kiosk", "H29.26740", subject="kiosk-1")
    assert (await reconcile(queue, lent, [], headers=moved)).status_code == 403
    assert (await reconcile(queue, lent, [], headers=kiosk(unit, "kiosk-2"))).status_code == 403
    assert (await reconcile(queue, lent, [], headers=manager(unit))).status_code == 403
    assert await facts(queue, unit) == before
    await core_of(queue).db.hot.execute("DELETE FROM kiosk_leases WHERE unit = $1", unit)
    unknown = await reconcile(queue, lent, [])
    assert unknown.json()["type"] == "urn:motcua:problem:unknown-lease"


# Kiosks that are lost -----------------------------------------------------------------------------


async def test_a_lost_lease_ends_is_seen_and_its_numbers_are_nobody_elses(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    lost = await lease(queue, unit, count=50)
    kept = await lease(queue, unit, "kiosk-2", count=50)
    await reconcile(queue, kept, [offline(kept, 1, EIGHT)])

    async def seen(**params: Any) -> list[tuple[str, str, str]]:
        answer = await queue.get(
            "/v1/kiosks/leases", params={"unit": unit} | params, headers=manager(unit)
        )
        assert answer.status_code == 200, answer.text
        return [(row["kiosk"], row["series"], row["status"]) for row in answer.json()["items"]]

    assert await seen() == [("kiosk-2", "AB", "reconciled"), ("kiosk-1", "AA", "open")]
    clock.at = at("2026-11-16T23:59:59")
    assert await seen(status="open") == [("kiosk-1", "AA", "open")]
    clock.at = at("2026-11-17T00:00:00")
    assert await seen(status="expired") == [("kiosk-1", "AA", "expired")]
    assert await seen(status="open") == []
    assert await seen(date="2026-11-16", status="reconciled") == [("kiosk-2", "AB", "reconciled")]
    assert await seen(date="2026-11-17") == []
    again = await lease(queue, unit, business_day="2026-11-17", count=50)
    assert (again["series"], again["first"]) == ("AA", 1), "another day counts from one"
    clock.at = at("2026-11-16T08:00:00")
    assert (await lease(queue, unit, count=50))["first"] == 51, "the lost ones are not given again"
    # Found after all: the people of that day are counted, the numbers are still its own.
    clock.at = at("2026-11-19T10:00:00")
    found = await reconcile(queue, lost, [offline(lost, 50, "2026-11-16T08:01:00+07:00")])
    assert found.status_code == 200, found.text
    assert await called_numbers_of_today(queue, unit) == []


async def called_numbers_of_today(queue: httpx.AsyncClient, unit: str) -> list[str]:
    """Call everybody who waits."""
    await set_counter(queue, unit)
    return await called_numbers(queue, unit)


async def test_after_a_week_a_lease_is_not_taken_in_any_more(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    lent = await lease(queue, unit)
    clock.at = at("2026-11-24T00:00:01")
    late = await reconcile(queue, lent, [offline(lent, 1, EIGHT)])
    assert late.json()["type"] == "urn:motcua:problem:lease-too-old"
    clock.at = at("2026-11-24T00:00:00")
    assert (await reconcile(queue, lent, [offline(lent, 1, EIGHT)])).status_code == 200


async def test_leases_are_listed_page_by_page_to_those_who_work_there(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for name in ("a", "b", "c"):
        await lease(queue, unit, name, count=1)
        await lease(queue, unit, name, count=1, business_day="2026-11-17")
    seen, cursor = [], None
    for _ in range(3):
        params = {"unit": unit, "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = await queue.get("/v1/kiosks/leases", params=params, headers=officer(unit))
        seen += [(row["business_day"][-2:], row["series"]) for row in page.json()["items"]]
        # The ids of tickets follow from a lease's: they are the holders' alone.
        assert not {"id", "signed"} & set(page.json()["items"][0])
        cursor = page.json()["next_cursor"]
    assert cursor is None
    assert seen == [(day, series) for day in ("17", "16") for series in ("AC", "AB", "AA")]
    for headers, status in (
        ({}, 401), (kiosk(unit), 403), (officer("H29.26740"), 403), (bearer("city"), 200)
    ):  # fmt: skip
        answer = await queue.get("/v1/kiosks/leases", params={"unit": unit}, headers=headers)
        assert answer.status_code == status
    for bad in ({"cursor": "x"}, {"cursor": "2026-13-01AA1"}, {"status": "lost"}, {"date": "1"}):
        answer = await queue.get(
            "/v1/kiosks/leases", params={"unit": unit} | bad, headers=manager(unit)
        )
        assert (answer.status_code, fields_of(answer)) == (422, set(bad))


async def test_where_no_key_is_set_no_lease_is_given_and_nothing_else_fails(
    queue: httpx.AsyncClient, unit: str
) -> None:
    state = queue.state  # type: ignore[attr-defined]
    keys, state["lease_keys"] = state["lease_keys"], None
    try:
        answer = await borrow(queue, unit)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert "MOTCUA_KIOSK_KEY_FILE" in answer.json()["detail"]
        assert (await queue.get("/v1/kiosks/keys")).status_code == 503
        await take(queue, unit)
    finally:
        state["lease_keys"] = keys


# Double taps --------------------------------------------------------------------------------------


async def test_a_double_tap_is_one_ticket_because_of_its_key_and_never_because_of_the_time(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, unit: str
) -> None:
    """The clock stands still, so a window of any length would take two people for one."""
    wish = {"unit": unit, "channel": "kiosk"}

    async def tap(key: object, where: httpx.AsyncClient = queue) -> str:
        headers = keyed(key, kiosk(unit)) if key else kiosk(unit)
        answer = await where.post("/v1/tickets", json=wish, headers=headers)
        assert answer.status_code == 201
        number: str = answer.json()["number"]
        return number

    key = uuid4()
    assert set(await asyncio.gather(tap(key), tap(key, replica), tap(key))) == {"A001"}
    assert set(await asyncio.gather(tap(uuid4()), tap(uuid4(), replica))) == {"A002", "A003"}
    assert set(await asyncio.gather(tap(None), tap(None))) == {"A004", "A005"}
    assert await tap(key) == "A001"


# A bad day ----------------------------------------------------------------------------------------


async def test_through_a_day_of_broken_networks_no_number_is_given_twice_and_nobody_is_lost(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """Four kiosks lose and find the network while others queue over the web and are called."""
    dice = random.Random(20261116)  # noqa: S311  (the same day each time)
    given: list[str] = []
    replicas = (queue, replica)
    for number in (1, 2):
        await set_counter(queue, unit, number, series=["A"])
    for _ in range(6):
        names = [f"kiosk-{n}" for n in range(4) if dice.random() < 0.7] or ["kiosk-0"]
        lent = [await lease(dice.choice(replicas), unit, name, count=40) for name in names]
        begin = clock.at
        clock.at += timedelta(minutes=30)
        accounts = []
        for one in lent:
            used = dice.sample(range(one["first"], one["last"] + 1), dice.randint(0, 12))
            accounts.append([offline(one, n, begin + seconds(dice.randint(0, 1800))) for n in used])
        work = [
            reconcile(dice.choice(replicas), one, account, key=key)
            for one, account in zip(lent, accounts, strict=True)
            for key in [uuid4()]
            for _ in range(dice.randint(1, 2))
        ]
        work += [
            replica.post("/v1/tickets", json={"unit": unit, "channel": "web"}) for _ in range(6)
        ]
        dice.shuffle(work)
        answers = await asyncio.gather(*work)
        assert all(answer.is_success for answer in answers), [a.text for a in answers]
        given += [entry["number"] for account in accounts for entry in account]
        given += [a.json()["number"] for a in answers if a.status_code == 201]
        called = [await called_numbers(queue, unit, 1) for _ in range(dice.randint(0, 1))]
        assert all(number in given for numbers in called for number in numbers)
    await asyncio.gather(called_numbers(queue, unit, 1), called_numbers(replica, unit, 2))
    rows = await core_of(queue).db.hot.fetch(
        "SELECT number, status, issued_at, due_at FROM tickets WHERE unit = $1", unit
    )
    assert Counter(row["number"] for row in rows) == Counter(given), "each once, and nobody else"
    assert {row["status"] for row in rows} == {"no_show"}, "whoever waited was called"
    online = sorted(row["number"] for row in rows if row["number"][1].isdigit())
    assert online == [f"A{n:03}" for n in range(1, 37)], "the others' series has no gap"
    issued = [body for type_, body in await announced(queue, unit) if type_ == "TicketIssued"]
    assert {body["number"]: datetime.fromisoformat(body["at"]) for body in issued} == {
        row["number"]: row["issued_at"] for row in rows
    }

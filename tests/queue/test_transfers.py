"""Sending people on: to a series, a counter or a unit; the arrival is kept, nobody is lost."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from services.queue.api.edge import TicketOut
from services.queue.api.steps import TicketSent
from tests.queue.hall import (
    announced,
    call,
    called_numbers,
    close_unit,
    facts,
    keyed,
    officer,
    seconds,
    set_counter,
    step,
    take,
)
from tests.queue.test_steps import called_at, problem, shown
from tests.support import FrozenClock, fields_of

BIRTH = "1.001193"


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


async def send(
    queue: httpx.AsyncClient, ticket: dict[str, Any], number: int = 1, /, **to: Any
) -> httpx.Response:
    """Send a ticket on, as the officer of a counter."""
    return await step(queue, ticket, "transfer", number, json=to)


# To a series ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["waiting", "called", "serving", "parked"])
async def test_a_ticket_sent_to_another_series_waits_there_with_its_number_and_arrival(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, way: str
) -> None:
    await set_counter(queue, unit, 1, series=["A"])
    await set_counter(queue, unit, 2, series=["B"])
    ticket = await take(queue, unit)
    steps = {"waiting": [], "called": ["call"], "serving": ["call", "start"],
             "parked": ["call", "park"]}  # fmt: skip
    for name in steps[way]:
        await (call(queue, unit) if name == "call" else step(queue, ticket, name))
    clock.at += seconds(60)
    behind = await take(queue, unit, series="B")
    sent = await send(queue, ticket, series="B")
    assert sent.status_code == 200, sent.text
    told = sent.json()
    assert (told["status"], told["series"], told["number"]) == ("waiting", "B", "A001")
    assert told["issued_at"] == ticket["issued_at"]
    assert (told["counter"], told["started_at"]) == (None, None)
    assert (await call(queue, unit)).status_code == 204, "counter 1 calls the series A"
    assert (await shown(queue, behind))["position"] == 2
    assert await called_numbers(queue, unit, 2) == ["A001", "B001"]
    event = dict(await announced(queue, unit))["TicketTransferred"]
    assert (event["series"], event["counter"]) == ("B", 1 if way in ("called", "serving") else None)
    assert event["service_seconds"] == (60 if way == "serving" else 0)
    assert event.get("to_unit") is None


async def test_numbers_stay_dense_and_the_list_in_order_though_tickets_change_series(
    queue: httpx.AsyncClient, unit: str
) -> None:
    tickets = [await take(queue, unit, series=series) for series in "AABB"]
    await send(queue, tickets[1], series="B")
    await send(queue, tickets[2], series="A")
    numbers = [(await take(queue, unit, series=series))["number"] for series in "AB"]
    assert numbers == ["A003", "B003"]
    seen: list[str] = []
    cursor = None
    while not seen or cursor:
        page = await queue.get(
            f"/v1/units/{unit}/tickets",
            params={"limit": 2} | ({"cursor": cursor} if cursor else {}),
            headers=officer(unit),
        )
        seen += [row["number"] for row in page.json()["items"]]
        cursor = page.json()["next_cursor"]
    assert seen == ["A001", "A002", "A003", "B001", "B002", "B003"]


async def test_a_series_that_no_counter_calls_is_refused(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for number in range(1, 6):
        await set_counter(queue, unit, number, series=["A", "B"])
    ticket = await take(queue, unit)
    before = await facts(queue, unit)
    assert problem(await send(queue, ticket, series="C")) == (409, "series-not-served")
    assert await facts(queue, unit) == before
    assert (await send(queue, ticket, series="B")).status_code == 200


# To a counter ---------------------------------------------------------------------------------


async def test_a_ticket_sent_to_a_counter_is_called_by_that_one_alone_whatever_its_series(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit, 2, series=["B"])
    ticket = await called_at(queue, unit)
    sent = (await send(queue, ticket, counter=2)).json()
    assert (sent["status"], sent["series"], sent["for_counter"]) == ("waiting", "A", 2)
    assert (await call(queue, unit, 1)).status_code == 204
    clock.at += seconds(10)
    other = await take(queue, unit)
    assert other["position"] == 1, "who waits for counter 2 is not ahead of who cannot go there"
    called = (await call(queue, unit, 2)).json()
    assert (called["id"], called["counter"], called["for_counter"]) == (ticket["id"], 2, None)


async def test_a_counter_that_is_paused_takes_people_and_a_closed_or_unknown_one_does_not(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    before = await facts(queue, unit)
    closed = await send(queue, ticket, counter=2)
    assert problem(closed) == (409, "counter-not-open")
    assert closed.json()["allowed"] == ["open", "paused"]
    assert problem(await send(queue, ticket, counter=77)) == (404, "unknown-counter")
    assert await facts(queue, unit) == before
    assert (await shown(queue, ticket))["status"] == "called"
    await set_counter(queue, unit, 2, "paused")
    assert (await send(queue, ticket, counter=2)).status_code == 200


async def test_who_waits_for_a_counter_that_closes_waits_for_any(
    queue: httpx.AsyncClient, unit: str
) -> None:
    await set_counter(queue, unit, 2)
    ticket = await called_at(queue, unit)
    await send(queue, ticket, counter=2)
    assert (await call(queue, unit)).status_code == 204
    await set_counter(queue, unit, 2, "closed")
    assert (await shown(queue, ticket))["for_counter"] is None
    assert (await call(queue, unit)).json()["id"] == ticket["id"]
    events = await announced(queue, unit)
    assert [body["version"] for _, body in events] == [1, 2, 3, 4, 5]


async def test_nobody_is_left_waiting_for_a_counter_that_closes_at_that_moment(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    for _ in range(20):
        await set_counter(queue, unit, 2)
        ticket = await called_at(queue, unit)
        sent, closed = await asyncio.gather(
            send(queue, ticket, counter=2), set_counter(queue, unit, 2, "closed")
        )
        assert closed.status_code == 200
        assert sent.status_code in (200, 409), sent.text
        if sent.status_code == 200:
            assert (await shown(queue, ticket))["for_counter"] is None
            await call(queue, unit)
        await step(queue, ticket, "no-show")


# To a unit ------------------------------------------------------------------------------------


async def test_a_ticket_sent_to_another_unit_ends_and_a_linked_one_waits_there(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Iterator[str]
) -> None:
    here, there = next(units), next(units)
    await set_counter(queue, here)
    await set_counter(queue, there)
    await take(queue, there)
    ticket = await take(queue, here, procedure_codes=[BIRTH], priority_class="elderly", series="B")
    clock.at += seconds(30)
    await call(queue, here)
    await step(queue, ticket, "start")
    clock.at += seconds(90)
    later = await take(queue, there)
    answer = await send(queue, ticket, unit=there)
    assert answer.status_code == 200, answer.text
    old = answer.json()
    new = old.pop("linked_ticket")
    assert set(old) == set(new) == set(TicketOut.model_fields)
    TicketSent.model_validate_json(answer.text)
    assert (old["status"], old["transferred_to"]) == ("transferred", new["id"])
    assert old["ended_at"] == "2026-11-16T08:02:00+07:00"
    assert (new["unit"], new["number"], new["status"]) == (there, "B001", "waiting")
    assert (new["transferred_from"], new["version"]) == (ticket["id"], 1)
    for kept in ("issued_at", "due_at", "priority_class", "channel", "procedure_codes"):
        assert new[kept] == ticket[kept], kept
    assert (new["called_at"], new["wait_seconds"]) == (None, None)
    assert (await shown(queue, later))["position"] == 3
    called = (await call(queue, there)).json()
    assert (called["id"], called["wait_seconds"]) == (new["id"], 120)

    sent = dict(await announced(queue, here))["TicketTransferred"]
    assert (sent["to_unit"], sent["linked_ticket"]) == (there, new["id"])
    assert (sent["counter"], sent["service_seconds"]) == (1, 90)
    issued = [body for type_, body in await announced(queue, there) if body["number"] == "B001"]
    assert issued[0]["transferred_from"] == ticket["id"]
    assert datetime.fromisoformat(issued[0]["at"]) == datetime.fromisoformat(ticket["issued_at"])


async def test_the_series_in_the_other_unit_may_be_said(
    queue: httpx.AsyncClient, units: Iterator[str]
) -> None:
    here, there = next(units), next(units)
    ticket = await take(queue, here)
    sent = (await send(queue, ticket, unit=there, series="C")).json()
    assert (sent["linked_ticket"]["number"], sent["series"]) == ("C001", "A")
    again = await send(queue, ticket, unit=there)
    assert problem(again) == (409, "not-allowed-now")
    assert again.json()["allowed"] == []


async def test_the_target_goes_by_its_old_names_and_its_own_is_no_target(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await take(queue, unit)
    own = await send(queue, ticket, unit=unit)
    assert (own.status_code, fields_of(own)) == (422, {"unit"})
    sent = (await send(queue, ticket, unit="gso:27595")).json()
    assert sent["linked_ticket"]["unit"] == "H29.27595"


@pytest.mark.parametrize(
    ("target", "status", "kind"),
    [
        ("H29.99999", 404, "unknown-unit"),
        ("H29", 409, "unit-not-active"),
        ("gso:27625", 409, "unit-split"),
    ],
)
async def test_a_unit_that_takes_nobody_is_refused_and_nothing_changes(
    queue: httpx.AsyncClient, unit: str, target: str, status: int, kind: str
) -> None:
    ticket = await called_at(queue, unit)
    before = await facts(queue, unit)
    refused = await send(queue, ticket, unit=target)
    assert problem(refused) == (status, kind)
    assert await facts(queue, unit) == before
    assert (await shown(queue, ticket))["status"] == "called"


async def test_a_unit_that_has_closed_or_a_centre_after_hours_is_refused(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Iterator[str]
) -> None:
    here, there = next(units), next(units)
    ticket = await called_at(queue, here)
    clock.at += timedelta(hours=3, minutes=45)
    refused = await send(queue, ticket, unit=there)
    assert problem(refused) == (409, "centre-closed")
    assert refused.json()["next_opening"] == "2026-11-16T13:00:00+07:00"
    clock.at += timedelta(hours=2)
    await close_unit(queue, there)
    refused = await send(queue, ticket, unit=there)
    assert problem(refused) == (409, "unit-not-active")
    assert (await shown(queue, ticket))["status"] == "called"


# Bad input and repeats ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (None, {"body"}),
        ({}, {"series", "counter", "unit"}),
        ({"unit": None}, {"series", "counter", "unit"}),
        ({"series": "b"}, {"series"}),
        ({"series": ""}, {"series"}),
        ({"counter": 0}, {"counter"}),
        ({"counter": 100}, {"counter"}),
        ({"counter": "1"}, {"counter"}),
        ({"unit": "nowhere"}, {"unit"}),
        ({"series": "B", "counter": 1}, {"series", "counter"}),
        ({"unit": "H29.26740", "counter": 1}, {"unit", "counter"}),
        ({"to": "B"}, {"to"}),
    ],
)
async def test_a_transfer_to_no_one_place_is_422(
    queue: httpx.AsyncClient, unit: str, body: dict[str, Any] | None, fields: set[str]
) -> None:
    ticket = await called_at(queue, unit)
    refused = await step(queue, ticket, "transfer", json=body)
    assert (refused.status_code, fields_of(refused)) == (422, fields), refused.text
    assert (await shown(queue, ticket))["version"] == 2


async def test_a_transfer_sent_twice_is_one_also_after_the_other_unit_closed(
    queue: httpx.AsyncClient, clock: FrozenClock, units: Iterator[str]
) -> None:
    here, there = next(units), next(units)
    ticket = await called_at(queue, here)
    headers = keyed("away", officer(here))

    async def away() -> httpx.Response:
        return await step(queue, ticket, "transfer", headers=headers, json={"unit": there})

    answers = await asyncio.gather(*(away() for _ in range(4)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert (await queue.get(f"/v1/units/{there}/queue")).json()["waiting"] == 1
    clock.at += timedelta(hours=4)
    later = await away()
    assert (later.status_code, later.text) == (200, answers[0].text)
    assert later.headers["Idempotent-Replayed"] == "true"


async def test_a_ticket_sent_to_two_units_at_once_goes_to_one(
    queue: httpx.AsyncClient, units: Iterator[str]
) -> None:
    here, left, right = next(units), next(units), next(units)
    for _ in range(10):
        ticket = await called_at(queue, here)
        answers = await asyncio.gather(
            send(queue, ticket, unit=left),
            send(queue, ticket, unit=right),
            step(queue, ticket, "start"),
            step(queue, ticket, "park"),
        )
        assert all(answer.status_code in (200, 409) for answer in answers)
        now = await shown(queue, ticket)
        if now["status"] == "transferred":
            continue
        assert now["status"] in ("parked", "serving")
        assert [answer.status_code for answer in answers[:2]] == [409, 409]
        await send(queue, ticket, unit=left)
    waiting = [
        (await queue.get(f"/v1/units/{unit}/queue")).json()["waiting"] for unit in (left, right)
    ]
    assert sum(waiting) == 10

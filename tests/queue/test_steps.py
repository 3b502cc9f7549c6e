"""What may happen at a counter: recalled, put aside, missed, called out of order, handed back."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.queue.hall import (
    MONDAY,
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
    step,
    take,
)
from tests.support import FrozenClock, bearer, fields_of

REPLAYED = "Idempotent-Replayed"
INTERVAL, GRACE = seconds(15), seconds(600)


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


async def called_at(queue: httpx.AsyncClient, unit: str, number: int = 1) -> dict[str, Any]:
    """Open a counter and call somebody to it who has just come."""
    await set_counter(queue, unit, number)
    await take(queue, unit)
    ticket: dict[str, Any] = (await call(queue, unit, number)).json()
    return ticket


async def out_of_order(
    queue: httpx.AsyncClient, ticket: dict[str, Any], number: int = 1, **more: Any
) -> httpx.Response:
    """Call a ticket to a counter although others wait."""
    wish = {"counter": number, "reason": "sắp ngất"} | more.pop("json", {})
    return await step(queue, ticket, "call", number, json=wish, **more)


async def shown(queue: httpx.AsyncClient, ticket: dict[str, Any]) -> dict[str, Any]:
    """Read a ticket."""
    answer: dict[str, Any] = (await queue.get(f"/v1/tickets/{ticket['id']}")).json()
    return answer


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Give the status and the kind of a refusal."""
    return answer.status_code, answer.json()["type"].removeprefix("urn:motcua:problem:")


# Recall ---------------------------------------------------------------------------------------


async def test_a_recall_calls_once_more_and_keeps_the_wait_of_the_first_call(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    await take(queue, unit)
    clock.at += seconds(60)
    ticket = (await call(queue, unit)).json()
    clock.at += seconds(20)
    again = await step(queue, ticket, "recall")
    assert again.status_code == 200, again.text
    told = again.json()
    assert (told["status"], told["counter"], told["version"]) == ("called", 1, 3)
    assert (told["wait_seconds"], told["called_at"]) == (60, "2026-11-16T08:01:20+07:00")
    events = await announced(queue, unit)
    calls = [body for type_, body in events if type_ == "TicketCalled"]
    assert [(c["first_call"], c.get("recall", False)) for c in calls] == [
        (True, False),
        (False, True),
    ]


async def test_a_recall_too_soon_is_refused_with_when_it_may_be(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    clock.at += INTERVAL - seconds(1)
    before = await facts(queue, unit)
    refused = await step(queue, ticket, "recall")
    assert problem(refused) == (409, "called-too-recently")
    assert refused.json()["not_before"] == "2026-11-16T08:00:15+07:00"
    assert await facts(queue, unit) == before
    clock.at += seconds(1)
    assert (await step(queue, ticket, "recall")).status_code == 200
    assert problem(await step(queue, ticket, "recall")) == (409, "called-too-recently")


async def test_a_clock_that_was_set_back_forbids_no_recall(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    clock.at -= timedelta(hours=1)
    again = (await step(queue, ticket, "recall")).json()
    assert again["called_at"] == "2026-11-16T08:00:00+07:00", "times do not run backwards"
    assert again["wait_seconds"] == 0


async def test_a_paused_counter_calls_again_whom_it_holds_and_nobody_new(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    await set_counter(queue, unit, 1, "paused", reason="máy in hỏng")
    clock.at += INTERVAL
    assert (await step(queue, ticket, "recall")).status_code == 200
    await step(queue, ticket, "no-show")
    other = await take(queue, unit)
    assert problem(await call(queue, unit)) == (409, "counter-not-open")
    assert problem(await out_of_order(queue, other)) == (409, "counter-not-open")
    missed = await step(queue, ticket, "recall")
    assert problem(missed) == (409, "counter-not-open")
    assert missed.json()["allowed"] == ["open"]


# No-show and its grace ------------------------------------------------------------------------


async def test_who_missed_the_call_is_recalled_within_the_grace(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    await step(queue, ticket, "no-show")
    clock.at += GRACE
    again = await step(queue, ticket, "recall")
    assert (again.status_code, again.json()["status"]) == (200, "called")
    assert again.json()["ended_at"] is None
    assert (await step(queue, ticket, "start")).status_code == 200
    assert (await step(queue, ticket, "finish")).status_code == 200


@pytest.mark.parametrize("name", ["recall", "return", "call"])
async def test_after_the_grace_a_no_show_is_over(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, name: str
) -> None:
    ticket = await called_at(queue, unit)
    await step(queue, ticket, "no-show")
    clock.at += GRACE + seconds(1)
    body = {"counter": 1, "reason": "quay lại"} if name == "call" else None
    refused = await step(queue, ticket, name, json=body)
    assert problem(refused) == (409, "not-allowed-now")
    assert (refused.json()["ticket_status"], refused.json()["allowed"]) == ("no_show", [])
    assert (await shown(queue, ticket))["status"] == "no_show"


async def test_who_missed_the_call_of_a_counter_that_is_busy_waits_again_in_the_old_place(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    first = await called_at(queue, unit)
    await step(queue, first, "no-show")
    for _ in range(2):
        clock.at += seconds(10)
        await take(queue, unit)
    held = (await call(queue, unit)).json()
    busy = await step(queue, first, "recall")
    assert problem(busy) == (409, "still-holding")
    assert busy.json()["held"] == held["number"]
    returned = await step(queue, first, "return")
    assert returned.status_code == 200, returned.text
    told = returned.json()
    assert (told["status"], told["counter"], told["ended_at"]) == ("waiting", None, None)
    assert (await shown(queue, first))["position"] == 1
    await step(queue, held, "no-show")
    assert (await call(queue, unit)).json()["id"] == first["id"]


async def test_another_officer_of_the_unit_may_take_who_missed_the_call(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    await step(queue, ticket, "no-show")
    recalled = await step(queue, ticket, "recall", number=2)
    assert (recalled.status_code, recalled.json()["counter"]) == (200, 1)
    stranger = await step(queue, ticket, "start", number=1)
    assert problem(stranger) == (409, "held-elsewhere")
    assert (await step(queue, ticket, "start", number=2)).status_code == 200


# Park and return ------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
async def test_who_is_put_aside_frees_the_counter_and_returns_to_the_old_place(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, started: bool
) -> None:
    ticket = await called_at(queue, unit)
    if started:
        await step(queue, ticket, "start")
    clock.at += seconds(100)
    parked = await step(queue, ticket, "park", json={"counter": 1})
    assert (parked.status_code, parked.json()["status"]) == (200, "parked")
    newcomer = await take(queue, unit)
    assert newcomer["position"] == 1, "nobody waits for who was put aside"
    assert (await call(queue, unit)).json()["id"] == newcomer["id"]
    clock.at += seconds(100)
    last = await take(queue, unit)
    returned = (await step(queue, ticket, "return", number=2)).json()
    assert (returned["status"], returned["issued_at"]) == ("waiting", ticket["issued_at"])
    assert (returned["counter"], returned["started_at"]) == (None, None)
    assert (await shown(queue, last))["position"] == 2
    await step(queue, newcomer, "no-show")
    again = (await call(queue, unit)).json()
    assert (again["id"], again["wait_seconds"]) == (ticket["id"], 0), "the first call counts"
    events = dict(await announced(queue, unit))
    assert events["TicketParked"]["service_seconds"] == (100 if started else 0)
    assert events["TicketReturned"]["cause"] == "parked"
    assert events["TicketCalled"]["first_call"] is False


async def test_who_was_put_aside_may_give_up(queue: httpx.AsyncClient, unit: str) -> None:
    ticket = await called_at(queue, unit)
    await step(queue, ticket, "park")
    gone = await step(queue, ticket, "cancel", headers={"X-Nobody": "1"})
    assert (gone.status_code, gone.json()["cancel_cause"]) == (200, "asked")


# Out of order ---------------------------------------------------------------------------------


async def test_a_call_out_of_order_keeps_and_announces_its_reason(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit, series=["B"])
    await take(queue, unit)
    clock.at += seconds(30)
    urgent = await take(queue, unit)
    called = await out_of_order(queue, urgent, json={"reason": " bà 079123456789 sắp ngất "})
    assert (called.status_code, called.json()["wait_seconds"]) == (200, 0), called.text
    listed = await queue.get(
        f"/v1/units/{unit}/tickets", params={"status": "called"}, headers=officer(unit)
    )
    assert [row["call_reason"] for row in listed.json()["items"]] == ["bà *** sắp ngất"]
    assert "call_reason" not in await shown(queue, urgent)
    events = dict(await announced(queue, unit))
    assert events["TicketCalled"]["reason"] == "bà *** sắp ngất"
    assert events["TicketCalled"]["first_call"] is True


async def test_a_call_out_of_order_without_reason_or_counter_is_refused_field_by_field(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await take(queue, unit)
    for body, fields in (
        ({}, {"counter", "reason"}),
        ({"counter": 100, "reason": " "}, {"counter", "reason"}),
        ({"counter": 0, "reason": "x", "why": "y"}, {"counter", "why"}),
    ):
        refused = await step(queue, ticket, "call", json=body)
        assert (refused.status_code, fields_of(refused)) == (422, fields)
    assert (await step(queue, ticket, "call")).status_code == 422


async def test_a_call_out_of_order_needs_a_counter_and_an_officer_who_are_free(
    queue: httpx.AsyncClient, unit: str
) -> None:
    held = await called_at(queue, unit)
    await set_counter(queue, unit, 2)
    ticket = await take(queue, unit)
    assert problem(await out_of_order(queue, ticket, 1)) == (409, "still-holding")
    wish = {"counter": 2, "reason": "x"}
    officer_busy = await step(queue, ticket, "call", number=1, json=wish)
    assert problem(officer_busy) == (409, "still-holding")
    assert held["number"] in officer_busy.json()["detail"]
    assert problem(await out_of_order(queue, ticket, 9)) == (404, "unknown-counter")
    assert problem(await out_of_order(queue, ticket, 3)) == (409, "counter-not-open")
    assert problem(await out_of_order(queue, held, 2)) == (409, "not-allowed-now")
    assert (await out_of_order(queue, ticket, 2)).status_code == 200


async def test_a_manager_calls_in_an_emergency_for_whoever_sits_at_the_counter(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for number in (1, 2):
        await set_counter(queue, unit, number)
    urgent = [await take(queue, unit) for _ in range(2)]
    for number, ticket in enumerate(urgent, start=1):
        called = await out_of_order(queue, ticket, number, headers=manager(unit))
        assert called.status_code == 200, "a manager holds nobody"
    assert problem(await call(queue, unit, 1)) == (409, "still-holding")
    assert (await step(queue, urgent[0], "start", number=1)).status_code == 200
    busy = await step(queue, urgent[1], "start", number=1)
    assert problem(busy) == (409, "still-holding"), "an officer holds one"
    stranger = await step(queue, urgent[0], "finish", number=2)
    assert problem(stranger) == (409, "held-elsewhere")
    assert (await step(queue, urgent[0], "finish", number=1)).status_code == 200
    assert (await step(queue, urgent[1], "start", number=1)).status_code == 200


async def test_who_was_put_aside_is_called_straight_to_a_counter(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    await step(queue, ticket, "start")
    await step(queue, ticket, "park")
    called = (await out_of_order(queue, ticket)).json()
    assert (called["status"], called["started_at"]) == ("called", None)


# Hand-back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
async def test_what_a_crashed_counter_holds_is_handed_back_by_the_manager(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, started: bool
) -> None:
    ticket = await called_at(queue, unit)
    if started:
        await step(queue, ticket, "start")
    clock.at += seconds(30)
    await take(queue, unit)
    path = f"/v1/units/{unit}/counters/1/hand-back"
    for headers, status in ((officer(unit), 403), (bearer("manager", "H29.26740"), 403), ({}, 401)):
        assert (await queue.post(path, headers=headers)).status_code == status
    headers = keyed("crash", manager(unit))
    freed = await queue.post(path, headers=headers)
    assert (freed.status_code, freed.json()["id"]) == (200, ticket["id"])
    assert (freed.json()["status"], freed.json()["counter"]) == ("waiting", None)
    again = await queue.post(path, headers=headers)
    assert (again.text, again.headers[REPLAYED]) == (freed.text, "true")
    assert problem(await queue.post(path, headers=manager(unit))) == (409, "nothing-held")
    assert (await call(queue, unit)).json()["id"] == ticket["id"], "the first comes first"
    events = dict(await announced(queue, unit))
    assert events["TicketReturned"]["cause"] == "handed_back"


async def test_a_counter_that_does_not_exist_hands_nothing_back(
    queue: httpx.AsyncClient, unit: str
) -> None:
    path = f"/v1/units/{unit}/counters"
    unknown = await queue.post(f"{path}/77/hand-back", headers=manager(unit))
    assert problem(unknown) == (404, "unknown-counter")
    assert (await queue.post(f"{path}/100/hand-back", headers=manager(unit))).status_code == 422


# Slips ----------------------------------------------------------------------------------------


async def test_a_slip_that_came_out_is_noted_once(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    kiosk = bearer("kiosk", unit)
    ticket = await take(queue, unit)
    assert ticket["printed_at"] is None
    path = f"/v1/tickets/{ticket['id']}/printed"
    for _ in range(2):
        printed = await queue.post(path, headers=kiosk)
        assert (printed.status_code, printed.json()["version"]) == (200, 1), printed.text
        assert printed.json()["printed_at"] == "2026-11-16T08:00:00+07:00"
        clock.at += seconds(10)
    assert [type_ for type_, _ in await announced(queue, unit)] == ["TicketIssued"]


async def test_nobody_waits_for_a_ticket_whose_slip_did_not_come_out(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    kiosk = bearer("kiosk", unit)
    ticket = await take(queue, unit)
    clock.at += seconds(1)
    other = await take(queue, unit)
    path = f"/v1/tickets/{ticket['id']}/printed"
    failed = await queue.post(path, headers=kiosk, json={"ok": False, "reason": "hết giấy"})
    assert (failed.json()["status"], failed.json()["cancel_cause"]) == ("cancelled", "print_failed")
    assert (await queue.get(f"/v1/units/{unit}/queue")).json()["waiting"] == 1
    assert (await shown(queue, other))["position"] == 1
    well = await queue.post(path, headers=kiosk)
    assert problem(well) == (409, "not-allowed-now")
    assert well.json()["allowed"] == ["reissue"]
    clock.at += seconds(60)
    again = await queue.post(f"/v1/tickets/{ticket['id']}/reissue", headers=kiosk)
    assert (again.status_code, again.json()["status"]) == (200, "waiting"), again.text
    assert (again.json()["reissues"], again.json()["number"]) == (1, ticket["number"])
    assert (await queue.post(path, headers=kiosk)).status_code == 200
    assert await called_numbers(queue, unit) == [ticket["number"], other["number"]]
    kinds = [type_ for type_, body in await announced(queue, unit) if body["number"] == "A001"]
    assert kinds[:3] == ["TicketIssued", "TicketCancelled", "TicketReissued"]


async def test_a_lost_slip_is_printed_again_for_the_same_place(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await take(queue, unit)
    clock.at += seconds(1)
    await take(queue, unit)
    for count in (1, 2):
        again = await step(queue, ticket, "reissue", headers=bearer("kiosk", unit))
        assert (again.json()["reissues"], again.json()["status"]) == (count, "waiting")
        assert again.json()["due_at"] == ticket["due_at"]
    assert (await shown(queue, ticket))["position"] == 1


async def test_a_ticket_of_a_day_that_is_over_is_not_reissued(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    ticket = await take(queue, unit)
    await step(queue, ticket, "printed", json={"ok": False})
    clock.at += timedelta(days=1)
    assert problem(await step(queue, ticket, "reissue")) == (409, "day-over")


async def test_a_ticket_that_was_given_up_is_not_reissued(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await take(queue, unit)
    await step(queue, ticket, "cancel")
    refused = await step(queue, ticket, "reissue")
    assert problem(refused) == (409, "not-allowed-now")
    assert refused.json()["allowed"] == []


async def test_only_who_has_a_printer_says_what_became_of_a_slip(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await take(queue, unit)
    for name in ("printed", "reissue"):
        for role, status in (("kiosk", 200), ("officer", 200), ("manager", 200), ("portal", 403)):
            answer = await step(queue, ticket, name, headers=bearer(role, unit))
            assert answer.status_code == status, (name, role, answer.text)
        assert (await step(queue, ticket, name, headers={"X-Nobody": "1"})).status_code == 401
        elsewhere = await step(queue, ticket, name, headers=bearer("kiosk", "H29.26740"))
        assert problem(elsewhere) == (403, "not-your-unit")


# Who may --------------------------------------------------------------------------------------

_OF_OFFICERS = ("recall", "park", "return", "call", "transfer")
_BODIES = {"call": {"counter": 1, "reason": "x"}, "transfer": {"series": "B"}}


@pytest.mark.parametrize("name", _OF_OFFICERS)
async def test_steps_at_counters_are_for_officers_and_managers_of_the_unit(
    queue: httpx.AsyncClient, unit: str, name: str
) -> None:
    ticket = await called_at(queue, unit)
    for role, status in (
        ("nobody", 401), ("kiosk", 403), ("portal", 403), ("city", 403), ("ops", 403),
    ):  # fmt: skip
        headers = {"X-Nobody": "1"} if role == "nobody" else bearer(role, unit)
        answer = await step(queue, ticket, name, headers=headers, json=_BODIES.get(name))
        assert answer.status_code == status, (role, answer.text)
    for role in ("officer", "manager"):
        headers = bearer(role, "H29.26740")
        answer = await step(queue, ticket, name, headers=headers, json=_BODIES.get(name))
        assert problem(answer) == (403, "not-your-unit")
    assert (await shown(queue, ticket))["version"] == 2


async def test_only_who_holds_a_ticket_puts_it_aside_or_sends_it_on(
    queue: httpx.AsyncClient, unit: str
) -> None:
    ticket = await called_at(queue, unit)
    for name in ("park", "transfer", "recall"):
        stranger = await step(queue, ticket, name, number=2, json=_BODIES.get(name))
        assert problem(stranger) == (409, "held-elsewhere"), name
    assert (await step(queue, ticket, "park", json={"counter": 2})).status_code == 409
    assert (await step(queue, ticket, "park", headers=manager(unit))).status_code == 200


# Keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["recall", "park", "return", "call", "transfer", "printed", "failed", "reissue"]
)
async def test_a_step_sent_twice_has_one_effect_and_one_answer(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, name: str
) -> None:
    await set_counter(queue, unit)
    ticket = await take(queue, unit)
    if name in ("recall", "park", "return", "transfer"):
        await call(queue, unit)
        clock.at += INTERVAL
    if name == "return":
        await step(queue, ticket, "park")
    body = {"failed": {"ok": False}, **_BODIES}.get(name)
    path = "printed" if name == "failed" else name
    headers = keyed("once", officer(unit))
    first = await step(queue, ticket, path, headers=headers, json=body)
    assert first.status_code == 200, first.text
    after = await facts(queue, unit)
    for _ in range(2):
        again = await step(queue, ticket, path, headers=headers, json=body)
        assert (again.status_code, again.text) == (200, first.text)
        assert again.headers[REPLAYED] == "true"
    assert await facts(queue, unit) == after


async def test_times_never_run_backwards_whatever_the_clock_does(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """Every step with a clock that is set back before it: no wait, sitting or end is negative."""
    ticket = await called_at(queue, unit)
    for name, body in (
        ("recall", None),
        ("park", None),
        ("return", None),
        ("call", {"counter": 1, "reason": "x"}),
        ("start", None),
        ("transfer", {"series": "B"}),
        ("call", {"counter": 1, "reason": "x"}),
        ("no-show", None),
        ("recall", None),
        ("start", None),
        ("finish", None),
    ):
        clock.at -= timedelta(minutes=5)
        moved = await step(queue, ticket, name, json=body)
        assert moved.status_code == 200, (name, moved.text)
    told = await shown(queue, ticket)
    order = [told[name] for name in ("issued_at", "called_at", "started_at", "ended_at")]
    assert order == sorted(order)
    assert told["wait_seconds"] == 0
    for type_, event in await announced(queue, unit):
        assert event["at"] >= "2026-11-16T08:00:00", type_
        assert event.get("wait_seconds", 0) >= 0, type_
        assert event.get("service_seconds", 0) >= 0, type_
    assert clock.at < MONDAY
    assert core_of(queue).clock.now() == clock.at

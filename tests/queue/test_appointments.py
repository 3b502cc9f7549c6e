"""Appointments over HTTP: booked once per place, checked in once and in time, given up, missed."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from libs.contracts.queue import (
    AppointmentBooked,
    AppointmentCancelled,
    AppointmentCheckedIn,
    AppointmentMissed,
)
from libs.contracts.registry import CalendarDayChanged
from services.queue.api.appointments import AppointmentOut, AppointmentShown
from services.queue.api.tickets import TicketAhead
from services.queue.domain.appointments import release_missed
from services.queue.domain.booking import CODE_LETTERS
from tests.queue.hall import (
    announced,
    called_numbers,
    core_of,
    eventually,
    keyed,
    manager,
    officer,
    seconds,
    set_counter,
    take,
)
from tests.queue.visits import (
    APPOINTMENTS,
    at,
    book,
    booked,
    cancel,
    check_in,
    free_at,
    kiosk,
    listed,
    slots_that_do_not_add_up,
)
from tests.support import FrozenClock, bearer, fields_of

BIRTH = "1.001193"
DRIVING_LICENCE = "3.000347"
NINE = "2026-11-17T09:00:00"


@pytest.fixture(autouse=True)
def _monday_morning(clock: FrozenClock) -> None:
    """Begin every test at the same time."""


# Booking ------------------------------------------------------------------------------------------


async def test_a_citizen_books_without_saying_who_they_are(
    queue: httpx.AsyncClient, unit: str
) -> None:
    made = await booked(queue, unit, procedure_codes=[BIRTH])
    assert set(made) == set(AppointmentOut.model_fields)
    AppointmentOut.model_validate(made)
    assert (made["unit"], made["status"], made["channel"]) == (unit, "booked", "web")
    assert (made["starts_at"], made["ends_at"]) == (f"{NINE}+07:00", "2026-11-17T09:30:00+07:00")
    assert made["check_in_from"] == "2026-11-17T08:45:00+07:00"
    assert made["check_in_until"] == "2026-11-17T09:15:00+07:00"
    assert made["procedure_codes"] == [BIRTH]
    assert len(made["code"]) == 6
    assert set(made["code"]) <= set(CODE_LETTERS)
    shown = (await queue.get(f"/v1/appointments/{made['id']}")).json()
    assert shown == made | {"ticket_number": None, "ticket_status": None}
    refused = await book(queue, unit, name="Trần Thị Bình", phone="0903123456")
    assert (refused.status_code, fields_of(refused)) == (422, {"name", "phone"})


async def test_the_start_may_be_written_with_any_offset(
    queue: httpx.AsyncClient, unit: str
) -> None:
    answer = await queue.post(
        "/v1/appointments", json={"unit": unit, "starts_at": "2026-11-17T02:00:00Z"}
    )
    assert answer.json()["starts_at"] == f"{NINE}+07:00"


async def test_a_slot_takes_as_many_as_it_has_places_and_a_cancelled_one_is_free_again(
    queue: httpx.AsyncClient, unit: str
) -> None:
    assert await free_at(queue, unit) == 3
    mine = [await booked(queue, unit) for _ in range(3)]
    assert await free_at(queue, unit) == 0
    full = await book(queue, unit)
    assert (full.status_code, full.json()["type"]) == (409, "urn:motcua:problem:slot-full")
    assert f"date={NINE[:10]}" in full.json()["detail"]
    assert (await book(queue, unit, "2026-11-17T09:30:00")).status_code == 201
    gone = await cancel(queue, mine[0])
    assert (gone.status_code, gone.json()["status"]) == (200, "cancelled")
    assert await free_at(queue, unit) == 1
    assert (await book(queue, unit)).status_code == 201
    assert (await book(queue, unit)).status_code == 409
    assert await slots_that_do_not_add_up(queue) == []


async def test_citizens_without_credentials_leave_a_place_for_those_who_telephone(
    queue: httpx.AsyncClient, unit: str
) -> None:
    for _ in range(3):
        await booked(queue, unit)
    assert (await book(queue, unit)).status_code == 409
    assert await free_at(queue, unit, headers=officer(unit)) == 1
    by_telephone = await booked(queue, unit, headers=officer(unit))
    assert by_telephone["channel"] == "counter"
    assert (await book(queue, unit, headers=officer(unit))).status_code == 409


@pytest.mark.parametrize(
    ("starts_at", "status", "says"),
    [
        ("2026-11-16T07:30:00", 422, "has passed"),
        ("2026-11-16T08:00:00", 422, "has passed"),
        ("2026-12-01T09:00:00", 422, "until 2026-11-30"),
        ("2026-11-17T09:10:00", 409, "none begins at 2026-11-17T09:10"),
        ("2026-11-17T09:00:01", 409, "none begins at"),
        ("2026-11-17T12:00:00", 409, "opens at 2026-11-17T13:00"),
        ("2026-11-17T17:00:00", 409, "opens at 2026-11-18T07:30"),
        ("2026-11-21T09:00:00", 409, "opens at 2026-11-23T07:30"),
    ],
)
async def test_a_time_that_is_no_slot_is_refused_and_says_why(
    queue: httpx.AsyncClient, unit: str, starts_at: str, status: int, says: str
) -> None:
    answer = await book(queue, unit, starts_at)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]
    if status == 422:
        assert fields_of(answer) == {"starts_at"}
    if "none begins" in says:
        assert answer.json()["slots"][0] == "2026-11-17T07:30:00+07:00"
        assert len(answer.json()["slots"]) == 16


@pytest.mark.parametrize(
    "starts_at",
    ["2026-11-17T09:00:00", "2026-11-17", "tomorrow", 1763345000, "1763345000", None,
     "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+07:00", "2026-02-30T09:00:00+07:00"],
)  # fmt: skip
async def test_what_is_no_instant_is_422(
    queue: httpx.AsyncClient, unit: str, starts_at: object
) -> None:
    answer = await queue.post("/v1/appointments", json={"unit": unit, "starts_at": starts_at})
    assert (answer.status_code, fields_of(answer)) == (422, {"starts_at"})


async def test_a_procedure_that_the_centre_does_not_offer_is_refused(
    queue: httpx.AsyncClient, unit: str
) -> None:
    answer = await book(queue, unit, procedure_codes=[BIRTH, "1.999998"])
    assert (answer.status_code, fields_of(answer)) == (422, {"procedure_codes.1"})
    refused = await book(queue, unit, procedure_codes=[DRIVING_LICENCE])
    assert refused.json()["type"] == "urn:motcua:problem:procedure-not-offered"
    assert (await book(queue, "H29.99999")).status_code == 404
    assert (await book(queue, "H29")).status_code == 409


@pytest.mark.parametrize(
    ("role", "here", "elsewhere"),
    [("kiosk", 201, 403), ("officer", 201, 403), ("manager", 201, 403), ("portal", 201, 201),
     ("city", 403, 403), ("ops", 403, 403)],
)  # fmt: skip
async def test_who_may_book_check_in_and_cancel(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, role: str, here: int, elsewhere: int
) -> None:
    for units, status in (((unit,), here), (("H29.26740",), elsewhere)):
        headers = bearer(role, *units)
        assert (await book(queue, unit, headers=headers)).status_code == status
        mine = await booked(queue, unit, "2026-11-17T10:00:00", headers=officer(unit))
        other = await booked(queue, unit, "2026-11-17T10:00:00", headers=officer(unit))
        clock.at = at("2026-11-17T10:00:00")
        answer = await check_in(queue, mine, headers=headers)
        assert answer.status_code == status, answer.text
        gone = await cancel(queue, other, headers=headers)
        assert gone.status_code == (200 if status == 201 else status)
        clock.at -= timedelta(days=1)


# What is seen -------------------------------------------------------------------------------------


async def test_everybody_sees_free_slots_and_only_the_staff_who_is_expected(
    queue: httpx.AsyncClient, unit: str
) -> None:
    made = await booked(queue, unit, procedure_codes=[BIRTH])
    for nobody in (
        {},
        bearer("officer", "H29.26740"),
        kiosk(unit),
        bearer("portal"),
        bearer("city"),
    ):
        slots = await listed(queue, unit, NINE[:10], nobody)
        assert len(slots) == 16
        assert {slot["appointments"] is None and slot["capacity"] is None for slot in slots} == {
            True
        }
    for staff in (officer(unit), manager(unit)):
        slots = await listed(queue, unit, NINE[:10], staff)
        [slot] = [slot for slot in slots if slot["appointments"]]
        assert (slot["starts_at"], slot["free"], slot["capacity"]) == (f"{NINE}+07:00", 3, 4)
        [seen] = slot["appointments"]
        AppointmentShown.model_validate(seen)
        assert (seen["id"], seen["code"]) == (made["id"], made["code"])


async def test_the_day_is_today_and_what_has_begun_is_no_longer_offered(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    clock.at = at("2026-11-16T10:00:00")
    answer = (await queue.get("/v1/appointments", params={"unit": unit})).json()
    assert (answer["unit"], answer["date"]) == (unit, "2026-11-16")
    assert (answer["last_day"], answer["next_cursor"]) == ("2026-11-30", None)
    assert answer["items"][0]["starts_at"] == "2026-11-16T10:30:00+07:00"
    whole = await listed(queue, unit, headers=officer(unit))
    assert whole[0]["starts_at"] == "2026-11-16T07:30:00+07:00"
    assert whole[0]["free"] == 0
    assert await listed(queue, unit, "2026-11-15") == []
    assert await listed(queue, unit, "2026-12-01") == []
    assert len(await listed(queue, unit, "2026-11-30")) == 16


async def test_the_code_finds_the_appointment_at_its_own_centre(
    queue: httpx.AsyncClient, unit: str
) -> None:
    made = await booked(queue, unit)
    path = f"/v1/appointments/codes/{unit}/{made['code']}"
    for headers in (kiosk(unit), officer(unit), manager(unit)):
        found = await queue.get(path.lower().replace(unit.lower(), unit), headers=headers)
        assert found.json()["id"] == made["id"], found.text
    assert (await queue.get(path)).status_code == 401
    assert (await queue.get(path, headers=bearer("portal"))).status_code == 403
    assert (await queue.get(path, headers=kiosk("H29.26740"))).status_code == 403
    unknown = await queue.get(f"/v1/appointments/codes/{unit}/222222", headers=kiosk(unit))
    assert unknown.status_code == 404
    nonsense = await queue.get(f"/v1/appointments/codes/{unit}/1", headers=kiosk(unit))
    assert (nonsense.status_code, fields_of(nonsense)) == (422, {"code"})


@pytest.mark.parametrize(
    ("params", "fields"),
    [({}, {"unit"}), ({"unit": "x"}, {"unit"}), ({"date": "2026-11-31"}, {"unit", "date"}),
     *(({"unit": "H29.26740", "date": day}, {"date"})
       for day in ("0001-01-01", "9999-12-31", "2025-11-14", "2027-11-18", "today"))],
)  # fmt: skip
async def test_a_day_that_is_none_is_422(
    queue: httpx.AsyncClient, params: dict[str, str], fields: set[str]
) -> None:
    for headers in ({}, manager("H29.26740")):
        answer = await queue.get("/v1/appointments", params=params, headers=headers)
        assert (answer.status_code, fields_of(answer)) == (422, fields)


# Checking in --------------------------------------------------------------------------------------


async def test_a_check_in_is_a_ticket_with_the_appointments_head_start(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    await set_counter(queue, unit)
    made = await booked(queue, unit, procedure_codes=[BIRTH])
    clock.at = at("2026-11-17T08:50:00")
    walked_in = await take(queue, unit)
    clock.at += seconds(60)
    answer = await check_in(queue, made, headers=kiosk(unit))
    assert answer.status_code == 201, answer.text
    ticket = answer.json()
    assert set(ticket) == set(TicketAhead.model_fields)
    assert (ticket["priority_class"], ticket["channel"]) == ("appointment", "kiosk")
    assert (ticket["number"], ticket["position"]) == ("A002", 1)
    assert ticket["issued_at"] == "2026-11-17T08:51:00+07:00"
    assert ticket["due_at"] == "2026-11-17T08:56:00+07:00"
    assert ticket["procedure_codes"] == [BIRTH]
    shown = (await queue.get(f"/v1/appointments/{made['id']}")).json()
    assert (shown["status"], shown["ticket_id"]) == ("checked_in", ticket["id"])
    assert (shown["ticket_number"], shown["ticket_status"]) == ("A002", "waiting")
    assert await called_numbers(queue, unit) == ["A002", walked_in["number"]]


async def test_an_appointment_is_checked_in_once(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    made = await booked(queue, unit)
    clock.at = at(NINE)
    key = uuid4()
    first = await check_in(queue, made, key=key)
    assert first.status_code == 201
    again = await check_in(queue, made, key=key)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    second = await check_in(queue, made)
    assert (second.status_code, second.json()["ticket_number"]) == (409, "A001")
    assert second.json()["ticket_id"] == first.json()["id"]
    assert "A001" in second.json()["detail"]
    too_late = await cancel(queue, made)
    assert (too_late.status_code, too_late.json()["ticket_number"]) == (409, "A001")
    other_body = await queue.post(f"/v1/appointments/{made['id']}/check-in?x=1", headers=keyed(key))
    assert (other_body.status_code, fields_of(other_body)) == (422, {"Idempotency-Key"})
    events = [type_ for type_, _ in await announced(queue, unit)]
    assert events == ["TicketIssued"]


@pytest.mark.parametrize("keyed_alike", [True, False])
async def test_twins_check_in_to_one_ticket(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, keyed_alike: bool
) -> None:
    made = await booked(queue, unit)
    clock.at = at(NINE)
    keys = [uuid4()] * 5 if keyed_alike else [uuid4() for _ in range(5)]
    answers = await asyncio.gather(*(check_in(queue, made, key=key) for key in keys))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == ([201] * 5 if keyed_alike else [201, 409, 409, 409, 409])
    numbers = {answer.json().get("number") or answer.json()["ticket_number"] for answer in answers}
    assert numbers == {"A001"}
    count = "SELECT count(*) FROM tickets WHERE unit = $1"
    assert await core_of(queue).db.hot.fetchval(count, unit) == 1


@pytest.mark.parametrize(
    ("when", "status", "says"),
    [
        ("2026-11-16T09:00:00", 409, "from 2026-11-17T08:45:00+07:00 until 2026-11-17T09:15"),
        ("2026-11-17T08:44:59", 409, "from 2026-11-17T08:45:00+07:00"),
        ("2026-11-17T08:45:00", 201, ""),
        ("2026-11-17T09:15:00", 201, ""),
        ("2026-11-17T09:15:00.000001", 409, "until 2026-11-17T09:15:00+07:00; take a ticket"),
        ("2026-11-18T09:00:00", 409, "take a ticket"),
    ],
)
async def test_an_appointment_is_checked_in_in_time_or_told_when(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str, when: str, status: int, says: str
) -> None:
    made = await booked(queue, unit)
    clock.at = at(when)
    answer = await check_in(queue, made)
    assert answer.status_code == status, answer.text
    if says:
        assert says in answer.json()["detail"]
        assert answer.json()["check_in_until"] == "2026-11-17T09:15:00+07:00"


async def test_the_first_slot_is_checked_in_when_the_door_opens(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    made = await booked(queue, unit, "2026-11-17T13:00:00")
    assert made["check_in_from"] == "2026-11-17T13:00:00+07:00"
    clock.at = at("2026-11-17T12:59:59")
    early = await check_in(queue, made)
    assert early.json()["check_in_from"] == "2026-11-17T13:00:00+07:00"
    clock.at = at("2026-11-17T13:00:00")
    assert (await check_in(queue, made)).status_code == 201


async def test_what_is_no_appointment_is_404_and_what_is_no_id_422(
    queue: httpx.AsyncClient,
) -> None:
    for name in ("check-in", "cancel"):
        assert (await queue.post(f"/v1/appointments/{uuid4()}/{name}")).status_code == 404
        assert (await queue.post(f"/v1/appointments/7/{name}")).status_code == 422
        path = f"/v1/appointments/{uuid4()}/{name}"
        extra = await queue.post(path, json={"reason": "no time"})
        assert (extra.status_code, fields_of(extra)) == (422, {"reason"})
    assert (await queue.get(f"/v1/appointments/{uuid4()}")).status_code == 404


# Given up and missed ------------------------------------------------------------------------------


async def test_an_appointment_is_given_up_once(queue: httpx.AsyncClient, unit: str) -> None:
    made = await booked(queue, unit)
    key = uuid4()
    first = await cancel(queue, made, key=key)
    again = await cancel(queue, made, key=key)
    assert (again.status_code, again.content) == (200, first.content)
    second = await cancel(queue, made)
    assert (second.status_code, second.json()["appointment_status"]) == (409, "cancelled")
    assert (await check_in(queue, made)).status_code == 409
    assert await free_at(queue, unit) == 3
    assert await slots_that_do_not_add_up(queue) == []


async def test_who_does_not_come_in_time_is_missed_and_the_place_released(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    pool = core_of(queue).db.hot
    made = [await booked(queue, unit) for _ in range(3)]
    clock.at = at("2026-11-17T09:15:00")
    assert (await check_in(queue, made[0])).status_code == 201
    await release_missed(pool, clock.at)
    clock.at += seconds(1)
    late = (await queue.get(f"/v1/appointments/{made[1]['id']}")).json()
    assert late["status"] == "missed", "also before anybody wrote it down"
    assert (await cancel(queue, made[1])).status_code == 409

    async def written_down() -> bool:
        # The queue's own round may be the one that does it.
        released = await asyncio.gather(*(release_missed(pool, clock.at) for _ in range(4)))
        assert sum(count > 0 for count in released) <= 1
        missed = "SELECT count(*) FROM appointments WHERE unit = $1 AND status = 'missed'"
        return bool(await pool.fetchval(missed, unit) == 2)

    assert await eventually(written_down)
    statuses = [(await queue.get(f"/v1/appointments/{one['id']}")).json()["status"] for one in made]
    assert statuses == ["checked_in", "missed", "missed"]
    assert (await check_in(queue, made[2])).json()["appointment_status"] == "missed"
    held = "SELECT booked FROM appointment_slots WHERE unit = $1"
    assert await pool.fetchval(held, unit) == 1
    assert await slots_that_do_not_add_up(queue) == []


async def test_each_step_is_announced_once_and_says_nothing_personal(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    came = await booked(queue, unit, procedure_codes=[BIRTH])
    gone = await booked(queue, unit)
    missed = await booked(queue, unit)
    await cancel(queue, gone)
    clock.at = at(NINE)
    ticket = (await check_in(queue, came)).json()
    clock.at = at("2026-11-17T10:00:00")

    async def all_told() -> list[Any]:
        await release_missed(core_of(queue).db.hot, clock.at)
        told = await announced(queue, unit, APPOINTMENTS)
        return told if len(told) == 6 else []

    events = await eventually(all_told)
    told = [(type_, body["appointment_id"], body["version"]) for type_, body in events]
    assert told == [
        ("AppointmentBooked", came["id"], 1),
        ("AppointmentBooked", gone["id"], 1),
        ("AppointmentBooked", missed["id"], 1),
        ("AppointmentCancelled", gone["id"], 2),
        ("AppointmentCheckedIn", came["id"], 2),
        ("AppointmentMissed", missed["id"], 2),
    ]
    kinds: dict[str, Any] = {
        kind.__name__: kind
        for kind in (
            AppointmentBooked, AppointmentCancelled, AppointmentCheckedIn, AppointmentMissed
        )
    }  # fmt: skip
    for type_, body in events:
        assert set(body) == set(kinds[type_].model_fields)
        event = kinds[type_].model_validate(body)
        assert (event.unit, event.starts_at) == (unit, at(NINE))
    assert events[4][1]["ticket_id"] == ticket["id"]
    assert events[5][1]["at"] == "2026-11-17T09:15:00+07:00", "missed when the time was over"
    assert not any(came["code"] in str(body) for _, body in events)


# A centre's own rules -----------------------------------------------------------------------------


async def test_a_manager_gives_the_centre_rules_of_its_own(
    queue: httpx.AsyncClient, unit: str
) -> None:
    path = f"/v1/appointments/rules/{unit}"
    usual = (await queue.get(path)).json()
    assert usual == {
        "unit": unit, "slot_minutes": 30, "capacity": 4, "web_capacity": 3, "days_ahead": 14,
        "check_in_early_minutes": 15, "check_in_late_minutes": 15,
    }  # fmt: skip
    own = {"slot_minutes": 60, "capacity": 2, "days_ahead": 1}
    changed = await queue.put(path, json=own, headers=manager(unit))
    assert changed.json() == usual | own | {"web_capacity": 1}
    assert (await queue.get(path)).json() == changed.json()
    assert len(await listed(queue, unit, NINE[:10])) == 8
    assert await listed(queue, unit, "2026-11-18") == []
    assert (await book(queue, unit, "2026-11-18T08:00:00")).status_code == 422
    none = await queue.put(path, json={"capacity": 0}, headers=manager(unit))
    assert none.json() == usual | {"capacity": 0, "web_capacity": 0}
    refused = await book(queue, unit)
    assert refused.json()["type"] == "urn:motcua:problem:no-appointments"
    assert await listed(queue, unit, NINE[:10]) == []
    back = await queue.put(path, json={}, headers=bearer("city"))
    assert back.json() == usual
    for headers, status in (({}, 401), (officer(unit), 403), (manager("H29.26740"), 403)):
        assert (await queue.put(path, json={}, headers=headers)).status_code == status
    bad = {"slot_minutes": 5, "capacity": -1, "days_ahead": 91}
    answer = await queue.put(path, json=bad, headers=manager(unit))
    assert (answer.status_code, fields_of(answer)) == (422, set(bad))


async def test_whoever_is_booked_keeps_the_time_when_the_rules_change(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """And those who were promised a time that overlaps count against the new slots."""
    path = f"/v1/appointments/rules/{unit}"
    made = [await booked(queue, unit, "2026-11-17T08:00:00") for _ in range(3)]
    await queue.put(path, json={"slot_minutes": 15, "capacity": 4}, headers=manager(unit))
    for start, free in (("07:45", 3), ("08:00", 0), ("08:15", 0), ("08:30", 3)):
        assert await free_at(queue, unit, f"2026-11-17T{start}:00") == free, start
        status = 201 if free else 409
        assert (await book(queue, unit, f"2026-11-17T{start}:00")).status_code == status
    await cancel(queue, made[0])
    assert (await book(queue, unit, "2026-11-17T08:15:00")).status_code == 201
    assert (await book(queue, unit, "2026-11-17T08:15:00")).status_code == 409
    await queue.put(path, json={"capacity": 1}, headers=manager(unit))
    assert (await book(queue, unit, "2026-11-17T08:00:00")).status_code == 409
    clock.at = at("2026-11-17T08:00:00")
    assert (await check_in(queue, made[1])).status_code == 201
    assert (await cancel(queue, made[2])).status_code == 200
    assert await slots_that_do_not_add_up(queue) == []


async def test_a_day_that_is_declared_off_is_offered_no_longer_and_its_staff_sees_who_was_booked(
    queue: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    made = await booked(queue, unit, "2026-11-18T09:00:00")
    directory = queue.state["directory"]  # type: ignore[attr-defined]
    off = CalendarDayChanged(day=at("2026-11-18T00:00:00").date(), version=99, kind="off",
                             decision="9/QĐ")  # fmt: skip
    directory._put_day(off)
    try:
        assert await listed(queue, unit, "2026-11-18") == []
        [slot] = await listed(queue, unit, "2026-11-18", officer(unit))
        assert (slot["free"], slot["appointments"][0]["id"]) == (0, made["id"])
        assert (await book(queue, unit, "2026-11-18T09:00:00")).status_code == 409
        clock.at = at("2026-11-18T09:00:00")
        closed = await check_in(queue, made)
        assert closed.json()["next_opening"] == "2026-11-19T07:30:00+07:00"
    finally:
        directory._put_day(off.model_copy(update={"version": 100, "kind": None}))


# All at once --------------------------------------------------------------------------------------


async def test_a_hundred_who_want_four_places_get_four(queue: httpx.AsyncClient, unit: str) -> None:
    headers = officer(unit)
    answers = await asyncio.gather(*(book(queue, unit, headers=headers) for _ in range(100)))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(201), statuses.count(409)) == (4, 96)
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 201}
    assert len(codes) == 4
    assert await slots_that_do_not_add_up(queue) == []


async def test_through_a_crowded_morning_every_place_is_one_persons_and_every_ticket_one_visit(
    queue: httpx.AsyncClient, replica: httpx.AsyncClient, clock: FrozenClock, unit: str
) -> None:
    """People book, cancel and check in at two replicas at once while time goes by."""
    dice = random.Random(20261116)  # noqa: S311  (the same morning each time)
    pool = core_of(queue).db.hot
    path = f"/v1/appointments/rules/{unit}"
    await queue.put(path, json={"slot_minutes": 10, "capacity": 3}, headers=manager(unit))
    told: dict[str, str] = {}
    seen: Counter[str] = Counter()

    async def act() -> None:
        where = dice.choice((queue, replica))
        key = uuid4() if dice.random() < 0.5 else None
        open_ones = [name for name, status in told.items() if status == "booked"]
        step = dice.choice(("book", "book", "check-in", "cancel")) if open_ones else "book"
        if step == "book":
            start = dice.randint(0, 11)
            headers = keyed(key, officer(unit)) if key else officer(unit)
            time = f"2026-11-17T{8 + start // 6:02}:{start % 6}0:00"
            answer = await book(where, unit, time, headers=headers)
            if answer.status_code == 201:
                told[answer.json()["id"]] = "booked"
        else:
            some = {"id": dice.choice(open_ones)}
            answer = await {"check-in": check_in, "cancel": cancel}[step](where, some, key=key)
            if answer.is_success:
                told[some["id"]] = "checked_in" if step == "check-in" else "cancelled"
        assert answer.status_code in (200, 201, 409, 422), answer.text
        seen[f"{step} {answer.status_code}"] += 1

    clock.at = at("2026-11-17T07:50:00")
    for _ in range(14):
        await asyncio.gather(*(act() for _ in range(24)), release_missed(pool, clock.at))
        clock.at += timedelta(minutes=5)
    assert {"book 201", "book 409", "check-in 201", "check-in 409", "cancel 200"} <= set(seen)
    clock.at += timedelta(hours=2)

    async def all_over() -> bool:
        await release_missed(pool, clock.at)
        left = "SELECT EXISTS (SELECT FROM appointments WHERE unit = $1 AND status = 'booked')"
        return not await pool.fetchval(left, unit)

    assert await eventually(all_over)
    assert await slots_that_do_not_add_up(queue) == []
    rows = await pool.fetch("SELECT id, status, ticket_id FROM appointments WHERE unit = $1", unit)
    ended = {str(row["id"]): row["status"] for row in rows}
    assert ended == {name: "missed" if was == "booked" else was for name, was in told.items()}
    assert "missed" in ended.values()
    tickets = await pool.fetch("SELECT id, sequence FROM tickets WHERE unit = $1", unit)
    assert {row["id"] for row in tickets} == {row["ticket_id"] for row in rows} - {None}
    assert sorted(row["sequence"] for row in tickets) == list(range(1, len(tickets) + 1))
    full = "SELECT max(booked) <= 3 AND min(booked) >= 0 FROM appointment_slots WHERE unit = $1"
    assert await pool.fetchval(full, unit)
    steps: dict[str, list[str]] = {}
    for type_, body in await announced(queue, unit, APPOINTMENTS):
        steps.setdefault(body["appointment_id"], []).append(type_)
        assert body["version"] == len(steps[body["appointment_id"]])
    names = {"checked_in": "CheckedIn", "cancelled": "Cancelled", "missed": "Missed"}
    assert steps == {
        name: ["AppointmentBooked", f"Appointment{names[status]}"] for name, status in ended.items()
    }


async def test_a_repeated_booking_is_one_booking(queue: httpx.AsyncClient, unit: str) -> None:
    key = keyed(uuid4())
    answers = await asyncio.gather(*(book(queue, unit, headers=key) for _ in range(6)))
    assert {(answer.status_code, answer.content) for answer in answers} == {
        (201, answers[0].content)
    }
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert await free_at(queue, unit) == 2
    while (await book(queue, unit)).status_code == 201:
        pass
    assert (await book(queue, unit, headers=key)).content == answers[0].content
    other = await book(queue, unit, "2026-11-17T10:00:00", headers=key)
    assert (other.status_code, fields_of(other)) == (422, {"Idempotency-Key"})

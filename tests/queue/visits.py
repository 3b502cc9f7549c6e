"""What the tests of appointments and kiosks share: bookings, kiosks, and what is stored of them."""

from datetime import datetime
from functools import cache
from typing import Any

import httpx

from tests.queue.hall import core_of, keyed
from tests.support import bearer

APPOINTMENTS = "queue.appointments.v1"


def at(text: str) -> datetime:
    """Read a local time."""
    return datetime.fromisoformat(f"{text}+07:00")


@cache
def kiosk(unit: str, name: str = "kiosk-1") -> dict[str, str]:
    """Show the token of a kiosk."""
    return bearer("kiosk", unit, subject=name)


# Appointments -------------------------------------------------------------------------------------


async def book(
    queue: httpx.AsyncClient,
    unit: str,
    starts_at: str = "2026-11-17T09:00:00",
    *,
    headers: dict[str, str] | None = None,
    **wish: Any,
) -> httpx.Response:
    """Book a slot, as a citizen unless headers say otherwise."""
    body = {"unit": unit, "starts_at": f"{starts_at}+07:00"} | wish
    return await queue.post("/v1/appointments", json=body, headers=headers)


async def booked(queue: httpx.AsyncClient, unit: str, *args: Any, **more: Any) -> dict[str, Any]:
    """Book a slot that is free."""
    answer = await book(queue, unit, *args, **more)
    assert answer.status_code == 201, answer.text
    appointment: dict[str, Any] = answer.json()
    return appointment


async def check_in(
    queue: httpx.AsyncClient,
    appointment: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    key: object = None,
) -> httpx.Response:
    """Check an appointment in, as its holder unless headers say otherwise."""
    path = f"/v1/appointments/{appointment['id']}/check-in"
    return await queue.post(path, headers=keyed(key, headers) if key else headers)


async def cancel(
    queue: httpx.AsyncClient,
    appointment: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    key: object = None,
) -> httpx.Response:
    """Give an appointment up."""
    path = f"/v1/appointments/{appointment['id']}/cancel"
    return await queue.post(path, headers=keyed(key, headers) if key else headers)


async def listed(
    queue: httpx.AsyncClient,
    unit: str,
    date: str | None = None,
    headers: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """List the slots of a day."""
    params = {"unit": unit} | ({"date": date} if date else {})
    answer = await queue.get("/v1/appointments", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def free_at(
    queue: httpx.AsyncClient,
    unit: str,
    starts_at: str = "2026-11-17T09:00:00",
    headers: dict[str, str] | None = None,
) -> int:
    """Tell how many places a slot has for a caller."""
    slots = await listed(queue, unit, starts_at[:10], headers)
    [free] = [slot["free"] for slot in slots if slot["starts_at"] == f"{starts_at}+07:00"]
    assert isinstance(free, int)
    return free


async def slots_that_do_not_add_up(queue: httpx.AsyncClient) -> list[Any]:
    """List the slots whose count differs from the appointments that hold a place in them."""
    rows: list[Any] = await core_of(queue).db.hot.fetch(
        "SELECT unit, starts_at, slot.booked, coalesce(holding, 0) AS holding"
        " FROM appointment_slots AS slot FULL JOIN ("
        "   SELECT unit, starts_at, count(*) AS holding FROM appointments"
        "   WHERE status IN ('booked', 'checked_in') GROUP BY unit, starts_at) AS held"
        " USING (unit, starts_at) WHERE slot.booked IS DISTINCT FROM coalesce(holding, 0)"
    )
    return rows


# Kiosks -------------------------------------------------------------------------------------------


async def borrow(
    queue: httpx.AsyncClient,
    unit: str,
    name: str = "kiosk-1",
    /,
    *,
    key: object = None,
    **wish: Any,
) -> httpx.Response:
    """Ask for numbers to issue offline."""
    headers = kiosk(unit, name)
    return await queue.post(
        f"/v1/kiosks/{name}/lease", json=wish, headers=keyed(key, headers) if key else headers
    )


async def lease(
    queue: httpx.AsyncClient, unit: str, name: str = "kiosk-1", /, **wish: Any
) -> dict[str, Any]:
    """Be lent numbers."""
    answer = await borrow(queue, unit, name, **wish)
    assert answer.status_code == 201, answer.text
    granted: dict[str, Any] = answer.json()
    return granted


def offline(
    lent: dict[str, Any], sequence: int, issued_at: datetime | str, **more: Any
) -> dict[str, Any]:
    """Note a number that a kiosk gave to somebody."""
    when = issued_at if isinstance(issued_at, str) else issued_at.isoformat()
    return {"number": f"{lent['series']}{sequence:03}", "issued_at": when} | more


async def reconcile(
    queue: httpx.AsyncClient,
    lent: dict[str, Any],
    tickets: list[dict[str, Any]],
    *,
    key: object = None,
    headers: dict[str, str] | None = None,
    **body: Any,
) -> httpx.Response:
    """Send in what was issued from a lease."""
    headers = headers or kiosk(lent["unit"], lent["kiosk"])
    return await queue.post(
        f"/v1/kiosks/{lent['kiosk']}/reconcile",
        json={"signed": lent["signed"], "tickets": tickets} | body,
        headers=keyed(key, headers) if key else headers,
    )

"""Plays a day on which every call of the API is made once: where its examples come from.

`make examples` writes them down anew (`services/gateway/examples.json`); `test_examples.py` plays
the day again and compares.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4, uuid5

import httpx

from tests.support import bearer

CLOCK = "2026-11-24T09:20+07:00"
"""A Tuesday morning, when centres are open and the appointments of half past nine may check in."""

UNIT = "H29.26740"
OTHER_UNIT = "H29.25747"
NEW_UNIT = "H29.99001"
PROCEDURE = "2.000815"
NOBODY: dict[str, str] = {}
OFFICER = bearer("officer", UNIT, subject="lan")
COLLEAGUE = bearer("officer", UNIT, subject="minh")
MANAGER = bearer("manager", UNIT, subject="hoa")
CITY = bearer("city", subject="city-office")
OPS = bearer("ops", subject="ops-1")
PORTAL = bearer("portal", subject="portal")
KIOSK = bearer("kiosk", UNIT, subject="kiosk-1")
APPLICANT = {
    "kind": "citizen",
    "name": "Trần Thị Bình",
    "id_number": "079190001234",
    "phone": "0903123456",
}
_LONGEST = 2
"""Of how many items a list in an example consists at the most."""


@dataclass
class Day:
    """The day as it was played: by operation id, what was sent and what came back."""

    client: httpx.AsyncClient
    operations: dict[str, tuple[str, str]]
    """Method and path template by operation id."""
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)

    @classmethod
    async def begin(cls, client: httpx.AsyncClient) -> "Day":
        """Learn from the description which calls there are."""
        paths = (await client.get("/openapi.json")).json()["paths"]
        operations = {
            call["operationId"]: (method.upper(), path)
            for path, item in paths.items()
            for method, call in item.items()
        }
        return cls(client, operations)

    async def call(
        self,
        operation: str,
        who: dict[str, str] = NOBODY,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        key: str | None = None,
        language: str | None = None,
        **path: Any,
    ) -> Any:
        """Make a call and keep it as the example of its operation, the first time."""
        method, template = self.operations[operation]
        target = template.format(**path) + (f"?{urlencode(query)}" if query else "")
        told = {"Idempotency-Key": key, "Accept-Language": language}
        more = {name: value for name, value in told.items() if value}
        if template.endswith("/stream"):
            status, answer = 200, await self._first_event(target)
        else:
            response = await self.client.request(method, target, json=body, headers=who | more)
            status, answer = response.status_code, _read(response)
        if status >= 400:
            self.trouble.append(f"{operation}: {status} {answer}")
        parameters = path | (query or {}) | more
        kept = {"parameters": parameters, "body": body, "status": status, "answer": answer}
        self.made.setdefault(operation, {name: value for name, value in kept.items() if value})
        return answer

    async def _first_event(self, target: str) -> str:
        async with self.client.stream("GET", target) as response:
            lines = response.aiter_lines()
            return "\n".join([await anext(lines) for _ in range(3)]) + "\n\n"

    async def play(self) -> None:
        """Play it all."""
        for part in (_registry, _callers, _queue, _counters, _appointments, _kiosks, _dossiers):
            await part(self)
        await self.call("show_weekly_report", CITY, query={"unit": UNIT}, week="2026-W48")
        await self.call("search_audit", OPS, query={"unit": UNIT, "limit": 1})
        for operation in ("livez", "readyz", "metrics", "show_version"):
            await self.call(operation)


def _read(response: httpx.Response) -> Any:
    if not response.content:
        return None
    if "json" in response.headers["content-type"]:
        return response.json()
    return "\n".join(response.text.splitlines()[:3])


def _without(shown: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out what is not to be sent back."""
    return {name: value for name, value in shown.items() if name not in names}


async def _registry(day: Day) -> None:
    await day.call("list_units", query={"q": "sai gon", "limit": 1})
    await day.call("show_unit", unit=UNIT)
    await day.call("resolve_unit", unit="gso:26740")
    unit = {"code": NEW_UNIT, "name": "Trung tâm Chuyển đổi số", "type": "department"}
    await day.call("establish_unit", CITY, unit | {"decision": "Quyết định 12/QĐ-UBND"})
    await day.call("activate_unit", CITY, {"date": "2026-11-24"}, unit=NEW_UNIT)
    closing = {"decision": "Quyết định 34/QĐ-UBND", "date": "2026-11-24"}
    await day.call("close_unit", CITY, closing, unit=NEW_UNIT)
    centre = await day.call("show_centre", unit=UNIT)
    centre = _without(centre, "unit", "version")
    await day.call("put_centre", CITY, centre | {"hotlines": ["028 1022"]}, unit=UNIT)

    await day.call("list_procedures", query={"q": "chứng thực bản sao", "limit": 1})
    await day.call("show_coverage")
    shown = await day.call("show_procedure", code=PROCEDURE)
    version = _without(shown, "code", "valid_from")
    await day.call("put_procedure_version", CITY, version, code=PROCEDURE, valid_from="2027-01-01")

    await day.call("show_calendar_day", day="2026-11-24")
    off = {"kind": "off", "decision": "Thông báo 56/TB-VPCP", "note": "Nghỉ bù"}
    await day.call("put_calendar_override", CITY, off, day="2027-02-05")
    await day.call("show_calendar_override", day="2027-02-05")
    await day.call("delete_calendar_override", CITY, day="2027-02-05")
    question = {"procedure_code": PROCEDURE, "at_unit": UNIT}
    await day.call("ask_route", body=question, language="vi")


async def _callers(day: Day) -> None:
    wish = {"kind": "kiosk", "name": "Sảnh chính", "units": [UNIT]}
    client = (await day.call("register_client", CITY, wish))["id"]
    await day.call("list_clients", OPS, query={"unit": UNIT, "limit": 1})
    await day.call("rotate_client_key", OPS, {"overlap_seconds": 3600}, client_id=client)
    await day.call("revoke_client", OPS, client_id=client)


async def _ticket(day: Day) -> Any:
    wish = {"unit": UNIT, "channel": "kiosk", "procedure_codes": [PROCEDURE]}
    key = str(uuid4())
    return (await day.call("issue_ticket", KIOSK, wish, key=key))["id"]


async def _queue(day: Day) -> None:
    for number in (1, 2):
        open_ = {"state": "open"}
        await day.call("set_counter", MANAGER, open_, unit=UNIT, number=number)
    await day.call("list_counters", unit=UNIT)
    ticket = await _ticket(day)
    await day.call("note_print", KIOSK, {"ok": True}, ticket_id=ticket)
    await day.call("reissue_ticket", KIOSK, ticket_id=ticket)
    await day.call("show_ticket", ticket_id=ticket)
    await day.call("call_next", OFFICER, unit=UNIT, number=1)
    await day.call("recall_ticket", OFFICER, {"counter": 1}, ticket_id=ticket)
    await day.call("start_ticket", OFFICER, ticket_id=ticket)
    for operation in ("show_queue", "stream_queue", "show_forecast"):
        await day.call(operation, unit=UNIT)
    await day.call("list_tickets", OFFICER, query={"status": "serving", "limit": 1}, unit=UNIT)
    await day.call("finish_ticket", OFFICER, ticket_id=ticket)
    rating = {"score": 5, "reason": "Nhanh và rõ ràng"}
    await day.call("rate_visit", body=rating, ticket_id=ticket)
    await day.call("list_ratings", MANAGER, query={"limit": 1}, unit=UNIT)
    await day.call("show_overview")
    await day.call("stream_overview")
    await day.call("show_unit_day", MANAGER, unit=UNIT)
    await day.call("advise_staffing", MANAGER, query={"date": "2026-11-25"}, unit=UNIT)


async def _counters(day: Day) -> None:
    missed, ahead, sent = await _ticket(day), await _ticket(day), await _ticket(day)
    reason = {"counter": 1, "reason": "Người cao tuổi"}
    await day.call("call_ticket", OFFICER, reason, ticket_id=missed)
    await day.call("mark_no_show", OFFICER, ticket_id=missed)
    await day.call("return_ticket", OFFICER, ticket_id=missed)
    await day.call("call_ticket", OFFICER, reason, ticket_id=missed)
    await day.call("park_ticket", OFFICER, {"counter": 1}, ticket_id=missed)
    await day.call("cancel_ticket", KIOSK, ticket_id=missed)
    await day.call("transfer_ticket", OFFICER, {"unit": OTHER_UNIT}, ticket_id=sent)
    await day.call("call_ticket", COLLEAGUE, reason | {"counter": 2}, ticket_id=ahead)
    await day.call("hand_back_ticket", MANAGER, unit=UNIT, number=2)


async def _appointments(day: Day) -> None:
    await day.call("list_slots", query={"unit": UNIT, "date": "2026-11-24"})
    slot = {"unit": UNIT, "starts_at": "2026-11-24T09:30:00+07:00", "procedure_codes": [PROCEDURE]}
    booked = await day.call("book_appointment", body=slot)
    await day.call("show_appointment", appointment_id=booked["id"])
    await day.call("find_appointment", KIOSK, unit=UNIT, code=booked["code"])
    await day.call("check_in_appointment", KIOSK, appointment_id=booked["id"])
    given_up = await day.call("book_appointment", body=slot)
    await day.call("cancel_appointment", appointment_id=given_up["id"])
    await day.call("show_appointment_rules", unit=UNIT)
    rules = {"slot_minutes": 30, "capacity": 8, "days_ahead": 14}
    await day.call("set_appointment_rules", MANAGER, rules, unit=UNIT)


async def _kiosks(day: Day) -> None:
    await day.call("show_lease_keys")
    wish = {"unit": UNIT, "count": 50, "business_day": "2026-11-24"}
    lease = await day.call("lend_numbers", KIOSK, wish, kiosk="kiosk-1")
    await day.call("list_leases", CITY, query={"unit": UNIT, "limit": 1})
    account = {"signed": lease["signed"], "tickets": []}
    await day.call("reconcile_lease", KIOSK, account, kiosk="kiosk-1")


async def _dossiers(day: Day) -> None:
    dossier = {
        "procedure_code": PROCEDURE,
        "receiving_unit": UNIT,
        "channel": "direct",
        "applicant": APPLICANT,
        "components": [],
    }
    code = (await day.call("submit_dossier", OFFICER, dossier))["code"]
    await day.call("list_dossiers", OFFICER, query={"unit": UNIT, "limit": 1})
    await day.call("assign_dossier", OFFICER, {"assignee": "lan"}, code=code)
    await day.call("complete_dossier", OFFICER, code=code)
    await day.call("return_dossier", OFFICER, {"note": "Đã trả kết quả"}, code=code)
    await day.call("show_dossier", OFFICER, code=code)
    await day.call("show_dossier_history", OFFICER, query={"limit": 1}, code=code)
    await day.call("track_dossier", query={"phone_last4": "3456"}, code=code)
    online = await day.call("submit_dossier", PORTAL, dossier | {"channel": "online"})
    await day.call("receive_dossier", OFFICER, code=online["code"])


# As it is written down --------------------------------------------------------------------------

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_INSTANT = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}):\d{2}(\.\d+)?")
_NAMESPACE = UUID("9a3c9a0e-6d5c-5f0f-9a52-0d6f0e9e2a11")


def _numbered(number: int) -> UUID:
    return uuid5(_NAMESPACE, str(number))


def written(made: dict[str, dict[str, Any]]) -> str:
    """Write the examples: ids that stay from one time to the next, instants to the minute.

    Lists are shortened, and no key or signature stands in it, not even one of a city that is gone.
    """
    text = json.dumps(_shortened(made), ensure_ascii=False, indent=1)
    known: dict[str, str] = {}
    text = _UUID.sub(lambda found: known.setdefault(found[0], str(_numbered(len(known)))), text)
    return _INSTANT.sub(r"\1:00", text) + "\n"


def _shortened(value: Any, name: str = "") -> Any:
    if name in ("signed", "api_key", "x", "kid") and isinstance(value, str):
        return f"{value[:8]}…" if name != "signed" else "eyJhbGciOi….eyJpZCI6I….c2lnbmF0dXI…"
    if isinstance(value, dict):
        return {key: _shortened(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [_shortened(part) for part in value[:_LONGEST]]
    return value


def alike(one: Any, other: Any) -> bool:
    """Tell whether two values consist of the same parts, whatever stands in them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return all(alike(mine, others) for mine, others in zip(one, other, strict=False))
    return True


def clock_at(instant: float) -> str:
    """Write the setting of the clock of this day, begun at an instant of the wall clock."""
    return f"{datetime.fromisoformat(CLOCK).isoformat()},x1,{instant:.0f}"

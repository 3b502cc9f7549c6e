"""An example of every event, in values of the seeded city and of one morning in it.

What is not named here - a field that was just added - gets a plain value of its type, so that the
documents can always be made; naming a real one afterwards makes them better.
"""

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from libs.common.events import Event

EVENT_ID: Final = UUID("5b1f2e9c-3f0a-4f6e-9d63-2f4f0d1c7a10")
AT: Final = datetime(2026, 11, 16, 1, 6, 15, tzinfo=UTC)
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

VALUES: dict[str, Any] = {
    "aliases": [],
    "as_of": "2026-11-16T08:05:00+07:00",
    "at": "2026-11-16T08:06:15+07:00",
    "boundary_independent": True,
    "business_day": "2026-11-16",
    "channel": "kiosk",
    "code": "H29.26740",
    "competent_unit": "H29.26740",
    "components": 1,
    "components_digitised": 1,
    "counter": 3,
    "counters_planned": 5,
    "day": "2026-01-02",
    "due_at": "2026-11-16T08:20:00+07:00",
    "field": "Chứng thực",
    "issued_at": "2026-11-16T08:00:00+07:00",
    "name": "Phường Sài Gòn",
    "number": "A042",
    "priority_class": "normal",
    "procedure_code": "2.000815",
    "procedure_codes": ["2.000815"],
    "receiving_unit": "H29.26740",
    "series": "A",
    "service_seconds": 360.0,
    "submitted_at": "2026-11-16T08:09:30+07:00",
    "ticket_id": "0f9d3c1e-5b7a-4a52-9a53-8a3f0f3f6d21",
    "unit": "H29.26740",
    "version": 1,
    "wait_seconds": 375.0,
}
"""By the name of the field, wherever it stands."""

_RECEIVED = {
    "received_at": "2026-11-16T08:09:30+07:00",
    "appointment_at": "2026-11-17T08:09:30+07:00",
}
_ENDED = _RECEIVED | {"ended_at": "2026-11-16T10:30:00+07:00"}
_OFFICE = [["07:30", "11:30"], ["13:00", "17:00"]]

OF_TYPE: dict[str, dict[str, Any]] = {
    "UnitChanged": {
        "type": "ward",
        "status": "active",
        "gso_code": "26740",
        "valid_from": "2025-07-01",
        "synthetic": True,
    },
    "CentreChanged": {
        "latitude": 10.7805,
        "longitude": 106.704,
        "hours": dict.fromkeys(("monday", "tuesday", "wednesday", "thursday", "friday"), _OFFICE),
    },
    "ProcedureChanged": {
        "code": "1.001193",
        "versions": [
            {
                "valid_from": "2025-07-01",
                "name": "Thủ tục đăng ký khai sinh",
                "name_en": "Birth registration",
                "field": "Hộ tịch",
                "competent_level": "commune",
                "territorial": True,
                "boundary_independent": True,
                "same_day": True,
                "limit": {"value": 1, "unit": "working_day"},
                "components": [
                    {
                        "code": "000.00.00.G15-KQ003204",
                        "name": "Tờ khai đăng ký khai sinh",
                        "required": True,
                        "kind": "form",
                    }
                ],
                "confidence": "confirmed",
            }
        ],
    },
    "CalendarDayChanged": {
        "kind": "off",
        "decision": "unnumbered",
        "note": "Swapped with Saturday 2026-01-10",
    },
    "TicketIssued": {"at": "2026-11-16T08:00:00+07:00"},
    "TicketCalled": {"version": 2, "first_call": True},
    "TicketStarted": {"version": 3, "at": "2026-11-16T08:06:40+07:00"},
    "TicketFinished": {"version": 4, "at": "2026-11-16T08:12:40+07:00"},
    "TicketNoShow": {"version": 3, "at": "2026-11-16T08:09:15+07:00"},
    "TicketParked": {"version": 4, "at": "2026-11-16T08:12:40+07:00"},
    "TicketReturned": {"version": 5, "at": "2026-11-16T08:30:00+07:00", "cause": "parked"},
    "TicketTransferred": {"version": 3, "series": "B", "service_seconds": 60.0},
    "TicketReissued": {"version": 2, "reissues": 1},
    "TicketCancelled": {"version": 2, "cause": "asked"},
    "CounterChanged": {"number": 3, "state": "open", "series": []},
    "QueueLoad": {
        "version": 1794791100000,
        "waiting": 7,
        "oldest_wait_seconds": 375,
        "forecast_wait_seconds": 640,
        "open_counters": 4,
    },
    "DossierSubmitted": {"status": 1, "channel": "online"},
    "DossierReceived": {"status": 2} | _RECEIVED,
    "DossierAssigned": {"version": 2, "status": 4} | _RECEIVED,
    "DossierCompleted": {"version": 3, "status": 9, "at": _ENDED["ended_at"]} | _ENDED,
    "DossierReturned": {
        "version": 4,
        "status": 10,
        "at": "2026-11-16T14:05:00+07:00",
        "returned_at": "2026-11-16T14:05:00+07:00",
    }
    | _ENDED,
}
"""What only one event tells, or tells otherwise."""

_DOSSIER = {"code": "H29.26740-261116-0001", "channel": "direct", "at": "2026-11-16T08:09:30+07:00"}

_PLAIN: tuple[Any, ...] = (
    None, 1, "text", True, 1.5, [], "2026-11-16T08:00:00+07:00", "2026-11-16", "08:00",
    "3b1f8f0e-7a55-4b43-9a0c-6f0f8d5f2c11", {},
)  # fmt: skip


@cache
def example_of(kind: type[Event]) -> Event:
    """Make an example.

    Raises:
        ValueError: a required field takes none of the plain values; name one in this module.
    """
    own = OF_TYPE.get(kind.type_name(), {})
    told = VALUES | (_DOSSIER if kind.topic.startswith("intake.dossiers.") else {}) | own
    values: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if field.examples:
            values[name] = field.examples[0]
        elif name in told and (name in own or _fits(field.annotation, told[name])):
            values[name] = told[name]
        elif field.is_required():
            values[name] = _plain(kind, name, field.annotation)
    return kind.model_validate(values)


def _fits(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _plain(kind: type[Event], name: str, annotation: Any) -> Any:
    schema = TypeAdapter(annotation).json_schema()
    for value in (*_listed(schema), *_PLAIN):
        if _fits(annotation, value):
            return value
    raise ValueError(
        f"{kind.type_name()}.{name}: name an example in services/announced/examples.py"
    )


def _listed(schema: dict[str, Any]) -> list[Any]:
    """Give the values that a type lists, if it does."""
    parts = [schema, *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return [value for part in parts for value in (*part.get("enum", ()), part.get("const"))]

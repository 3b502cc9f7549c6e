"""Who may do what: roles × scopes × units as one table, and the dependencies routes name them by.

What is not in the table is refused, in every service, before anything of a request is read.
`libs.contracts.access` enforces it; `docs/security.md` shows it; `tests/system/test_access.py`
calls every route as every role and compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from fastapi import Depends

from libs.common.auth import Principal, require


class Role(StrEnum):
    """What a caller is in the city's service."""

    nobody = "nobody"
    kiosk = "kiosk"
    officer = "officer"
    manager = "manager"
    city = "city"
    portal = "portal"
    ops = "ops"


INCLUDES: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(Role, frozenset()),
    Role.manager: frozenset({Role.officer}),
}
"""The roles there are, each with those it includes: of a token that names both, the wider holds."""


class Reach(StrEnum):
    """For which units a role has a scope."""

    any = "any"
    own = "own"
    """Those that the caller holds; another one that exists is 403, one that does not 404."""


_MAY: Final = """
scope                nobody  kiosk  officer  manager  city  portal  ops
look                 any     any    any      any      any   any     any
take-ticket          any     own    own      own      -     any     -
hold-ticket          any     own    own      own      -     -       -
print-ticket         -       own    own      own      -     -       -
rate-visit           any     own    -        -        -     -       -
book-appointment     any     own    own      own      -     any     -
find-appointment     -       own    own      own      -     -       -
lease-numbers        -       own    -        -        -     -       -
work-counter         -       -      own      own      -     -       -
free-counter         -       -      -        own      -     -       -
see-counter-work     -       -      own      own      any   -       -
see-ratings          -       -      -        own      -     -       -
plan-staffing        -       -      -        own      any   -       -
submit-dossier       -       -      own      own      -     any     -
work-dossier         -       -      own      own      -     -       -
see-dossier          -       -      own      own      any   -       -
see-report           -       -      own      own      any   -       -
keep-centre          -       -      -        own      any   -       -
keep-registry        -       -      -        -        any   -       -
register-client      -       -      -        -        any   -       -
keep-client-keys     -       -      -        -        any   -       any
search-audit         -       -      -        -        -     -       any
"""
"""A citizen, or nobody in particular, acts on a ticket or appointment by its unguessable id."""

_ROUTES: Final = """
GET    /                                            look
GET    /overview                                    look
GET    /units/{unit}/board                          look
GET    /web/{name}                                  look
GET    /docs                                        look
GET    /docs/{name}                                 look
GET    /openapi.json                                look
GET    /livez                                       look
GET    /readyz                                      look
GET    /metrics                                     look
GET    /version                                     look

GET    /v1/units                                    look
POST   /v1/units                                    keep-registry
GET    /v1/units/{unit}                             look
GET    /v1/units/{unit}/resolve                     look
POST   /v1/units/{unit}/activate                    keep-registry
POST   /v1/units/{unit}/close                       keep-registry
GET    /v1/centres/{unit}                           look
PUT    /v1/centres/{unit}                           keep-centre
GET    /v1/procedures                               look
GET    /v1/procedures/coverage                      look
GET    /v1/procedures/{code}                        look
PUT    /v1/procedures/{code}/versions/{valid_from}  keep-registry
GET    /v1/calendar/overrides/{day}                 look
PUT    /v1/calendar/overrides/{day}                 keep-registry
DELETE /v1/calendar/overrides/{day}                 keep-registry
GET    /v1/calendar/{day}                           look
GET    /v1/clients                                  keep-client-keys
POST   /v1/clients                                  register-client
POST   /v1/clients/{client_id}/rotate               keep-client-keys
POST   /v1/clients/{client_id}/revoke               keep-client-keys
GET    /v1/audit                                    search-audit

POST   /v1/route                                    look                question

POST   /v1/tickets                                  take-ticket
GET    /v1/tickets/{ticket_id}                      look
POST   /v1/tickets/{ticket_id}/cancel               hold-ticket
POST   /v1/tickets/{ticket_id}/printed              print-ticket
POST   /v1/tickets/{ticket_id}/reissue              print-ticket
POST   /v1/tickets/{ticket_id}/recall               work-counter
POST   /v1/tickets/{ticket_id}/start                work-counter
POST   /v1/tickets/{ticket_id}/finish               work-counter
POST   /v1/tickets/{ticket_id}/no-show              work-counter
POST   /v1/tickets/{ticket_id}/park                 work-counter
POST   /v1/tickets/{ticket_id}/return               work-counter
POST   /v1/tickets/{ticket_id}/transfer             work-counter
POST   /v1/tickets/{ticket_id}/call                 work-counter
GET    /v1/units/{unit}/counters                    look
PUT    /v1/units/{unit}/counters/{number}           work-counter
POST   /v1/units/{unit}/counters/{number}/call-next work-counter
POST   /v1/units/{unit}/counters/{number}/hand-back free-counter
GET    /v1/units/{unit}/tickets                     work-counter
GET    /v1/units/{unit}/queue                       look
GET    /v1/units/{unit}/queue/stream                look
GET    /v1/queue/overview                           look
GET    /v1/queue/overview/stream                    look
GET    /v1/units/{unit}/forecast                    look
GET    /v1/units/{unit}/staffing                    plan-staffing
GET    /v1/units/{unit}/day                         see-counter-work
POST   /v1/tickets/{ticket_id}/satisfaction         rate-visit
GET    /v1/units/{unit}/satisfaction                see-ratings         personal
GET    /v1/appointments                             look
POST   /v1/appointments                             book-appointment
GET    /v1/appointments/{appointment_id}            look
GET    /v1/appointments/codes/{unit}/{code}         find-appointment
POST   /v1/appointments/{appointment_id}/cancel     book-appointment
POST   /v1/appointments/{appointment_id}/check-in   book-appointment
GET    /v1/appointments/rules/{unit}                look
PUT    /v1/appointments/rules/{unit}                keep-centre
GET    /v1/kiosks/keys                              look
GET    /v1/kiosks/leases                            see-counter-work
POST   /v1/kiosks/{kiosk}/lease                     lease-numbers
POST   /v1/kiosks/{kiosk}/reconcile                 lease-numbers

POST   /v1/dossiers                                 submit-dossier
GET    /v1/dossiers                                 see-dossier
GET    /v1/dossiers/{code}                          see-dossier         personal
GET    /v1/dossiers/{code}/history                  see-dossier         personal
POST   /v1/dossiers/{code}/receive                  work-dossier
POST   /v1/dossiers/{code}/assign                   work-dossier
POST   /v1/dossiers/{code}/complete                 work-dossier
POST   /v1/dossiers/{code}/return                   work-dossier
GET    /v1/track/{code}                             look

GET    /v1/reports/weekly/{week}                    see-report
"""
"""Each route's scope. `personal`: what it shows is somebody's, so reading it is audited as writing
is; `question`: a POST that changes nothing, which is not audited."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One route's line of the table."""

    scope: str
    may: Mapping[str, Reach]
    personal: bool
    audited: bool


def _scopes() -> dict[str, dict[str, Reach]]:
    head, *lines = (line.split() for line in _MAY.strip().splitlines())
    assert head[1:] == list(Role), "the table has a column for every role"
    return {
        scope: {role: Reach(reach) for role, reach in zip(Role, cells, strict=True) if reach != "-"}
        for scope, *cells in lines
    }


def _rules() -> dict[tuple[str, str], Rule]:
    rules: dict[tuple[str, str], Rule] = {}
    for method, path, scope, *marks in (line.split() for line in _ROUTES.splitlines() if line):
        assert (method, path) not in rules, f"{method} {path} stands twice"
        assert set(marks) <= {"personal", "question"}, f"{method} {path}: {marks}"
        personal = "personal" in marks
        audited = personal or (method != "GET" and "question" not in marks)
        rules[method, path] = Rule(scope, SCOPES[scope], personal, audited)
    return rules


SCOPES: Final = _scopes()
RULES: Final = _rules()


# For routes -----------------------------------------------------------------------------------

Officer = Annotated[Principal, Depends(require(Role.officer, Role.manager))]
"""A counter officer of the unit, or its manager."""

Manager = Annotated[Principal, Depends(require(Role.manager))]
"""The manager of a unit's centre."""

Kiosk = Annotated[Principal, Depends(require(Role.kiosk))]
"""A kiosk of its units; its subject is the device."""

ManagerOrCity = Annotated[Principal, Depends(require(Role.manager, Role.city))]

CityOffice = Annotated[Principal, Depends(require(Role.city))]
"""The city's office: registry writes, every read that is not personal."""

CityOrOps = Annotated[Principal, Depends(require(Role.city, Role.ops))]
"""Who keeps the keys of kiosks and the portal."""

Ops = Annotated[Principal, Depends(require(Role.ops))]
"""Who runs the machines; nothing personal."""

Staff = Annotated[Principal, Depends(require(Role.officer, Role.manager, Role.city))]
"""Whoever works for a unit or the city: figures and lists without personal data."""

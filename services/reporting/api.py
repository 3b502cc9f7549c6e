"""Routes of reporting, and the shapes of what they give."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, Field

from libs.common import fast_json
from libs.common.auth import Principal
from libs.common.db import Session
from libs.common.edge import Now
from libs.common.fields import Out
from libs.common.openapi.operations import refusals
from libs.common.problems import Forbidden
from libs.contracts.codes import UnitQuery
from libs.contracts.directory import Directory
from libs.contracts.following import Registry
from libs.contracts.roles import Role, Staff
from services.reporting import domain
from services.reporting.periods import week_named

reports = APIRouter(prefix="/v1/reports", tags=["reports"])


class Received(Out):
    """Columns 3 to 6 of form II.06a: what came to the unit."""

    total: int
    online: int
    direct: int
    carried_over: int


class Resolved(Out):
    """Columns 7 to 10: what was brought to an end."""

    total: int
    early: int
    on_time: int
    late: int


class Pending(Out):
    """Columns 11 to 13: what is still to do at the end."""

    total: int
    in_time: int
    overdue: int


class Digitisation(Out):
    """Papers of the dossiers received in the period."""

    components: int
    digitised: int
    reused: int


class QueueFigures(Out):
    """How people waited; waits in seconds. All null where a queue has no meaning."""

    tickets: int | None
    transferred_in: int | None
    called: int | None
    finished: int | None
    no_show: int | None
    cancelled: int | None
    within_sla: int | None
    uncalled_beyond_sla: int | None
    wait_p50_seconds: float | None
    wait_p95_seconds: float | None
    wait_max_seconds: float | None
    receipts: int | None
    receipt_p50_seconds: float | None
    receipt_p95_seconds: float | None
    receipt_max_seconds: float | None
    rated: int | None
    score_mean: float | None
    share_within_sla: float | None


class Figures(Out):
    """One row of the report; each figure is defined in `services/reporting/forms.py`."""

    received: Received
    resolved: Resolved
    pending: Pending
    returned: int
    received_for_others: int
    received_elsewhere: int
    boundary_independent: int
    digitisation: Digitisation
    identity_holds: bool
    queue: QueueFigures


class UnitFigures(Figures):
    """A unit's row."""

    unit: str
    name: str


class FieldFigures(Figures):
    """A field's row (lĩnh vực)."""

    field: str


class Violation(Out):
    """A row in which received is not resolved plus pending."""

    row: str
    name: str | None
    received: int
    resolved: int
    pending: int


class Identity(Out):
    """Whether column 3 = 7 + 11 in every row, and where not."""

    holds: bool
    violated: list[Violation]


class WeeklyReport(Out):
    """The weekly report (order of 13 June 2025, item 9); with `?unit=` `city` is that unit."""

    week: str
    from_: Annotated[datetime, Field(alias="from")]
    to: datetime
    due_at: datetime
    as_of: datetime
    sealed: bool
    revision: int
    sla_seconds: int
    identity: Identity
    city: Figures
    units: list[UnitFigures]
    fields: list[FieldFigures]


def _week(name: str) -> str:
    return week_named(name).name


WeekName = Annotated[
    str,
    AfterValidator(_week),
    Path(description="ISO week of the Friday on which the report is due.", examples=["2026-W47"]),
]

AskedUnit = Annotated[UnitQuery | None, Query(description="Current or older code, or `gso:26734`.")]


@reports.get(
    "/weekly/{week}",
    response_model=WeeklyReport,
    operation_id="show_weekly_report",
    responses=refusals(domain.WeekNotBegun),
)
async def weekly(
    week: WeekName,
    request: Request,
    session: Session,
    registry: Registry,
    now: Now,
    reader: Staff,
    unit: AskedUnit = None,
) -> Response:
    """Report a week, the running one too: the city office any or all units, others their own."""
    report = await domain.weekly(
        session,
        week_named(week),
        unit=_readable(unit, registry, reader),
        at=now,
        sla_seconds=request.state.settings.sla_seconds,
        directory=registry,
    )
    return Response(fast_json.dumps(report), media_type="application/json")


def _readable(asked: str | None, registry: Directory, reader: Principal) -> str | None:
    """Give the current code of the unit asked for, or None for the whole city.

    Raises:
        UnknownUnit, UnitNotActive, UnitSplit: the name fits none, or no single, active unit.
        Forbidden: it is not the reader's unit, or the reader may not see the whole city.
    """
    code = registry.current(asked).code if asked else None
    if reader.role == Role.city or code in reader.units:
        return code
    if code is None:
        raise Forbidden("the whole city's report is for the city's office: name your ?unit=")
    raise Forbidden(f"{code} is not your unit")

"""The gateway's own calls: the routing rule, one OpenAPI for all."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import Field, model_validator

from libs.common import fast_json
from libs.common.edge import Now
from libs.common.fields import In, Out
from libs.common.openapi.components import LANGUAGE
from libs.common.openapi.operations import refusals
from libs.common.problems import Conflict
from libs.common.worktime import next_opening
from libs.contracts.codes import ProcedureCode, UnitQuery
from libs.contracts.competence import competent_unit
from libs.contracts.directory import UnitSplit, UnknownProcedure
from libs.contracts.following import Registry
from libs.contracts.registry import ProcedureVersion
from services.gateway import routing
from services.gateway.directory import STALE_SECONDS, City
from services.gateway.openapi import Union

# The app itself takes bodies of any size, for the services know how large theirs may be.
router = APIRouter(max_body_size=65_536)

Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]


class NobodyReceives(Conflict):
    """The procedure is not received there.

    Ask for another centre, or by position for the nearest one that receives it.
    """


class PositionIn(In):
    """Where somebody is."""

    latitude: Latitude
    longitude: Longitude


class RouteIn(In):
    """A question: where to hand in a dossier of a procedure, and who decides it."""

    procedure_code: ProcedureCode
    at_unit: UnitQuery | None = None
    position: PositionIn | None = None
    subject_unit: UnitQuery | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> "RouteIn":
        if self.at_unit is None and self.position is None:
            raise ValueError("say where: at_unit or position")
        return self


class Receiving(Out):
    """The centre that receives; the wait in seconds is null while it is unknown."""

    unit: str
    name: str
    open: bool
    forecast_wait_seconds: int | None


class AlternativeOut(Out):
    """Another centre that is open and under the promise."""

    unit: str
    name: str
    distance_km: float | None
    forecast_wait_seconds: int
    travel_seconds: int


class Candidate(Out):
    """A successor of a split unit."""

    unit: str
    name: str


class RouteOut(Out):
    """The answer of the routing rule; `candidates` instead of a centre where a code was split."""

    receiving: Receiving | None
    alternatives: list[AlternativeOut]
    competent_unit: str | None
    boundary_independent: bool
    reason: str
    candidates: list[Candidate] | None = None


async def _city(request: Request, _: Registry) -> City:
    city: City = request.state.city
    return city


CityNow = Annotated[City, Depends(_city)]


@router.post(
    "/v1/route",
    response_model=RouteOut,
    tags=["routing"],
    operation_id="ask_route",
    responses=refusals(NobodyReceives, UnknownProcedure),
    openapi_extra={"parameters": [LANGUAGE]},
)
async def route(request: Request, body: RouteIn, city: CityNow, now: Now) -> RouteOut:
    """Tell where a dossier may be handed in now, where it would be faster, and who decides it."""
    procedure = city.registry.procedure(body.procedure_code, now)
    try:
        asked = city.registry.current(body.at_unit).code if body.at_unit else None
    except UnitSplit as split:
        return _which_one(procedure, split)
    promise = request.state.settings.sla_seconds
    start = (body.position.latitude, body.position.longitude) if body.position else None
    chosen = _choose(city, asked, start, body.procedure_code, now)
    competent = competent_unit(
        procedure, receiving=chosen.unit, subject=body.subject_unit, directory=city.registry
    )
    others: list[routing.Alternative] = []
    if not chosen.open or routing.overloaded(chosen, promise):
        centres = city.centres(body.procedure_code, now)
        others = routing.alternatives(chosen, centres, promise, start)
    return RouteOut(
        receiving=Receiving(
            unit=chosen.unit,
            name=_name(city, chosen.unit),
            open=chosen.open,
            forecast_wait_seconds=chosen.forecast_seconds,
        ),
        alternatives=[
            AlternativeOut(
                unit=other.unit,
                name=_name(city, other.unit),
                distance_km=other.distance_km,
                forecast_wait_seconds=other.forecast_seconds,
                travel_seconds=other.travel_seconds,
            )
            for other in others
        ],
        competent_unit=competent,
        boundary_independent=procedure.boundary_independent,
        reason=_reason(city, chosen, promise, len(others), now),
    )


def _name(city: City, unit: str) -> str:
    known = city.registry.units.get(unit)
    return known.name if known else unit


def _which_one(procedure: ProcedureVersion, split: UnitSplit) -> RouteOut:
    return RouteOut(
        receiving=None,
        alternatives=[],
        competent_unit=None,
        boundary_independent=procedure.boundary_independent,
        reason=split.detail,
        candidates=[Candidate.model_validate(heir) for heir in split.members["candidates"]],
    )


def _choose(
    city: City,
    asked: str | None,
    start: routing.Position | None,
    procedure_code: str,
    now: datetime,
) -> routing.Centre:
    if asked is None:
        assert start is not None
        found = routing.nearest(city.centres(procedure_code, now), start)
        if found is None:
            raise NobodyReceives(f"no centre receives dossiers of {procedure_code}")
        return found
    city.registry.centre(asked)
    chosen = city.centre(asked, procedure_code, now)
    if not chosen.offers:
        raise NobodyReceives(f"{asked} does not receive dossiers of {procedure_code}")
    return chosen


def _reason(city: City, chosen: routing.Centre, promise: int, offered: int, now: datetime) -> str:
    age = city.load_age(chosen.unit)
    opens = None
    if not chosen.open:
        opens = next_opening(now, city.registry.hours(chosen.unit), city.registry.calendar)
    return routing.explain(
        chosen,
        name=_name(city, chosen.unit),
        promise_seconds=promise,
        offered=offered,
        stale_seconds=age if age is not None and age > STALE_SECONDS else None,
        next_opening=fast_json.instant(opens) if opens else None,
    )


# The description of it all ----------------------------------------------------------------------


@router.get("/openapi.json", include_in_schema=False)
async def one_openapi(request: Request) -> Response:
    """Describe the whole API, whichever service answers a path."""
    union: Union = request.state.union
    return (await union.written(request.app, request.state.forwarder)).answer(request)

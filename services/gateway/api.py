"""The gateway's own calls: the routing rule, one OpenAPI for all."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import Field, model_validator

from libs.common.edge import Now
from libs.common.fields import In, LocalTime, Out
from libs.common.language import Language, language_of, spoken
from libs.common.openapi.components import LANGUAGE
from libs.common.openapi.operations import refusals
from libs.common.problems import Conflict
from libs.common.words import said
from libs.contracts.codes import ProcedureCode, UnitQuery
from libs.contracts.competence import competent_unit
from libs.contracts.directory import UnitSplit, UnknownProcedure
from libs.contracts.following import Registry
from libs.contracts.registry import ProcedureVersion
from services.gateway import routing
from services.gateway.directory import CentreNow, City
from services.gateway.openapi import Union
from services.gateway.reasons import Answer, explain
from services.gateway.routing import Elsewhere
from services.gateway.words import say

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
            raise ValueError(say("say where: at_unit or position"))
        return self


class Receiving(Out):
    """The centre that receives; the wait in seconds is null while it is unknown."""

    unit: str
    name: str
    open: bool
    opens_at: LocalTime | None
    """When it opens, if it is closed."""
    forecast_wait_seconds: int | None
    stale: bool
    """Whether the queue has not been heard of for too long to know the wait."""
    load_age_seconds: int | None
    """How long ago it was; null if it never was."""
    distance_km: float | None
    """As the crow flies from the position given; null without one."""
    travel_seconds: int | None


class AlternativeOut(Out):
    """Another centre that is open and under the promise; where nobody's wait is known, an open one
    nearby, whose wait is null."""

    unit: str
    name: str
    distance_km: float | None
    forecast_wait_seconds: int | None
    travel_seconds: int
    stale: bool
    load_age_seconds: int | None


class LeftOut(Out):
    """Open centres that are no alternatives because their queues were not heard of for too long."""

    centres: int
    load_age_seconds: int | None
    """How long ago the latest of them was heard of; null if none ever was."""


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
    left_out: LeftOut | None = None


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
async def route(
    request: Request, response: Response, body: RouteIn, city: CityNow, now: Now
) -> RouteOut:
    """Tell where a dossier may be handed in now, where it would be faster, and who decides it.

    `reason` says why in one sentence, in Vietnamese or English as `Accept-Language` asks.
    """
    language = language_of(request.scope)
    response.headers.update(spoken(language))
    procedure = city.registry.procedure(body.procedure_code, now)
    try:
        asked = city.registry.current(body.at_unit).code if body.at_unit else None
    except UnitSplit as split:
        return _which_one(procedure, split, language)
    promise = request.state.settings.sla_seconds
    start = (body.position.latitude, body.position.longitude) if body.position else None
    chosen = _choose(city, asked, start, body.procedure_code, now)
    competent = competent_unit(
        procedure, receiving=chosen.unit, subject=body.subject_unit, directory=city.registry
    )
    elsewhere = Elsewhere()
    if not chosen.open or routing.overloaded(chosen, promise):
        centres = city.centres(body.procedure_code, now)
        elsewhere = routing.elsewhere(chosen, centres, promise, start)
    km = routing.distance_km(start, chosen.position) if start and chosen.position else None
    answer = Answer(chosen, promise, competent, elsewhere, chosen.opens_at, km)
    return _told(city, answer, procedure, said(explain(answer, city.name_of), language))


def _told(city: City, answer: Answer, procedure: ProcedureVersion, reason: str) -> RouteOut:
    chosen, km, elsewhere = answer.centre, answer.distance_km, answer.elsewhere
    age = chosen.load_age_seconds
    return RouteOut(
        receiving=Receiving(
            unit=chosen.unit,
            name=city.name_of(chosen.unit),
            open=chosen.open,
            opens_at=answer.opens_at,
            forecast_wait_seconds=chosen.forecast_seconds,
            stale=routing.stale(age),
            load_age_seconds=age,
            distance_km=None if km is None else round(km, 2),
            travel_seconds=None if km is None else routing.travel_seconds(km),
        ),
        alternatives=[
            AlternativeOut(
                unit=other.unit,
                name=city.name_of(other.unit),
                distance_km=other.distance_km,
                forecast_wait_seconds=other.forecast_seconds,
                travel_seconds=other.travel_seconds,
                stale=routing.stale(other.load_age_seconds),
                load_age_seconds=other.load_age_seconds,
            )
            for other in elsewhere.offered
        ],
        competent_unit=answer.competent,
        boundary_independent=procedure.boundary_independent,
        reason=reason,
        left_out=LeftOut(
            centres=elsewhere.left_out, load_age_seconds=elsewhere.left_out_age_seconds
        )
        if elsewhere.left_out
        else None,
    )


def _which_one(procedure: ProcedureVersion, split: UnitSplit, language: Language) -> RouteOut:
    return RouteOut(
        receiving=None,
        alternatives=[],
        competent_unit=None,
        boundary_independent=procedure.boundary_independent,
        reason=said(split.detail, language),
        candidates=[Candidate.model_validate(heir) for heir in split.members["candidates"]],
    )


def _choose(
    city: City,
    asked: str | None,
    start: routing.Position | None,
    procedure_code: str,
    now: datetime,
) -> CentreNow:
    if asked is None:
        assert start is not None
        found = routing.nearest(city.centres(procedure_code, now), start)
        if found is None:
            raise NobodyReceives(say("no centre receives dossiers of {code}", code=procedure_code))
        return found
    city.registry.centre(asked)
    chosen = city.centre(asked, procedure_code, now)
    if not chosen.offers:
        raise NobodyReceives(
            say("{unit} does not receive dossiers of {code}", unit=asked, code=procedure_code)
        )
    return chosen


# The description of it all ----------------------------------------------------------------------


@router.get("/openapi.json", include_in_schema=False)
async def one_openapi(request: Request) -> Response:
    """Describe the whole API, whichever service answers a path."""
    union: Union = request.state.union
    return (await union.written(request.app, request.state.forwarder)).answer(request)

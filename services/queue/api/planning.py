"""What is to come: the waits foretold for a unit, and how many counters a day will need."""

import asyncio
from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from libs.common.edge import Now
from libs.common.fields import Day, LocalTime, Out
from libs.common.problems import malformed_field
from libs.common.worktime import business_day
from libs.contracts.following import Registry
from libs.contracts.roles import ManagerOrCity, Role
from services.queue import past
from services.queue.api.edge import Hot, LoadsNow, SettingsNow, Unit
from services.queue.arrivals import Basis, expected
from services.queue.domain.refusals import check_unit
from services.queue.forecast import Wait
from services.queue.pace import service_on_a_day
from services.queue.staffing import Part, Target, plan, reasons
from services.queue.words import say

router = APIRouter(prefix="/v1/units/{unit}", tags=["planning"])

FARTHEST = timedelta(days=366)
"""How far from today staffing may be asked for."""


class SeriesForecast(Out):
    """The wait of somebody who takes a ticket of a series now, in seconds; null while unknown."""

    series: str
    waiting: int
    open_counters: int
    """Those that call it."""
    forecast_wait_seconds: int | None
    forecast_low_seconds: int | None
    """Four in five lie between this and the next."""
    forecast_high_seconds: int | None


class UnitForecast(Out):
    """The wait of somebody who comes to a unit now; where series differ, the longest of them."""

    unit: str
    as_of: LocalTime
    waiting: int
    open_counters: int
    forecast_wait_seconds: int | None
    forecast_low_seconds: int | None
    forecast_high_seconds: int | None
    series: list[SeriesForecast]
    """Those that somebody waits in or a counter names; A is always among them."""


@router.get("/forecast", response_model=UnitForecast)
async def show_forecast(unit: Unit, registry: Registry, loads: LoadsNow, now: Now) -> UnitForecast:
    """Tell how long somebody will wait who comes to a unit now, altogether and by series."""
    code = registry.current(unit).code
    outlook = loads.outlook(code)
    if outlook is None:
        waiting = load.waiting if (load := loads.all().get(code)) else 0
        return UnitForecast(
            unit=code, as_of=now, waiting=waiting, open_counters=0, series=[], **_bounds(None)
        )
    return UnitForecast(
        unit=code,
        as_of=outlook.as_of,
        waiting=sum(outlook.waiting.values()),
        open_counters=outlook.open_counters,
        series=[
            SeriesForecast(
                series=name,
                waiting=outlook.waiting.get(name, 0),
                open_counters=outlook.line(name).counters,
                **_bounds(outlook.line(name).newcomer),
            )
            for name in outlook.series
        ],
        **_bounds(outlook.newcomer),
    )


def _bounds(wait: Wait | None) -> dict[str, int | None]:
    seconds, low, high = wait or (None, None, None)
    return {
        "forecast_wait_seconds": seconds,
        "forecast_low_seconds": low,
        "forecast_high_seconds": high,
    }


class PartOut(Out):
    """How many counters in a half hour, and why; shares are of those who come in it."""

    from_: Annotated[LocalTime, Field(alias="from")]
    to: LocalTime
    arrivals: float
    at_door: float
    """How many of them stand there when the door opens."""
    counters: int
    share_over_promise: float
    """Who waits longer than promised, in the steady state of these arrivals."""
    share_with_one_less: float | None
    """The same with one counter less; null where there is but one."""
    share_on_the_day: float
    """The same as the day goes, from an empty hall on; what the steady state asks for is not always
    enough."""
    steady_counters: int
    """What the steady state alone asks for."""
    reason: str
    reason_en: str


class Staffing(Out):
    """How many counters a unit needs on a day so that hardly anybody waits longer than promised."""

    unit: str
    date: date
    promise_seconds: int
    target_share: float
    """The share of people that may wait longer."""
    service_seconds: float
    """How long a ticket takes a counter, the way there and calls in vain included."""
    basis: Basis
    days: int
    """Past days that the arrivals rest on."""
    counters_planned: int
    """What the centre plans to have."""
    items: list[PartOut]
    """Half hours; none on a day on which the centre is closed."""


@router.get("/staffing", response_model=Staffing)
async def advise_staffing(
    unit: Unit,
    pool: Hot,
    registry: Registry,
    loads: LoadsNow,
    settings: SettingsNow,
    now: Now,
    principal: ManagerOrCity,
    day: Annotated[Day | None, Query(alias="date", description="Today if left out.")] = None,
) -> Staffing:
    """Advise how many counters to open in each half hour of a day.

    Arrivals come from the centre's own past days of the same kind, or where those are too few from
    its usual number of people, spread as people come in the city.
    """
    code = registry.current(unit).code
    if principal.role == Role.manager:
        check_unit(code, principal)
    centre, today = registry.centre(code), business_day(now)
    day = day or today
    if abs(day - today) > FARTHEST:
        raise malformed_field("date", say("name a day within a year of {today}", today=today))
    own, city = await past.days_of(pool, code, sorted(registry.centres), today, day)
    coming = expected(day, registry.hours(code), registry.calendar, own, city)
    service = service_on_a_day(loads.times, code)
    target = Target(float(settings.sla_seconds), settings.staffing_share)
    parts = await asyncio.to_thread(plan, coming, service, target)
    return Staffing(
        unit=code,
        date=day,
        promise_seconds=settings.sla_seconds,
        target_share=target.share,
        service_seconds=service,
        basis=coming.basis,
        days=coming.days,
        counters_planned=centre.counters_planned,
        items=[_written(part, service, target) for part in parts],
    )


def _written(part: Part, service: float, target: Target) -> PartOut:
    reason, reason_en = reasons(part, service, target)
    less = part.share_with_one_less
    return PartOut.model_validate(
        {
            "from": part.begins,
            "to": part.ends,
            "arrivals": round(part.arrivals, 1),
            "at_door": round(part.at_door, 1),
            "counters": part.counters,
            "share_over_promise": round(part.share_over, 4),
            "share_with_one_less": None if less is None else round(less, 4),
            "share_on_the_day": round(part.share_on_the_day, 4),
            "steady_counters": part.steady_counters,
            "reason": reason,
            "reason_en": reason_en,
        }
    )

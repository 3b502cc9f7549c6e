"""What a play finds: the server's clock, units, centres and procedures, and a week without data."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.auth import DevelopmentIssuer
from libs.common.clock import VirtualClock
from libs.common.worktime import OFFICIAL_HOURS, OpeningHours, Period, local
from services.simulate import timeline
from services.simulate.client import Door, Unsettled
from services.simulate.demand import (
    Rate,
    arrivals,
    daily_tickets,
    draws,
    in_order,
    moment,
    rates,
)
from services.simulate.people import Offer, Person, offer, person
from services.simulate.settings import Refused, Settings
from services.simulate.week import Week, week_of

_TOKEN_HOURS = 48
"""Tokens follow the wall; a play is over long before."""

START_ONE = (
    "MOTCUA_CLOCK=2026-11-16T07:25+07:00,x60 MOTCUA_HOURS=official make run DATA=.motcua/simulate"
)


class Badges:
    """Tokens of the development issuer as headers, each signed once."""

    def __init__(self, issuer: DevelopmentIssuer) -> None:
        """Sign with the server's key."""
        self._issuer = issuer
        self._made: dict[tuple[str, ...], dict[str, str]] = {}

    def of(self, role: str, *units: str, name: str = "") -> dict[str, str]:
        """Give the header of somebody with a role."""
        who = (role, name, *units)
        if who not in self._made:
            subject = "-".join(("play", role, *units, name)).rstrip("-")
            token = self._issuer.token(role, subject=subject, units=units, hours=_TOKEN_HOURS)
            self._made[who] = {"Authorization": f"Bearer {token}"}
        return self._made[who]


@dataclass(frozen=True, slots=True)
class Hall:
    """A unit's part in the play: when how many come, and who."""

    unit: str
    counters_planned: int
    rates: list[Rate]
    people: list[Person]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is settled before the first person comes."""

    clock: VirtualClock
    since: datetime
    until: datetime
    week: Week
    units: list[str]
    halls: list[Hall]
    badges: Badges


def badges(settings: Settings) -> Badges:
    """Find the server's key.

    Raises:
        Refused: there is none in the folder.
    """
    if not (settings.data_dir / "keys" / "development-issuer.pem").exists():
        raise Refused(
            f"{settings.data_dir} holds no development key: name the server's data folder "
            "(--data, or MOTCUA_DATA_DIR)"
        )
    return Badges(DevelopmentIssuer(settings.data_dir))


async def clock_of(door: Door, url: str) -> VirtualClock:
    """Follow the server's clock.

    Raises:
        Refused: nobody answers, or its clock is the system's.
    """
    try:
        answer = await door.get("/version", {})
        told = answer.json["clock"]
    except (Unsettled, ValueError, KeyError) as error:
        raise Refused(
            f"no city answers at {url} ({error}): start one with\n  {START_ONE}"
        ) from None
    if told["kind"] != "virtual":
        raise Refused(
            f"the city at {url} runs on the {told['kind']} clock, where a day takes a day and what "
            f"is played is data for ever: start one on a virtual clock with\n  {START_ONE}"
        )
    return timeline.follow(told)


async def set_up(door: Door, settings: Settings) -> Scene:
    """Look around and draw everybody who will come.

    Raises:
        Refused: with the way out.
    """
    clock = await clock_of(door, settings.url)
    signed = badges(settings)
    now = clock.now()
    day = local(now).date()
    since = max(now, moment(day, settings.since)) if settings.since else now
    until = moment(day, settings.until)
    if since >= until:
        raise Refused(
            f"it is {local(now):%H:%M} there and people were to come until {until:%H:%M}: "
            "start a city on an earlier clock, or say --to"
        )
    week = week_of(now)
    await _check_empty(door, signed, week)
    city = [unit["code"] for unit in await _all(door, "/v1/units?limit=200")]
    chosen = _choose(settings, city)
    catalogue = await _all(door, "/v1/procedures?limit=200&level=commune")
    daily = daily_tickets(city, settings.seed)
    halls = []
    for unit in chosen:
        centre = (await door.get(f"/v1/centres/{unit}", {})).json
        hall_rates = rates(daily[unit], _periods(centre, day.weekday()), day)
        offered = offer(unit, catalogue, centre["procedures"], city)
        come = [p for p in everybody(settings.seed, offered, hall_rates) if since <= p.at < until]
        halls.append(Hall(unit, centre["counters_planned"], _cut(hall_rates, since, until), come))
    return Scene(clock, since, until, week, chosen, halls, signed)


def everybody(seed: int, offered: Offer, at_rates: list[Rate]) -> list[Person]:
    """Draw a unit's day; the same whichever part of it is played."""
    when = draws(seed, offered.unit, "arrivals")
    who = draws(seed, offered.unit, "people")
    return [person(who, at, offered) for at in arrivals(when, at_rates)]


def _cut(found: list[Rate], since: datetime, until: datetime) -> list[Rate]:
    return [
        Rate(max(rate.begins, since), min(rate.ends, until), rate.per_second)
        for rate in found
        if rate.begins < until and rate.ends > since
    ]


def _periods(centre: Mapping[str, Any], weekday: int) -> tuple[Period, ...]:
    """Give a centre's opening periods; where it keeps none that day, an office day's."""
    hours = OpeningHours.model_validate(centre["hours"])
    return hours.on(weekday) or OFFICIAL_HOURS.on(0)


def _choose(settings: Settings, city: list[str]) -> list[str]:
    if isinstance(settings.units, int):
        return in_order(city, settings.seed)[: settings.units]
    unknown = sorted(set(settings.units) - set(city))
    if unknown or not settings.units:
        raise Refused(f"no ward, commune or special zone has the code {', '.join(unknown) or '?'}")
    return list(dict.fromkeys(settings.units))


async def _all(door: Door, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await door.get(path + cursor, {})).json
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def _check_empty(door: Door, signed: Badges, week: Week) -> None:
    """Refuse a week somebody has worked in: its report could not be told from the play's."""
    answer = await door.get(f"/v1/reports/weekly/{week.name}", signed.of("city"))
    if answer.status == 401:
        raise Refused("the city does not trust this data folder's key: name its own with --data")
    if not answer.ok:
        raise Refused(f"the report of {week.name} was answered {answer.status}: {answer.body!r}")
    if figure := next(_figures(answer.json["city"]), None):
        raise Refused(
            f"{week.name} already holds data ({figure}): a play is checked against a whole week's "
            f"report, so it needs an empty one. Start a city on a fresh folder with\n  {START_ONE}"
        )


def _figures(row: Mapping[str, Any], prefix: str = "") -> Any:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{name}.")
        elif not isinstance(value, bool) and value:
            yield f"{prefix}{name} = {value}"

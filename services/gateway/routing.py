"""The routing rule: where a dossier may be handed in, and who decides it.

Reception is free: any open centre that offers the procedure may receive, wherever the citizen
lives; residence is no input to anything here. Competence follows the procedure. When a centre is
closed or its wait passes the promise, others are offered by wait plus way; a ticket is issued all
the same to who asks for one there. A load that is old says nothing about now: where nobody's is
fresh, hours and distances still answer. `reasons` says it in a sentence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import asin, cos, radians, sin, sqrt
from typing import Final, Protocol, TypeVar

EARTH_KM: Final = 6371.0
DETOUR: Final = 1.3
"""Streets are longer than the straight line, by about this factor."""
KM_PER_HOUR: Final = 20.0
"""A motorbike through the city, lights and traffic included."""
ALTERNATIVES: Final = 5
STALE_SECONDS: Final = 30
"""A load older than this says nothing about now: the queue tells of itself every 10 seconds."""

Position = tuple[float, float]
"""Latitude and longitude in degrees."""


class Centre(Protocol):
    """A centre as the rule sees it; `offers` and `open` are dear to tell and asked last."""

    @property
    def unit(self) -> str:
        """Its unit's code."""
        ...

    @property
    def position(self) -> Position | None:
        """Where it stands, if that is known."""
        ...

    @property
    def forecast_seconds(self) -> int | None:
        """Expected wait; None while it is unknown, too old, or no counter is open."""
        ...

    @property
    def load_age_seconds(self) -> int | None:
        """How long ago its load was known to be so; None if none was ever told."""
        ...

    @property
    def offers(self) -> bool:
        """Whether it receives dossiers of the procedure in question."""
        ...

    @property
    def open(self) -> bool:
        """Whether its door is open now."""
        ...


C = TypeVar("C", bound=Centre)


@dataclass(frozen=True, slots=True)
class Alternative:
    """A centre worth going to instead."""

    unit: str
    distance_km: float | None
    forecast_seconds: int | None
    """None where the wait is unknown: it is offered for its hours and its distance alone."""
    travel_seconds: int
    load_age_seconds: int | None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where else somebody may go, and how many centres nobody can speak for."""

    offered: Sequence[Alternative] = ()
    left_out: int = 0
    """Open centres that are not offered because their loads are stale."""
    left_out_age_seconds: int | None = None
    """Age of the newest of those loads; None if none was ever told."""


def distance_km(a: Position, b: Position) -> float:
    """Give the great-circle distance of two positions (haversine), in kilometres."""
    lat_a, lat_b = radians(a[0]), radians(b[0])
    half = (
        sin((lat_b - lat_a) / 2) ** 2 + cos(lat_a) * cos(lat_b) * sin(radians(b[1] - a[1]) / 2) ** 2
    )
    return 2 * EARTH_KM * asin(sqrt(min(1.0, half)))  # rounding takes antipodes past 1


def travel_seconds(km: float) -> int:
    """Estimate the way between two points `km` apart as the crow flies."""
    return round(km * DETOUR / KM_PER_HOUR * 3600)


def nearest(centres: Iterable[C], position: Position) -> C | None:
    """Choose where somebody at a position goes: the nearest that receives, an open one first."""
    placed = [(distance_km(position, at), c.unit, c) for c in centres if (at := c.position)]
    placed.sort()  # no two share a code, so that centres themselves are never compared
    closed = None
    for _, _, centre in placed:
        if centre.offers:
            if centre.open:
                return centre
            closed = closed or centre
    return closed


def overloaded(centre: Centre, promise_seconds: int) -> bool:
    """Tell whether the promise would be broken for somebody who comes now."""
    return centre.forecast_seconds is not None and centre.forecast_seconds > promise_seconds


def stale(age_seconds: int | None) -> bool:
    """Tell whether a load of this age, or one that never came, says nothing about now."""
    return age_seconds is None or age_seconds > STALE_SECONDS


def elsewhere(
    centre: Centre,
    others: Iterable[Centre],
    promise_seconds: int,
    start: Position | None = None,
) -> Elsewhere:
    """Look where to go instead of a centre that is closed or overloaded.

    Centres whose load is stale are left out and counted; where that is all of those that are open,
    they are offered by distance.
    """
    heard: list[Centre] = []
    unheard: list[Centre] = []
    for other in others:
        if other.unit != centre.unit:
            (unheard if stale(other.load_age_seconds) else heard).append(other)
    if any(other.open and other.offers for other in heard):
        left_out = [other for other in unheard if other.open and other.offers]
        ages = [age for other in left_out if (age := other.load_age_seconds) is not None]
        offered = alternatives(centre, heard, promise_seconds, start)
        return Elsewhere(offered, len(left_out), min(ages, default=None))
    doors = ((other, None) for other in unheard if other.open)
    return Elsewhere(_best(doors, start or centre.position))


def alternatives(
    centre: Centre,
    others: Iterable[Centre],
    promise_seconds: int,
    start: Position | None = None,
) -> list[Alternative]:
    """Offer the best other centres: open, offering, under the promise, by wait plus way.

    `start` is where the person is; without it, the centre asked for. Where the way to a centre is
    unknown it comes after those whose way is known.
    """
    keeping = (
        (other, wait)
        for other in others
        if other.unit != centre.unit
        and (wait := other.forecast_seconds) is not None
        and wait <= promise_seconds
    )
    return _best(keeping, start or centre.position)


def _best(
    centres: Iterable[tuple[Centre, int | None]], start: Position | None
) -> list[Alternative]:
    ranked = []
    for centre, wait in centres:
        km = distance_km(start, at) if start and (at := centre.position) else None
        way = 0 if km is None else travel_seconds(km)
        ranked.append((km is None, (wait or 0) + way, centre.unit, km, wait, way, centre))
    ranked.sort()  # no two share a code, so that what stands behind it is never compared
    receiving = (
        Alternative(unit, km if km is None else round(km, 2), wait, way, centre.load_age_seconds)
        for _, _, unit, km, wait, way, centre in ranked
        if centre.open and centre.offers
    )
    return list(islice(receiving, ALTERNATIVES))

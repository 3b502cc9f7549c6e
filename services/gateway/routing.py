"""The routing rule: where a dossier may be handed in, and who decides it.

Reception is free: any open centre that offers the procedure may receive, wherever the citizen
lives; residence is no input to anything here. Competence follows the procedure. When a centre is
closed or its wait passes the promise, others are offered by wait plus way; a ticket is issued all
the same to who asks for one there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from math import asin, cos, radians, sin, sqrt
from typing import Final, Protocol

EARTH_KM: Final = 6371.0
DETOUR: Final = 1.3
"""Streets are longer than the straight line, by about this factor."""
KM_PER_HOUR: Final = 20.0
"""A motorbike through the city, lights and traffic included."""
ALTERNATIVES: Final = 5

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
        """Expected wait; None while it is unknown or no counter is open."""
        ...

    @property
    def offers(self) -> bool:
        """Whether it receives dossiers of the procedure in question."""
        ...

    @property
    def open(self) -> bool:
        """Whether its door is open now."""
        ...


@dataclass(frozen=True, slots=True)
class Alternative:
    """A centre worth going to instead."""

    unit: str
    distance_km: float | None
    forecast_seconds: int
    travel_seconds: int


def distance_km(a: Position, b: Position) -> float:
    """Give the great-circle distance of two positions (haversine), in kilometres."""
    (lat_a, lon_a), (lat_b, lon_b) = (tuple(map(radians, point)) for point in (a, b))
    half = sin((lat_b - lat_a) / 2) ** 2 + cos(lat_a) * cos(lat_b) * sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_KM * asin(sqrt(min(1.0, half)))  # rounding takes antipodes past 1


def travel_seconds(km: float) -> int:
    """Estimate the way between two points `km` apart as the crow flies."""
    return round(km * DETOUR / KM_PER_HOUR * 3600)


def nearest(centres: Iterable[Centre], position: Position) -> Centre | None:
    """Choose where somebody at a position goes: the nearest that receives, an open one first."""
    placed = [(distance_km(position, c.position), c.unit, c) for c in centres if c.position]
    closed = None
    for _, _, centre in sorted(placed, key=lambda place: place[:2]):
        if centre.offers:
            if centre.open:
                return centre
            closed = closed or centre
    return closed


def overloaded(centre: Centre, promise_seconds: int) -> bool:
    """Tell whether the promise would be broken for somebody who comes now."""
    return centre.forecast_seconds is not None and centre.forecast_seconds > promise_seconds


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
    start = start or centre.position
    found = [
        (_alternative(other, start, wait), other)
        for other in others
        if other.unit != centre.unit
        and (wait := other.forecast_seconds) is not None
        and wait <= promise_seconds
    ]
    found.sort(key=lambda pair: _time_until_served(pair[0]))
    receiving = (offer for offer, other in found if other.offers and other.open)
    return list(islice(receiving, ALTERNATIVES))


def _alternative(centre: Centre, start: Position | None, wait: int) -> Alternative:
    km = distance_km(start, centre.position) if start and centre.position else None
    travel = travel_seconds(km) if km is not None else 0
    return Alternative(centre.unit, None if km is None else round(km, 2), wait, travel)


def _time_until_served(offer: Alternative) -> tuple[bool, int, str]:
    return offer.distance_km is None, offer.forecast_seconds + offer.travel_seconds, offer.unit


def explain(
    centre: Centre,
    *,
    name: str,
    promise_seconds: int,
    offered: int,
    stale_seconds: float | None,
    next_opening: str | None,
) -> str:
    """Say in one sentence why the answer is what it is."""
    if not centre.open:
        opens = f"; it opens at {next_opening}" if next_opening else ""
        return f"{name} is closed now{opens}; {_others(offered)}"
    if stale_seconds is not None:
        return f"{name} is open and receives; its wait was last known {stale_seconds:.0f} s ago"
    if centre.forecast_seconds is None:
        return f"{name} is open and receives; no counter is open there yet, so the wait is unknown"
    if overloaded(centre, promise_seconds):
        return (
            f"{name} receives, but the wait is about {_minutes(centre.forecast_seconds)} minutes, "
            f"over the promised {_minutes(promise_seconds)}; {_others(offered)}"
        )
    wait = _minutes(centre.forecast_seconds)
    return f"{name} is open and receives; the wait is about {wait} minutes"


def _minutes(seconds: int) -> int:
    return round(seconds / 60)


def _others(offered: int) -> str:
    if not offered:
        return "no other centre is known to be open and under the promise"
    return f"{offered} other centre(s) are open and under the promise"

"""Why the routing rule answers what it does: one sentence for the person who asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from math import ceil

from libs.contracts.competence import NATIONAL_SYSTEM
from services.gateway.routing import (
    Alternative,
    Centre,
    Elsewhere,
    overloaded,
    stale,
    travel_seconds,
)
from services.gateway.words import say


@dataclass(frozen=True, slots=True)
class Answer:
    """What the rule found, as far as it needs an explanation."""

    centre: Centre
    promise_seconds: int
    competent: str
    elsewhere: Elsewhere
    opens_at: datetime | None = None
    """When a centre that is closed opens, if that is known."""
    distance_km: float | None = None
    """How far it is from where the person said to be."""


def explain(answer: Answer, name_of: Callable[[str], str]) -> str:
    """Say where to go and why, how far it is, where else, and who decides if it is another unit."""
    return reduce(
        lambda before, clause: say("{before}; {clause}", before=before, clause=clause),
        _clauses(answer, name_of),
    )


def _clauses(answer: Answer, name_of: Callable[[str], str]) -> Iterator[str]:
    centre = answer.centre
    yield _here(answer, name_of(centre.unit))
    if answer.distance_km is not None:
        yield _way(answer.distance_km)
    if not centre.open or overloaded(centre, answer.promise_seconds):
        yield _instead(answer.elsewhere, name_of)
        if answer.elsewhere.left_out:
            yield _left_out(answer.elsewhere)
    if answer.competent == NATIONAL_SYSTEM:
        yield say("the ministry's national system decides")
    elif answer.competent != centre.unit:
        yield say("{unit} decides", unit=name_of(answer.competent))


def _here(answer: Answer, name: str) -> str:
    centre, wait = answer.centre, answer.centre.forecast_seconds
    if not centre.open:
        if answer.opens_at is None:
            return say("{name} is closed now", name=name)
        return say("{name} is closed now; it opens at {opens}", name=name, opens=answer.opens_at)
    if wait is not None and overloaded(centre, answer.promise_seconds):
        return say(
            "{name} receives, but the wait is about {wait}, over the promised {promise}",
            name=name, wait=minutes(wait), promise=minutes(answer.promise_seconds),
        )  # fmt: skip
    how_long = _how_long(wait, centre.load_age_seconds)
    return say("{name} is open and receives; {how_long}", name=name, how_long=how_long)


def _how_long(wait: int | None, age: int | None) -> str:
    if age is None:
        return say("nothing has been heard of its queue yet, so the wait is unknown")
    if stale(age):
        return say("its wait was last known {ago} ago, so it is unknown now", ago=_time(age))
    if wait is None:
        return say("no counter is open there yet, so the wait is unknown")
    return _wait(wait)


def _way(distance_km: float) -> str:
    km = round(distance_km, 1)
    if not km:
        return say("it is right where you are")
    return say(
        "it is {km} km from you, about {way}", km=km, way=minutes(travel_seconds(distance_km))
    )


def _instead(elsewhere: Elsewhere, name_of: Callable[[str], str]) -> str:
    if not elsewhere.offered:
        return say("no other centre is known to be open and under the promise")
    first, count = elsewhere.offered[0], len(elsewhere.offered)
    name = _placed(first, name_of(first.unit))
    if first.forecast_seconds is None:
        them = say("{count} other centre(s) are open, first {name}", count=count, name=name)
        ages = [age for other in elsewhere.offered if (age := other.load_age_seconds) is not None]
        return _unheard(them, min(ages, default=None))
    return say(
        "{count} other centre(s) are open and under the promise, first {name}, where {how_long}",
        count=count, name=name, how_long=_wait(first.forecast_seconds),
    )  # fmt: skip


def _placed(other: Alternative, name: str) -> str:
    if other.distance_km is None:
        return name
    return say("{name} at {km} km", name=name, km=round(other.distance_km, 1))


def _left_out(elsewhere: Elsewhere) -> str:
    them = say("{count} more are open", count=elsewhere.left_out)
    return _unheard(them, elsewhere.left_out_age_seconds)


def _unheard(them: str, age: int | None) -> str:
    if age is None:
        return say("{them}, but nothing has been heard of their queues yet", them=them)
    return say("{them}, but their waits were last known {ago} ago", them=them, ago=_time(age))


def _wait(seconds: int) -> str:
    if not seconds:
        return say("nobody has to wait")
    return say("the wait is about {wait}", wait=minutes(seconds))


def minutes(seconds: int) -> str:
    """Write a time as people plan with it: in whole minutes, rather one too many."""
    count = ceil(seconds / 60)
    return say("{count} minute", count=count) if count == 1 else say("{count} minutes", count=count)


def _time(seconds: int) -> str:
    return say("{count} s", count=seconds) if seconds < 120 else minutes(seconds)

"""Who is called first: earliest due first, where priority is a head start and never starvation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Final, Literal, Self, get_args

from libs.common.settings import Settings
from libs.common.worktime import ZONE, business_day

PriorityClass = Literal[
    "normal", "elderly", "disabled", "pregnant", "infant_carer", "merit", "seriously_ill",
    "appointment",
]  # fmt: skip

PRIORITY_CLASSES: Final = get_args(PriorityClass)

HEAD_START: Final[Mapping[str, timedelta]] = {
    "normal": timedelta(0),
    **dict.fromkeys(
        ("elderly", "disabled", "pregnant", "infant_carer", "merit", "seriously_ill"),
        timedelta(minutes=10),
    ),
    "appointment": timedelta(minutes=15),
}
"""How much earlier a class is due than its arrival says. No decree that was read fixes an order:
the defaults are ours, and `MOTCUA_HEAD_START_SECONDS` changes them."""

YESTERDAYS: Final = timedelta(hours=12)
"""A ticket that nobody called is not called on a later day; across midnight it is."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The promise, and the head start of each class within it.

    A head start is never longer than the promise: so nobody is due before arriving, whoever has
    waited the longest head start is passed by no newcomer, and whoever has waited the promise is
    due before everybody who is still to come.
    """

    within: timedelta
    head_starts: Mapping[str, timedelta] = field(default_factory=lambda: HEAD_START)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the settings; a class that they do not name keeps its default.

        Raises:
            ValueError: they name a class that does not exist.
        """
        unknown = sorted(set(settings.head_start_seconds) - set(PRIORITY_CLASSES))
        if unknown:
            raise ValueError(
                f"MOTCUA_HEAD_START_SECONDS names {', '.join(unknown)}: the priority classes are "
                + ", ".join(PRIORITY_CLASSES)
            )
        changed = {
            name: timedelta(seconds=seconds)
            for name, seconds in settings.head_start_seconds.items()
        }
        return cls(timedelta(seconds=settings.sla_seconds), {**HEAD_START, **changed})

    def due_at(self, issued_at: datetime, priority_class: str) -> datetime:
        """Give the instant by which a ticket is to be called, as far as the order goes."""
        return issued_at + max(timedelta(0), self.within - self.head_starts[priority_class])


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation has set of the queue's rules."""

    promise: Promise
    recall_interval: timedelta
    """How long after a call the same ticket may be called again."""
    no_show_grace: timedelta
    """How long after a no-show the person may still be taken."""
    last_ticket_margin: timedelta | None
    """How long before closing a newcomer's turn must be expected; None: tickets to the end."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the settings; ValueError as in `Promise.of`."""
        margin = settings.last_ticket_margin_seconds
        return cls(
            Promise.of(settings),
            timedelta(seconds=settings.recall_interval_seconds),
            timedelta(seconds=settings.no_show_grace_seconds),
            None if margin is None else timedelta(seconds=margin),
        )


def oldest_callable(now: datetime, day_start: datetime) -> datetime:
    """Give the turn (`due_at`) before which a waiting ticket belongs to a day that is over."""
    return min(day_start, now - YESTERDAYS)


def day_start(now: datetime) -> datetime:
    """Give the first instant of the business day."""
    return datetime.combine(business_day(now), time.min, tzinfo=ZONE)


def oldest_now(now: datetime) -> datetime:
    """Give the turn before which, seen from an instant, tickets belong to a day that is over."""
    return oldest_callable(now, day_start(now))

"""Who comes and what happens to them: seeded draws of made-up people. Pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import log
from random import Random
from typing import Any, Final

Procedure = dict[str, Any]
"""A procedure as `GET /v1/procedures` shows it."""

FIELDS: Final = (
    (0.60, "Chứng thực"),
    (0.19, "Thành lập và hoạt động doanh nghiệp (hộ kinh doanh)"),
    (0.13, "Hộ tịch"),
)
"""What people come for: copies and certification, business, civil status; the rest is mixed."""

CLASSES: Final = (
    ("normal", 0.86), ("elderly", 0.05), ("infant_carer", 0.03), ("pregnant", 0.02),
    ("appointment", 0.02), ("disabled", 0.01), ("merit", 0.005), ("seriously_ill", 0.005),
)  # fmt: skip

SERVICE_SECONDS, SERVICE_SPREAD = 480.0, 0.55
"""A visit's mean length and the spread of its logarithm: log-normal, as service times are."""

PATIENCE_SECONDS, PATIENCE_SPREAD = 2_700.0, 0.5
"""Half the people would wait longer than this; one in twenty leaves before 20 minutes."""

NO_SHOW, WEB, ONLINE, ELSEWHERE = 0.04, 0.15, 0.04, 0.10
"""Shares: who does not come when called, takes a ticket by web, is helped to hand in online, has
a subject matter that lies in another unit (territorial procedures)."""

MISHAPS: Final = (
    ("", 0.79), ("not_heard", 0.06), ("aside", 0.05), ("to_series", 0.02), ("to_counter", 0.02),
    ("away", 0.02), ("unprinted", 0.03), ("unprinted_gone", 0.01),
)  # fmt: skip
"""What does not go straight: called twice before hearing it; put aside to fetch a paper; sent on to
another series, counter or unit; a slip that does not come out, and then comes or is given up."""

AFTER_ALL: Final = (("", 0.5), ("soon", 0.25), ("later", 0.25))
"""Whether somebody who does not come when called turns up after all."""

DOSSIERS: Final = ((1, 0.82), (2, 0.09), (0, 0.09))
"""Dossiers that go with a visit; some only ask."""

_STEPS: Final = ("assign", "complete", "return")
_SAME_DAY: Final = ((3, 0.72), (2, 0.08), (1, 0.12), (0, 0.08))
_OTHER: Final = ((0, 0.45), (1, 0.45), (2, 0.06), (3, 0.04))


@dataclass(frozen=True, slots=True)
class Paper:
    """A dossier to hand in: the body of the request without the ticket, and what follows it."""

    body: dict[str, Any]
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who comes to a unit; times in seconds of the virtual clock."""

    unit: str
    at: datetime
    procedure: str
    priority_class: str
    channel: str
    patience: float
    shows_up: bool
    way: float
    """From the call to the counter, or until nobody is expected any more."""
    service: float
    mishap: str = ""
    after_all: str = ""
    """Who does not show up may come soon, or later."""
    papers: tuple[Paper, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a unit's centre takes, by the groups people come for, and the units there are."""

    unit: str
    groups: Sequence[tuple[float, Sequence[Procedure]]]
    units: Sequence[str]


def offer(
    unit: str, catalogue: Sequence[Procedure], offered: Sequence[str] | None, units: Sequence[str]
) -> Offer:
    """Sort what a centre takes into groups; `offered` None means every commune-level procedure.

    Raises:
        ValueError: it takes nothing.
    """
    taken = [
        procedure
        for procedure in catalogue
        if (procedure["competent_level"] == "commune" if offered is None
            else procedure["code"] in offered)
    ]  # fmt: skip
    if not taken:
        raise ValueError(f"{unit} offers no procedure")
    named = {name for _, name in FIELDS}
    groups: list[tuple[float, Sequence[Procedure]]] = [
        (share, [p for p in taken if p["field"] == name]) for share, name in FIELDS
    ]
    rest = [p for p in taken if p["field"] not in named]
    groups.append((1 - sum(share for share, _ in FIELDS), rest))
    return Offer(unit, [(share, group) for share, group in groups if group], units)


def pick(chance: Random, choices: Sequence[tuple[Any, float]]) -> Any:
    """Choose by weight."""
    values, weights = zip(*choices, strict=True)
    return chance.choices(values, weights)[0]


def person(chance: Random, at: datetime, offered: Offer) -> Person:
    """Draw somebody who comes at an instant."""
    group = pick(chance, [(group, share) for share, group in offered.groups])
    procedure = chance.choice(group)
    mean = log(SERVICE_SECONDS) - SERVICE_SPREAD**2 / 2
    return Person(
        unit=offered.unit,
        at=at,
        procedure=procedure["code"],
        priority_class=pick(chance, CLASSES),
        channel="web" if chance.random() < WEB else "kiosk",
        patience=chance.lognormvariate(log(PATIENCE_SECONDS), PATIENCE_SPREAD),
        shows_up=chance.random() >= NO_SHOW,
        way=chance.uniform(15, 75),
        service=min(3600.0, max(60.0, chance.lognormvariate(mean, SERVICE_SPREAD))),
        mishap=pick(chance, MISHAPS),
        after_all=pick(chance, AFTER_ALL),
        papers=tuple(_paper(chance, procedure, offered) for _ in range(pick(chance, DOSSIERS))),
    )


def _paper(chance: Random, procedure: Procedure, offered: Offer) -> Paper:
    body: dict[str, Any] = {
        "procedure_code": procedure["code"],
        "receiving_unit": offered.unit,
        "channel": "online" if chance.random() < ONLINE else "direct",
        "applicant": applicant(chance, organisation="doanh nghiệp" in procedure["field"]),
        "components": [
            {"component_code": paper["code"]}
            | ({"reused_from": paper["reusable_from"]} if paper["reusable_from"] else {})
            for paper in procedure["components"]
            if chance.random() < (0.95 if paper["required"] else 0.3)
        ],
    }
    away, other = chance.random() < ELSEWHERE, chance.choice(offered.units)
    if procedure["territorial"]:
        body["subject_unit"] = other if away else offered.unit
    count = pick(chance, _SAME_DAY if procedure["same_day"] else _OTHER)
    steps = _STEPS[:count]
    if body["channel"] == "online":
        # Half of those handed in online are received at once; the others wait in status 1.
        steps = ("receive", *steps) if chance.random() < 0.5 else ()
    return Paper(body, steps)


def applicant(chance: Random, *, organisation: bool) -> dict[str, Any]:
    """Make somebody up whose name says so; the ID number has the form of one (domain.md §4)."""
    number = chance.randrange(10**6)
    digits: Callable[[int], int] = chance.randrange
    century, sex, year = (0, digits(2), 45 + digits(55)) if digits(4) else (2, digits(2), digits(8))
    citizen = {
        "name": f"Người Thử Nghiệm {number:06d}",
        "id_number": f"079{century + sex}{year:02d}{number:06d}",
    }
    phone = {"phone": f"0900{number:06d}"}
    if not organisation:
        return {"kind": "citizen", **citizen, **phone}
    return {
        "kind": "organisation",
        "name": f"Hộ kinh doanh Thử Nghiệm {number:06d}",
        "representative": citizen["name"],
        **phone,
    }

"""A past for reporting: visits and dossiers as they stand in the log, and what they amount to."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from hashlib import sha256
from itertools import count
from typing import Any

from libs.common.bus.base import Bus, Record
from libs.common.events import Event
from libs.contracts.intake import (
    DossierAssigned,
    DossierCompleted,
    DossierReceived,
    DossierReturned,
    DossierStatus,
)
from services.reporting.models import PROJECTIONS
from tests.reporting.support import A, B, afterwards, at, dossier, received, walk

MORNING = at("2026-11-16 07:30")
_LIVES: tuple[Callable[[float], list[tuple[str, float]]], ...] = (
    lambda wait: [("call", wait), ("start", wait + 20), ("finish", wait + 300)],
    lambda wait: [("call", wait), ("no-show", wait + 180)],
    lambda wait: [("call", wait), ("start", wait + 9), ("park", wait + 60), ("return", wait + 99)],
    lambda _: [("fail", 30)],
    lambda wait: [("call", wait), ("recall", wait + 30), ("start", wait + 40)],
    lambda wait: [("call", wait), ("start", wait + 10), ("send-away", wait + 90)],
    lambda wait: [("send-on", 60), ("reissue", 90), ("call", wait + 100)],
    lambda _: [],
)
"""What became of a ticket that was called after so many seconds."""
_STEPS = (
    (DossierReceived, DossierStatus.received, ()),
    (DossierAssigned, DossierStatus.processing, ()),
    (DossierCompleted, DossierStatus.processed, ("ended_at",)),
    (DossierReturned, DossierStatus.returned, ("ended_at", "returned_at")),
)


def past() -> Iterator[Event]:
    """Tell visits without end, one a second, in all their forms; every third has a dossier."""
    for number in count(1):
        issued = MORNING + timedelta(seconds=number)
        unit = (A, B)[number % 2]
        life = walk(issued, *_LIVES[number % len(_LIVES)](float(number * 37 % 1500)), unit=unit)
        yield from life
        if number % 4 == 0:
            yield from afterwards(life, receipt=number % 1700, score=number % 5 + 1)
        if number % 3 == 0:
            code = f"{unit}-261116-{number:04d}"
            for version, (kind, status, reached) in enumerate(_STEPS, start=1):
                told: dict[str, Any] = dict.fromkeys(reached, issued + timedelta(days=number % 4))
                yield dossier(
                    kind, code=code, version=version, status=status, competent_unit=unit,
                    received_at=issued, **told,
                )  # fmt: skip


async def append(bus: Bus, events: Iterable[Event], *, sender: str = "history") -> int:
    """Put events on the bus as they come; answer how many."""
    records: list[Record] = [received(event) for event in events]
    async with bus.producer(sender) as producer:
        for start in range(0, len(records), 2000):
            await producer.send(records[start : start + 2000])
    return len(records)


async def digest(connection: Any, schema: str = "reporting") -> dict[str, str]:
    """Give a fingerprint of every row of each projection."""
    await connection.execute("SET timezone TO 'Asia/Ho_Chi_Minh'")  # as services do
    found = {}
    for table in PROJECTIONS:
        rows = await connection.fetch(f"SELECT t::text FROM {schema}.{table} AS t ORDER BY 1")
        found[table] = sha256("\n".join(row[0] for row in rows).encode()).hexdigest()
    return found

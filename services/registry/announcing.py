"""The registry announced anew: when the bus has lost its states, or holds newer ones than it.

A database that was restored to an earlier moment is behind a bus that was not: readers hold states
of versions that the registry will give once more, and would drop its next changes as older ones.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.bus.base import Bus
from libs.common.events import publish
from libs.contracts.registry import (
    CalendarDayChanged,
    CentreChanged,
    ClientChanged,
    ProcedureChanged,
    UnitChanged,
)
from services.registry import clients, domain
from services.registry.models import CalendarOverride, Centre, Client, Procedure, Unit

TOPICS: Final = tuple(
    kind.topic
    for kind in (UnitChanged, CentreChanged, ProcedureChanged, CalendarDayChanged, ClientChanged)
)

Known = dict[tuple[str, str], bytes]
"""The last state that the bus holds of each topic and key."""


@dataclass(slots=True)
class Announced:
    """What was announced, and what only the bus knows of."""

    states: int = 0
    unknown: list[tuple[str, str]] = field(default_factory=list)
    """Topic and key of states whose rows the registry does not have."""
    ended: list[str] = field(default_factory=list)
    """Clients among these: their keys are good no more, as nobody could revoke them."""


async def known_to(bus: Bus) -> Known:
    """Read the registry's states off the bus."""
    known: Known = {}
    async with bus.follow(TOPICS) as follower:
        while not follower.caught_up:
            for record in await follower.fetch(1000, 0.2):
                if record.value is None:
                    known.pop((record.topic, record.key), None)
                else:
                    known[record.topic, record.key] = record.value
    return known


async def announce_all(session: AsyncSession, known: Known, *, at: datetime) -> Announced:
    """Publish every state under a version that is newer than any that was ever announced."""
    done = Announced()
    missing = dict(known)
    async for topic, key, row in _rows(session):
        before = missing.pop((topic, key), None)
        row.version = max(row.version, json.loads(before)["version"] if before else 0) + 1
        await session.flush()
        _announce(session, row, at)
        done.states += 1
    for (topic, key), value in sorted(missing.items()):
        if topic == ClientChanged.topic:
            state = ClientChanged.read(value)
            if not state.keys:
                continue  # it may do nothing, and needs nobody's attention
            ended = state.model_copy(update={"version": state.version + 1, "keys": ()})
            publish(session, ended, at=at)
            done.ended.append(key)
        done.unknown.append((topic, key))
    return done


Row = Unit | Centre | Procedure | CalendarOverride | Client


async def _rows(session: AsyncSession) -> AsyncIterator[tuple[str, str, Row]]:
    for unit in await session.scalars(select(Unit).with_for_update(of=Unit)):
        yield UnitChanged.topic, unit.code, unit
    for centre in await session.scalars(select(Centre).with_for_update(of=Centre)):
        yield CentreChanged.topic, centre.unit, centre
    for procedure in await session.scalars(select(Procedure).with_for_update(of=Procedure)):
        yield ProcedureChanged.topic, procedure.code, procedure
    for day in await session.scalars(select(CalendarOverride).with_for_update()):
        yield CalendarDayChanged.topic, day.day.isoformat(), day
    for client in await session.scalars(select(Client).with_for_update(of=Client)):
        yield ClientChanged.topic, client.id, client


def _announce(session: AsyncSession, row: Row, at: datetime) -> None:
    match row:
        case Unit():
            domain.announce_unit(session, row, at)
        case Centre():
            domain.announce_centre(session, row, at)
        case Procedure():
            domain.announce_procedure(session, row, at)
        case CalendarOverride():
            domain.announce_day(session, row, at)
        case Client():
            clients.announce(session, row, at)

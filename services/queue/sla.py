"""The clock of the promise: which centres are about to break it, break it, and keep it again.

Each process looks once a second at every centre. What a look changes is decided by pure functions;
where a centre stands is a row (`models.Episode`). The change of the row and its events are one
statement, which names the version that was looked at: of processes that decide the same, or of one
that comes back after a crash, only one makes the change, and that one has announced it.
`docs/queue.md` tells the rules.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import structlog

from libs.common import fast_json
from libs.common.app import Core
from libs.common.db import transient
from libs.common.events import Event
from libs.common.settings import Settings
from libs.common.trace import current_traceparent
from libs.contracts.directory import Directory
from libs.contracts.queue import CounterAdvised, WaitAtRisk, WaitBreached, WaitEvent, WaitRecovered
from services.queue.load import BREACHES, WAITS, Load, Loads, over_for_today, show_advice
from services.queue.policy import oldest_now
from services.queue.staffing import Advice

log = structlog.get_logger()

HOLD: Final = timedelta(seconds=60)
"""For how long figures must ask for a change that they may take back: a forecast that is long, and
waits that are short again. By the business clock, as the waits are."""

SHORT_AGAIN: Final = 0.8
"""The share of the at-risk threshold (12 of the 15 minutes) up to which a wait is short again: one
that hovers about the threshold is one episode, not many."""

# Decisions: pure ------------------------------------------------------------------------------


class Level(IntEnum):
    """Where a centre stands with its promise."""

    calm = 0
    at_risk = 1
    breached = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a unit stands with something that is watched: the row of `models.Episode`."""

    version: int = 0
    level: int = Level.calm
    number: int = 0
    since: datetime | None = None
    leaning_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of a unit at an instant."""

    unit: str
    at: datetime
    waiting: int = 0
    oldest: float = 0.0
    """The longest wait, in seconds, of those who wait for their first call."""
    forecast: int | None = None
    open_counters: int = 0
    advice: Advice | None = None
    """How many counters more would keep the promise, and by when, if it will not be kept."""


class Turn(NamedTuple):
    """What a look makes of a standing, and what there is to announce of it."""

    standing: Standing
    events: tuple[Event, ...] = ()


Watch = Callable[[Standing, Sight, Settings], Turn]


def watch_wait(standing: Standing, sight: Sight, settings: Settings) -> Turn:
    """Decide what a look at a unit's waits changes.

    A wait past a threshold counts at once, as it cannot take itself back. A forecast may, and so
    may waits that have become short: they must last for `HOLD`.
    """
    risk, promise = settings.at_risk_seconds, settings.sla_seconds
    foretold = (sight.forecast or 0) if sight.waiting else 0
    if sight.oldest > promise and standing.level < Level.breached:
        return _raised(standing, sight, Level.breached, settings)
    if standing.level == Level.calm:
        if sight.oldest > risk or (foretold > risk and _lasts(standing, sight.at)):
            return _raised(standing, sight, Level.at_risk, settings)
        return _leaning(standing, sight.at, asked=foretold > risk)
    if not _short_again(sight, SHORT_AGAIN * risk):
        return _leaning(standing, sight.at, asked=False)
    if _lasts(standing, sight.at):
        return _recovered(standing, sight)
    return _leaning(standing, sight.at, asked=True)


def _short_again(sight: Sight, limit: float) -> bool:
    """Tell whether everybody is called soon; people who wait while no counter is open are not."""
    if not sight.waiting:
        return True
    return sight.oldest <= limit and sight.forecast is not None and sight.forecast <= limit


def _lasts(standing: Standing, at: datetime) -> bool:
    return standing.leaning_since is not None and at - standing.leaning_since >= HOLD


def _leaning(standing: Standing, at: datetime, *, asked: bool) -> Turn:
    """Note since when a change is asked for; if the clock was set back meanwhile, since now."""
    since = min(standing.leaning_since or at, at) if asked else None
    return Turn(replace(standing, leaning_since=since))


def _raised(standing: Standing, sight: Sight, level: Level, settings: Settings) -> Turn:
    begins = standing.level == Level.calm
    raised = replace(
        standing,
        level=level,
        number=standing.number + begins,
        since=sight.at if begins else standing.since,
        leaning_since=None,
    )
    events: list[Event] = []
    if begins:
        cause = "age" if sight.oldest > settings.at_risk_seconds else "forecast"
        events.append(_told(WaitAtRisk, raised, sight, 1, cause=cause))
    if level == Level.breached:
        events.append(
            _told(
                WaitBreached,
                raised,
                sight,
                len(events) + 1,
                promise_seconds=settings.sla_seconds,
            )
        )
    return Turn(raised, tuple(events))


def _recovered(standing: Standing, sight: Sight) -> Turn:
    told = _told(
        WaitRecovered,
        standing,
        sight,
        1,
        breached=standing.level == Level.breached,
        lasted_seconds=(_not_before(standing, sight) - _since(standing)).total_seconds(),
    )
    return Turn(replace(standing, level=Level.calm, since=None, leaning_since=None), (told,))


def _told(
    kind: type[WaitEvent], standing: Standing, sight: Sight, place: int, **more: Any
) -> WaitEvent:
    """Write an event of an episode, the `place`-th of its turn."""
    return kind.model_validate(
        {
            "unit": sight.unit,
            "version": standing.version + place,
            "episode": standing.number,
            "since": standing.since,
            "at": _not_before(standing, sight),
            "waiting": sight.waiting,
            "oldest_wait_seconds": int(sight.oldest),
            "forecast_wait_seconds": sight.forecast,
            "open_counters": sight.open_counters,
            **more,
        }
    )


def _since(standing: Standing) -> datetime:
    assert standing.since is not None
    return standing.since


def _not_before(standing: Standing, sight: Sight) -> datetime:
    """Give the instant of a look; an episode does not end before it began, whatever the clock."""
    return max(sight.at, _since(standing))


def watch_counters(standing: Standing, sight: Sight, _settings: Settings) -> Turn:
    """Decide whether to advise more counters: once per episode, and both its ends must last."""
    advice = sight.advice
    asked = (advice is not None) == (standing.level == Level.calm)
    if not asked or not _lasts(standing, sight.at):
        return _leaning(standing, sight.at, asked=asked)
    if advice is None:
        return Turn(replace(standing, level=Level.calm, since=None, leaning_since=None))
    raised = replace(
        standing,
        level=Level.at_risk,
        number=standing.number + 1,
        since=sight.at,
        leaning_since=None,
    )
    told = _told(
        CounterAdvised,
        raised,
        sight,
        1,
        open_more=advice.more,
        by=advice.by,
        otherwise_at=advice.otherwise_at,
        otherwise_wait_seconds=advice.otherwise_seconds,
    )
    return Turn(raised, (told,))


WATCHES: Final[Mapping[str, Watch]] = {"wait": watch_wait, "counters": watch_counters}
"""What is watched of every unit, by the name that its rows are kept under. Another thing to tell
once per episode, like advice to open a counter, is one more function here: a look runs them all,
and each keeps a standing of its own."""

# Looks ----------------------------------------------------------------------------------------

_STANDINGS = """
SELECT unit, watch, version, level, number, since, leaning_since FROM episodes
"""

_WAITS = """
SELECT unit, count(*)::int AS waiting,
    min(issued_at) FILTER (WHERE first_called_at IS NULL) AS since
FROM tickets WHERE status = 'waiting' AND due_at >= $1 GROUP BY unit
"""

_TURN = """
WITH turned AS (
    INSERT INTO episodes AS standing
        (unit, watch, version, level, number, since, leaning_since)
    VALUES ($1, $2, $4, $5, $6, $7, $8)
    ON CONFLICT (unit, watch) DO UPDATE SET version = excluded.version, level = excluded.level,
        number = excluded.number, since = excluded.since, leaning_since = excluded.leaning_since
    WHERE standing.version = $3
    RETURNING unit
), announced AS (
    INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
    SELECT gen_random_uuid(), event.topic, turned.unit, event.type, $9, $10, event.body
    FROM turned, unnest($11::text[], $12::text[], $13::bytea[])
        WITH ORDINALITY AS event (topic, type, body, place)
    ORDER BY event.place
)
SELECT unit FROM turned
"""
"""Parameters: unit, watch, version looked at, then the row's version, level, number, since and
leaning since; instant, traceparent, topics, types and bodies of the events. Empty: another was
first."""

_NOTE_LATE = """
INSERT INTO late_tickets (ticket_id, unit, noticed_at)
SELECT id, unit, $1 FROM tickets AS ticket
WHERE status = 'waiting' AND first_called_at IS NULL AND due_at >= $2 AND issued_at < $3
    AND NOT EXISTS (SELECT FROM late_tickets AS known WHERE known.ticket_id = ticket.id)
-- In one order, so that two processes never wait for each other.
ORDER BY id ON CONFLICT DO NOTHING RETURNING unit
"""

_NOTE_ONE = """
INSERT INTO late_tickets (ticket_id, unit, noticed_at) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING RETURNING unit
"""


class Watchdog:
    """Looks at every unit once a second, beside the watchdogs of the other processes."""

    every_seconds: Final = 1.0

    def __init__(self, core: Core, directory: Directory, loads: Loads) -> None:
        """Prepare; `run` looks."""
        self._core = core
        self._pool: asyncpg.Pool = core.db.hot
        self._directory = directory
        self._loads = loads

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                # Before the first measuring there is no forecast, and none is not a short one.
                if self._loads.measured:
                    await self.look()
            except Exception as error:
                if not transient(error):
                    raise
                log.warning("sla.not_looked", error=type(error).__name__)
            await asyncio.sleep(self.every_seconds)

    async def look(self) -> None:
        """Look once: count who has waited too long, and turn every standing that changes."""
        now = self._core.clock.now()
        # First where units stand, then what is the case: a decision is never older than the
        # standing that it changes.
        standings = {
            (row["unit"], row["watch"]): _standing(row)
            for row in await self._pool.fetch(_STANDINGS)
        }
        waits = await self._pool.fetch(_WAITS, oldest_now(now))
        await self._count_late(waits, now)
        sights = dict(self._seen({row["unit"]: row for row in waits}, now))
        for unit in self._directory.centres:
            show_advice(unit, sights[unit].advice if unit in sights else None, now)
        stirring = {unit for (unit, _), s in standings.items() if s.level or s.leaning_since}
        for unit in sorted(stirring | sights.keys()):
            sight = sights.get(unit) or Sight(unit, now)
            for watch, decide in WATCHES.items():
                standing = standings.get((unit, watch), Standing())
                turn = decide(standing, sight, self._core.settings)
                if turn.standing != standing:
                    await self._turn(watch, standing, turn, sight)

    def _seen(
        self, waits: Mapping[str, asyncpg.Record], now: datetime
    ) -> Iterator[tuple[str, Sight]]:
        """See every unit where somebody waits or a counter is open."""
        loads = self._loads.all()
        for unit in waits.keys() | loads.keys():
            load, row = loads.get(unit) or Load(now), waits.get(unit)
            if row and not load.open_counters and over_for_today(self._directory, unit, now):
                row = None
            since = row["since"] if row else None
            yield (
                unit,
                Sight(
                    unit,
                    now,
                    waiting=row["waiting"] if row else 0,
                    oldest=max(0.0, (now - since).total_seconds()) if since else 0.0,
                    forecast=load.forecast_wait_seconds,
                    open_counters=load.open_counters,
                    advice=self._loads.advice(unit),
                ),
            )

    async def _count_late(self, waits: Sequence[asyncpg.Record], now: datetime) -> None:
        promised = now - timedelta(seconds=self._core.settings.sla_seconds)
        if not any(row["since"] is not None and row["since"] < promised for row in waits):
            return
        for row in await self._pool.fetch(_NOTE_LATE, now, oldest_now(now), promised):
            BREACHES.labels(row["unit"]).inc()

    async def _turn(self, watch: str, before: Standing, turn: Turn, sight: Sight) -> None:
        after, events = turn
        first = await self._pool.fetchval(
            _TURN,
            sight.unit,
            watch,
            before.version,
            before.version + max(1, len(events)),
            int(after.level),
            after.number,
            after.since,
            after.leaning_since,
            sight.at,
            current_traceparent(),
            [event.topic for event in events],
            [event.type_name() for event in events],
            [event.model_dump_json().encode() for event in events],
        )
        if first and events:
            told = [event.type_name() for event in events]
            log.info("sla.turned", unit=sight.unit, watch=watch, events=told)
            if self._core.relay is not None:
                self._core.relay.wake()


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(row["version"], row["level"], row["number"], row["since"], row["leaning_since"])


# Waits that have ended ------------------------------------------------------------------------


async def note_first_call(
    pool: asyncpg.Pool, answer: str, wait: float, *, promise: timedelta, at: datetime
) -> None:
    """Measure a wait that a first call has ended; `answer` is the ticket as JSON."""
    WAITS.observe(wait)
    if wait > promise.total_seconds():
        await _note_one(pool, fast_json.loads(answer), at)


async def note_given_up(
    pool: asyncpg.Pool, answer: str, *, promise: timedelta, at: datetime
) -> None:
    """Count the wait of somebody who gave up uncalled, if it had become too long."""
    ticket = fast_json.loads(answer)
    if ticket["wait_seconds"] is not None:
        return
    issued, ended = (datetime.fromisoformat(ticket[name]) for name in ("issued_at", "ended_at"))
    if ended - issued > promise:
        await _note_one(pool, ticket, at)


async def _note_one(pool: asyncpg.Pool, ticket: Mapping[str, Any], at: datetime) -> None:
    """Count a late ticket that no look has seen waiting; what was done at the counter is done."""
    try:
        if await pool.fetchval(_NOTE_ONE, UUID(ticket["id"]), ticket["unit"], at):
            BREACHES.labels(ticket["unit"]).inc()
    except Exception as error:
        if not transient(error):
            raise
        log.warning("sla.not_counted", error=type(error).__name__)

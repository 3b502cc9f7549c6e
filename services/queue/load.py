"""How loaded each unit is: measured once a second, shown as metrics, announced as events."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import structlog
from prometheus_client import Counter, Gauge, Histogram

from libs.common import fast_json
from libs.common.app import Core
from libs.common.db import transient
from libs.common.trace import current_traceparent
from libs.common.worktime import business_day, periods
from libs.contracts.directory import Directory
from services.queue.halls import Halls, Outlook
from services.queue.policy import oldest_now
from services.queue.service_times import ServiceTimes
from services.queue.staffing import Advice, advise

log = structlog.get_logger()

WAITING = Gauge("motcua_queue_waiting_tickets", "People who wait.", ("unit",))
OLDEST = Gauge(
    "motcua_queue_oldest_wait_seconds",
    "The longest wait of those who wait for their first call.",
    ("unit",),
)
FORECAST = Gauge(
    "motcua_queue_forecast_wait_seconds",
    "Expected wait of a newcomer; NaN while no counter is open.",
    ("unit",),
)
OPEN = Gauge("motcua_queue_open_counters", "Counters open.", ("unit",))
IDLE = Gauge(
    "motcua_queue_counter_idle_seconds",
    "The longest that an open counter has been free while somebody waits whom it may call.",
    ("unit",),
)
HELD = Gauge(
    "motcua_queue_counter_held_seconds",
    "The longest that a counter has had the same person, from the call on.",
    ("unit",),
)
BREACH_IN = Gauge(
    "motcua_queue_breach_expected_seconds",
    "In how long a newcomer's wait will pass the promise; NaN where not within the hour.",
    ("unit",),
)
ADVISED = Gauge(
    "motcua_queue_counters_advised",
    "How many counters more would keep the promise for the next hour.",
    ("unit",),
)
MEASURED = Gauge(
    "motcua_queue_measured_timestamp_seconds",
    "When waits were last measured, by the wall clock: older gauges tell nothing.",
)
WAITS = Histogram(
    "motcua_queue_wait_seconds",
    "From ticket issued to first call.",
    buckets=(30, 60, 120, 300, 600, 900, 1200, 1800, 2700, 3600),
)
BREACHES = Counter(
    "motcua_queue_sla_breaches",
    "Tickets that were not called within the promise, each counted once, by one process.",
    ("unit",),
)

NONE: Final = float("nan")
"""What a gauge shows where there is no figure: no comparison with it is true."""

_LOADS = """
SELECT unit, sum(waiting)::int AS waiting, min(since) AS since, sum(open)::int AS open,
    (extract(epoch FROM statement_timestamp()) * 1000)::bigint AS measured_ms
FROM (
    -- Who was called before and waits again has had what was promised.
    SELECT unit, count(*) AS waiting,
        min(issued_at) FILTER (WHERE first_called_at IS NULL) AS since, 0 AS open
    FROM tickets WHERE status = 'waiting' AND due_at >= $1 GROUP BY unit
    UNION ALL
    SELECT unit, 0, NULL, count(*) FROM counters WHERE state = 'open' GROUP BY unit
    UNION ALL
    -- A unit that was last announced as busy and is not any more has one last thing to tell,
    -- whoever announced it and however long ago.
    SELECT unit, 0, NULL, 0 FROM published_loads WHERE figures <> $2
) AS parts GROUP BY unit
"""

# Replicas measure each for themselves; whoever is first in a second announces for all. The server's
# clock is the one they share. If it was set back, what was announced last lies ahead of it; so does
# what a replica measured that was overtaken, by far less than ten seconds.
_ANNOUNCE = """
WITH measured AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS load (unit, figures, body)
), news AS (
    INSERT INTO published_loads AS known (unit, at_ms, version, figures)
    SELECT unit, $4::bigint, $4::bigint, figures FROM measured ORDER BY unit
    ON CONFLICT (unit) DO UPDATE SET at_ms = excluded.at_ms, figures = excluded.figures,
        version = greatest(excluded.version, known.version + 1)
    WHERE known.at_ms > excluded.at_ms + 10000 OR (known.at_ms <= excluded.at_ms - 1000
        AND (known.figures <> excluded.figures OR known.at_ms <= excluded.at_ms - 10000))
    RETURNING unit, version
)
INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
SELECT gen_random_uuid(), 'queue.load.v1', unit, 'QueueLoad', $5, $6,
    convert_to((body::jsonb || jsonb_build_object('version', version))::text, 'UTF8')
FROM measured JOIN news USING (unit)
"""


@dataclass(frozen=True, slots=True)
class Load:
    """A unit's load at an instant."""

    as_of: datetime
    waiting: int = 0
    oldest_wait_seconds: int = 0
    forecast_wait_seconds: int | None = None
    open_counters: int = 0

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.waiting and not self.open_counters


class Loads:
    """The load of every unit, measured once a second by each process for itself."""

    every_seconds: Final = 1.0
    stale_after: Final = 10.0
    """Wall seconds after which a forecast is not told any more, if measuring has failed since."""

    def __init__(self, core: Core, directory: Directory) -> None:
        """Prepare; `run` measures."""
        self._core = core
        self._directory = directory
        self.measured = False
        """Whether it was once measured."""
        self._by_unit: dict[str, Load] = {}
        self._looked_at = 0.0
        self._halls = Halls(core, directory)

    def forecast(self, unit: str) -> int | None:
        """Give the expected wait of a newcomer, in seconds; None while no counter is open."""
        outlook = self.outlook(unit)
        return outlook.forecast if outlook else None

    def waits(self, unit: str, line: str) -> list[list[int]] | None:
        """Give the expected waits of a line by the number of people ahead; see `forecast.waits`.

        In the shape that the statements take. None while no counter calls the line.
        """
        outlook = self.outlook(unit)
        return [list(wait) for wait in outlook.line(line).waits] or None if outlook else None

    def outlook(self, unit: str) -> Outlook | None:
        """Give what is foretold of a centre, as a rule at most two seconds old.

        None while no counter is open.
        """
        fresh = time.monotonic() - self._looked_at <= self.stale_after
        return self._halls.outlook(unit) if fresh else None

    def advice(self, unit: str) -> Advice | None:
        """Tell how many counters more are needed by when, or the promise will be broken."""
        outlook = self.outlook(unit)
        now = outlook.now() if outlook else None
        return advise(now, float(self._core.settings.sla_seconds)) if now else None

    @property
    def times(self) -> ServiceTimes:
        """What was learnt of visits."""
        return self._halls.times

    def all(self) -> dict[str, Load]:
        """Give every unit that has something to tell."""
        return {unit: load for unit, load in self._by_unit.items() if not load.quiet}

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            begun = time.monotonic()
            try:
                await self._measure()
            except Exception as error:
                if not transient(error):
                    raise
                log.warning("load.not_measured", error=type(error).__name__)
            # However long it took, others come to their turn.
            await asyncio.sleep(max(0.2, begun + self.every_seconds - time.monotonic()))

    async def _measure(self) -> None:
        now = self._core.clock.now()
        await self._halls.look(now)
        self._looked_at = time.monotonic()
        rows = await self._core.db.hot.fetch(_LOADS, oldest_now(now), _figures(Load(now)))
        before = self._by_unit
        self._by_unit = {row["unit"]: self._load(row, now) for row in rows}
        self.measured = True
        MEASURED.set_to_current_time()
        for unit in before.keys() | self._by_unit.keys():
            self.show(unit)
        if rows:
            await self._announce(rows[0]["measured_ms"], now)

    def show(self, unit: str) -> None:
        """Set a unit's gauges."""
        load = self._by_unit.get(unit) or Load(self._core.clock.now())
        WAITING.labels(unit).set(load.waiting)
        OLDEST.labels(unit).set(load.oldest_wait_seconds)
        OPEN.labels(unit).set(load.open_counters)
        forecast = load.forecast_wait_seconds
        FORECAST.labels(unit).set(NONE if forecast is None else forecast)
        outlook = self.outlook(unit)
        IDLE.labels(unit).set(outlook.idle if outlook else 0)
        HELD.labels(unit).set(outlook.held if outlook else 0)

    def _load(self, row: asyncpg.Record, now: datetime) -> Load:
        if not row["open"] and over_for_today(self._directory, row["unit"], now):
            return Load(now)
        since = row["since"]
        return Load(
            as_of=now,
            waiting=row["waiting"],
            oldest_wait_seconds=max(0, int((now - since).total_seconds())) if since else 0,
            forecast_wait_seconds=self.forecast(row["unit"]) if row["open"] else None,
            open_counters=row["open"],
        )

    async def _announce(self, measured_ms: int, now: datetime) -> None:
        loads = self._by_unit.items()
        await self._core.db.hot.execute(
            _ANNOUNCE,
            [unit for unit, _ in loads],
            [_figures(load) for _, load in loads],
            [_event(unit, load) for unit, load in loads],
            measured_ms,
            now,
            current_traceparent(),
        )


def show_advice(unit: str, advice: Advice | None, now: datetime) -> None:
    """Set the gauges of what is advised, or that nothing is."""
    ADVISED.labels(unit).set(advice.more if advice else 0)
    left = max(0.0, (advice.otherwise_at - now).total_seconds()) if advice else NONE
    BREACH_IN.labels(unit).set(left)


def over_for_today(directory: Directory, unit: str, now: datetime) -> bool:
    """Tell whether a centre opens no more on this day: nobody is left there to be called.

    Who waits through the lunch break waits; a counter that is open after hours still calls.
    """
    spans = periods(business_day(now), directory.hours(unit), directory.calendar)
    return all(closes <= now for _, closes in spans)


def _figures(load: Load) -> str:
    """Write what makes a load new; the oldest wait grows by itself and is told every 10 seconds."""
    return f"{load.waiting} {load.open_counters} {load.forecast_wait_seconds}"


def _event(unit: str, load: Load) -> str:
    """Write a load without its version, which the statement gives."""
    return fast_json.dumps(
        {
            "unit": unit,
            "as_of": load.as_of,
            "waiting": load.waiting,
            "oldest_wait_seconds": load.oldest_wait_seconds,
            "forecast_wait_seconds": load.forecast_wait_seconds,
            "open_counters": load.open_counters,
        }
    ).decode()

"""How loaded each unit is: measured once a second, shown as metrics, announced as events."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import structlog
from prometheus_client import Counter, Gauge, Histogram

from libs.common import fast_json
from libs.common.app import Core
from libs.common.db import transient
from libs.common.trace import current_traceparent
from services.queue.forecast import USUAL_SERVICE_SECONDS, forecast_wait, mean_service
from services.queue.policy import oldest_now

log = structlog.get_logger()

WAITING = Gauge("motcua_queue_waiting_tickets", "People who wait.", ("unit",))
OLDEST = Gauge("motcua_queue_oldest_wait_seconds", "The longest wait of those waiting.", ("unit",))
FORECAST = Gauge(
    "motcua_queue_forecast_wait_seconds",
    "Expected wait of a newcomer; NaN while no counter is open.",
    ("unit",),
)
OPEN = Gauge("motcua_queue_open_counters", "Counters open.", ("unit",))
WAITS = Histogram(
    "motcua_queue_wait_seconds",
    "From ticket issued to first call.",
    buckets=(30, 60, 120, 300, 600, 900, 1200, 1800, 2700, 3600),
)
BREACHES = Counter(
    "motcua_queue_sla_breaches", "Tickets first called later than promised.", ("unit",)
)

_LOADS = """
SELECT unit, sum(waiting)::int AS waiting, min(since) AS since, sum(open)::int AS open,
    sum(busy)::int AS busy
FROM (
    SELECT unit, count(*) AS waiting, min(issued_at) AS since, 0 AS open, 0 AS busy
    FROM tickets WHERE status = 'waiting' AND due_at >= $1 GROUP BY unit
    UNION ALL
    SELECT unit, 0, NULL, count(*), 0 FROM counters WHERE state = 'open' GROUP BY unit
    UNION ALL
    SELECT unit, 0, NULL, 0, count(*) FROM tickets WHERE status IN ('called', 'serving')
    GROUP BY unit
    UNION ALL
    -- A unit that was last announced as busy and is not any more has one last thing to tell,
    -- whoever announced it and however long ago.
    SELECT unit, 0, NULL, 0, 0 FROM published_loads WHERE figures <> $2
) AS parts GROUP BY unit
"""

_SERVICE_TIMES = """
SELECT unit, count(*)::int AS visits,
    sum(extract(epoch FROM ended_at - started_at))::float8 AS total
FROM tickets WHERE status = 'finished' AND ended_at >= $1 GROUP BY unit
"""

# Replicas measure each for themselves; whoever is first in a second announces for all.
_ANNOUNCE = """
WITH news AS (
    INSERT INTO published_loads AS known (unit, at_ms, figures)
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[])
    ON CONFLICT (unit) DO UPDATE SET at_ms = excluded.at_ms, figures = excluded.figures
    WHERE known.at_ms <= excluded.at_ms - 1000
        AND (known.figures <> excluded.figures OR known.at_ms <= excluded.at_ms - 10000)
    RETURNING unit
)
INSERT INTO outbox (event_id, topic, key, type, time, traceparent, body)
SELECT gen_random_uuid(), 'queue.load.v1', load.unit, 'QueueLoad', $5, $6,
    convert_to(load.body, 'UTF8')
FROM unnest($1::text[], $4::text[]) AS load (unit, body) JOIN news USING (unit)
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
    service_times_every: Final = 30

    def __init__(self, core: Core) -> None:
        """Prepare; `run` measures."""
        self._core = core
        self._by_unit: dict[str, Load] = {}
        self._service: dict[str, float] = {}

    def forecast(self, unit: str) -> int | None:
        """Give the expected wait of a newcomer, in seconds, at most two seconds old."""
        load = self._by_unit.get(unit)
        return load.forecast_wait_seconds if load else None

    def all(self) -> dict[str, Load]:
        """Give every unit that has something to tell."""
        return {unit: load for unit, load in self._by_unit.items() if not load.quiet}

    async def run(self) -> None:
        """Measure until cancelled."""
        rounds = 0
        while True:
            try:
                if rounds % self.service_times_every == 0:
                    await self._measure_service_times()
                await self._measure()
                rounds += 1
            except Exception as error:
                if not transient(error):
                    raise
                log.warning("load.not_measured", error=type(error).__name__)
            await asyncio.sleep(self.every_seconds)

    async def _measure_service_times(self) -> None:
        since = self._core.clock.now() - timedelta(hours=2)
        rows = await self._core.db.hot.fetch(_SERVICE_TIMES, since)
        self._service = {r["unit"]: mean_service(r["visits"], r["total"] or 0.0) for r in rows}

    async def _measure(self) -> None:
        now = self._core.clock.now()
        quiet = _figures(Load(now))
        rows = await self._core.db.hot.fetch(_LOADS, oldest_now(now), quiet)
        before = self._by_unit
        self._by_unit = {row["unit"]: self._load(row, now) for row in rows}
        for unit in before.keys() | self._by_unit.keys():
            self.show(unit)
        await self._announce(now)

    def show(self, unit: str) -> None:
        """Set a unit's gauges."""
        load = self._by_unit.get(unit) or Load(self._core.clock.now())
        WAITING.labels(unit).set(load.waiting)
        OLDEST.labels(unit).set(load.oldest_wait_seconds)
        OPEN.labels(unit).set(load.open_counters)
        forecast = load.forecast_wait_seconds
        FORECAST.labels(unit).set(float("nan") if forecast is None else forecast)

    def _load(self, row: asyncpg.Record, now: datetime) -> Load:
        since = row["since"]
        return Load(
            as_of=now,
            waiting=row["waiting"],
            oldest_wait_seconds=max(0, int((now - since).total_seconds())) if since else 0,
            forecast_wait_seconds=forecast_wait(
                waiting=row["waiting"],
                open_counters=row["open"],
                busy_counters=row["busy"],
                service_seconds=self._service.get(row["unit"], USUAL_SERVICE_SECONDS),
            ),
            open_counters=row["open"],
        )

    async def _announce(self, now: datetime) -> None:
        if not self._by_unit:
            return
        wall = int(time.time() * 1000)
        units = list(self._by_unit)
        await self._core.db.hot.execute(
            _ANNOUNCE,
            units,
            [wall] * len(units),
            [_figures(self._by_unit[unit]) for unit in units],
            [_event(unit, self._by_unit[unit], wall) for unit in units],
            now,
            current_traceparent(),
        )


def _figures(load: Load) -> str:
    """Write what makes a load new; the oldest wait grows by itself and is told every 10 seconds."""
    return f"{load.waiting} {load.open_counters} {load.forecast_wait_seconds}"


def _event(unit: str, load: Load, wall: int) -> str:
    return fast_json.dumps(
        {
            "unit": unit,
            "version": wall,
            "as_of": load.as_of,
            "waiting": load.waiting,
            "oldest_wait_seconds": load.oldest_wait_seconds,
            "forecast_wait_seconds": load.forecast_wait_seconds,
            "open_counters": load.open_counters,
        }
    ).decode()


def note_first_call(unit: str, wait: float, promise_seconds: int) -> None:
    """Count a wait that has just ended."""
    WAITS.observe(wait)
    if wait > promise_seconds:
        BREACHES.labels(unit).inc()

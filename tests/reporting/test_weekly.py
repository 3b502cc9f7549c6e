"""The report over HTTP: who may read it, its shape, and facts from the bus to the answer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx
import pytest

from libs.common.bus.embedded import open_embedded_bus
from libs.common.db import connector, open_database, service_url
from libs.common.events import Event, publish
from libs.common.outbox import Relay, drained
from services.reporting.api import WeeklyReport
from services.reporting.main import app
from tests.reporting.support import LATER, A, B, at, dossier, ticket
from tests.support import FrozenClock, bearer, fields_of, running, settings_for

PATH = "/v1/reports/weekly/2026-W47"


@asynccontextmanager
async def reporting_on(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run reporting until it knows the city, at an instant after the week."""
    async with running(app, settings_for(url), FrozenClock(LATER)) as client:
        await eventually(client, "/readyz", lambda answer: answer.status_code == 200)
        yield client


@pytest.fixture
async def reporting(city_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give reporting with the city in its directory and no fact yet."""
    async with reporting_on(city_url) as client:
        yield client


async def eventually(client: httpx.AsyncClient, path: str, done: Any) -> httpx.Response:
    """Ask until an answer is as wanted; what a consumer does takes a moment of the wall clock."""
    end = monotonic() + 10
    while True:
        answer = await client.get(path, headers=bearer("city"))
        if done(answer) or monotonic() > end:
            return answer
        await asyncio.sleep(0.02)


async def announce(url: str, service: str, events: Sequence[Event]) -> None:
    """Publish as another service does: its outbox, and its relay to the bus."""
    own = service_url(settings_for(url), service)
    async with (
        open_database(own, service) as database,
        open_embedded_bus(own, connector(own, service)) as bus,
    ):
        async with database.sessions.begin() as session:
            for event in events:
                publish(session, event, at=LATER)
        relay = asyncio.create_task(Relay(service, database, bus).run())
        try:
            assert await drained(database, within=10)
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)


async def test_where_nothing_happened_every_unit_stands_with_zeros(
    reporting: httpx.AsyncClient,
) -> None:
    answer = await reporting.get(PATH, headers=bearer("city"))
    report = answer.json()
    WeeklyReport.model_validate(report)
    assert {name: report[name] for name in ("week", "from", "to", "due_at")} == {
        "week": "2026-W47",
        "from": "2026-11-13T00:00:00+07:00",
        "to": "2026-11-20T00:00:00+07:00",
        "due_at": "2026-11-20T16:00:00+07:00",
    }
    assert (report["sealed"], report["revision"], report["fields"]) == (False, 0, [])
    assert report["identity"] == {"holds": True, "violated": []}
    codes = [row["unit"] for row in report["units"]]
    assert len(codes) == 168
    assert codes == sorted(codes)
    for row in (report["city"], *report["units"]):
        assert row["received"] == {"total": 0, "online": 0, "direct": 0, "carried_over": 0}
        assert row["resolved"] == {"total": 0, "early": 0, "on_time": 0, "late": 0}
        assert row["pending"] == {"total": 0, "in_time": 0, "overdue": 0}
        assert row["queue"]["tickets"] == row["returned"] == 0
        assert row["queue"]["wait_p95_seconds"] is row["queue"]["share_within_sla"] is None
    assert {row["name"] for row in report["units"]} >= {"Phường Sài Gòn"}


async def test_what_queue_and_intake_announce_stands_in_the_report(city_url: str) -> None:
    issued = at("2026-11-16 08:00")
    await announce(
        city_url, "queue",
        [*ticket(issued, called=300, ends="finished", ends_after=700),
         *ticket(issued, called=1500, ends="no_show", ends_after=1600),
         *ticket(issued, ends="cancelled", ends_after=30, unit=B)],
    )  # fmt: skip
    async with reporting_on(city_url) as client:
        # Announced while reporting runs, after what waited for it on the bus.
        await announce(
            city_url, "intake",
            [dossier(channel="online", ended_at=at("2026-11-17 08:00")),
             dossier(competent_unit=B, appointment_at=at("2026-11-19 17:00"))],
        )  # fmt: skip
        answer = await eventually(
            client, PATH, lambda answer: (city := answer.json()["city"])["received"]["total"] == 2
            and city["queue"]["cancelled"] == 1,
        )  # fmt: skip
        alone = (
            await client.get(PATH, params={"unit": "gso:25747"}, headers=bearer("manager", A))
        ).json()
    report = answer.json()
    WeeklyReport.model_validate(report)
    assert report["city"]["received"]["online"] == report["city"]["resolved"]["early"] == 1
    assert report["city"]["pending"] == {"total": 1, "in_time": 0, "overdue": 1}
    queue = report["city"]["queue"]
    assert (queue["tickets"], queue["called"], queue["cancelled"]) == (3, 2, 1)
    assert (queue["wait_p50_seconds"], queue["share_within_sla"]) == (300, 0.5)
    assert [row["unit"] for row in alone["units"]] == [A]
    assert alone["city"]["received"]["total"] == alone["city"]["received_for_others"] == 1
    assert alone["city"]["queue"]["tickets"] == 2


async def test_a_malformed_week_is_refused_by_name(reporting: httpx.AsyncClient) -> None:
    for week in ("2026-47", "2026-W54", "2025-W53", "latest", "0000-W01", "2026-W47%0A"):
        answer = await reporting.get(f"/v1/reports/weekly/{week}", headers=bearer("city"))
        assert answer.status_code == 422, week
        assert fields_of(answer) == {"week"}


async def test_a_week_that_has_not_begun_has_no_report(reporting: httpx.AsyncClient) -> None:
    running_week = await reporting.get("/v1/reports/weekly/2026-W48", headers=bearer("city"))
    assert running_week.status_code == 200
    answer = await reporting.get("/v1/reports/weekly/2026-W49", headers=bearer("city"))
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:motcua:problem:week-not-begun"


async def test_who_may_read(reporting: httpx.AsyncClient) -> None:
    async def status(unit: str | None, *caller: str) -> int:
        headers = bearer(*caller) if caller else {}
        params = {"unit": unit} if unit else {}
        return (await reporting.get(PATH, params=params, headers=headers)).status_code

    assert await status(None) == 401
    assert [await status(None, role) for role in ("ops", "portal", "kiosk")] == [403] * 3
    assert await status(None, "city") == await status(A, "city") == 200
    for role in ("officer", "manager"):
        assert await status(A, role, A) == 200
        assert await status("gso:25747", role, A) == 200
        assert await status(B, role, A) == 403
        assert await status(None, role, A) == 403
        assert await status("H29.99999", role, A) == 404
    assert await status("H29.99999", "city") == 404
    assert await status("h29", "city") == 422

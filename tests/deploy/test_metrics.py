"""What a whole city exports: all that the contract and the documents name, and no more of it for
whatever anybody sends."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import _copy
from tests.deploy.exported import NOT_YET, Metric, metrics_in, whole_city
from tests.support import bearer

CONTRACT = {
    "motcua_queue_waiting_tickets": ("gauge", {"unit"}),
    "motcua_queue_oldest_wait_seconds": ("gauge", {"unit"}),
    "motcua_queue_forecast_wait_seconds": ("gauge", {"unit"}),
    "motcua_queue_open_counters": ("gauge", {"unit"}),
    "motcua_queue_wait_seconds_bucket": ("histogram", {"le"}),
    "motcua_queue_sla_breaches_total": ("counter", {"unit"}),
    "motcua_outbox_oldest_age_seconds": ("gauge", {"service"}),
    "motcua_consumer_lag": ("gauge", {"service", "topic"}),
    "motcua_dlq_messages_total": ("counter", {"service", "topic"}),
    "motcua_http_request_duration_seconds_bucket": (
        "histogram", {"service", "route", "method", "status", "le"},
    ),
}  # fmt: skip
"""`api.md`, "Metrics that alerts stand on", but for what `NOT_YET` names."""

SERVICES = {"registry", "intake", "queue", "reporting", "gateway"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
async def door(server_url: str, seeded: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client to a city that holds the 168 units."""
    async for url in _copy(server_url, seeded):
        async with whole_city(url) as client:
            yield client


async def scraped(door: httpx.AsyncClient) -> dict[str, Metric]:
    """Scrape."""
    return metrics_in((await door.get("/metrics")).text)


def valued(metric: Metric, label: str) -> set[str]:
    """Give the values of a label."""
    return {value for child in metric.children for name, value in child if name == label}


async def test_every_metric_of_the_contract_is_exported_with_its_type_and_labels(
    door: httpx.AsyncClient,
) -> None:
    found = await scraped(door)
    shown = {name: (found[name].type, found[name].labels) for name in CONTRACT if name in found}
    assert shown == CONTRACT
    assert "1200.0" in valued(found["motcua_queue_wait_seconds_bucket"], "le")
    for feature in NOT_YET:
        assert not feature & found.keys(), "it is exported now: take it off the list"


async def test_children_are_there_before_their_first_event(door: httpx.AsyncClient) -> None:
    found = await scraped(door)
    units = valued(found["motcua_queue_waiting_tickets"], "unit")
    assert len(units) == 168
    by_unit = {name for name, metric in found.items() if metric.labels == {"unit"}}
    assert len(by_unit) >= 10
    for name in by_unit:
        assert valued(found[name], "unit") == units, name
    assert len(found["motcua_unit_info"].children) == 168
    assert valued(found["motcua_service_info"], "service") == SERVICES
    assert valued(found["motcua_http_failures_total"], "service") == SERVICES
    assert valued(found["motcua_outbox_oldest_age_seconds"], "service") == SERVICES - {"gateway"}
    followed = found["motcua_consumer_lag"].children
    assert followed == found["motcua_dlq_messages_total"].children
    assert {dict(child)["service"] for child in followed} >= {"queue", "reporting"}
    pools = found["motcua_database_connections_used"].children
    assert pools == found["motcua_database_connections_limit"].children
    assert len(pools) == 4 * 2


async def test_the_document_names_every_metric_with_its_type_and_labels(
    door: httpx.AsyncClient,
) -> None:
    row = re.compile(r"^\| `(motcua_\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", re.MULTILINE)
    rows = row.findall(DOCUMENT.read_text("utf-8"))
    told = {name: (type_, set(filter(None, labels.split(",")))) for name, labels, type_ in rows}
    assert len(told) == len(rows), "each once"
    exported = {
        re.sub(r"_(bucket|sum|count)$", "", name) if metric.type == "histogram" else name: (
            metric.type, metric.labels - {"le"},
        )
        for name, metric in (await scraped(door)).items()
        if name.startswith("motcua_") and not name.endswith("_created")
    }  # fmt: skip
    later = {name for feature in NOT_YET for name in feature}
    assert {name: row for name, row in told.items() if name not in later} == exported
    assert later <= told.keys()


async def test_no_sender_can_make_metrics_grow(door: httpx.AsyncClient) -> None:
    """Two barrages with other names: what the second one added would be added for ever."""
    sizes = []
    for barrage in ("evil", "vile"):
        for number in range(3):
            await _send_nonsense(door, f"{barrage}{number}")
        text = (await door.get("/metrics")).text
        assert barrage not in text.lower()
        sizes.append({name: metric.children for name, metric in metrics_in(text).items()})
    first, second = sizes
    assert second == first


async def _send_nonsense(door: httpx.AsyncClient, word: str) -> None:
    officer, citizen = bearer("officer", f"H29.{word}"), {"X-Forwarded-For": "203.0.113.7"}
    for method, path in (
        ("GET", f"/{word}"),
        ("GET", f"/v1/{word}"),
        ("GET", f"/v1/{word}/{word}"),
        ("GET", f"/v1/units/{word}/queue"),
        ("GET", f"/v1/units/H29.{word.upper()}/forecast"),
        ("GET", f"/v1/units/{word}/{word}"),
        ("GET", f"/v1/tickets/{word}"),
        ("GET", f"/v1/reports/weekly/{word}"),
        ("GET", f"/v1/track/{word}"),
        ("GET", f"/v1/units/{word}/queue/stream"),
        ("PUT", f"/v1/units/{word}/counters/{word}"),
        ("POST", f"/v1/units/{word}/counters/1/call-next"),
        (word.upper(), "/v1/units"),
        (word.upper(), f"/{word}"),
    ):
        await door.request(method, path, headers=officer | citizen)
    wish = {"unit": f"H29.{word.upper()}", "channel": "web", "series": word[0].upper()}
    await door.post("/v1/tickets", json=wish, headers={"Idempotency-Key": word})
    await door.get("/v1/units", headers={"Authorization": f"Bearer {word}", "X-API-Key": word})
    await door.get("/v1/units", params={word: word}, headers={"traceparent": word, word: word})

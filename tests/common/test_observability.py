"""What operators see: JSON lines without personal data, traces that go through, few labels."""

import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import observability
from libs.common.app import Service, create_app
from libs.common.db import Session
from libs.common.events import EventRouter, publish
from libs.common.trace import continue_trace, current_trace_id, current_traceparent
from tests.common.helpers import eventually
from tests.common.things import AT, Counted
from tests.support import running, settings_for

TRACE = "0123456789abcdef0123456789abcdef"
PARENT = f"00-{TRACE}-0123456789abcdef-01"

PROGRAM = """
import logging, structlog
from libs.common.observability import configure_logging
from libs.common.trace import continue_trace
configure_logging("info")
log, other = structlog.get_logger(), logging.getLogger("some.library")
{body}
"""


def lines_of(body: str) -> list[dict[str, Any]]:
    """Run a program that logs as a service does; read its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_line_is_json_and_hides_persons_and_credentials() -> None:
    lines = lines_of(
        """
class Citizen:
    def __repr__(self):
        return "Citizen(079123456789)"

continue_trace("00-a123456789012b0901234567c0000000-0123456789abcdef-01")
log.info("hồ sơ.received", unit="H29.26734", number=7, phone="0901234567")
log.info("nhận 079123456789 từ +84901234567", again="x0901234567y", path="/v1/079123456789/")
log.info("nested", who={"id": "079123456789", "phones": ["0901234567"], "password": "hush"})
log.info("objects", who=Citizen(), error=ValueError("0901234567"), many=({"a": Citizen()},))
log.info("secrets", authorization="Bearer abc", token="abc", password="p", api_key="k")
log.debug("too quiet")
try:
    raise ValueError("citizen 079123456789 called from 0901234567")
except ValueError:
    log.exception("request.failed")
    other.exception("library %s", "+84901234567")
other.warning("plain %s of %s", "0901234567", {"id": "079123456789"})
other.info("not personal: 1234567 20261120 12345678901234567890")
"""
    )
    text = json.dumps(lines, ensure_ascii=False)
    for personal in ("079123456789", "0901234567", "84901234567", "hush", "Bearer abc"):
        for line in lines:
            kept = {name: value for name, value in line.items() if name != "trace_id"}
            assert personal not in json.dumps(kept), line
    assert len(lines) == 9
    assert lines[0]["event"] == "hồ sơ.received"
    assert (lines[0]["unit"], lines[0]["number"], lines[0]["level"]) == ("H29.26734", 7, "info")
    assert lines[0]["timestamp"].endswith("Z")
    assert {line["trace_id"] for line in lines} == {"a123456789012b0901234567c0000000"}
    assert "ValueError: citizen *** called from ***" in lines[5]["exception"]
    assert "ValueError: citizen *** called from ***" in lines[6]["exception"]
    assert lines[8]["event"] == "not personal: 1234567 20261120 12345678901234567890"
    assert "too quiet" not in text


def test_a_client_that_reconnects_for_ever_writes_one_line_a_minute() -> None:
    lines = lines_of(
        """
broker = logging.getLogger("aiokafka.conn")
for _ in range(50):
    broker.error("Connect attempt to %s returned error: %s", "127.0.0.1:9092", "refused")
broker.error("another trouble")
for _ in range(3):
    other.error("mine is written each time")
"""
    )
    assert len(lines) == 1 + 1 + 3


# Traces ---------------------------------------------------------------------------------------


def test_a_callers_trace_goes_on_in_a_span_of_our_own() -> None:
    trace = continue_trace(PARENT)
    assert trace.trace_id == current_trace_id() == TRACE
    assert trace.span_id != "0123456789abcdef"
    assert current_traceparent() == trace.traceparent
    assert continue_trace(trace.traceparent).trace_id == TRACE


@pytest.mark.parametrize(
    "header",
    [None, "", "x", PARENT[:-1], PARENT + "0", PARENT.upper(), f"00-{'0' * 32}-0123456789abcdef-01",
     PARENT + "\n", " " + PARENT, "é" * 55],
)  # fmt: skip
def test_a_header_that_is_none_begins_a_trace(header: str | None) -> None:
    trace = continue_trace(header)
    assert trace.trace_id != TRACE
    UUID(hex=trace.trace_id)
    assert continue_trace(header).trace_id != trace.trace_id


@given(st.text(max_size=60))
def test_any_header_gives_a_trace_that_can_be_handed_on(header: str) -> None:
    trace = continue_trace(header)
    assert continue_trace(trace.traceparent).trace_id == trace.trace_id


# Over HTTP ------------------------------------------------------------------------------------

router = APIRouter(prefix="/v1/things")


@router.get("/{thing}/parts/{part}")
async def show(thing: str, part: int) -> dict[str, str | None]:
    """Tell the trace."""
    return {"trace_id": current_trace_id()}


@router.post("/{thing}")
async def count_thing(thing: str, session: Session) -> None:
    """Announce a count."""
    publish(session, Counted(thing=thing, number=1), at=AT)


@router.get("/broken/{thing}")
async def broken(thing: str) -> None:
    """Have a defect."""
    raise RuntimeError("a defect")


handlers = EventRouter()


@handlers.on(Counted)
async def ignore(event: Counted, session: AsyncSession) -> None:
    """Do nothing with it."""


@pytest.fixture
async def client(counting_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run a small service that also listens."""
    app = create_app(Service("queue", "Is watched.", routers=[router], handlers=handlers))
    async with running(app, settings_for(counting_url)) as client:
        yield client


async def test_the_trace_comes_in_and_goes_out(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/things/a/parts/1", headers={"traceparent": PARENT})
    assert answer.json() == {"trace_id": TRACE}
    assert answer.headers["x-trace-id"] == TRACE
    fresh = [(await client.get("/v1/things/a/parts/1")).headers["x-trace-id"] for _ in range(2)]
    assert len({TRACE, *fresh}) == 3


async def test_the_trace_of_a_request_goes_on_in_its_events(client: httpx.AsyncClient) -> None:
    await client.post("/v1/things/a", headers={"traceparent": PARENT})
    hot = client.state["hot"]  # type: ignore[attr-defined]
    parent = await hot.fetchval("SELECT traceparent FROM outbox WHERE key = 'a'")
    assert parent.startswith(f"00-{TRACE}-")
    assert parent != PARENT


def requests(route: str, method: str, status: int) -> float:
    """Read how many requests were counted."""
    labels = {"service": "queue", "route": route, "method": method, "status": str(status)}
    return REGISTRY.get_sample_value("motcua_http_request_duration_seconds_count", labels) or 0


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/v1/things/{}/parts/1", "/v1/things/{thing}/parts/{part}", 200),
        ("GET", "/v1/things/{}/parts/x", "/v1/things/{thing}/parts/{part}", 422),
        ("DELETE", "/v1/things/{}/parts/1", "/v1/things/{thing}/parts/{part}", 405),
        ("GET", "/v1/things/broken/{}", "/v1/things/broken/{thing}", 500),
        ("GET", "/v1/other/{}", "unmatched", 404),
        ("GET", "/livez", "/livez", 200),
    ],
)
async def test_metrics_name_the_routes_template_and_never_its_values(
    client: httpx.AsyncClient, method: str, path: str, route: str, status: int
) -> None:
    before = requests(route, method, status)
    for number in range(3):
        answer = await client.request(method, path.format(f"thing-{number}"))
        assert answer.status_code == status
    assert requests(route, method, status) == before + 3
    exposed = (await client.get("/metrics")).text
    assert 'route="/v1/things/{thing}/parts/{part}"' in exposed or route != path
    assert "thing-1" not in exposed


async def test_methods_that_somebody_makes_up_do_not_become_labels(
    client: httpx.AsyncClient,
) -> None:
    for number in range(3):
        await client.request(f"X{number}", "/v1/things/a/parts/1")
    exposed = (await client.get("/metrics")).text
    assert 'method="X1"' not in exposed


async def test_a_live_stream_counts_for_as_long_as_it_took_to_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clock of this test a second goes by each time somebody looks."""
    seconds = itertools.count()
    monkeypatch.setattr("libs.common.observability.perf_counter", lambda: next(seconds))

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for _ in range(100):
            next(seconds)
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    watched = observability.Observed(streaming, "streaming")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(watched), base_url="http://motcua"
    ) as client:
        assert (await client.get("/stream")).status_code == 200
    labels = {"service": "streaming", "route": "unmatched", "method": "GET", "status": "200"}
    took = REGISTRY.get_sample_value("motcua_http_request_duration_seconds_sum", labels)
    assert took == 1


async def test_label_children_exist_before_the_first_event(client: httpx.AsyncClient) -> None:
    async def exposed() -> list[str]:
        text = (await client.get("/metrics")).text
        wanted = [
            'motcua_outbox_oldest_age_seconds{service="queue"}',
            'motcua_consumer_lag{service="queue",topic="test.counted.v1"}',
            'motcua_dlq_messages_total{service="queue",topic="test.counted.v1"}',
        ]
        return [name for name in wanted if name in text] if all(w in text for w in wanted) else []

    assert await eventually(exposed)

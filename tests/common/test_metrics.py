"""The text of a scrape: what the client's own writer would write, and what a service adds to it."""

import asyncio

import httpx
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families

from libs.common.app import Service, create_app
from libs.common.exposition import Exposition
from tests.support import running, settings_for


def read(text: bytes) -> list[object]:
    """Read what Prometheus would of a scrape."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [repr(sample) for sample in family.samples],
        )
        for family in text_string_to_metric_families(text.decode())
    ]


@given(
    st.lists(st.tuples(st.text(max_size=20), st.floats()), max_size=5),
    st.lists(st.floats(0, 1e12), max_size=5),
    st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs", "Cc", "Z"])),
)
def test_it_reads_as_what_the_client_itself_writes(
    shown: list[tuple[str, float]], waits: list[float], words: str
) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("motcua_gauge", words, ("one", "two"), registry=registry)
    counter = Counter("motcua_counter", 'a "quoted" \\ word', ("one",), registry=registry)
    histogram = Histogram("motcua_histogram", "Waits.", registry=registry, buckets=(1, 1200))
    exposition = Exposition(registry)
    for _ in range(2):  # the second time it remembers
        for label, value in shown:
            gauge.labels(label, "x").set(value)
            counter.labels(label).inc()
        for wait in waits:
            histogram.observe(wait)
        assert exposition.text() == generate_latest(registry)
        assert read(exposition.text()) == read(generate_latest(registry))


async def test_connections_are_shown_while_somebody_holds_them(database_url: str) -> None:
    def used(pool: str) -> float | None:
        labels = {"service": "queue", "pool": pool}
        return REGISTRY.get_sample_value("motcua_database_connections_used", labels)

    app = create_app(Service("queue", "Holds connections."))
    async with running(app, settings_for(database_url, database_hot_pool=3)) as client:
        state = client.state  # type: ignore[attr-defined]
        before = used("sessions") or 0
        async with state["sessions"].begin() as session:
            await session.connection()
            assert used("sessions") == before + 1
        held = [await state["hot"].acquire() for _ in range(3)]
        assert used("hot") == 3
        limit = {"service": "queue", "pool": "hot"}
        assert REGISTRY.get_sample_value("motcua_database_connections_limit", limit) == 3
        await asyncio.gather(*(state["hot"].release(each) for each in held))


async def test_a_failure_is_counted_and_a_refusal_is_none(database_url: str) -> None:
    def failures() -> float:
        return REGISTRY.get_sample_value("motcua_http_failures_total", {"service": "queue"}) or 0

    app = create_app(Service("queue", "Fails."))

    @app.get("/v1/broken")
    async def broken() -> None:
        raise RuntimeError("a defect")

    async with running(app, settings_for(database_url)) as client:
        before = failures()
        answers: list[httpx.Response] = [await client.get(f"/v1/{p}") for p in ("broken", "none")]
        assert [answer.status_code for answer in answers] == [500, 404]
        assert failures() == before + 1

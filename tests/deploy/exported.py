"""What the services really export, and what an expression asks for: compared by several tests."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from services.embedded import city
from tests.support import settings_for

NOT_YET: Final = (
    {"motcua_reports_missing", "motcua_reports_due_in_seconds"},
    {"motcua_portal_sync_pending"},
)
"""What rules ask for that comes with a feature: submitting reports, the portal sync. Whoever builds
one takes its line away, and then all of the line must be exported."""


@asynccontextmanager
async def whole_city(url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run the five services in this process and give a client to the door."""
    async with city(settings_for(url, **settings)) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://motcua") as client:
            async with asyncio.timeout(60):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.02)
            yield client


@dataclass
class Metric:
    """A metric by the name that its samples bear."""

    type: str
    labels: set[str] = field(default_factory=set)
    children: set[tuple[tuple[str, str], ...]] = field(default_factory=set)


def metrics_in(text: str) -> dict[str, Metric]:
    """Read what a scrape gave, by the names that expressions use."""
    found: dict[str, Metric] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metric = found.setdefault(sample.name, Metric(family.type))
            metric.labels |= sample.labels.keys()
            metric.children.add(tuple(sorted(sample.labels.items())))
    return found


_ASKED = re.compile(r"\b(motcua[a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\b(?:by|on|group_left|without|ignoring)\s*\(([^)]*)\)")


def asked_for(expression: str) -> Iterable[tuple[str, set[str]]]:
    """Give every metric that an expression names, with the labels it selects by."""
    for name, selector in _ASKED.findall(expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))


def grouped_by(expression: str) -> set[str]:
    """Give the labels by which an expression groups and joins."""
    lists = _GROUPED.findall(expression)
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}

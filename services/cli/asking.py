"""Asks the services how they are, over the same addresses by which they reach each other."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from prometheus_client.parser import text_string_to_metric_families

from libs.common.settings import SERVICES, Settings

GATEWAY = "gateway"
ORDER = (*SERVICES, GATEWAY)
ASKED_SECONDS = 5.0
"""How long a service may take over a question; its own checks are given two."""

State = Literal["ready", "degraded", "not ready", "dead", "away"]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A service as it describes itself, or that it says nothing."""

    service: str
    where: str
    state: State
    version: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    """What is wrong, by the check that found it, in the service's own words."""


class Samples:
    """What the processes that were asked export at `/metrics`, by name."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Read exports in Prometheus' text format."""
        self._by_name: dict[str, list[tuple[Labels, float]]] = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    self._by_name.setdefault(sample.name, []).append((sample.labels, sample.value))

    def of(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Give the labels and the value of every sample of a metric."""
        yield from self._by_name.get(name, ())


@dataclass(frozen=True, slots=True)
class _Process:
    """What one process answered; the embedded city's speaks for all services."""

    where: str
    about: dict[str, Any]
    dead: list[str]
    readiness: dict[str, Any]
    metrics: str

    @property
    def service(self) -> str:
        return str(self.about["service"])

    @property
    def whole_city(self) -> bool:
        return f"{SERVICES[0]} database" in self.readiness["checks"]


async def ask_all(settings: Settings) -> tuple[list[Seen], Samples]:
    """Ask every service that can be asked from here; those that may not be are left out.

    First whoever listens on our own port: the embedded city, the gateway or another service. The
    gateway knows where the others are; a service asks only those it was told of by name, because
    the network lets nobody else through.
    """
    own_address = _own_address(settings)
    async with httpx.AsyncClient(timeout=ASKED_SECONDS, trust_env=False) as client:
        own = await _ask(client, own_address)
        if own is not None and own.whole_city:
            return [_seen(name, own_address, own) for name in ORDER], Samples([own.metrics])
        told = settings.model_fields_set
        others = [
            name
            for name in SERVICES
            if own is None
            or own.service == GATEWAY
            or (own.service != name and f"{name}_url" in told)
        ]
        answers = await asyncio.gather(*(_ask(client, settings.upstream(n)) for n in others))
    seen = {
        name: _seen(name, settings.upstream(name), it)
        for name, it in zip(others, answers, strict=True)
    }
    if own is not None:
        seen[own.service] = _seen(own.service, own_address, own)
    else:
        seen[GATEWAY] = _seen(GATEWAY, own_address, None)
    return (
        [seen[name] for name in ORDER if name in seen],
        Samples(it.metrics for it in (own, *answers) if it is not None),
    )


def _own_address(settings: Settings) -> str:
    """Give the address of the process that runs here with the same settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


async def _ask(client: httpx.AsyncClient, base: str) -> _Process | None:
    """Ask one process for all it tells; None when it, or what answers there, is no service."""
    try:
        about, livez, readyz, metrics = await asyncio.gather(
            *(client.get(f"{base}/{path}") for path in ("version", "livez", "readyz", "metrics"))
        )
        process = _Process(
            base, about.json(), livez.json()["dead_tasks"], readyz.json(), metrics.text
        )
        ours = process.service in ORDER
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
    return process if ours else None


def _seen(service: str, where: str, process: _Process | None) -> Seen:
    if process is None:
        return Seen(service, where, "away", reasons={"address": f"no answer from {where}"})
    said = process.readiness
    missing, without = said.get("not_ready", {}), said.get("degraded", {})
    dead = process.dead
    if process.whole_city:  # every check and task of it bears its service's name
        missing, without = _own(service, missing), _own(service, without)
        dead = [task for task in dead if task.startswith(f"{service} ")]
    reasons = missing | without
    state: State = "not ready" if missing else "degraded" if without else "ready"
    if dead:
        state, reasons = "dead", {"tasks": f"ended: {', '.join(dead)}"} | reasons
    return Seen(service, where, state, _version(process), reasons)


def _own(service: str, reasons: Mapping[str, str]) -> dict[str, str]:
    """Pick a service's checks; the gateway's are those that bear nobody's name."""
    if service == GATEWAY:
        return {n: w for n, w in reasons.items() if n.partition(" ")[0] not in SERVICES}
    start = f"{service} "
    return {n.removeprefix(start): w for n, w in reasons.items() if n.startswith(start)}


def _version(process: _Process) -> str:
    revision = process.about.get("revision")
    return f"{process.about['version']} ({revision[:9]})" if revision else process.about["version"]

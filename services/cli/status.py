"""`motcua status`: one screen that says whether the city keeps its promise, and if not, why."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from time import time
from typing import Any, Final, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from libs.common.settings import SERVICES, Settings
from libs.common.worktime import ZONE
from services.cli.alarms import Alarm, Facts, Flow, alarms, minutes, units_of
from services.cli.asking import Samples, ask_all
from services.cli.dead_letters import letters_of
from services.cli.flow import BUS_SECONDS, lags, outboxes
from services.cli.surroundings import (
    FAILED,
    Json,
    explain,
    print_json,
    run,
    settings_of_surroundings,
    stop,
)

WORST_SHOWN: Final = 8
"""Units on the screen; `--json` tells of all that have somebody waiting or a counter open."""

T = TypeVar("T")


def status(as_json: Json = False) -> None:
    """Show on one screen how the city is; ends with 0 when there is nothing to do.

    Services, the flow of events, the worst waits, and the alerts that would fire if it lasted. Run
    it beside the city, in the gateway's pod, which sees all services, or in a service's own, which
    sees its database besides. It ends with 1 if anything is wrong, with 2 if nobody answers.
    """
    settings = settings_of_surroundings()
    facts, unanswered = run(settings, _look(settings))
    answered = any(seen.state != "away" for seen in facts.services)
    if not answered and not any(map(_known, facts.flows.values())):
        raise stop("\n".join([_nobody(facts), *unanswered.values()]))
    found = alarms(facts)
    if as_json:
        print_json(_as_json(facts, found, unanswered))
    else:
        _show(facts, found)
        for words in unanswered.values():
            stop(words)
    if found or unanswered or any(seen.state != "ready" for seen in facts.services):
        raise typer.Exit(FAILED)


def _nobody(facts: Facts) -> str:
    where = ", ".join(dict.fromkeys(seen.where for seen in facts.services))
    return (
        f"nobody answers at {where}: start the city with `make run`, say where it is with "
        "MOTCUA_PORT, or ask in its own pod: kubectl exec deploy/gateway -- motcua status"
    )


# Looking ----------------------------------------------------------------------------------------


async def _look(settings: Settings) -> tuple[Facts, dict[str, str]]:
    """Ask services, bus and database at once; give what they said and who said nothing, and why."""
    unanswered: dict[str, str] = {}

    async def asked(whom: str, question: Awaitable[T], otherwise: T) -> T:
        try:
            async with asyncio.timeout(BUS_SECONDS):
                return await question
        except Exception as error:
            words = explain(settings, error)
            if words is None:
                raise
            unanswered[whom] = words
            return otherwise

    nothing: list[dict[str, Any]] = []
    database = settings.database_url is not None
    bus = database or settings.kafka_bootstrap is not None
    (seen, samples), behind, dead, (outbox, _, _) = await asyncio.gather(
        ask_all(settings),
        asked("bus", lags(settings) if bus else _none(nothing), nothing),
        asked("bus", _dead_letters(settings) if bus else _none(Counter()), Counter()),
        asked(
            "database",
            outboxes(settings) if database else _none((nothing, [], None)),
            (nothing, [], None),
        ),
    )
    read_bus = bus and "bus" not in unanswered
    flows = {
        service: _flow(service, samples, behind, dead if read_bus else None, outbox)
        for service in SERVICES
    }
    return Facts(settings, seen, units_of(samples), flows, _unmeasured(samples)), unanswered


def _unmeasured(samples: Samples) -> float:
    measured = [value for _, value in samples.of("motcua_queue_measured_timestamp_seconds")]
    return time() - max(measured) if measured else 0


async def _none(value: T) -> T:
    return value


async def _dead_letters(settings: Settings) -> Counter[str]:
    letters = await letters_of(settings, "all")
    return Counter(letter.headers["motcua_dead_group"] for letter in letters)


def _flow(
    service: str,
    samples: Samples,
    behind: Iterable[Mapping[str, Any]],
    dead: Counter[str] | None,
    outboxes: Iterable[Mapping[str, Any]],
) -> Flow:
    """Put together how events flow: bus and database know best, else what the service exports."""
    exported = _exported(samples, "motcua_consumer_lag", service)
    own = {item["topic"]: item["behind"] for item in behind if item["service"] == service}
    buried = _exported(samples, "motcua_dlq_messages_total", service)
    ages = _exported(samples, "motcua_outbox_oldest_age_seconds", service)
    outbox = next((item for item in outboxes if item["service"] == service), None)
    if outbox is None:
        events, seconds, held = None, max(ages.values(), default=None), []
    else:
        events, seconds = outbox["events"], outbox["oldest_seconds"]
        held = [topic["topic"] for topic in outbox["topics"] if topic["held_back"]]
    return Flow(
        own or {topic: int(count) for topic, count in exported.items()},
        events,
        seconds,
        held,
        dead[service] if dead is not None else int(sum(buried.values())) if buried else None,
    )


def _exported(samples: Samples, name: str, service: str) -> dict[str, float]:
    return {
        labels.get("topic", ""): value
        for labels, value in samples.of(name)
        if labels["service"] == service
    }


def _known(flow: Flow) -> bool:
    return bool(flow.behind) or flow.outbox_events is not None


# Showing ----------------------------------------------------------------------------------------

_COLOURS: Final = {
    "ready": "green", "degraded": "yellow", "not ready": "red", "dead": "red", "away": "red",
    "warning": "yellow", "critical": "red",
}  # fmt: skip


def _show(facts: Facts, found: list[Alarm]) -> None:
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:  # a log or a pipe has no right margin
        console.width = 200
    console.print(Text(f"motcua, {datetime.now(ZONE):%Y-%m-%d %H:%M:%S %z}", "bold"))
    console.print()
    console.print(_services(facts))
    console.print()
    console.print(_waits(facts))
    console.print()
    if found:
        console.print(_table(("would fire", "", ""), (_line(alarm) for alarm in found)))
    else:
        console.print(Text("no alert would fire", "green"))


def _table(head: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _services(facts: Facts) -> Table:
    head = ("service", "state", "version", "behind", "outbox", "dead letters", "what is wrong")
    seen = {it.service: it for it in facts.services}
    rows = []
    for name in dict.fromkeys([*seen, *facts.flows]):
        it, flow = seen.get(name), facts.flows.get(name)
        state = it.state if it else "not asked"
        wrong = [f"{check}: {words}" for check, words in it.reasons.items()] if it else []
        if flow and flow.held_back:
            wrong.append(f"events held back, topics are missing: {', '.join(flow.held_back)}")
        rows.append((
            name, Text(state, _COLOURS.get(state, "")), (it and it.version) or "-",
            *_flow_cells(flow), "\n".join(wrong),
        ))  # fmt: skip
    return _table(head, rows)


def _flow_cells(flow: Flow | None) -> tuple[str, str, str]:
    if flow is None:
        return "-", "-", "-"
    missing = [topic for topic, count in flow.behind.items() if count is None]
    behind = str(sum(filter(None, flow.behind.values()))) if flow.behind else "-"
    if missing:
        behind += f", {len(missing)} topic(s) missing"
    events, age = flow.outbox_events, flow.outbox_seconds
    outbox = "-" if events is None and age is None else "0"
    if events or age:
        outbox = f"{'' if events is None else events} {minutes(age)}".strip()
    return behind, outbox, "-" if flow.dead_letters is None else str(flow.dead_letters)


def _waits(facts: Facts) -> Table | Text:
    if not any(seen.service == "queue" and seen.state != "away" for seen in facts.services):
        return Text("the waits are not known here: the queue knows them")
    busy = [unit for unit in facts.units if unit.waiting]
    if not busy:
        return Text("nobody waits")
    rows = [
        (f"{u.code} {u.name}", str(u.waiting), minutes(u.oldest_seconds),
         minutes(u.forecast_seconds), str(u.open_counters))
        for u in busy[:WORST_SHOWN]
    ]  # fmt: skip
    waiting = sum(unit.waiting for unit in busy)
    head = f"worst waits of {len(busy)} units where {waiting} people wait"
    return _table((head, "waiting", "oldest", "forecast", "counters"), rows)


def _line(alarm: Alarm) -> tuple[Text, str, str]:
    return Text(alarm.severity, _COLOURS[alarm.severity]), alarm.name, alarm.text


def _as_json(facts: Facts, found: list[Alarm], unanswered: Mapping[str, str]) -> dict[str, Any]:
    return {
        "as_of": datetime.now(UTC).isoformat(),
        "services": [asdict(seen) for seen in facts.services],
        "flows": {service: asdict(flow) for service, flow in facts.flows.items()},
        "units": [asdict(unit) for unit in facts.units if unit.waiting or unit.open_counters],
        "alerts": [asdict(alarm) for alarm in found],
        "unanswered": unanswered,
    }

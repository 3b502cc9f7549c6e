"""`motcua status`: what one look shows, from wherever it is run, and what it would alert about."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from libs.common.settings import SERVICES, Settings
from services.cli import SERVICE_URLS
from services.cli.alarms import (
    FORESEEN_SECONDS,
    HELD_SECONDS,
    IDLE_SECONDS,
    LAG_EVENTS,
    OUTBOX_SECONDS,
    RULES,
    UNMEASURED_SECONDS,
    Facts,
    Flow,
    alarms,
    units_of,
)
from services.cli.asking import Samples, Seen
from services.embedded import city
from services.queue.main import app as queue
from tests.cli.command import invoke
from tests.cli.test_flow import wait_in_outbox
from tests.serving import serving, with_state
from tests.support import settings_for, started
from tests.system.city import free_port

UNIT = "H29.26740"


# From the embedded city, a service's own pod, the gateway's pod ---------------------------------


@asynccontextmanager
async def running_city(url: str) -> AsyncIterator[int]:
    """Serve the whole city of this process; give its port when it is ready."""
    async with city(settings_for(url)) as whole, serving(whole) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
        yield port


async def test_one_look_shows_a_city_and_whom_it_keeps_waiting(city_url: str) -> None:
    async with running_city(city_url) as port:
        quiet = await invoke("status", "--json", url=city_url, port=port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            wish = {"unit": UNIT, "channel": "web"}
            for _ in range(3):
                assert (await client.post("/v1/tickets", json=wish)).status_code == 201
            measured = f'motcua_queue_waiting_tickets{{unit="{UNIT}"}} 3.0'
            while measured not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.05)
        told = await invoke("status", "--json", url=city_url, port=port)
        shown = await invoke("status", url=city_url, port=port)

    assert [seen["service"] for seen in quiet.json["services"]] == [*SERVICES, "gateway"]
    assert told.status == 1
    [unit] = [unit for unit in told.json["units"] if unit["code"] == UNIT]
    assert (unit["waiting"], unit["open_counters"], unit["forecast_seconds"]) == (3, 0, None)
    assert ("MotcuaNoCounterOpen", True) in {
        (alert["name"], alert["text"].startswith(UNIT)) for alert in told.json["alerts"]
    }
    [line] = [line for line in shown.out.splitlines() if line.startswith(UNIT)]
    assert line.split()[-1] == "0"
    assert shown.status == 1


async def test_nothing_to_do_ends_with_0(city_url: str) -> None:
    async with running_city(city_url) as port:
        done = await invoke("status", url=city_url, port=port)
    assert (done.status, done.err) == (0, "")
    assert "nobody waits" in done.out
    assert "no alert would fire" in done.out


async def test_in_a_service_s_own_pod_it_shows_that_service_and_its_tables(city_url: str) -> None:
    await wait_in_outbox(city_url, "intake", "intake.lost.v1", 2)
    async with one_service(city_url) as port:
        done = await invoke("status", "--json", url=city_url, port=port)
    assert [(seen["service"], seen["where"]) for seen in done.json["services"]] == [
        ("queue", f"http://127.0.0.1:{port}")
    ]
    assert done.json["flows"]["intake"]["held_back"] == ["intake.lost.v1"]
    shown = await invoke("status", url=city_url, port=free_port())
    assert "events held back, topics are missing: intake.lost.v1" in shown.out


@asynccontextmanager
async def one_service(url: str) -> AsyncIterator[int]:
    """Serve the queue alone."""
    async with (
        started(queue, settings_for(url)) as client,
        serving(with_state(queue, client.state)) as port,  # type: ignore[attr-defined]
    ):
        yield port


async def test_without_a_database_it_asks_the_services_by_their_addresses(
    city_url: str, tmp_path: Path
) -> None:
    async with one_service(city_url) as port:
        urls = {f"{name}_url": f"http://127.0.0.1:{free_port()}" for name in SERVICES}
        urls["queue_url"] = f"http://127.0.0.1:{port}"
        done = await invoke("status", "--json", data_dir=tmp_path, port=free_port(), **urls)
    states = {seen["service"]: seen["state"] for seen in done.json["services"]}
    assert done.status == 1
    assert states.pop("queue") != "away"
    assert set(states.values()) == {"away"}
    flow = done.json["flows"]["queue"]
    assert flow["outbox_seconds"] == 0
    assert set(flow["behind"]) >= {"registry.centres.v1"}


async def test_the_services_of_make_run_over_kafka_are_found_by_the_data_folder(
    tmp_path: Path,
) -> None:
    urls = {f"{name}_url": f"http://127.0.0.1:{free_port()}" for name in SERVICES}
    (tmp_path / SERVICE_URLS).write_text(json.dumps(urls), "ascii")
    named = f"http://127.0.0.1:{free_port()}"
    done = await invoke("status", data_dir=tmp_path, port=free_port(), intake_url=named)
    assert urls["queue_url"] in done.err
    assert named in done.err  # what is set goes before what is found
    assert urls["intake_url"] not in done.err


async def test_where_nobody_answers_there_is_no_answer(tmp_path: Path) -> None:
    urls = {f"{name}_url": f"http://127.0.0.1:{free_port()}" for name in SERVICES}
    done = await invoke("status", "--json", data_dir=tmp_path, port=free_port(), **urls)
    assert (done.status, done.out) == (2, "")
    assert "kubectl exec deploy/gateway -- motcua status" in done.err


async def test_a_database_that_is_away_is_said_beside_what_the_services_tell(
    city_url: str,
) -> None:
    away = f"postgresql://motcua:secret-word@127.0.0.1:{free_port()}/motcua"
    async with one_service(city_url) as port:
        done = await invoke("status", url=away, port=port)
    assert done.status == 1
    assert done.out.splitlines()[2].split()[:2] == ["service", "state"]
    assert "the database at 127.0.0.1/motcua does not answer" in done.err
    assert "secret-word" not in done.err + done.out


async def test_a_kafka_that_is_away_leaves_what_the_services_tell(
    city_url: str, tmp_path: Path
) -> None:
    async with one_service(city_url) as port:
        away = f"127.0.0.1:{free_port()}"
        told: dict[str, Any] = {"data_dir": tmp_path, "port": port, "kafka_bootstrap": away}
        done = await invoke("status", "--json", **told)
    assert done.status == 1
    assert done.json["unanswered"].keys() == {"bus"}
    assert done.json["services"][0]["state"] != "away"
    assert done.json["flows"]["queue"]["behind"]


# What one look would alert about -----------------------------------------------------------------


def facts(text: str = "", flow: Flow | None = None, seen: Seen | None = None) -> Facts:
    """Put together what a look has shown."""
    units = units_of(Samples([text]))
    flows = {"queue": flow} if flow else {}
    return Facts(Settings(), [seen] if seen else [], units, flows)


def queue_of(**gauges: float) -> str:
    """Write the gauges of one unit as the queue exports them."""
    usual = {"waiting_tickets": 1, "oldest_wait_seconds": 0, "forecast_wait_seconds": 0,
             "open_counters": 1, "doors_open": 1}  # fmt: skip
    return "".join(
        f'motcua_queue_{name}{{unit="{UNIT}"}} {value}\n'
        for name, value in (usual | gauges).items()
    )


def flow_of(**changes: Any) -> Flow:
    """Make a flow in which nothing is wrong."""
    usual: Mapping[str, Any] = {"behind": {}, "outbox_events": 0, "outbox_seconds": None,
                                "held_back": [], "dead_letters": 0}  # fmt: skip
    return Flow(**{**usual, **changes})


NAN = float("nan")

CASES = [
    (facts(queue_of(oldest_wait_seconds=900, forecast_wait_seconds=900)), set()),
    (facts(queue_of(oldest_wait_seconds=901)), {"MotcuaWaitAtRisk"}),
    (facts(queue_of(forecast_wait_seconds=901)), {"MotcuaWaitAtRisk"}),
    (facts(queue_of(forecast_wait_seconds=901, waiting_tickets=0)), set()),
    (facts(queue_of(oldest_wait_seconds=1200)), {"MotcuaWaitAtRisk"}),
    (facts(queue_of(oldest_wait_seconds=1201)), {"MotcuaWaitAtRisk", "MotcuaWaitBreached"}),
    (facts(queue_of(breach_expected_seconds=1801)), set()),
    (facts(queue_of(breach_expected_seconds=1800)), {"MotcuaBreachForecast"}),
    (facts(queue_of(breach_expected_seconds=NAN)), set()),
    (facts(queue_of(counter_idle_seconds=600, counter_held_seconds=3600)), set()),
    (facts(queue_of(counter_idle_seconds=601)), {"MotcuaCounterStuck"}),
    (facts(queue_of(counter_held_seconds=3601)), {"MotcuaCounterStuck"}),
    (facts(queue_of(counter_idle_seconds=601, doors_open=0)), set()),
    (facts(queue_of(open_counters=0, forecast_wait_seconds=NAN)), {"MotcuaNoCounterOpen"}),
    (facts(queue_of(open_counters=0, doors_open=0)), set()),
    (facts(queue_of(open_counters=0, waiting_tickets=0, forecast_wait_seconds=NAN)), set()),
    (facts(flow=flow_of(outbox_seconds=OUTBOX_SECONDS)), set()),
    (facts(flow=flow_of(outbox_seconds=OUTBOX_SECONDS + 1)), {"MotcuaOutboxOld"}),
    (facts(flow=flow_of(behind={"queue.tickets.v1": LAG_EVENTS})), set()),
    (facts(flow=flow_of(behind={"queue.tickets.v1": LAG_EVENTS + 1})), {"MotcuaConsumerBehind"}),
    (facts(flow=flow_of(behind={"queue.tickets.v1": None})), set()),
    (facts(flow=flow_of(dead_letters=1)), {"MotcuaDeadLetters"}),
    (facts(seen=Seen("queue", "x", "degraded", reasons={"bus": "away"})), set()),
    (facts(seen=Seen("queue", "x", "away")), {"MotcuaServiceSilent"}),
    (Facts(Settings(), [], [], {}, unmeasured_seconds=61), {"MotcuaWaitsNotMeasured"}),
]


@pytest.mark.parametrize(("look", "expected"), CASES)
def test_what_would_fire(look: Facts, expected: set[str]) -> None:
    assert {alarm.name for alarm in alarms(look)} == expected


def test_the_screen_and_the_rules_of_prometheus_share_names_and_thresholds() -> None:
    settings = Settings()
    marks = {
        "MotcuaServiceSilent": [],
        "MotcuaWaitsNotMeasured": [UNMEASURED_SECONDS],
        "MotcuaWaitBreached": [settings.sla_seconds],
        "MotcuaNoCounterOpen": [],
        "MotcuaWaitAtRisk": [settings.at_risk_seconds],
        "MotcuaBreachForecast": [FORESEEN_SECONDS],
        "MotcuaCounterStuck": [IDLE_SECONDS, HELD_SECONDS],
        "MotcuaOutboxOld": [OUTBOX_SECONDS],
        "MotcuaConsumerBehind": [LAG_EVENTS],
        "MotcuaDeadLetters": [],
    }
    rules = {
        rule["alert"]: rule
        for path in Path("deploy/monitoring/rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {name for name, _, _ in RULES} == set(marks)
    for name, severity, _ in RULES:
        assert rules[name]["labels"]["severity"] == severity, name
        compared = {int(n) for n in re.findall(r"(?:>|<=) (\d\d+)\b", rules[name]["expr"])}
        assert compared == set(marks[name]), name


def test_replicas_that_tell_the_same_are_one_and_a_unit_goes_by_its_name() -> None:
    named = f'motcua_unit_info{{unit="{UNIT}",name="Phường Sài Gòn"}} 1\n'
    twins = Samples(
        [queue_of(oldest_wait_seconds=1300) + named, queue_of(oldest_wait_seconds=1299)]
    )
    [unit] = units_of(twins)
    assert (unit.name, unit.oldest_seconds) == ("Phường Sài Gòn", 1300)
    alarm = alarms(Facts(Settings(), [], [unit], {}))[0]
    assert alarm.text == f"{UNIT} Phường Sài Gòn: somebody has waited for 22 min"

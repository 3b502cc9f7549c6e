"""Grafana's files are what the code writes, are understood, and ask for what is exported."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.alerting import Rule
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.grafana.alerting import ON_WAITS, RULES, SPELT
from deploy.monitoring.grafana.files import FOLDER, files
from deploy.monitoring.grafana.panels import SOURCE
from tests.deploy.exported import asked_for, grouped_by, metrics_in, whole_city
from tests.monitoring import told_by

BOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
PROVISIONED = FOLDER / "provisioning"


def read(path: Path) -> Any:
    """Read a file as Grafana would."""
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(files()))
def test_what_is_committed_is_what_the_code_writes(path: str) -> None:
    told = "run `python -m deploy.monitoring.grafana` and commit what it writes"
    assert (FOLDER / path).read_text("utf-8") == files()[path], told


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_says_nothing_that_grafana_does_not_know(path: Path) -> None:
    written = json.loads(path.read_text("utf-8"))
    understood = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert understood == written


def rules() -> list[Any]:
    """Read Grafana's own alert rules."""
    groups = read(PROVISIONED / "alerting/rules.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_an_alert_rule_says_nothing_that_grafana_does_not_know() -> None:
    for written in rules():
        for ours, theirs in SPELT.items():
            written[ours] = written.pop(theirs)
        understood = json.loads(json.dumps(Rule.from_json(written), cls=JSONEncoder))
        assert {name: understood[name] for name in written} == written


def everything(part: Any) -> Iterator[dict[str, Any]]:
    """Walk through every object of a document."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list):
        for piece in part:
            yield from everything(piece)


def expressions() -> dict[str, str]:
    """Give every expression, by where it stands, as Prometheus would get it."""
    found = {}
    for path in [*BOARDS, PROVISIONED / "alerting/rules.yaml"]:
        for place, piece in enumerate(everything(read(path))):
            if "expr" in piece:
                found[f"{path.stem} {place}"] = filled_in(piece["expr"])
    return found


def filled_in(expression: str) -> str:
    """Put something in the place of Grafana's variables."""
    for variable, value in (
        ("$__rate_interval", "1m"), ("$__range", "1d"), ("$unit", "H29.26740"),
    ):  # fmt: skip
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    asked = [
        {"record": f"expression:{place}", "expr": expression}
        for place, expression in enumerate(expressions().values())
    ]
    assert len(asked) > 30
    path = tmp_path / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": asked}]}), "utf-8")
    status, words = told_by("promtool", "check", "rules", path)
    assert status == 0, words


async def test_every_metric_that_is_asked_for_is_one_that_the_services_export(
    city_url: str,
) -> None:
    async with whole_city(city_url) as client:
        exported = metrics_in((await client.get("/metrics")).text)
    labels = {name: metric.labels for name, metric in exported.items()}
    labels |= {name: set() for name in recorded()}
    for place, expression in expressions().items():
        named = list(asked_for(expression))
        for name, selected in named:
            assert name in labels, f"{place}: {name} is exported by nobody"
            assert selected <= labels[name], f"{place}: {name} has no {selected - labels[name]}"
        given = {"name"}.union(*(labels[name] for name, _ in named))
        assert grouped_by(expression) <= given, f"{place}: {expression}"
        for name in re.findall(r"\bprocess_\w+", expression):
            assert name in labels, f"{place}: {name} is exported by nobody"
        assert named or "process_" in expression, place


def recorded() -> set[str]:
    """Give the series that Prometheus' own rules record."""
    groups = [group for path in RULES.glob("*.yaml") for group in read(path)["groups"]]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def test_the_unit_of_a_centre_is_chosen_by_name_and_asked_by_code() -> None:
    [variable] = read(FOLDER / "dashboards/centre.json")["templating"]["list"]
    answer = '{name="Phường Sài Gòn", unit="H29.26740"} 1 1763258400000'
    pattern = variable["regex"].removeprefix("/").removesuffix("/g").replace("(?<", "(?P<")
    found = [hit.groupdict() for hit in re.finditer(pattern, answer)]
    assert {name: text for hit in found for name, text in hit.items() if text} == {
        "text": "Phường Sài Gòn",
        "value": "H29.26740",
    }


def test_everything_asks_the_data_source_that_is_provisioned() -> None:
    [source] = read(PROVISIONED / "datasources/prometheus.yaml")["datasources"]
    assert source["uid"] == SOURCE.uid
    for path in BOARDS:
        used = {
            piece["datasource"]["uid"]
            for piece in everything(read(path))
            if isinstance(piece.get("datasource"), dict) and "uid" in piece["datasource"]
        }
        assert used == {SOURCE.uid}
    asked = {step["datasourceUid"] for rule in rules() for step in rule["data"]}
    assert asked == {SOURCE.uid, "__expr__"}


def test_every_alert_reaches_somebody() -> None:
    points = {
        p["name"] for p in read(PROVISIONED / "alerting/contact-points.yaml")["contactPoints"]
    }
    [policy] = read(PROVISIONED / "alerting/policies.yaml")["policies"]
    assert {policy["receiver"], *(route["receiver"] for route in policy["routes"])} == points
    severities = {rule["labels"]["severity"] for rule in rules()}
    for route in policy["routes"]:
        for label, _, value in route["object_matchers"]:
            assert label == "severity"
            assert value in severities


def test_what_is_said_of_waits_is_said_by_grafana_as_by_prometheus() -> None:
    said = {
        rule["alert"]: rule["expr"]
        for name in ON_WAITS
        for group in read(RULES / name)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    made = {rule["title"]: rule["data"][0]["model"]["expr"] for rule in rules()}
    assert made == said
    assert made
    uids = [rule["uid"] for rule in rules()]
    assert len(set(uids)) == len(uids)
    assert all(len(uid) <= 40 for uid in uids)

"""The alert rules: each is tried by promtool, has a runbook, and asks for what is exported."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import monitoring
from libs.common.settings import SERVICES, Settings
from tests.deploy.exported import NOT_YET, asked_for, grouped_by, metrics_in, whole_city
from tests.monitoring import told_by

FILES = Path(monitoring.__file__).parent
ROOT = FILES.parents[1]
RULES = sorted(FILES.glob("rules/*.yaml"))
CASES = sorted(FILES.glob("rules/tests/*.yaml"))


def rules_in(file: Path) -> list[dict[str, Any]]:
    """Read the rules of a file."""
    groups = yaml.safe_load(file.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALL = [rule for file in RULES for rule in rules_in(file)]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL if "record" in rule}


def cases() -> dict[str, list[dict[str, Any]]]:
    """Read what the rules' own tests expect of each alert."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in CASES:
        for test in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            for case in test.get("alert_rule_test", ()):
                found[case["alertname"]].append(case)
    return found


def test_the_rules_pass_their_own_tests() -> None:
    status, words = told_by("promtool", "test", "rules", *CASES)
    assert status == 0, words
    assert words.count("SUCCESS") == len(CASES) == len(RULES)


def test_prometheus_and_alertmanager_take_their_files() -> None:
    status, words = told_by("promtool", "check", "config", FILES / "prometheus.yml")
    assert status == 0, words
    assert f"{len(RULES)} rule files found" in words
    status, words = told_by("amtool", "check-config", FILES / "alertmanager.yml")
    assert status == 0, words


def test_a_rule_that_is_changed_fails_its_test(tmp_path: Path) -> None:
    """Else the tests would test nothing."""
    (tmp_path / "tests").mkdir()
    for file in RULES:
        changed = file.read_text("utf-8").replace("> 1200", "> 1500")
        (tmp_path / file.name).write_text(changed, "utf-8")
    waits = FILES / "rules/tests/waits.yaml"
    (tmp_path / "tests/waits.yaml").write_text(waits.read_text("utf-8"), "utf-8")
    status, words = told_by("promtool", "test", "rules", tmp_path / "tests/waits.yaml")
    assert status != 0
    assert "MotcuaWaitBreached" in words


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_severity_words_a_runbook_and_both_kinds_of_case(alert: str) -> None:
    rule, expected = ALERTS[alert], cases()[alert]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "summary_vi", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/runbooks/{alert}.md"
    assert (ROOT / rule["annotations"]["runbook"]).is_file()
    assert any(case["exp_alerts"] for case in expected), "a case in which it fires"
    assert any(not case["exp_alerts"] for case in expected), "a case in which it is silent"
    if "unit" in grouped_by(rule["expr"]):
        assert "$labels.name" in rule["annotations"]["summary"], "people know names, not codes"


def test_every_runbook_is_of_an_alert_and_says_what_it_must() -> None:
    books = {file.stem: file.read_text("utf-8") for file in ROOT.glob("docs/runbooks/Motcua*.md")}
    assert books.keys() == ALERTS.keys()
    for alert, text in books.items():
        assert text.startswith(f"# {alert}\n"), alert
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["What it means", "Look first", "Mend", "Afterwards"], alert
        assert ALERTS[alert]["labels"]["severity"] in text, alert
        assert "kubectl " in text, alert
        assert "motcua " in text, alert


def test_thresholds_are_those_of_the_settings() -> None:
    settings = Settings()
    assert f"> {settings.sla_seconds}" in ALERTS["MotcuaWaitBreached"]["expr"]
    assert ALERTS["MotcuaWaitAtRisk"]["expr"].count(f"> {settings.at_risk_seconds}") == 2
    burns = [rule["expr"] for rule in ALL if rule.get("record", "").startswith("motcua:late:")]
    assert len(burns) == 4
    assert all(f'le="{settings.sla_seconds}.0"' in expr for expr in burns)
    budget = settings.staffing_share
    assert f"> {10 * budget:g}" in ALERTS["MotcuaPromiseBurnsFast"]["expr"]
    assert f"> {3 * budget:g}" in ALERTS["MotcuaPromiseBurnsSlowly"]["expr"]
    watched = set(re.findall(r'service="(\w+)"', ALERTS["MotcuaServiceSilent"]["expr"]))
    assert watched == {*SERVICES, "gateway"}


async def test_rules_ask_only_for_what_is_exported(city_url: str) -> None:
    async with whole_city(city_url) as door:
        await door.get("/metrics")  # which is counted itself
        exported = metrics_in((await door.get("/metrics")).text)
    labels = {name: metric.labels for name, metric in exported.items()}
    labels |= {name: {"week"} for feature in NOT_YET for name in feature}
    for rule in ALL:
        available = {"name"}
        for name, selected in asked_for(rule["expr"]):
            if name in RECORDED:
                continue
            assert name in labels, f"{name} is exported by nobody"
            assert selected <= labels[name], f"{name} has no {selected - labels[name]}"
            available |= labels[name]
        assert grouped_by(rule["expr"]) <= available, rule

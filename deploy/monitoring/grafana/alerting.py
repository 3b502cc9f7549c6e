"""Grafana's own alert rules on waits, made from Prometheus': one text, one threshold, two watchmen.

Who has no Alertmanager, or looks at Grafana anyway, gets the same alerts from there. What is not
about people who wait, and every recorded series, stays Prometheus' alone.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from grafana_foundation_sdk.builders import alerting, expr, prometheus
from grafana_foundation_sdk.models.alerting import RelativeTimeRange

from deploy.monitoring.grafana.panels import SOURCE

RULES: Final = Path(__file__).parent.parent / "rules"
"""Folder of Prometheus' rules."""
ON_WAITS: Final = ("promise.yaml", "waits.yaml")
"""The files that speak of people who wait."""

_EXPRESSION: Final = "__expr__"
_LOOKS_BACK: Final = RelativeTimeRange(from_val=600, to=0)
_NOW: Final = RelativeTimeRange(from_val=0, to=0)
_ANSWERS: Final = "is_number($query) || is_nan($query) || is_inf($query)"
"""To Prometheus whatever a rule's expression gives is an alert, whichever its value."""


def rules() -> dict[str, Any]:
    """Give Grafana's file of alert rules."""
    return {"apiVersion": 1, "groups": list(_groups())}


def _groups() -> Iterator[dict[str, Any]]:
    for name in ON_WAITS:
        for group in yaml.safe_load((RULES / name).read_text("utf-8"))["groups"]:
            yield {
                "orgId": 1,
                "name": group["name"],
                "folder": "motcua",
                "interval": group.get("interval", "30s"),
                "rules": [_rule(rule) for rule in group["rules"] if "alert" in rule],
            }


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Make Grafana's rule of Prometheus'.

    No answer is no alert, as it is there, and an alert ends with the first look that does not find
    it any more.
    """
    built = (
        alerting.Rule(rule["alert"])
        .uid(f"motcua-{re.sub(r'(?<!^)(?=[A-Z])', '-', rule['alert']).lower()}")
        .condition("threshold")
        .with_query(_asked(rule["expr"]))
        .with_query(_step(expr.TypeMath().expression(_ANSWERS), "answers"))
        .with_query(_step(_above_zero(), "threshold"))
        .for_val(rule.get("for", "0s"))
        .keep_firing_for(rule.get("keep_firing_for", "0s"))
        .no_data_state("OK")
        .exec_err_state("Error")
        .missing_series_evals_to_resolve(1)
        .labels(dict(rule["labels"]))
        .annotations({name: _in_grafana(text) for name, text in rule["annotations"].items()})
        .build()
        .to_json()
    )
    made: dict[str, Any] = {"uid": built.pop("uid"), "title": built.pop("title")} | _plain(built)
    # The builders know the programming interface's shape; the file names its group elsewhere, and
    # spells two fields in a way of its own.
    for name in ("folderUID", "ruleGroup", "orgID"):
        made.pop(name, None)
    for ours, theirs in SPELT.items():
        made[theirs] = made.pop(ours)
    return made


SPELT: Final = {
    "keep_firing_for": "keepFiringFor",
    "missingSeriesEvalsToResolve": "missing_series_evals_to_resolve",
}


def _asked(expression: str) -> alerting.Query:
    return (
        alerting.Query("query")
        .datasource_uid(str(SOURCE.uid))
        .relative_time_range(_LOOKS_BACK)
        .model(prometheus.Dataquery().expr(expression).instant().ref_id("query"))
    )


def _step(step: expr.TypeMath | expr.TypeThreshold, name: str) -> alerting.Query:
    return (
        alerting.Query(name)
        .datasource_uid(_EXPRESSION)
        .relative_time_range(_NOW)
        .model(step.ref_id(name))
    )


def _above_zero() -> expr.TypeThreshold:
    evaluator = expr.ExprTypeThresholdConditionsEvaluator().params([0]).type("gt")
    return (
        expr.TypeThreshold()
        .expression("answers")
        .conditions([expr.ExprTypeThresholdConditions().evaluator(evaluator)])
    )


def _in_grafana(text: str) -> str:
    """Write a template as Grafana reads it: there `$value` is the text of every step's value."""
    return text.replace("$value", "$values.query.Value")


def _plain(value: Any) -> Any:
    """Turn what the builders give into what YAML can hold."""
    if hasattr(value, "to_json"):
        return _plain(value.to_json())
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value

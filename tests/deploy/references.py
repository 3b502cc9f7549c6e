"""What manifests refer to: is it there?"""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.deploy.manifests import City, Found, Manifest, Pod, title

OUTSIDE = {
    "kubernetes.io/metadata.name": {"kube-system", "ingress-nginx", "monitoring", "cnpg-system"},
    "k8s-app": {"kube-dns"},
    "app.kubernetes.io/name": {"prometheus"},
    "cnpg.io/cluster": {"motcua-postgres"},
    "strimzi.io/cluster": {"motcua"},
    "strimzi.io/kind": {"Kafka"},
}
"""Labels of those who are not in the manifests: others' pods and namespaces."""


def references(kept: Mapping[tuple[str, str], set[str]], city: City) -> Found:
    """Every Secret, ConfigMap and key that is used is made here or by the operator."""
    for pod in city.pods:
        for kind, name, key in _used(pod):
            made = city.data(kind, name)
            there = kept.get((kind, name)) if made is None else made.keys()
            if there is None:
                yield f"{pod}: there is no {kind} {name}"
            elif key is not None and key not in there:
                yield f"{pod}: {kind} {name} has no {key}"
    accounts = {one["metadata"]["name"] for one in city.of("ServiceAccount")}
    for pod in city.pods:
        if pod.spec.get("serviceAccountName", "default") not in {*accounts, "default"}:
            yield f"{pod}: there is no ServiceAccount {pod.spec['serviceAccountName']}"


def _used(pod: Pod) -> Iterator[tuple[str, str, str | None]]:
    for container in pod.containers:
        for source in container.get("envFrom", ()):
            yield "ConfigMap", source["configMapRef"]["name"], None
        for one in container.get("env", ()):
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if reference := one.get("valueFrom", {}).get(field):
                    yield kind, reference["name"], reference["key"]
    for volume in pod.spec.get("volumes", ()):
        if "secret" in volume:
            for item in volume["secret"]["items"]:
                yield "Secret", volume["secret"]["secretName"], item["key"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"], None


def volumes(city: City) -> Found:
    """Every mounted folder is a volume of the pod, and the files that settings name are there."""
    for pod, container in city.containers:
        there = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        mounted = {one["mountPath"]: one["name"] for one in container.get("volumeMounts", ())}
        for path, name in mounted.items():
            if name not in there:
                yield f"{pod}: {path} is no volume of it"
        for variable, value in city.environment(container):
            if pod.ours and variable in {"MOTCUA_KAFKA_CA", "MOTCUA_KIOSK_KEY_FILE"} and value:
                folder, _, file = value.rpartition("/")
                held = there.get(mounted.get(folder, ""), {}).get("secret", {}).get("items", ())
                if file not in {item["path"] for item in held} and _is_read(
                    city, container, variable
                ):
                    yield f"{pod}: {variable} names {value}, which is not there"


def _is_read(city: City, container: Manifest, variable: str) -> bool:
    told = dict(city.environment(container))
    kafka = "MOTCUA_KAFKA_USERNAME" in told and told["MOTCUA_KAFKA_SECURITY"] != "plaintext"
    return kafka or variable != "MOTCUA_KAFKA_CA"


def labels(city: City) -> Found:
    """Policies speak of labels that somebody bears."""
    borne = {
        (key, value) for pod in city.pods for key, value in pod.labels.items()
    } | {(key, value) for key, values in OUTSIDE.items() for value in values}  # fmt: skip
    for one in city.of("NetworkPolicy"):
        for key, value in _meant(one["spec"]):
            if (key, value) not in borne:
                yield f"{title(one)}: nobody is called {key}={value}"


def _meant(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for part in value:
            yield from _meant(part)
    elif isinstance(value, dict):
        yield from value.get("matchLabels", {}).items()
        for one in value.get("matchExpressions", ()):
            yield from ((one["key"], name) for name in one.get("values", ()))
        for part in value.values():
            yield from _meant(part)

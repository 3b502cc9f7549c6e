"""Who may call whom, as network policies say and as the processes need."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from libs.common.settings import SERVICES
from tests.deploy.manifests import City, Manifest, Pod, matches

Call = tuple[str, str, int]
"""Caller, called, port."""

CALLED_BY_SETTING = {
    **{f"{service}_url": service for service in SERVICES},
    "database_url": "database",
    "admin_database_url": "database",
    "kafka_bootstrap": "kafka",
    "oidc_issuer": "issuer",
    "oidc_jwks_url": "issuer",
    "rate_store": "rate-store",
}
"""Whom a process calls that has the setting."""
NOT_CALLED = {"cors_origins"}

CALLED_BY_COMMAND: Mapping[tuple[str, ...], set[str]] = {
    ("motcua", "migrate"): {"database"},
    ("motcua", "topics", "apply"): {"kafka"},
    ("motcua", "seed"): {"database", "kafka"},
}
"""Whom a command of the Jobs calls: they have settings of which they use only some."""


@dataclass(frozen=True)
class Surroundings:
    """Who is there besides our own pods."""

    places: Mapping[str, Pod]
    """The database, Kafka and the issuer, by their name in `CALLED_BY_SETTING`."""
    ports: Mapping[str, int]


INGRESS = Pod("ingress", "Pod", {"app.kubernetes.io/name": "ingress-nginx"}, {}, "ingress-nginx")
PROMETHEUS = Pod("prometheus", "Pod", {"app.kubernetes.io/name": "prometheus"}, {}, "monitoring")
NAMES = Pod("names", "Pod", {"k8s-app": "kube-dns"}, {}, "kube-system")
STRANGERS = (
    Pod("stranger", "Pod", {}, {}),
    Pod("impostor", "Pod", {"app.kubernetes.io/name": "gateway"}, {}, "default"),
    Pod("neighbour", "Pod", {"app.kubernetes.io/name": "other"}, {}, "monitoring"),
    Pod("internet", "Pod", {}, {}, "elsewhere", address="198.51.100.7"),
)


def elsewhere(name: str, address: str) -> Pod:
    """Describe somebody outside of the cluster."""
    return Pod(name, "Pod", {}, {}, "elsewhere", address=address)


def needed(city: City, around: Surroundings) -> set[Call]:
    """Give every call that has to get through, and that alone may."""
    calls = {(pod.name, NAMES.name, 53) for pod in (*city.pods, STRANGERS[0])}
    for pod in city.pods:
        if pod.ours:
            calls |= {(pod.name, *_place(city, around, name)) for name in _called(city, pod)}
    for name in (*SERVICES, "gateway"):
        calls.add((PROMETHEUS.name, name, 8000))
    calls.add((INGRESS.name, "gateway", 8000))
    return calls


def _called(city: City, pod: Pod) -> Iterator[str]:
    for container in pod.containers:
        if pod.kind == "Job":
            yield from CALLED_BY_COMMAND[tuple(container["command"])]
            continue
        for variable, _ in city.environment(container):
            setting = variable.removeprefix("MOTCUA_").lower()
            if setting in CALLED_BY_SETTING:
                yield CALLED_BY_SETTING[setting]


def _place(city: City, around: Surroundings, name: str) -> tuple[str, int]:
    if name in around.places:
        return around.places[name].name, around.ports[name]
    service = city.named("Service", name)
    [called] = [pod for pod in city.pods if matches(service["spec"]["selector"], pod.labels)]
    target = service["spec"]["ports"][0]["targetPort"]
    return called.name, called.ports[target]


def host_of(url: str) -> str:
    """Give the host of a URL or of `host:port`."""
    return urlsplit(url if "://" in url else f"//{url}").hostname or ""


def allowed(city: City, around: Surroundings) -> set[Call]:
    """Give every call that the policies let through, among all that anybody could try."""
    policies = [*city.of("NetworkPolicy"), *_of_strimzi(city)]
    strangers = [INGRESS, PROMETHEUS, *STRANGERS]
    places = [place for place in around.places.values() if place not in city.pods]
    return {
        (caller.name, called.name, port)
        for caller in (*city.pods, *strangers)
        for called in (*city.pods, *places, NAMES, *strangers)
        # Policies of this namespace are for calls of which it sees an end.
        if caller is not called and "motcua" in (caller.namespace, called.namespace)
        for port, protocol in _tried(called, around)
        if _open(policies, caller, called, port, protocol)
    }


def _of_strimzi(city: City) -> Iterator[Manifest]:
    """Give the policies that Strimzi makes of its listeners."""
    for kafka in city.of("Kafka"):
        brokers = {"strimzi.io/cluster": kafka["metadata"]["name"], "strimzi.io/kind": "Kafka"}
        for listener in kafka["spec"]["kafka"]["listeners"]:
            rule = {"from": listener["networkPolicyPeers"], "ports": [{"port": listener["port"]}]}
            selector = {"podSelector": {"matchLabels": brokers}}
            yield {"spec": selector | {"policyTypes": ["Ingress"], "ingress": [rule]}}


def _tried(called: Pod, around: Surroundings) -> Iterator[tuple[int, str]]:
    if called is NAMES:
        yield from ((53, "UDP"), (53, "TCP"))
    yield from ((port, "TCP") for port in {*called.ports.values(), *around.ports.values(), 22, 443})


def _open(policies: Iterable[Manifest], caller: Pod, called: Pod, port: int, protocol: str) -> bool:
    return all(
        _one_way(policies, way, pod, peer, called, port, protocol)
        for way, pod, peer in (("egress", caller, called), ("ingress", called, caller))
    )


def _one_way(
    policies: Iterable[Manifest],
    way: str,
    pod: Pod,
    peer: Pod,
    called: Pod,
    port: int,
    protocol: str,
) -> bool:
    """Tell whether a pod's policies let a call go this way; who has none lets every one."""
    ruling = [
        one["spec"]
        for one in policies
        if pod.namespace == "motcua"
        and way.capitalize() in one["spec"]["policyTypes"]
        and matches(one["spec"]["podSelector"], pod.labels)
    ]
    end = {"egress": "to", "ingress": "from"}[way]
    return not ruling or any(
        _is_peer(rule.get(end), peer) and _is_port(rule.get("ports"), called, port, protocol)
        for spec in ruling
        for rule in spec.get(way, ())
    )


def _is_peer(peers: list[Manifest] | None, pod: Pod) -> bool:
    return not peers or any(_is_one(peer, pod) for peer in peers)


def _is_one(peer: Manifest, pod: Pod) -> bool:
    if "ipBlock" in peer:
        return pod.address is not None and (
            ip_address(pod.address) in ip_network(peer["ipBlock"]["cidr"])
        )
    if pod.address is not None:
        return False
    namespace = {"kubernetes.io/metadata.name": pod.namespace}
    return (
        matches(peer["namespaceSelector"], namespace)
        if "namespaceSelector" in peer
        else pod.namespace == "motcua"
    ) and matches(peer.get("podSelector", {}), pod.labels)


def _is_port(ports: list[Any] | None, called: Pod, port: int, protocol: str) -> bool:
    return not ports or any(
        one.get("protocol", "TCP") == protocol
        and port == called.ports.get(one["port"], one["port"])
        for one in ports
    )

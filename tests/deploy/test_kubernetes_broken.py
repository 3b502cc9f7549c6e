"""Manifests broken on purpose, one thing at a time: each has to be noticed."""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest

from tests.deploy.checks import wrong
from tests.deploy.manifests import City, Manifest
from tests.deploy.network import allowed, needed
from tests.deploy.test_kubernetes import city, kept, surroundings

__all__ = ["kept"]

Breaking = Callable[[City], None]


def broken(overlay: str, breaking: Breaking) -> City:
    """Build an overlay and break the copy."""
    copy = City(deepcopy(city(overlay).manifests))
    breaking(copy)
    # What was looked up while breaking is looked up anew.
    return City(copy.manifests)


def deployment(name: str = "queue") -> Callable[[City], Manifest]:
    return lambda city: city.named("Deployment", name)["spec"]


def container(city: City, name: str = "queue", kind: str = "Deployment") -> Manifest:
    one: Manifest = city.named(kind, name)["spec"]["template"]["spec"]["containers"][0]
    return one


def variable(city: City, name: str, of: str = "queue") -> Manifest:
    [one] = [entry for entry in container(city, of)["env"] if entry["name"] == name]
    found: Manifest = one
    return found


def policy(city: City, name: str) -> Manifest:
    spec: Manifest = city.named("NetworkPolicy", name)["spec"]
    return spec


BREAKINGS: Mapping[str, tuple[Breaking, str]] = {
    "a removed selector": (
        lambda city: deployment()(city).pop("selector"),
        r"Deployment queue: 1\.35: .*'selector' is a required property",
    ),
    "a selector of somebody else": (
        lambda city: deployment()(city)["selector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "intake"}
        ),
        "Deployment queue: its selector does not take its own pods",
    ),
    "a Service that leads nowhere": (
        lambda city: city.named("Service", "queue")["spec"]["selector"].update(
            {"app.kubernetes.io/name": "queu"}
        ),
        r"Service queue: it leads to \[\]",
    ),
    "a misspelt key": (
        lambda city: container(city).update(readynessProbe=container(city).pop("readinessProbe")),
        r"Deployment queue: 1\.37: .*'readynessProbe' was unexpected",
    ),
    "a misspelt key of an operator's resource": (
        lambda city: city.named("Cluster", "motcua-postgres")["spec"].update(instance=3),
        r"Cluster motcua-postgres: spec\.instance: Extra inputs are not permitted",
    ),
    "a misspelt key of the scraping": (
        lambda city: city.named("ServiceMonitor", "motcua")["spec"]["endpoints"][0].update(
            honourLabels=True
        ),
        "ServiceMonitor motcua: .*honourLabels",
    ),
    "labels that the operator overwrites": (
        lambda city: city.named("ServiceMonitor", "motcua")["spec"]["endpoints"][0].update(
            honorLabels=False
        ),
        "the operator's labels would overwrite ours",
    ),
    "an unknown setting": (
        lambda city: container(city)["env"].append({"name": "MOTCUA_SLA_MINUTES", "value": "20"}),
        "Deployment queue: MOTCUA_SLA_MINUTES is no setting",
    ),
    "a setting with a wrong value": (
        lambda city: container(city)["env"].append({"name": "MOTCUA_SLA_SECONDS", "value": "20m"}),
        "Deployment queue: MOTCUA_SLA_SECONDS: Input should be a valid integer",
    ),
    "what production refuses": (
        lambda city: container(city)["env"].append({"name": "MOTCUA_HOURS", "value": "demo"}),
        "Deployment queue: production refuses demo hours",
    ),
    "a setting that is missing": (
        lambda city: container(city)["env"].remove(variable(city, "MOTCUA_DATABASE_URL")),
        "Deployment queue: it is not told database_url",
    ),
    "a wrong quantity": (
        lambda city: container(city)["resources"]["limits"].update(memory="512MB"),
        "Deployment queue: .*'512MB' is no quantity",
    ),
    "a request above its limit": (
        lambda city: container(city)["resources"]["requests"].update(memory="1Gi"),
        "Deployment queue: no memory request below a limit",
    ),
    "no limits": (
        lambda city: container(city).pop("resources"),
        "Deployment queue: no cpu request below a limit",
    ),
    "a Secret that is not there": (
        lambda city: variable(city, "MOTCUA_DATABASE_URL")["valueFrom"]["secretKeyRef"].update(
            name="motcua-database-qeue"
        ),
        "Deployment queue: there is no Secret motcua-database-qeue",
    ),
    "a key that a Secret does not have": (
        lambda city: variable(city, "MOTCUA_DATABASE_URL")["valueFrom"]["secretKeyRef"].update(
            key="uri"
        ),
        "Deployment queue: Secret motcua-database-queue has no uri",
    ),
    "a ConfigMap that is not there": (
        lambda city: container(city)["envFrom"][0]["configMapRef"].update(name="motcua-setting"),
        "Deployment queue: there is no ConfigMap motcua-setting",
    ),
    "no probe": (
        lambda city: container(city, "gateway").pop("livenessProbe"),
        "Deployment gateway: no livenessProbe",
    ),
    "a liveness that looks at the database": (
        lambda city: container(city)["livenessProbe"]["httpGet"].update(path="/readyz"),
        "Deployment queue: livenessProbe does not ask /livez",
    ),
    "a probe in a hurry": (
        lambda city: container(city)["readinessProbe"].pop("timeoutSeconds"),
        "Deployment queue: readinessProbe waits less than 3 seconds",
    ),
    "a port that is not there": (
        lambda city: container(city)["readinessProbe"]["httpGet"].update(port="web"),
        "Deployment queue: readinessProbe asks port web",
    ),
    "a way to a port that is not there": (
        lambda city: city.named("Service", "queue")["spec"]["ports"][0].update(targetPort="web"),
        "Service queue: Deployment queue has no port web",
    ),
    "too little time to stop": (
        lambda city: deployment()(city)["template"]["spec"].update(
            terminationGracePeriodSeconds=10
        ),
        "Deployment queue: 10 s are too few",
    ),
    "a container that may do more": (
        lambda city: container(city)["securityContext"].update(allowPrivilegeEscalation=True),
        "Deployment queue: it may gain privileges",
    ),
    "a token of the cluster": (
        lambda city: deployment()(city)["template"]["spec"].pop("automountServiceAccountToken"),
        "Deployment queue: automountServiceAccountToken is not as restricted",
    ),
    "links to Services": (
        lambda city: deployment()(city)["template"]["spec"].pop("enableServiceLinks"),
        "Deployment queue: enableServiceLinks is not as restricted",
    ),
    "an autoscaler of nobody": (
        lambda city: city.named("HorizontalPodAutoscaler", "queue")["spec"][
            "scaleTargetRef"
        ].update(name="queues"),
        "HorizontalPodAutoscaler queue: it scales queues, which there is not",
    ),
    "a number of replicas beside an autoscaler": (
        lambda city: deployment()(city).update(replicas=2),
        "Deployment queue: it counts its replicas",
    ),
    "more replicas than the database has connections for": (
        lambda city: city.named("HorizontalPodAutoscaler", "queue")["spec"].update(maxReplicas=20),
        "Cluster motcua-postgres: .* replicas may open more than",
    ),
    "a budget that lets nobody go": (
        lambda city: city.named("PodDisruptionBudget", "queue")["spec"].update(maxUnavailable=0),
        "Deployment queue: its budget does not let one pod go",
    ),
    "a budget of nobody": (
        lambda city: city.named("PodDisruptionBudget", "queue")["spec"]["selector"][
            "matchLabels"
        ].update({"app.kubernetes.io/name": "queues"}),
        "PodDisruptionBudget queue: it is not for one workload",
    ),
    "a folder that is no volume": (
        lambda city: deployment()(city)["template"]["spec"]["volumes"].pop(),
        "Deployment queue: .* is no volume of it",
    ),
    "a file that is not mounted": (
        lambda city: variable(city, "MOTCUA_KIOSK_KEY_FILE").update(value="/etc/motcua/kiosk.pem"),
        "Deployment queue: MOTCUA_KIOSK_KEY_FILE names /etc/motcua/kiosk.pem, which is not there",
    ),
    "a policy of somebody whom there is not": (
        lambda city: policy(city, "gateway-to-services")["podSelector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "gatway"}
        ),
        "NetworkPolicy gateway-to-services: nobody is called app.kubernetes.io/name=gatway",
    ),
}


@pytest.mark.parametrize("what", BREAKINGS)
def test_a_broken_manifest_is_noticed(
    what: str,
    kept: Mapping[tuple[str, str], set[str]],
) -> None:
    breaking, words = BREAKINGS[what]
    found = wrong(broken("complete", breaking), kept)
    assert [sentence for sentence in found if re.search(words, sentence)], found


ANYWHERE: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
POLICIES: Mapping[str, tuple[Breaking, tuple[str, str, int], str]] = {
    "the database's is missing": (
        lambda city: city.manifests.remove(city.named("NetworkPolicy", "to-database")),
        ("queue", "database", 5432),
        "closed",
    ),
    "the gateway reaches the database": (
        lambda city: policy(city, "to-database")["podSelector"]["matchExpressions"][0][
            "values"
        ].append("gateway"),
        ("gateway", "database", 5432),
        "open",
    ),
    "services reach each other": (
        lambda city: (
            policy(city, "services-from-gateway")["ingress"][0].pop("from"),
            policy(city, "gateway-to-services").update(podSelector={}),
        )[0],
        ("intake", "queue", 8000),
        "open",
    ),
    "everybody may go anywhere": (
        lambda city: policy(city, "to-names").update(ANYWHERE),
        ("reporting", "internet", 443),
        "open",
    ),
    "nothing denies": (
        lambda city: city.manifests.remove(city.named("NetworkPolicy", "nobody")),
        ("impostor", "migrate", 443),
        "open",
    ),
    "another namespace's gateway is taken for ours": (
        lambda city: policy(city, "services-from-gateway")["ingress"][0]["from"][0].update(
            namespaceSelector={}
        ),
        ("impostor", "queue", 8000),
        "open",
    ),
    "the wrong port": (
        lambda city: policy(city, "to-kafka")["egress"][0]["ports"][0].update(port=9092),
        ("queue", "kafka", 9093),
        "closed",
    ),
    "Prometheus is kept out": (
        lambda city: city.manifests.remove(city.named("NetworkPolicy", "prometheus-to-all")),
        ("prometheus", "gateway", 8000),
        "closed",
    ),
    "a service is given an address more": (
        lambda city: container(city)["env"].append(
            {"name": "MOTCUA_INTAKE_URL", "value": "http://intake:8000"}
        ),
        ("queue", "intake", 8000),
        "closed",
    ),
}


@pytest.mark.parametrize("what", POLICIES)
def test_a_policy_too_many_or_too_few_is_noticed(what: str) -> None:
    breaking, call, state = POLICIES[what]
    changed, around = broken("prod", breaking), surroundings("prod")
    wanted, through = needed(changed, around), allowed(changed, around)
    assert call in (wanted - through if state == "closed" else through - wanted)

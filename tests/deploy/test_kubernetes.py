"""The manifests as kustomize builds them: a cluster takes them, and they mean what they say."""

import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from deploy.k8s.__main__ import written
from libs.common.settings import SERVICES, Settings
from tests.deploy import network
from tests.deploy.checks import wrong
from tests.deploy.manifests import K8S, City, Pod, kubectl, render
from tests.deploy.network import Surroundings, allowed, elsewhere, needed

HANDBOOK = Path(__file__).parents[2] / "docs" / "kubernetes.md"
OVERLAYS = ("dev", "prod", "complete")
PRODUCTION = ("prod", "complete")


@cache
def city(overlay: str) -> City:
    """Build an overlay, once."""
    return City(render(K8S / "overlays" / overlay))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], set[str]]:
    """Do what the handbook tells the operator to do, and see what there is then."""
    script = "\n".join(re.findall(r"(?ms)^```sh\n(.*?)^```", HANDBOOK.read_text()))
    commands = [block for block in script.split("\n\n") if "create secret" in block]
    return made("\n".join(commands), tmp_path_factory.mktemp("operator"))


def made(commands: str, folder: Path) -> dict[tuple[str, str], set[str]]:
    """Run commands of the handbook, where kubectl only says what it would make."""
    (folder / "ca.crt").write_text("the brokers' certificate")
    dry = f'kubectl() {{ "{kubectl()}" "$@" --dry-run=client -o yaml && echo ---; }}\n'
    done = subprocess.run(
        ["bash", "-euc", dry + commands], cwd=folder, capture_output=True, text=True, check=True
    )
    return {
        (one["kind"], one["metadata"]["name"]): set(one.get("data", {}))
        for one in yaml.safe_load_all(done.stdout)
        if one is not None
    }


def surroundings(overlay: str) -> Surroundings:
    """Say who is around an overlay's pods; addresses of production are those of its example."""
    if overlay == "dev":
        pods = city("dev")
        there = {"database": pods.pod("postgres"), "kafka": pods.pod("kafka")}
        return Surroundings(there, {"database": 5432, "kafka": 9092})
    there = {
        "database": elsewhere("database", "192.0.2.17"),
        "kafka": elsewhere("kafka", "192.0.2.33"),
        "issuer": elsewhere("issuer", "192.0.2.48"),
    }
    if overlay == "complete":
        brokers = {"strimzi.io/cluster": "motcua", "strimzi.io/kind": "Kafka"}
        there["database"] = Pod("database", "Pod", {"cnpg.io/cluster": "motcua-postgres"}, {})
        there["kafka"] = Pod("kafka", "Pod", brokers, {})
    return Surroundings(there, {"database": 5432, "kafka": 9093, "issuer": 443})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_takes_what_is_built_and_nothing_in_it_contradicts_itself(
    overlay: str, kept: Mapping[tuple[str, str], set[str]]
) -> None:
    assert wrong(city(overlay), kept) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_let_through_exactly_the_calls_that_the_processes_make(overlay: str) -> None:
    around = surroundings(overlay)
    wanted, open_ = needed(city(overlay), around), allowed(city(overlay), around)
    assert {"closed": wanted - open_, "open": open_ - wanted} == {"closed": set(), "open": set()}


def test_every_setting_that_is_an_address_says_who_is_called() -> None:
    addresses = {
        name
        for name in Settings.model_fields
        if re.search(r"(_url|_uri|_bootstrap|_issuer|_store|_endpoint|_host|_address)$", name)
    }
    assert addresses == set(network.CALLED_BY_SETTING)


def test_only_the_gateway_asks_the_services() -> None:
    root = Path(__file__).parents[2]
    asking = {
        file.relative_to(root).parts[1]
        for folder in ("services", "libs")
        for file in (root / folder).rglob("*.py")
        if re.search(
            r"settings\.(upstream\(|(registry|intake|queue|reporting)_url)", file.read_text()
        )
    }
    assert asking <= {"gateway", "apart.py", "cli"}


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_only_the_door_has_the_signing_key_and_only_the_migration_the_admins_login(
    overlay: str,
) -> None:
    having: dict[str, set[str]] = {}
    for pod, container in city(overlay).containers:
        for one in container.get("env", ()):
            if reference := one.get("valueFrom", {}).get("secretKeyRef"):
                having.setdefault(reference["name"], set()).add(pod.name)
    assert having.pop("motcua-gateway-key") == {"gateway"}
    assert having.pop("motcua-database-admin") == {"migrate"}
    for service in SERVICES:
        assert having.pop(f"motcua-database-{service}") == {service}
    assert all(name == f"motcua-kafka-{user}" for name, [user] in having.items())


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_production_pins_its_images_and_keeps_no_secret_in_the_repository(overlay: str) -> None:
    images = {container["image"] for _, container in city(overlay).containers}
    assert {
        image for image in images if not re.search(r":v?\d+\.\d+\.\d+$|@sha256:", image)
    } == set()
    assert list(city(overlay).of("Secret")) == []
    assert {one["metadata"]["name"] for one in city(overlay).of("Namespace")} == {"motcua"}


def test_the_city_asks_the_cluster_to_refuse_what_is_not_restricted() -> None:
    [namespace] = city("prod").of("Namespace")
    enforced = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"


def test_the_autoscalers_metrics_are_those_that_the_adapter_serves() -> None:
    adapter = yaml.safe_load((K8S / "components" / "scaling" / "adapter.yaml").read_text())
    served = {rule["name"]["as"]: rule for rule in adapter["rules"]["external"]}
    asked = {
        metric["external"]["metric"]["name"]
        for one in city("prod").of("HorizontalPodAutoscaler")
        for metric in one["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert asked == set(served)
    root = Path(__file__).parents[2]
    code = "".join(
        file.read_text()
        for folder in ("services", "libs")
        for file in (root / folder).rglob("*.py")
    )
    for rule in served.values():
        [series] = re.findall(r'__name__="(\w+)"', rule["seriesQuery"])
        assert f'"{series}"' in code


def test_what_is_written_from_the_code_is_committed() -> None:
    stale = [path.name for path, text in written() if path.read_text() != text]
    assert stale == [], "run `make manifests`"


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_a_config_map_is_small_enough_for_a_cluster(overlay: str) -> None:
    sizes = {
        one["metadata"]["name"]: sum(map(len, one["data"].values()))
        for one in city(overlay).of("ConfigMap")
    }
    assert {name: size for name, size in sizes.items() if size > 900_000} == {}


def test_the_schemas_refuse_what_their_package_refuses() -> None:
    queue = city("prod").named("Deployment", "queue")
    kubernetes_validate.validate(queue, "1.37", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(queue | {"specc": {}}, "1.37", strict=True)

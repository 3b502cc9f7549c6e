"""docker-compose.yml: the real Compose takes it, and so do we; what is wrong in it is found."""

import copy
from collections.abc import Callable

import pytest

from libs.common.settings import SERVICES
from tests.deploy.composed import Document, composed, findings, settings_of


@pytest.fixture(scope="module")
def document() -> Document:
    """Let Compose read the file."""
    return composed()


def test_compose_takes_the_file_without_an_environment_and_nothing_is_wrong_in_it(
    document: Document,
) -> None:
    assert findings(document) == []


def test_each_service_logs_in_as_itself_and_the_migration_alone_as_who_may_all(
    document: Document,
) -> None:
    logins = {
        name: {
            setting: url for setting, url in settings_of(service).items() if "database" in setting
        }
        for name, service in document["services"].items()
    }
    as_itself = {
        name: {"database_url": f"postgresql://{name}:{name}@postgres/motcua"} for name in SERVICES
    }
    assert {name: login for name, login in logins.items() if login} == as_itself | {
        "migrate": {"admin_database_url": "postgresql://motcua:motcua@postgres/motcua"},
        "seed": as_itself["registry"],
    }


def test_who_is_waited_for_was_prepared_before(document: Document) -> None:
    services = document["services"]

    def before(name: str) -> set[str]:
        direct = set(services[name].get("depends_on", {}))
        return direct | {other for each in direct for other in before(each)}

    assert before("gateway") == {*SERVICES, "seed", "topics", "migrate", "postgres", "kafka"}


def set_in(service: str, key: str, value: object) -> Callable[[Document], None]:
    """Make a change: one key of a service."""

    def change(document: Document) -> None:
        document["services"][service][key] = value

    return change


def told(service: str, setting: str, value: str) -> Callable[[Document], None]:
    """Make a change: one variable of a service's environment."""

    def change(document: Document) -> None:
        document["services"][service]["environment"][setting] = value

    return change


def without(service: str, key: str) -> Callable[[Document], None]:
    """Make a change: one key of a service is gone."""

    def change(document: Document) -> None:
        del document["services"][service][key]

    return change


WAIT = {"kafka": {"condition": "service_started"}}
AWAIT_END = {"kafka": {"condition": "service_completed_successfully"}}
MOUNT = {"type": "bind", "source": "/nowhere/rules", "target": "/rules", "read_only": True}
OPEN = {"published": "8000", "target": 8000}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (told("queue", "MOTCUA_SLA_SECOND", "1200"), "queue: MOTCUA_SLA_SECOND is no setting"),
        (told("queue", "MOTCUA_SLA_SECONDS", "1"), "queue: MOTCUA_SLA_SECONDS: Input"),
        (told("gateway", "MOTCUA_QUEUE_URL", "http://que:8000"), "gateway: MOTCUA_QUEUE_URL leads"),
        (told("seed", "MOTCUA_KAFKA_BOOTSTRAP", "kafak:9092"), "seed: MOTCUA_KAFKA_BOOT"),
        (told("intake", "MOTCUA_DATABASE_URL", "postgresql://intake:x9Kq@postgres/motcua"),
         "intake: production would take the password"),
        (told("queue", "MOTCUA_DRAIN_SECONDS", "15"), "queue: may take 24 s to stop"),
        (set_in("queue", "stop_grace_period", "9s"), "queue: may take 10 s to stop"),
        (set_in("queue", "command", ["python", "-m", "services.que"]), "queue: there is no"),
        (set_in("seed", "command", ["motcua", "sow"]), "seed: there is no command motcua sow"),
        (set_in("topics", "command", ["motcua", "topics", "make"]), "topics: there is no command"),
        (without("kafka", "healthcheck"), "topics: waits for the health of kafka"),
        (set_in("seed", "depends_on", WAIT), "seed: waits for kafka to start"),
        (set_in("seed", "depends_on", AWAIT_END), "seed: waits for the end of kafka"),
        (set_in("kafka", "image", "apache/kafka"), "kafka: apache/kafka may be another image"),
        (set_in("kafka", "image", "apache/kafka:latest"), "kafka: apache/kafka:latest may be"),
        (set_in("gateway", "ports", [OPEN]), "gateway: port 8000 is open to others"),
        (set_in("prometheus", "volumes", [MOUNT]), "prometheus: /nowhere/rules is mounted and"),
        (set_in("queue", "read_only", False), "queue: needs no writable file system"),
        (without("queue", "cap_drop"), "queue: needs no capability"),
        (without("queue", "security_opt"), "queue: needs no new privileges"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(
    document: Document, change: Callable[[Document], None], found: str
) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    before = findings(document)
    new = [words for words in findings(changed) if words not in before]
    assert [words[: len(found)] for words in new] == [found]

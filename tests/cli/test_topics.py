"""`motcua topics`: what the bus has is compared with the code, and made so."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from libs.common.bus.base import Topic
from libs.common.bus.embedded import EmbeddedBus
from libs.contracts.topics import NAMES
from tests.cli.command import invoke, motcua
from tests.common.helpers import admin


async def test_a_migrated_bus_is_as_it_should_be(database_url: str) -> None:
    done = await invoke("topics", "diff", url=database_url)
    assert (done.status, done.out) == (0, "every topic is as it should be\n")
    assert (await invoke("topics", "diff", "--json", url=database_url)).json == {"items": []}


async def test_a_difference_is_named_and_mended(database_url: str) -> None:
    async with admin(database_url) as operator:
        await operator.execute("DELETE FROM bus.topics WHERE name = 'queue.tickets.v1'")
        await operator.execute("UPDATE bus.topics SET compacted = true WHERE name LIKE 'intake%v1'")
    shown = await invoke("topics", "diff", url=database_url)
    assert shown.status == 1
    assert shown.out.splitlines() == [
        "queue.tickets.v1 is missing",
        "intake.dossiers.v1: compacted should be False, is True",
    ]
    told = await invoke("topics", "apply", "--json", url=database_url)
    assert told.status == 0
    assert {entry["topic"] for entry in told.json["items"]} == {
        "queue.tickets.v1",
        "intake.dossiers.v1",
    }
    again = await invoke("topics", "apply", url=database_url)
    assert (again.status, again.out) == (0, "every topic was as it should be\n")
    assert (await invoke("topics", "diff", url=database_url)).status == 0


async def test_seeding_makes_a_missing_topic_with_the_time_for_which_facts_are_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded carrier keeps everything: what it is asked for is what Kafka would be."""
    made: list[Topic] = []

    async def make(_: EmbeddedBus, topics: Iterable[Topic]) -> None:
        made.extend(topics)

    monkeypatch.setattr(EmbeddedBus, "apply_topics", make)
    async with admin(database_url) as operator:
        await operator.execute("DELETE FROM bus.topics WHERE name LIKE 'queue.%.v1'")
    done = await invoke("seed", url=database_url, facts_kept_days=90)
    assert done.status == 0
    assert {topic.name: topic.kept for topic in made} == {
        "queue.tickets.v1": timedelta(days=90),
        "queue.appointments.v1": timedelta(days=90),
        "queue.sla.v1": timedelta(days=90),
        "queue.visits.v1": timedelta(days=90),
        "queue.counters.v1": None,
        "queue.load.v1": None,
    }


@pytest.mark.kafka
async def test_over_kafka_no_database_is_needed(kafka: str) -> None:
    """The job that makes the topics in production can reach the brokers and nothing else."""
    assert (await motcua("topics", "apply", kafka_bootstrap=kafka)).status == 0
    assert (await motcua("topics", "diff", kafka_bootstrap=kafka)).status == 0
    lags = await motcua("lag", "--json", kafka_bootstrap=kafka)
    assert {item["topic"] for item in lags.json["items"]} <= set(NAMES)
    assert all(item["behind"] is not None for item in lags.json["items"])
    assert (await motcua("dlq", "list", kafka_bootstrap=kafka)).status == 0

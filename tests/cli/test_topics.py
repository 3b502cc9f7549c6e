"""`motcua topics`: what the bus has is compared with the code, and made so."""

import pytest

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


@pytest.mark.kafka
async def test_over_kafka_no_database_is_needed(kafka: str) -> None:
    """The job that makes the topics in production can reach the brokers and nothing else."""
    assert (await motcua("topics", "apply", kafka_bootstrap=kafka)).status == 0
    assert (await motcua("topics", "diff", kafka_bootstrap=kafka)).status == 0
    lags = await motcua("lag", "--json", kafka_bootstrap=kafka)
    assert {item["topic"] for item in lags.json["items"]} <= set(NAMES)
    assert all(item["behind"] is not None for item in lags.json["items"])
    assert (await motcua("dlq", "list", kafka_bootstrap=kafka)).status == 0

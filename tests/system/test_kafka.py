"""The city as processes over a real Kafka: by its one command, and a day of it under fire."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common.bus.kafka import Connection, open_kafka_bus
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from tests.chaos.day import play_under_fire
from tests.chaos.forms import Form
from tests.kafka import own_broker
from tests.support import reachable_folder, settings_for
from tests.system.city import City, environment, free_port, report_of, visit, wait_for
from tests.system.test_city import this_week

pytestmark = [pytest.mark.system, pytest.mark.kafka]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


def test_one_command_runs_the_city_as_five_processes_beside_a_broker(folder: Path) -> None:
    port, log = free_port(), folder / "city.log"
    with own_broker(), log.open("wb") as output:  # it has brought the server's jars
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.kafka", "beside", "--data", str(folder), "--",
             sys.executable, "-m", "services.apart"],
            env=environment(port=port, data_dir=folder), stdout=output, stderr=output,
        )  # fmt: skip
        city = City(process, f"http://127.0.0.1:{port}", folder, log)
        try:
            city.wait_until_ready(120)
            with city.client() as client:
                visit(city, client)
                wait_for(
                    lambda: report_of(city, client, this_week())["returned"] == 1,
                    10,
                    "the visit is in the report",
                )
            of_the_city = running_on(folder)
            assert len(of_the_city) >= 7  # five services, PostgreSQL, Kafka
        finally:
            took = city.stop()
    assert took < 10
    assert process.returncode == 0
    assert running_on(folder) == []


def running_on(folder: Path) -> list[int]:
    """List the processes that were told of a data folder, by their arguments or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in told:
            found.append(int(entry.name))
    return found


async def test_a_day_over_kafka_is_exact_although_everything_is_killed(
    database_url: str, folder: Path
) -> None:
    with own_broker() as broker:
        settings = settings_for(database_url, kafka_bootstrap=broker.bootstrap)
        async with open_kafka_bus(Connection(broker.bootstrap)) as bus:
            await bus.apply_topics(all_topics())
        await seed_registry(settings)
        form = Form.short()
        day = await play_under_fire(
            database_url, folder, seed=form.seed, kills=form.day, broker=broker
        )
    print(day)
    assert day.wrong() == []
    assert len(day.play.ledger.tickets) > 40

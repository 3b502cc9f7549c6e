"""The five services as processes of their own on one database, and the command line beside them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from libs.common.settings import SERVICES
from tests.support import PRODUCTION, reachable_folder
from tests.system.city import (
    STREAMS,
    UNIT,
    City,
    environment,
    free_port,
    report_of,
    service,
    visit,
    wait_for,
    watched,
)
from tests.system.test_city import this_week

pytestmark = pytest.mark.system


def motcua(*words: str, **settings: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the operator's command line."""
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *words],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


def test_five_processes_are_one_city(database_url: str, folder: Path) -> None:
    settings: dict[str, str | Path] = {"database_url": database_url, "data_dir": folder}
    assert "newest revision" in motcua("migrate", **settings).stdout
    assert "the city is loaded" in motcua("seed", **settings).stdout
    assert "already holds the city" in motcua("seed", **settings).stdout

    ports = {name: free_port() for name in SERVICES}
    urls = {f"{name}_url": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(service(name, port, folder, database_url=database_url))
            for name, port in ports.items()
        }
        door = stack.enter_context(
            service("gateway", free_port(), folder, database_url=database_url, **urls)
        )
        for process in (*running.values(), door):
            process.wait_until_ready()
        with door.client() as client:
            visit(door, client)
            wait_for(
                lambda: report_of(door, client, this_week())["returned"] == 1,
                5,
                "the visit is in the report",
            )
            one_service_out(running["intake"], door, client)
        with watched(door, *STREAMS) as through_the_door, watched(running["queue"], *STREAMS):
            assert door.stop() < 10
            for lines in through_the_door:
                list(lines)  # each came to its end: cut off, this would raise
            assert running["queue"].stop() < 10
        for process in (*running.values(), door):
            assert process.stop() < 10
            assert "Application shutdown complete" in process.log.read_text("utf-8")


def one_service_out(intake: City, door: City, client: httpx.Client) -> None:
    """Stop intake: the door says so, and everything else answers as before."""
    intake.stop()
    health = client.get("/readyz")
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert set(health.json()["degraded"]) == {"intake"}
    away = client.get("/v1/track/H29.26740-261124-0001", params={"phone_last4": "3456"})
    assert away.status_code == 503
    assert "intake" in away.json()["detail"]
    assert int(away.headers["Retry-After"]) > 0
    assert client.get(f"/v1/units/{UNIT}/queue").status_code == 200
    assert report_of(door, client, this_week())["returned"] == 1


def test_a_service_alone_refuses_to_start_without_a_database(folder: Path) -> None:
    with service("queue", free_port(), folder) as queue:
        queue.process.wait(30)
        assert queue.process.returncode != 0
        assert "MOTCUA_DATABASE_URL" in queue.log.read_text("utf-8")


def test_tokens_are_refused_in_production(folder: Path) -> None:
    done = motcua("token", "--role", "city", data_dir=folder, **PRODUCTION)
    assert done.returncode == 2
    assert "OIDC" in done.stderr


def test_a_role_that_does_not_exist_is_named(folder: Path) -> None:
    done = motcua("token", "--role", "king", data_dir=folder)
    assert done.returncode == 2
    assert "king" in done.stderr

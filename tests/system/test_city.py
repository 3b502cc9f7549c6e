"""The embedded city as its users start it: one command, real processes, real signals."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.reporting.periods import week_containing
from tests.started import Started
from tests.support import reachable_folder
from tests.system.city import (
    PROCEDURE,
    STREAMS,
    UNIT,
    City,
    copy_of,
    embedded,
    embedded_by_command,
    environment,
    key,
    made_before,
    report_of,
    visit,
    wait_for,
    watched,
)

pytestmark = pytest.mark.system


def this_week() -> str:
    """Name the running week."""
    return week_containing(datetime.now(UTC)).name


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    """Give one running city to the tests that only call it."""
    with (
        reachable_folder() as folder,
        embedded_by_command(folder / "a folder with spaces") as running,
    ):
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """Give a data folder that every test may copy."""
    with made_before() as folder:
        yield folder


@pytest.fixture
def kept(folder: Path, made: Path) -> Path:
    """Give the data folder of a city that was started before."""
    copy_of(made, folder)
    return folder


@pytest.fixture
def client(city: City) -> Iterator[httpx.Client]:
    """Give a client of the door."""
    with city.client() as client:
        yield client


def start_and_fail(**settings: str | int | Path) -> str:
    """Start a city that cannot start; answer what it said."""
    with reachable_folder() as folder:
        log = folder / "said"
        city = Started(["-m", "services.embedded"], environment(**settings), log)
        assert city.wait(60) not in (0, -signal.SIGKILL)
        said = log.read_text("utf-8")
    assert "Traceback" not in said
    return said


def children_of(city: City) -> list[int]:
    """List the processes that the city has started: its PostgreSQL server."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = entry.read_text("ascii", errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == city.process.pid:
                found.append(int(entry.parent.name))
    return found


def alive(pid: int) -> bool:
    """Tell whether a process is still there."""
    return Path(f"/proc/{pid}").exists()


def test_a_fresh_city_lists_its_168_units_and_shows_a_start_page(client: httpx.Client) -> None:
    units = client.get("/v1/units", params={"limit": 200}).json()["items"]
    assert len(units) == 168
    page = client.get("/")
    assert page.status_code == 200
    assert "Không ai phải chờ quá 20 phút" in page.text
    assert client.get("/livez").json()["status"] == "alive"


def test_a_visit_is_in_the_weekly_report_within_two_seconds(
    city: City, client: httpx.Client
) -> None:
    before = report_of(city, client, this_week())
    visit(city, client)

    def counted() -> bool:
        after = report_of(city, client, this_week())
        return bool(
            after["queue"]["finished"] == before["queue"]["finished"] + 1
            and after["received"]["direct"] == before["received"]["direct"] + 1
            and after["returned"] == before["returned"] + 1
        )

    wait_for(counted, 2, "ticket finished, dossier received and returned in the report")
    whole = client.get(f"/v1/reports/weekly/{this_week()}", headers=city.bearer("city")).json()
    received = whole["city"]["received"]["total"]
    assert received == whole["city"]["resolved"]["total"] + whole["city"]["pending"]["total"]


def twins(call: Callable[[], httpx.Response], count: int = 6) -> list[httpx.Response]:
    """Send the same request several times at once."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]


def assert_one_effect(answers: list[httpx.Response]) -> Any:
    """Check that all twins got one answer, and that all but one were told so."""
    assert {answer.status_code for answer in answers} <= {200, 201}, [a.text for a in answers]
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer.headers.get("Idempotent-Replayed") for answer in answers]
    assert replayed.count("true") == len(answers) - 1
    return answers[0].json()


def test_requests_repeated_while_in_flight_have_one_effect(
    city: City, client: httpx.Client
) -> None:
    unit = "H29.26743"
    officer = city.bearer("officer", unit)
    client.put(f"/v1/units/{unit}/counters/1", json={"state": "open"}, headers=officer)

    def post(path: str, headers: dict[str, str], body: Any = None) -> Any:
        same = headers | key()
        return assert_one_effect(twins(lambda: client.post(path, json=body, headers=same)))

    numbers = []
    for _ in range(5):
        ticket = post("/v1/tickets", {}, {"unit": unit, "channel": "web"})
        numbers.append(ticket["number"])
        called = post(f"/v1/units/{unit}/counters/1/call-next", officer)
        assert called["id"] == ticket["id"]
        assert post(f"/v1/tickets/{ticket['id']}/start", officer)["status"] == "serving"
        assert post(f"/v1/tickets/{ticket['id']}/finish", officer)["status"] == "finished"
    assert numbers == [f"A{n:03}" for n in range(1, 6)]
    dossier = {
        "procedure_code": PROCEDURE,
        "receiving_unit": unit,
        "channel": "direct",
        "applicant": {"kind": "citizen", "name": "Lê Văn Cường"},
        "components": [],
    }
    codes = [post("/v1/dossiers", officer, dossier)["code"] for _ in range(3)]
    assert [code[-4:] for code in codes] == ["0001", "0002", "0003"]


def test_bad_input_gets_a_clear_problem(city: City, client: httpx.Client) -> None:
    officer = city.bearer("officer", UNIT)
    cases: list[tuple[httpx.Response, int, str]] = [
        (client.post("/v1/tickets", json={"unit": "H29.1", "channel": "web"}), 404, "H29.1"),
        (client.post("/v1/tickets", json={"unit": "gso:27625", "channel": "web"}), 409, "split"),
        (
            client.post(
                "/v1/tickets",
                json={"unit": UNIT, "channel": "web", "procedure_codes": ["3.000333"]},
            ),
            409,
            "3.000333",
        ),
        (client.get("/v1/reports/weekly/2026-W99", headers=city.bearer("city")), 422, "week"),
        (
            client.post("/v1/units/H29.26743/counters/1/call-next", headers=officer),
            403,
            "H29.26743",
        ),
        (client.post("/v1/tickets", json={"unit": 5, "channel": "x", "more": 1}), 422, "channel"),
    ]
    for answer, status, word in cases:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert {"type", "title", "status", "detail", "trace_id"} <= set(problem)
        assert word in answer.text
    fields = {entry["field"] for entry in cases[-1][0].json()["errors"]}
    assert fields == {"unit", "channel", "more"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_the_next_start_keeps_the_data(
    kept: Path, number: signal.Signals
) -> None:
    with embedded(kept) as city, city.client() as client:
        made = visit(city, client)
        (postgres,) = children_of(city)
        with watched(city, *STREAMS) as streams:
            assert city.stop(number) < 10
            for lines in streams:
                list(lines)  # each came to its end: cut off, this would raise
        assert city.process.returncode == 0
        assert not alive(postgres)
    with embedded(kept) as city, city.client() as client:
        ticket = client.get(f"/v1/tickets/{made['ticket']['id']}")
        assert ticket.json()["status"] == "finished"
        code = made["dossier"]["code"]
        officer = city.bearer("officer", UNIT)
        assert client.get(f"/v1/dossiers/{code}", headers=officer).json()["status"] == 10
        again = client.post("/v1/tickets", json={"unit": UNIT, "channel": "web"}).json()
        assert again["number"] == "A002"
        wait_for(
            lambda: report_of(city, client, this_week())["queue"]["tickets"] == 2,
            5,
            "both tickets in the report",
        )


def test_a_city_killed_at_once_comes_back_with_every_acknowledged_write(kept: Path) -> None:
    with embedded(kept) as city, city.client() as client:
        issued = [
            client.post("/v1/tickets", json={"unit": UNIT, "channel": "web"}).json()
            for _ in range(20)
        ]
        (postgres,) = children_of(city)
        os.kill(city.process.pid, signal.SIGKILL)
        city.process.wait(10)
        wait_for(lambda: not alive(postgres), 10, "the server goes with its parent")
    with embedded(kept) as city, city.client() as client:
        shown = [client.get(f"/v1/tickets/{ticket['id']}").json() for ticket in issued]
        assert [ticket["number"] for ticket in shown] == [f"A{n:03}" for n in range(1, 21)]
        wait_for(
            lambda: report_of(city, client, this_week())["queue"]["tickets"] == 20,
            5,
            "every ticket in the report, each once",
        )


def test_the_city_goes_on_after_its_database_was_killed(kept: Path) -> None:
    with embedded(kept) as city, city.client() as client:
        visit(city, client)
        (postgres,) = children_of(city)
        os.kill(postgres, signal.SIGKILL)
        city.wait_until_ready(30)

        def served() -> bool:
            answer = client.post("/v1/tickets", json={"unit": UNIT, "channel": "web"})
            assert answer.status_code in (201, 503), answer.text
            return answer.status_code == 201

        wait_for(served, 30, "tickets are issued again")
        assert client.get("/livez").status_code == 200
        wait_for(
            lambda: report_of(city, client, this_week())["queue"]["tickets"] == 2,
            10,
            "relay and consumers have come back too",
        )


def test_a_port_in_use_is_said_with_the_way_out(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = start_and_fail(port=other.getsockname()[1], data_dir=folder)
    assert "choose another port: make run PORT=" in said


def test_wrong_settings_are_named(folder: Path) -> None:
    said = start_and_fail(port="many", data_dir=folder)
    assert "MOTCUA_PORT" in said
    said = start_and_fail(port=0, data_dir=folder, clock="tomorrow")
    assert "MOTCUA_CLOCK is 'tomorrow'" in said
    said = start_and_fail(port=0, data_dir=folder, profile="production")
    assert "MOTCUA_OIDC_ISSUER" in said


def test_a_database_that_is_away_is_said_without_its_password(folder: Path) -> None:
    said = start_and_fail(
        port=0, data_dir=folder, database_url="postgresql://motcua:secret@127.0.0.1:1/motcua"
    )
    assert "127.0.0.1/motcua does not serve" in said
    assert "secret" not in said


def test_without_server_binaries_the_message_says_what_to_install(folder: Path) -> None:
    empty = folder / "nothing here"
    empty.mkdir()
    said = start_and_fail(port=0, data_dir=folder, postgres_bin=empty)
    assert "cannot start" in said
    assert str(empty) in said


def test_a_data_folder_of_another_version_is_left_alone(kept: Path) -> None:
    (version,) = kept.rglob("data/PG_VERSION")
    before = version.read_text("ascii")
    version.write_text("9\n", "ascii")
    said = start_and_fail(port=0, data_dir=kept)
    assert "9" in said
    assert "version" in said.lower()
    version.write_text(before, "ascii")
    with embedded(kept) as city, city.client() as client:
        assert len(client.get("/v1/units", params={"limit": 200}).json()["items"]) == 168


def test_a_second_city_on_one_folder_is_refused(kept: Path) -> None:
    with embedded(kept) as city:
        said = start_and_fail(port=0, data_dir=kept)
        assert "cannot start" in said
        assert city.process.poll() is None
        assert httpx.get(f"{city.base}/readyz").status_code == 200


def test_logs_are_json_lines_without_personal_data(city: City, client: httpx.Client) -> None:
    visit(city, client, "H29.26758")

    lines = city.log.read_text("utf-8")
    assert "079190001234" not in lines
    assert "0903123456" not in lines
    assert "Trần Thị Bình" not in lines

"""Plays against the real city: exact, exact in saying what is not, and refused where it must be."""

import asyncio
import signal
import subprocess
import sys
import time as wall
from collections import Counter
from collections.abc import Iterator
from datetime import time
from pathlib import Path

import asyncpg
import pytest

from services.simulate import Outcome, Refused, Settings, run
from tests.support import reachable_folder
from tests.system.city import City, copy_of, embedded, environment, made_before, visit

pytestmark = pytest.mark.system

CLOCK = "2026-11-16T07:20+07:00,x240"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """Give a data folder to copy: of a city that stopped before any play begins."""
    with made_before(clock="2026-11-15T06:00+07:00,x1", hours="official") as folder:
        yield folder


@pytest.fixture
def kept(folder: Path, made: Path) -> Path:
    """Give the data folder of a city that was started before."""
    copy_of(made, folder)
    return folder


def settings_for(city: City, until: time = time(8, 30), units: int = 5) -> Settings:
    """Describe a play: five units, an hour."""
    return Settings(url=city.base, data_dir=city.data, units=units, since=time(7, 30), until=until)


def simulate(city: City, *more: str) -> "subprocess.Popen[str]":
    """Start the command."""
    words = ["--url", city.base, "--data", str(city.data), "--units", "5", "--from", "07:30", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", "simulate", *words],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(play: "subprocess.Popen[str]", within: float = 120) -> tuple[int, str, str]:
    """Wait for the command; answer its status and what it said."""
    said, complained = play.communicate(timeout=within)
    return play.returncode, said, complained


def assert_lively(outcome: Outcome) -> None:
    """Check that much was played, so that agreement means something."""
    tickets = outcome.ledger.tickets.values()
    assert len(tickets) > 80
    assert {"finished", "no_show"} <= {ticket.status for ticket in tickets}
    taken = Counter(
        (change.step, change.status) for ticket in tickets for change in ticket.changes.values()
    )
    for step in (
        ("recall", "called"), ("park", "parked"), ("return", "waiting"), ("transfer", "waiting"),
        ("transfer", "transferred"), ("print-failed", "cancelled"), ("reissue", "waiting"),
    ):  # fmt: skip
        assert taken[step], (step, taken)
    assert any(ticket.transferred_from for ticket in tickets)
    assert not {"called", "serving"} & {ticket.status for ticket in tickets}
    assert {2, 4, 10} <= {dossier.status for dossier in outcome.ledger.dossiers.values()}
    assert outcome.cost.repeats > 10


def test_five_units_for_an_hour_and_a_half_agree_with_the_report_line_by_line(kept: Path) -> None:
    with embedded(kept, clock=CLOCK, hours="official") as city:
        outcome = run(settings_for(city, time(9)))
        assert [(line.row, line.name, line.ours, line.theirs) for line in outcome.differences] == []
        assert outcome.ledger.violations == []
        assert outcome.ledger.unsettled == []
        assert outcome.status == 0
        assert len(outcome.lines) > 168 * 31
        assert_lively(outcome)
        with pytest.raises(Refused, match="already holds data"):
            run(settings_for(city, time(16)))


async def lose_one(url: str) -> None:
    """Let the database swallow one event: the second visit that ends is never announced."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("""
            CREATE SEQUENCE queue.losses;
            CREATE FUNCTION queue.lose() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN
                IF nextval('queue.losses') = 2 THEN RETURN NULL; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER lose BEFORE INSERT ON queue.outbox FOR EACH ROW
            WHEN (NEW.type = 'TicketFinished') EXECUTE FUNCTION queue.lose();
        """)
    finally:
        await connection.close()


def test_one_event_lost_on_purpose_is_found_and_said(kept: Path) -> None:
    with embedded(kept, clock=CLOCK, hours="official") as city:
        asyncio.run(lose_one((kept / "embedded-database-url").read_text("ascii")))
        status, said, _ = finished(simulate(city, "--to", "07:50", "--settle", "3"))
    assert status == 1, said
    assert "2 differences:" in said
    assert "city  queue.finished: ledger" in said
    assert said.count("queue.finished: ledger") == 2
    assert "DIFFERS" in said


def test_ctrl_c_ends_the_play_with_what_there_is(kept: Path) -> None:
    with embedded(kept, clock=CLOCK, hours="official") as city:
        play = simulate(city, "--to", "16:00")
        wall.sleep(12)
        play.send_signal(signal.SIGINT)
        began = wall.monotonic()
        status, said, complained = finished(play)
        assert wall.monotonic() - began < 30
        assert status == 0, said + complained
        assert "stopped before its end" in said
        assert "lines agree exactly" in said
        assert "Traceback" not in complained
        assert "wait P50 / P95 / max" in said


def test_a_city_that_goes_away_leaves_the_books_and_status_1(kept: Path) -> None:
    with embedded(kept, clock=CLOCK, hours="official") as city:
        play = simulate(city, "--to", "16:00", "--patience", "3")
        wall.sleep(10)
        city.process.kill()
        wall.sleep(2)
        play.send_signal(signal.SIGINT)
        status, said, complained = finished(play)
    assert status == 1, said + complained
    assert "report absent" in said
    assert "requests nobody answered" in said
    assert "Traceback" not in complained


def test_a_city_on_the_systems_clock_is_refused_with_the_command_that_starts_another(
    kept: Path,
) -> None:
    with embedded(kept) as city:
        status, _, complained = finished(simulate(city))
        assert status == 2
        assert "system clock" in complained
        assert "MOTCUA_CLOCK=2026-" in complained
        assert "make run" in complained
        with city.client() as client:
            assert client.get("/v1/queue/overview").json()["waiting"] == 0


def test_a_week_that_holds_data_is_refused(kept: Path) -> None:
    with embedded(kept, clock="2026-11-16T09:00+07:00,x10") as city, city.client() as client:
        visit(city, client)
        wall.sleep(1)
        status, _, complained = finished(simulate(city))
    assert status == 2
    assert "2026-W47 already holds data" in complained


def test_who_comes_on_a_sunday_is_turned_away_and_the_report_stays_empty(kept: Path) -> None:
    with embedded(kept, clock="2026-11-15T07:20+07:00,x240", hours="official") as city:
        outcome = run(settings_for(city, time(7, 45)))
    assert outcome.ledger.turned_away > 0
    assert not outcome.ledger.tickets
    assert outcome.status == 0, (outcome.differences, outcome.ledger.violations)


def test_refusals_say_what_to_do(kept: Path) -> None:
    with embedded(kept, clock="2026-11-16T18:00+07:00,x1") as city:
        late = settings_for(city, time(17))
        with pytest.raises(Refused, match="--to"):
            run(late)
        with pytest.raises(Refused, match=r"H29\.1\b"):
            run(Settings(url=city.base, data_dir=kept, units=("H29.1",), until=time(23)))
        with pytest.raises(Refused, match="--data"):
            run(Settings(url=city.base, data_dir=kept / "elsewhere", until=time(23)))
    with pytest.raises(Refused, match="no city answers"):
        run(late)

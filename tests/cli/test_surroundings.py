"""Whatever is away or wrong, a command ends with a sentence and a status, not with a traceback."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg
import pytest
import typer

from libs.common.bus.base import BusError
from services.cli.surroundings import run
from tests.cli.command import invoke, motcua
from tests.common.helpers import admin, eventually, scratch_database
from tests.support import DATA_DIR, settings_for
from tests.system.city import environment, free_port

ASKING = [
    ("lag",),
    ("outbox",),
    ("dlq", "list"),
    ("dlq", "show", "x"),
    ("dlq", "replay", "all"),
    ("dlq", "drop", "all", "--yes"),
    ("rebuild", "reporting"),
    ("announce",),
    ("migrate",),
]


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
async def test_a_database_that_is_away_is_said_in_a_sentence(words: tuple[str, ...]) -> None:
    url = f"postgresql://motcua:secret-word@127.0.0.1:{free_port()}/motcua"
    done = await invoke(*words, url=url)
    assert (done.status, done.out) == (2, "")
    [sentence] = done.err.splitlines()
    assert sentence.startswith("the database at 127.0.0.1/motcua does not answer")
    assert "secret-word" not in sentence


async def test_it_is_so_for_the_program_itself() -> None:
    url = f"postgresql://motcua:secret-word@127.0.0.1:{free_port()}/motcua"
    done = await motcua("lag", "--json", url=url)
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("words", [w for w in ASKING if w != ("migrate",)], ids=" ".join)
async def test_a_database_that_was_never_migrated_is_said_in_a_sentence(
    words: tuple[str, ...], server_url: str
) -> None:
    async with scratch_database(server_url) as url:
        done = await invoke(*words, url=url)
    assert (done.status, done.out) == (2, "")
    assert "`motcua migrate` prepares it" in done.err


async def test_without_any_database_it_says_how_to_name_one(tmp_path: Path) -> None:
    done = await invoke("lag", data_dir=tmp_path)
    assert done.status == 2
    assert "make run" in done.err
    assert "MOTCUA_DATABASE_URL" in done.err


@pytest.mark.parametrize("words", [("lag", "--above", "-1"), ("dlq", "show"), ("rebuild", "queue")])
async def test_wrong_usage_ends_with_2(words: tuple[str, ...], database_url: str) -> None:
    done = await invoke(*words, url=database_url)
    assert done.status == 2
    assert "Usage" in done.err


async def test_a_setting_that_is_wrong_is_named(database_url: str) -> None:
    done = await invoke("lag", url=database_url, port="many")
    assert done.status == 2
    assert "MOTCUA_PORT" in done.err


def failing_with(error: BaseException) -> int:
    """Run a command's work that ends so; give the exit status."""

    async def work() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        run(settings_for("postgresql://motcua@127.0.0.1/motcua"), work())
    return ended.value.exit_code


async def test_a_bus_that_is_away_is_not_called_a_database(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await asyncio.to_thread(failing_with, BusError("no broker at 127.0.0.1:9092")) == 2
    assert capsys.readouterr().err == "no answer from the bus: no broker at 127.0.0.1:9092\n"


@pytest.mark.parametrize("words", [("lag",), ("dlq", "list"), ("rebuild", "reporting")])
async def test_a_kafka_that_is_away_is_said_in_a_sentence(
    words: tuple[str, ...], database_url: str
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    done = await invoke(*words, url=database_url, kafka_bootstrap=nowhere)
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("no answer from the bus: ")


async def test_the_outbox_is_shown_also_while_kafka_is_away(database_url: str) -> None:
    """That is when somebody looks: what waits is in the database."""
    async with admin(database_url) as operator:
        await operator.execute(
            "INSERT INTO queue.outbox (event_id, topic, key, type, time, traceparent) "
            "VALUES (gen_random_uuid(), 'queue.tickets.v1', 'k', 'T', now(), '')"
        )
    nowhere = f"127.0.0.1:{free_port()}"
    done = await invoke("outbox", "--json", url=database_url, kafka_bootstrap=nowhere)
    assert done.status == 0
    [queue] = [item for item in done.json["items"] if item["service"] == "queue"]
    assert [(t["topic"], t["held_back"]) for t in queue["topics"]] == [("queue.tickets.v1", None)]
    assert done.json["bus"].startswith("no answer from the bus: ")
    assert "whether topics are missing is not known" in done.err


async def test_what_does_not_answer_is_not_waited_for_for_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def hang() -> int:
        with pytest.raises(typer.Exit) as ended:
            run(
                settings_for("postgresql://motcua@127.0.0.1/motcua"), asyncio.sleep(60), within=0.05
            )
        return ended.value.exit_code

    assert await asyncio.to_thread(hang) == 2
    assert "no answer in time" in capsys.readouterr().err


def test_a_statement_that_ctrl_c_cuts_off_does_not_speak_for_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The database's word for it may come first, and would be taken for its being away."""

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise asyncpg.QueryCanceledError("canceling statement due to user request") from None

    with pytest.raises(typer.Exit) as ended:
        run(settings_for("postgresql://motcua@127.0.0.1/motcua"), work(), interrupted="stopped")
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "stopped\n"


async def test_a_defect_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(failing_with, ZeroDivisionError())


# The rebuild ----------------------------------------------------------------------------------


async def test_a_second_rebuild_ends_with_1(database_url: str) -> None:
    async with admin(database_url) as other:
        await other.execute("SELECT pg_advisory_lock(hashtextextended('rebuild:reporting', 0))")
        done = await invoke("rebuild", "reporting", url=database_url)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("another rebuild of reporting is under way; the tables in use")


async def test_ctrl_c_leaves_the_tables_in_use_and_nothing_beside_them(database_url: str) -> None:
    """A reader holds the swap up, so the command is where stopping it could hurt most."""
    async with admin(database_url) as reader, admin(database_url) as operator:
        reading = reader.transaction()
        await reading.start()
        await reader.fetch("SELECT * FROM reporting.tickets")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.cli", "rebuild", "reporting",
            env=environment(database_url=database_url, data_dir=DATA_DIR),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

        async def swapping() -> bool:
            return bool(
                await operator.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted "
                    "AND relation = 'reporting.tickets'::regclass"
                )
            )

        await eventually(swapping, within=60)
        os.kill(process.pid, signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert "stopped: the tables in use are as they were" in err.decode()
        left = await operator.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE nspname = 'reporting_rebuild'"
        )
        assert left == 0
        await reading.commit()
        assert await operator.fetchval("SELECT count(*) FROM reporting.tickets") == 0

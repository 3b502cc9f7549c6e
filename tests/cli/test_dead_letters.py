"""`motcua dlq`: look at what was given up, send it again, drop it."""

import json
from collections.abc import AsyncIterator

import pytest

from libs.common.bus.base import Record
from libs.common.bus.embedded import open_embedded_bus
from libs.common.consumer import Consumer
from libs.common.db import connector, open_database, service_url
from libs.common.observability import configure_logging
from libs.common.outbox import Relay, drained
from services.consumers import ROUTERS
from tests.cli.command import Done, invoke
from tests.common.helpers import admin
from tests.common.test_consumer import at_work
from tests.common.things import all_of
from tests.reporting.support import at, received, ticket
from tests.support import settings_for

TOPIC = "queue.tickets.v1"


@pytest.fixture
async def letters(database_url: str) -> AsyncIterator[list[str]]:
    """Let reporting give up two messages, one of which is no JSON; give their ids."""
    configure_logging("CRITICAL")  # a message given up is logged with its traceback
    own = service_url(settings_for(database_url), "reporting")
    async with (
        open_database(own, "reporting") as database,
        open_embedded_bus(own, connector(own, "reporting")) as bus,
    ):
        first, second = (received(event) for event in ticket(at("2026-11-16 08:00"), called=60))
        spoiled = [
            Record(TOPIC, first.key, b'{"number": "A001", "counter": "none"}', first.headers),
            Record(TOPIC, second.key, b"\xff not JSON", second.headers),
        ]
        async with bus.producer("test") as producer:
            await producer.send(spoiled)
        consumer = Consumer("reporting", ROUTERS["reporting"], database, bus)
        await consumer.handle(await all_of(bus, TOPIC))
        async with at_work(Relay("reporting", database, bus)):
            assert await drained(database, within=10)
        yield [first.headers["ce_id"], second.headers["ce_id"]]


async def listed(url: str) -> list[str]:
    """Give the ids on the list."""
    return [item["id"] for item in (await invoke("dlq", "list", "--json", url=url)).json["items"]]


async def test_without_letters_it_says_so(database_url: str) -> None:
    assert (await invoke("dlq", "list", url=database_url)).out == "no dead letters\n"
    assert (await invoke("dlq", "list", "--json", url=database_url)).json == {"items": []}


@pytest.mark.parametrize("words", [("show", "x"), ("replay", "x"), ("drop", "x", "--yes")])
async def test_a_letter_that_is_not_there_ends_with_1(
    database_url: str, words: tuple[str, ...]
) -> None:
    done = await invoke("dlq", *words, url=database_url)
    assert (done.status, done.err) == (1, "no dead letter x\n")


async def test_the_list_names_what_who_and_why(database_url: str, letters: list[str]) -> None:
    assert sorted(await listed(database_url)) == sorted(letters)
    shown = await invoke("dlq", "list", url=database_url)
    [line] = [line for line in shown.out.splitlines() if letters[0] in line]
    for part in ("reporting", TOPIC, "TicketIssued", "ValidationError"):
        assert part in line


async def test_one_is_shown_whole(database_url: str, letters: list[str]) -> None:
    [told] = (await invoke("dlq", "show", letters[0], "--json", url=database_url)).json["items"]
    assert told["body"] == {"number": "A001", "counter": "none"}
    assert told["headers"]["ce_type"] == told["type"] == "TicketIssued"
    assert not any(name.startswith("motcua_") for name in told["headers"])
    assert "ValidationError" in told["reason"]
    [other] = (await invoke("dlq", "show", letters[1], "--json", url=database_url)).json["items"]
    assert other["body"] == "\ufffd not JSON"
    shown = (await invoke("dlq", "show", letters[1], url=database_url)).out
    for part in ("reason", "ce_source: /motcua/test", "\ufffd not JSON"):
        assert part in shown


async def test_a_replayed_letter_goes_back_to_its_topic_and_off_the_list(
    database_url: str, letters: list[str]
) -> None:
    done = await invoke("dlq", "replay", letters[0], "--json", url=database_url)
    assert done.json == {"sent": 1, "superseded": 0, "too_old": 0}
    assert await listed(database_url) == [letters[1]]
    async with admin(database_url) as operator:
        rows = await operator.fetch("SELECT headers FROM bus.log WHERE topic = $1", TOPIC)
    ids = [json.loads(row["headers"])["ce_id"] for row in rows]
    assert ids == [*letters, letters[0]]
    assert "1 message(s) sent again" in (await invoke("dlq", "replay", "all", url=database_url)).out
    assert await listed(database_url) == []


async def drop(url: str, *words: str, answer: str = "") -> Done:
    """Drop letters."""
    return await invoke("dlq", "drop", *words, url=url, answer=answer)


async def test_dropping_asks_first(database_url: str, letters: list[str]) -> None:
    for answer in ("n\n", "\n", ""):
        refused = await drop(database_url, letters[0], answer=answer)
        assert refused.status == 1
        assert "Drop 1 message(s) for ever?" in refused.err
    assert len(await listed(database_url)) == 2
    assert (await drop(database_url, letters[0], answer="y\n")).status == 0
    assert await listed(database_url) == [letters[1]]


async def test_dropping_with_yes_does_not_ask(database_url: str, letters: list[str]) -> None:
    done = await drop(database_url, "all", "--yes", "--json")
    assert (done.status, done.json) == (0, {"dropped": 2})
    assert await listed(database_url) == []
    async with admin(database_url) as operator:
        count = await operator.fetchval("SELECT count(*) FROM bus.log WHERE topic = $1", TOPIC)
    assert count == 2  # nothing was sent again

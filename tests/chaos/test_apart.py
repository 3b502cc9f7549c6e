"""Five services as processes of their own, the queue twice: crashes of one, and contention."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from libs.common.bus.base import Record
from tests.chaos.check import check
from tests.chaos.forms import Form
from tests.chaos.ledger import TICKET_EVENTS
from tests.chaos.runs import Outcome, bus_of, contend, kill_apart
from tests.common.helpers import admin
from tests.common.things import all_of
from tests.support import reachable_folder

pytestmark = pytest.mark.system


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty data folder."""
    with reachable_folder() as folder:
        yield folder


async def test_a_process_killed_beside_its_twin_loses_nothing(city_url: str, folder: Path) -> None:
    form = Form.short()
    # The server is the tests' own and serves others: it is killed in `make chaos` alone.
    kills = [what for what in form.apart if what != "postgres"]
    outcome = await kill_apart(city_url, folder, kills, seed=form.seed)
    print(outcome)
    assert outcome.findings.all() == []
    await the_account_would_have_shown_it(city_url, outcome)


async def test_many_officers_at_two_processes_call_everybody_once(
    city_url: str, folder: Path
) -> None:
    form = Form.short()
    outcome = await contend(
        city_url, folder, tickets=form.tickets, seed=form.seed, officers=(16, 4)
    )
    print(outcome)
    assert outcome.findings.all() == []
    done = outcome.ledger.counts
    for what in ("told nobody waits", "linked tickets", *set(TICKET_EVENTS.values())):
        assert done[what] > 0, (what, done)


async def the_account_would_have_shown_it(url: str, outcome: Outcome) -> None:
    """Do by hand what no crash did: each kind of wrong must be found."""
    async with admin(url) as connection:
        lost, changed, reported = [
            row["id"]
            for row in await connection.fetch(
                "SELECT id FROM queue.tickets WHERE status = 'finished' LIMIT 3"
            )
        ]
        await connection.execute("DELETE FROM queue.tickets WHERE id = $1", lost)
        await connection.execute(
            "UPDATE queue.tickets SET status = 'no_show' WHERE id = $1", changed
        )
        await connection.execute(
            "UPDATE reporting.tickets SET version = version + 1 WHERE ticket_id = $1", reported
        )
    forgotten = next(iter(outcome.ledger.dossiers))
    del outcome.ledger.dossiers[forgotten]
    async with bus_of(url) as bus:
        last = (await all_of(bus, "queue.tickets.v1"))[-1]
        again = Record(last.topic, last.key, last.value, {**last.headers, "ce_id": str(uuid4())})
        async with bus.producer("a-test") as producer:
            await producer.send([again])
        found = await check(url, bus, outcome.ledger)
    assert f"ticket {lost}" in found.lost
    assert any("numbers of" in gap for gap in found.gaps)
    assert any(f"{changed} status" in words for words in found.differences)
    assert any(f"reported {reported} version" in words for words in found.differences)
    assert any(words.startswith("announced") for words in found.duplicates)
    assert f"dossier {forgotten}" in found.unknown

"""`make chaos`: the long forms of all runs, and their counts in a table; 1 if anything is wrong.

`python -m tests.chaos contention --operations 100000` is the run of many counters alone.
"""

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.kafka import Broker, missing_tools
from libs.common.bus.opening import open_bus
from libs.common.migrate import migrate
from libs.common.postgres import EmbeddedPostgres
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from tests.chaos.day import play_under_fire
from tests.chaos.forms import Form
from tests.chaos.programs import Program
from tests.chaos.runs import Outcome, contend, kill_apart, kill_embedded, reach_every_fault
from tests.started import as_command
from tests.support import reachable_folder, settings_for

console = Console(width=118)

Run = Callable[[str, Path], Awaitable[Outcome]]


def main() -> int:
    """Run everything, one after the other, or the run that is named."""
    form = Form.long()
    wanted = _asked()
    Program.run = as_command  # how long a start takes is told
    console.print(
        f"seed {form.seed} (MOTCUA_CHAOS_SEED repeats it) · {os.cpu_count()} cores · "
        f"Python {platform.python_version()} · {platform.system()} {platform.release()}"
    )
    if wanted.run == "contention":
        return _contention(wanted.operations, wanted.officers, form.seed)
    outcomes = [
        _on_a_server(lambda url, f: contend(url, f, tickets=form.tickets, seed=form.seed)),
        _alone(lambda f: kill_embedded(f, form.embedded, seed=form.seed)),
        _alone(lambda f: reach_every_fault(f, seed=form.seed, check_each=form.check_each_fault)),
        _on_a_server(lambda url, f: kill_apart(url, f, form.apart, seed=form.seed)),
    ]
    console.print(table(outcomes), recoveries(outcomes))
    wrong = [words for outcome in outcomes for words in outcome.findings.all()]
    wrong += _day_over_kafka(form)
    for words in wrong[:50]:
        console.print(words, style="red", markup=False, highlight=False)
    return bool(wrong)


def _asked() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    asked.add_argument("run", nargs="?", choices=["all", "contention"], default="all")
    asked.add_argument("--operations", type=int, default=100_000, help="answered requests")
    asked.add_argument("--officers", type=int, default=32, help="counters of the busiest unit")
    return asked.parse_args()


def _contention(operations: int, officers: int, seed: int) -> int:
    """Let many counters contend, and print what was done and found; 1 if anything is wrong."""
    outcome = _on_a_server(
        lambda url, f: contend(url, f, seed=seed, officers=(officers, 4), operations=operations)
    )
    console.print(table([outcome]))
    for words in outcome.findings.all()[:50]:
        console.print(words, style="red", markup=False, highlight=False)
    return bool(outcome.findings.all())


def _alone(run: Callable[[Path], Awaitable[Outcome]]) -> Outcome:
    """Run on an empty data folder."""
    with reachable_folder() as folder:
        return _told(asyncio.run(_of(run(folder))))


def _on_a_server(run: Run) -> Outcome:
    """Run on a server of our own that holds the city and is brought back when it dies."""
    with reachable_folder() as folder, reachable_folder() as data, EmbeddedPostgres(data) as server:

        async def whole() -> Outcome:
            settings = settings_for(server.url)
            await migrate(settings, list(all_topics()))
            await seed_registry(settings)
            async with AsyncExitStack() as stack:
                supervisor = asyncio.create_task(server.supervise())
                stack.callback(supervisor.cancel)
                return await run(server.url, folder)

        return _told(asyncio.run(whole()))


def _day_over_kafka(form: Form) -> list[str]:
    """Play a day over a broker of our own, under fire; give what was wrong."""
    if missing := missing_tools():
        console.print(f"no day over Kafka: {missing}", style="yellow", markup=False)
        return []
    with (
        reachable_folder() as kept,
        reachable_folder() as folder,
        Broker(kept) as broker,
        _server_with_the_city(broker) as url,
    ):
        play = play_under_fire(url, folder, seed=form.seed, kills=form.day, units=24, broker=broker)
        day = asyncio.run(play)
    console.print(str(day), markup=False, highlight=False)
    return day.wrong()


@contextmanager
def _server_with_the_city(broker: Broker) -> Iterator[str]:
    """Run a database that holds the city, whose events are on Kafka."""
    with reachable_folder() as data, EmbeddedPostgres(data) as server:
        settings = settings_for(server.url, kafka_bootstrap=broker.bootstrap)

        async def load() -> None:
            await migrate(settings, list(all_topics()))
            async with open_bus(settings, "registry") as bus:
                await bus.apply_topics(all_topics())
            await seed_registry(settings)

        asyncio.run(load())
        yield server.url


async def _of(run: Awaitable[Outcome]) -> Outcome:
    return await run


def _told(outcome: Outcome) -> Outcome:
    console.print(str(outcome), style="dim", markup=False, highlight=False)
    return outcome


ROWS: dict[str, Callable[[Outcome], int | float]] = {
    "tickets issued": lambda o: o.ledger.counts["tickets"],
    "calls": lambda o: o.ledger.counts["TicketCalled"],
    "told that nobody waits": lambda o: o.ledger.counts["told nobody waits"],
    "cancelled, or not printed": lambda o: o.ledger.counts["TicketCancelled"],
    "printed again": lambda o: o.ledger.counts["TicketReissued"],
    "put aside": lambda o: o.ledger.counts["TicketParked"],
    "wait again (put aside, missed, handed back)": lambda o: o.ledger.counts["TicketReturned"],
    "sent on": lambda o: o.ledger.counts["TicketTransferred"],
    "of these to another unit": lambda o: o.ledger.counts["linked tickets"],
    "dossiers taken in": lambda o: o.ledger.counts["dossiers taken in"],
    "steps of dossiers": lambda o: o.ledger.counts["steps of dossiers"],
    "requests answered": lambda o: o.ledger.counts["operations"],
    "writes acknowledged": lambda o: o.ledger.keys,
    "requests repeated": lambda o: (
        o.ledger.counts["repeats"] + o.ledger.counts["repeats on purpose"]
    ),
    "found their earlier answer": lambda o: o.ledger.counts["answers given again after a repeat"],
    "kill -9": lambda o: o.kills.total(),
    "processes started again": lambda o: o.restarts,
    "events on the bus": lambda o: o.findings.events,
    "sent again, dropped by the inbox": lambda o: o.findings.sent_again,
    "seconds": lambda o: round(o.seconds),
    "lost": lambda o: len(o.findings.lost),
    "stored but never acknowledged": lambda o: len(o.findings.unknown),
    "duplicates": lambda o: len(o.findings.duplicates),
    "double calls": lambda o: len(o.findings.double_calls),
    "gaps": lambda o: len(o.findings.gaps),
    "overlooked": lambda o: len(o.findings.overlooked),
    "differences to the ledger": lambda o: len(o.findings.differences),
    "answers nobody should get": lambda o: len(o.findings.surprises),
}


def table(outcomes: list[Outcome]) -> Table:
    """Put the counts side by side."""
    shown = Table("", *(outcome.name for outcome in outcomes), title="What was done and found")
    for name, count in ROWS.items():
        shown.add_row(name, *(f"{count(outcome):,}" for outcome in outcomes))
        if name == "seconds":
            shown.add_section()
    return shown


def recoveries(outcomes: list[Outcome]) -> Table:
    """Show how long nobody was served after each kind of kill."""
    shown = Table("run", "killed", "times", "median s", "longest s", title="Recovery")
    for outcome in outcomes:
        for what, times in outcome.recovery.items():
            ordered = sorted(times)
            shown.add_row(
                outcome.name, what, str(len(times)), f"{ordered[len(ordered) // 2]:.2f}",
                f"{ordered[-1]:.2f}",
            )  # fmt: skip
    return shown


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

"""The long form: `python -m tests.hostile` sends all of every corpus and fuzzes at length, prints
what came back, and fails where anything was not as it should be."""

import argparse
import asyncio
import sys

from libs.common.migrate import migrate
from libs.common.observability import configure_logging
from libs.common.postgres import EmbeddedPostgres
from libs.contracts.topics import all_topics
from services.cli import seed_registry
from tests.hostile.families import PLAYED, REFUSED, attack, prepare
from tests.hostile.fuzz import Account, fuzz
from tests.hostile.house import opened
from tests.hostile.verdict import Tally
from tests.serving import HOST
from tests.support import reachable_folder, settings_for


async def _run(url: str, examples: int, seed: int) -> tuple[Tally, Account]:
    settings = settings_for(url)
    await migrate(settings, list(all_topics()))
    await seed_registry(settings)
    tally = Tally()
    async with opened(url) as house:
        await prepare(house)
        for family in (*REFUSED, *PLAYED):
            await attack(house, family, tally, short=False)
            print(tally.line(family), file=sys.stderr, flush=True)
        base = f"http://{HOST}:{house.port}"
        account = await asyncio.to_thread(fuzz, base, house.known, examples=examples, seed=seed)
        await house.assert_ready()  # not `serving`: as the city's office it may have closed units
    return tally, account


def main() -> int:
    """Run it all; answer the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="cases per operation and mode")
    parser.add_argument("--seed", type=int, default=20261124)
    wished = parser.parse_args()
    configure_logging("ERROR")
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        tally, account = asyncio.run(_run(server.url, wished.examples, wished.seed))
    print(tally.table())
    print(account)
    wrong = [*tally.wrong, *(f"{what}: {how}" for what, how in account.wrong.items())]
    print("\n\n".join(wrong[:40]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.bench.rebuild`: how fast reporting's tables are made anew from the log.

On a server of its own: a log of visits and dossiers, reporting's own consumer over all of it once,
then `motcua rebuild reporting`. Both rates are printed, and afterwards every row must be the same.
"""

import asyncio
import os
import platform
import subprocess
import sys
from itertools import islice
from time import perf_counter
from typing import Annotated

import asyncpg
import typer
import uvloop

from libs.common.bus.embedded import open_embedded_bus
from libs.common.consumer import Consumer
from libs.common.db import connector, open_database, service_url
from libs.common.migrate import migrate
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.consumers import ROUTERS
from tests.reporting.history import append, digest, past
from tests.support import reachable_folder, settings_for
from tests.system.city import environment


def main(events: Annotated[int, typer.Option(help="Events in the log.")] = 200_000) -> None:
    """Measure and compare."""
    print(
        f"{events} events · {os.cpu_count()} cores · Python {platform.python_version()} · "
        f"load {os.getloadavg()[0]:.1f}"
    )
    with reachable_folder() as folder, EmbeddedPostgres(folder) as server:
        settings = settings_for(server.url)
        before = uvloop.run(_consume(settings, events))
        subprocess.run(
            [sys.executable, "-m", "services.cli", "rebuild", "reporting"],
            env=environment(database_url=server.url, data_dir=folder),
            check=True,
        )
        if asyncio.run(_digest(server.url)) != before:
            raise SystemExit("the rebuilt tables are not the same")
        print("every row is the same")


async def _consume(settings: Settings, events: int) -> dict[str, str]:
    """Fill the log, let the service's consumer handle all of it, and fingerprint its tables."""
    await migrate(settings, list(all_topics()))
    url = service_url(settings, "reporting")
    async with (
        open_database(url, "reporting") as database,
        open_embedded_bus(url, connector(url, "reporting")) as bus,
        asyncio.timeout(3600),
    ):
        await append(bus, islice(past(), events))
        router = ROUTERS["reporting"]
        consumer = Consumer("reporting", router, database, bus)
        started = perf_counter()
        working = asyncio.create_task(consumer.run())
        while sum((await bus.lag("reporting", router.topics)).values()):
            await asyncio.sleep(0.1)
        seconds = perf_counter() - started
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    print(f"the consumer, in batches of {consumer.batch}: {events / seconds:,.0f} events/s")
    return await _digest(settings.database_url.get_secret_value() if settings.database_url else "")


async def _digest(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        return await digest(connection)
    finally:
        await connection.close()


if __name__ == "__main__":
    typer.run(main)

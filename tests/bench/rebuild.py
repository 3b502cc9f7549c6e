"""`python -m tests.bench.rebuild`: how fast reporting's tables are made anew from the log.

On servers of its own: a log of visits and dossiers, reporting's own consumer over all of it once,
then `motcua rebuild reporting`. Both rates are printed, and afterwards every row must be the same.
With `--kafka` the log is Kafka's (Java 17, Maven).
"""

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import islice
from time import perf_counter
from typing import Annotated

import asyncpg
import typer
import uvloop

from deploy.kafka import Broker
from libs.common.bus.opening import open_bus
from libs.common.consumer import Consumer
from libs.common.db import open_database, service_url
from libs.common.migrate import admin_url, migrate
from libs.common.postgres import EmbeddedPostgres
from libs.common.settings import Settings
from libs.contracts.topics import all_topics
from services.consumers import ROUTERS
from tests.reporting.history import append, digest, past
from tests.support import reachable_folder
from tests.system.city import environment


def main(
    events: Annotated[int, typer.Option(help="Events in the log.")] = 200_000,
    kafka: Annotated[bool, typer.Option("--kafka", help="Carry them over Kafka.")] = False,
) -> None:
    """Measure and compare."""
    carrier = "Kafka" if kafka else "PostgreSQL"
    print(
        f"{events} events over {carrier} · {os.cpu_count()} cores · load {os.getloadavg()[0]:.1f}"
    )
    with ExitStack() as stack:
        folder = stack.enter_context(reachable_folder())
        settings = {"database_url": stack.enter_context(EmbeddedPostgres(folder)).url}
        if kafka:
            settings["kafka_bootstrap"] = stack.enter_context(Broker(folder / "kafka")).bootstrap
        before = uvloop.run(_consume(Settings.model_validate(settings), events))
        subprocess.run(
            [sys.executable, "-m", "services.cli", "rebuild", "reporting"],
            env=environment(data_dir=folder, **settings),
            check=True,
        )
        if asyncio.run(_digest(settings["database_url"])) != before:
            raise SystemExit("the rebuilt tables are not the same")
        print("every row is the same")


async def _consume(settings: Settings, events: int) -> dict[str, str]:
    """Fill the log, let the service's consumer handle all of it, and fingerprint its tables."""
    await migrate(settings, list(all_topics()))
    async with (
        open_database(service_url(settings, "reporting"), "reporting") as database,
        open_bus(settings, "reporting") as bus,
        asyncio.timeout(3600),
    ):
        await bus.apply_topics(all_topics())
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
    return await _digest(admin_url(settings))


async def _digest(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        return await digest(connection)
    finally:
        await connection.close()


if __name__ == "__main__":
    typer.run(main)

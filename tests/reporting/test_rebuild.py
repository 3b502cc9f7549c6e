"""`motcua rebuild reporting`: the same report to the byte, whatever goes on meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import asyncpg
import httpx
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.bus.base import Bus
from libs.common.bus.embedded import open_embedded_bus
from libs.common.consumer import Consumer
from libs.common.db import connector, open_database, service_url
from libs.common.migrate import metadata_of
from services.reporting.handlers import router
from services.reporting.models import PROJECTIONS
from tests.cli.command import motcua
from tests.common.helpers import admin, eventually
from tests.reporting.history import append, digest, past
from tests.reporting.support import apply
from tests.reporting.test_properties import PROFILE
from tests.reporting.test_weekly import PATH, reporting_on
from tests.support import bearer, settings_for


@asynccontextmanager
async def second_process(url: str) -> AsyncIterator[Bus]:
    """Run reporting's consumer once more, beside the one in the service; give its bus."""
    own = service_url(settings_for(url), "reporting")
    async with (
        open_database(own, "reporting") as database,
        open_embedded_bus(own, connector(own, "reporting")) as bus,
    ):
        working = asyncio.create_task(Consumer("reporting", router, database, bus).run())
        try:
            yield bus
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def handled(bus: Bus) -> bool:
    """Tell whether reporting has handled everything."""
    return not sum((await bus.lag("reporting", router.topics)).values())


async def report_of(client: httpx.AsyncClient) -> bytes:
    """Read the whole city's report."""
    answer = await client.get(PATH, headers=bearer("city"))
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_the_rebuilt_report_is_byte_identical_also_after_a_kill_and_under_traffic(
    city_url: str, session: AsyncSession
) -> None:
    events = list(islice(past(), 1800))
    async with (
        reporting_on(city_url) as client,
        second_process(city_url) as bus,
        admin(city_url) as operator,
    ):
        await append(bus, events[:1500])
        await eventually(lambda: handled(bus), within=60)
        whole = await report_of(client)

        await operator.execute("UPDATE reporting.tickets SET first_wait_seconds = 1")
        await operator.execute("UPDATE reporting.dossiers SET competent_unit = receiving_unit || 1")
        spoiled = await report_of(client)
        assert spoiled != whole

        killed = await motcua("rebuild", "reporting", url=city_url, fault="inbox.handled:2")
        assert killed.status == -9
        assert await report_of(client) == spoiled
        done = await motcua("rebuild", "reporting", "--json", url=city_url)
        assert done.status == 0, done.err
        assert done.json["events"] == 1500
        assert done.json["dead_letters"] == 0
        assert await report_of(client) == whole

        traffic = asyncio.create_task(_send_slowly(bus, events[1500:]))
        under_traffic = await motcua("rebuild", "reporting", url=city_url)
        assert under_traffic.status == 0, under_traffic.err
        await traffic
        await eventually(lambda: handled(bus), within=60)
        assert await report_of(client) != whole
        for event in events:
            await apply(session, [event])
            await session.execute(text("SELECT 1"))  # so that each is written by itself
        assert await digest(operator) == await digest_of(session)


async def _send_slowly(bus: Bus, events: list[Any]) -> None:
    for start in range(0, len(events), 20):
        await append(bus, events[start : start + 20])
        await asyncio.sleep(0.05)


async def digest_of(session: AsyncSession) -> dict[str, str]:
    """Fingerprint what a transaction sees."""
    await session.execute(text("SELECT 1"))
    raw = await (await session.connection()).get_raw_connection()
    return await digest(raw.driver_connection)


SOME = list(islice(past(), 60))


@PROFILE
@given(st.lists(st.sampled_from(SOME), min_size=1))
async def test_events_handled_together_leave_the_rows_they_leave_one_by_one(
    session: AsyncSession, events: list[Any]
) -> None:
    """In any order and with repetitions: what is put is written in the order it was put."""
    async with session.begin_nested() as savepoint:
        for event in events:
            await apply(session, [event])
            await session.execute(text("SELECT 1"))
        one_by_one = await digest_of(session)
        await savepoint.rollback()
    async with session.begin_nested() as savepoint:
        await apply(session, events)
        together = await digest_of(session)
        await savepoint.rollback()
    assert together == one_by_one


_STRUCTURE = """
SELECT c.relname, c.relkind, c.relacl::text, pg_get_userbyid(c.relowner), c.reloptions::text,
    (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        || a.attnotnull::text || coalesce(pg_get_expr(d.adbin, d.adrelid), ''), ',' ORDER BY attnum)
     FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
     WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT string_agg(conname || pg_get_constraintdef(k.oid), ',' ORDER BY conname)
     FROM pg_constraint k WHERE k.conrelid = c.oid),
    (SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = c.oid)
FROM pg_class c WHERE c.relnamespace = 'reporting'::regnamespace ORDER BY c.relname
"""


async def structure(url: str) -> list[tuple[Any, ...]]:
    """Read everything but the rows: columns, constraints, indexes, owners, rights."""
    async with admin(url) as operator:
        return [tuple(row) for row in await operator.fetch(_STRUCTURE)]


async def test_a_rebuilt_schema_is_the_one_that_migrate_makes(database_url: str) -> None:
    before = await structure(database_url)
    done = await motcua("rebuild", "reporting", url=database_url)
    assert done.status == 0, done.err
    assert await structure(database_url) == before
    connection = await connector(
        service_url(settings_for(database_url), "reporting"), "reporting"
    )()
    try:
        for table in PROJECTIONS:
            await connection.execute(f"DELETE FROM {table}")
            try:
                await connection.execute(f"TRUNCATE {table}")
            except asyncpg.InsufficientPrivilegeError:
                continue
            raise AssertionError(f"reporting owns {table}")
    finally:
        await connection.close()


MECHANISM = {"outbox", "inbox", "idempotency_keys"}
OWN: set[str] = set()
"""Tables that are reporting's own word, which no event tells."""


def test_every_table_is_a_projection_or_reportings_own() -> None:
    """One that is neither named here nor in PROJECTIONS would be forgotten by a rebuild."""
    tables = {name for metadata in metadata_of("reporting") for name in metadata.tables}
    assert tables - MECHANISM - OWN == set(PROJECTIONS)

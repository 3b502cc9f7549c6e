"""Rows that are put: they travel together, in order, and are there for whoever looks."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, event, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.writes import put

THINGS = Table(
    "things", MetaData(), Column("thing", Text, primary_key=True), Column("number", BigInteger)
)
INSERT = insert(THINGS)
_ROW = upsert(THINGS)
ADD = _ROW.on_conflict_do_update(
    index_elements=[THINGS.c.thing], set_={"number": THINGS.c.number * 10 + _ROW.excluded.number}
)


@pytest.fixture
async def database_url(counting_url: str) -> str:
    """Give the database in which things are counted."""
    return counting_url


@pytest.fixture
async def database(queue_database: Database) -> Database:
    """Give the service `queue`, which stands for any."""
    return queue_database


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """Give a transaction that the test ends."""
    async with database.sessions() as session:
        yield session


async def things(database: Database) -> dict[str, int]:
    """Read what is committed."""
    async with database.sessions() as session:
        rows = await session.execute(select(THINGS))
        return {row.thing: row.number for row in rows}


def row(thing: str, number: int) -> dict[str, Any]:
    """Name a thing and its number."""
    return {"thing": thing, "number": number}


async def test_rows_are_written_with_the_commit_in_the_order_they_were_put(
    database: Database, session: AsyncSession
) -> None:
    for number in (1, 2, 3):
        put(session, ADD, row("a", number))
    assert await things(database) == {}
    await session.commit()
    assert await things(database) == {"a": 123}


async def test_rows_are_there_for_the_next_statement(session: AsyncSession) -> None:
    put(session, INSERT, row("a", 1))
    assert await session.scalar(select(THINGS.c.number)) == 1
    put(session, INSERT, row("b", 2))
    assert await session.scalar(text("SELECT count(*) FROM things")) == 2
    put(session, ADD, row("a", 5))
    assert (await session.execute(select(THINGS).order_by(THINGS.c.thing))).all() == [
        ("a", 15),
        ("b", 2),
    ]


async def test_rows_of_one_statement_take_one_round_trip(
    database: Database, session: AsyncSession
) -> None:
    many = []
    connection = await session.connection()

    @event.listens_for(connection.sync_connection, "after_cursor_execute")
    def count(*args: Any) -> None:
        many.append(args[-1])

    for number in range(100):
        put(session, INSERT, row(str(number), number))
    put(session, ADD, row("7", 1))
    await session.commit()
    assert many == [True, False]  # an executemany, and the single row after it
    assert (await things(database))["7"] == 71


async def test_a_rollback_forgets_what_was_put(database: Database, session: AsyncSession) -> None:
    put(session, INSERT, row("a", 1))
    await session.rollback()
    put(session, INSERT, row("b", 2))
    await session.commit()
    assert await things(database) == {"b": 2}


async def test_a_row_that_is_refused_fails_the_commit_and_leaves_nothing(
    database: Database,
) -> None:
    async with database.sessions() as session:
        for thing in ("a", "b", "a"):
            put(session, INSERT, row(thing, 1))
        with pytest.raises(DBAPIError, match="things_pkey"):
            await session.commit()
    assert await things(database) == {}


async def test_a_savepoint_must_not_swallow_rows(session: AsyncSession) -> None:
    put(session, INSERT, row("a", 1))
    with pytest.raises(AssertionError, match="before a savepoint"):
        await session.begin_nested()

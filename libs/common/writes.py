"""Writes that travel together: a handler puts a row, and its neighbours' rows go with it.

Run one by one, most of an upsert's time is the round trip and the session's own work, not the
database's. Handlers still read as one event, one row; the rows of the same statement that follow
each other become one `executemany`, which runs them in the same order.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, SessionTransaction
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.sql.dml import UpdateBase

from libs.common.events import EdgeSession

_PUT = "put"


def put(session: AsyncSession, statement: UpdateBase, row: Mapping[str, Any]) -> None:
    """Write a row with the transaction, in the order of the calls.

    It is there for whatever the session executes next, and when it commits; what the database has
    against it is raised there. `statement` is built once, at the module's top: rows are put
    together while it is the same object. Every row names the same columns.
    """
    sync = session.sync_session
    if not sync.in_transaction():
        sync.begin()  # or a rollback would have nothing to take back
    runs = sync.info.setdefault(_PUT, [])
    if runs and runs[-1][0] is statement:
        runs[-1][1].append(row)
    else:
        runs.append((statement, [row]))


def _write(session: SyncSession) -> None:
    # Taken off before they are run, as running them comes through here again.
    for statement, rows in session.info.pop(_PUT, ()):
        session.execute(statement, rows)


@event.listens_for(EdgeSession, "do_orm_execute")
def _write_before_others(state: ORMExecuteState) -> None:
    _write(state.session)


@event.listens_for(EdgeSession, "before_commit")
def _write_before_commit(session: SyncSession) -> None:
    _write(session)


@event.listens_for(EdgeSession, "after_transaction_create")
def _refuse_savepoint(session: SyncSession, transaction: SessionTransaction) -> None:
    # They would be written inside it, and go with it when it is rolled back.
    assert not (transaction.nested and session.info.get(_PUT)), "rows put before a savepoint"


@event.listens_for(EdgeSession, "after_soft_rollback")
def _forget(session: SyncSession, _: SessionTransaction) -> None:
    session.info.pop(_PUT, None)

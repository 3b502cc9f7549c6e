"""What the same machine gives for next to nothing: a bare FastAPI route with one insert.

`uvicorn tests.bench.floor:app`, on the database of `MOTCUA_DATABASE_URL`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

POOL = 16
TABLE = "CREATE TABLE IF NOT EXISTS bare_tickets (id uuid PRIMARY KEY, unit text NOT NULL)"
INSERT = "INSERT INTO bare_tickets (id, unit) VALUES ($1, $2)"


class _Base(DeclarativeBase):
    """The table's metadata."""


class BareTicket(_Base):
    """A row and nothing else: no number, no event, no key."""

    __tablename__ = "bare_tickets"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    unit: Mapped[str]


class Wish(BaseModel):
    """What is asked for."""

    unit: str


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    url = os.environ["MOTCUA_DATABASE_URL"]
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=POOL, max_overflow=0
    )
    async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as pool:
        await pool.execute(TABLE)
        yield {"sessions": async_sessionmaker(engine), "pool": pool}
    await engine.dispose()


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.state.sessions.begin() as session:
        yield session


app = FastAPI(lifespan=_lifespan)
Session = Annotated[AsyncSession, Depends(_session, scope="function")]


@app.get("/readyz")
async def ready() -> None:
    """Be there."""


@app.post("/orm", status_code=201)
async def by_orm(wish: Wish, session: Session) -> dict[str, str]:
    """Insert a row as an object, and commit."""
    ticket = BareTicket(id=uuid4(), unit=wish.unit)
    session.add(ticket)
    return {"id": str(ticket.id), "unit": ticket.unit}


@app.post("/driver", status_code=201)
async def by_driver(wish: Wish, request: Request) -> dict[str, str]:
    """Insert a row by the driver, in its own commit."""
    number = uuid4()
    await request.state.pool.execute(INSERT, number, wish.unit)
    return {"id": str(number), "unit": wish.unit}


@app.post("/nothing", status_code=201)
async def by_nobody(wish: Wish) -> dict[str, str]:
    """Insert nothing: what the server itself takes, and what the client could ask for."""
    return {"id": str(uuid4()), "unit": wish.unit}

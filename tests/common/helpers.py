"""What the tests of mechanism share: databases, waiting for outcomes, and a network that fails."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
import structlog

from libs.common.bus.base import Follower, Received, Subscription
from libs.common.trace import current_trace_id
from tests.support import on_database

T = TypeVar("T")


@overload
async def eventually(check: Callable[[], Awaitable[T]], within: float = 15.0) -> T: ...
@overload
async def eventually(check: Callable[[], T], within: float = 15.0) -> T: ...
async def eventually(check: Callable[[], Any], within: float = 15.0) -> Any:
    """Ask again and again until the answer is truthy; give it."""
    end = monotonic() + within
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert monotonic() < end, f"still {value!r} after {within} seconds"
        await asyncio.sleep(0.01)


async def read(reader: Subscription | Follower, count: int, within: float = 15.0) -> list[Received]:
    """Fetch until so many records have come."""
    records: list[Received] = []
    end = monotonic() + within
    while len(records) < count:
        assert monotonic() < end, f"{len(records)} of {count} records within {within} seconds"
        records += await reader.fetch(count - len(records), 0.2)
    return records


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[Any]:
    """Connect as the account that tests run under."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def scratch_database(server_url: str, template: str = "template1") -> AsyncIterator[str]:
    """Make a database to share between the tests of one module."""
    name = f"motcua_scratch_{uuid4().hex}"
    async with admin(on_database(server_url, "postgres")) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield on_database(server_url, name)
    async with admin(on_database(server_url, "postgres")) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def logged_by(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collect what a module logs from now on, with the trace id at that moment."""
    entries: list[dict[str, Any]] = []

    def collect(_: Any, level: str, entry: Any) -> Any:
        entries.append(dict(entry) | {"level": level, "trace_id": current_trace_id()})
        raise structlog.DropEvent

    monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[collect]))
    return entries


async def kill(url: str, connection: Any) -> None:
    """Let the server end somebody's connection, as a crash or a network would."""
    async with admin(url) as operator:
        await operator.fetchval(
            "SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid()
        )


async def execute_as_owner(url: str, *statements: str) -> None:
    """Run statements as the role that owns tables, so that services may use what they make."""
    async with admin(url) as connection:
        await connection.execute("SET ROLE motcua_owner")
        for statement in statements:
            await connection.execute(statement)


class Wire:
    """A wire to a server that can be cut and mended."""

    def __init__(self, host: str, port: int, own_port: int = 0) -> None:
        """Lead to a server, from a port that is chosen unless one is given."""
        self._far = host, port
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.StreamWriter] = set()
        self._loses: Callable[[bytes], bool] | None = None
        self._lost = asyncio.Event()
        self.port = own_port

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._streams):
                writer.transport.abort()
            self._server = None
        await asyncio.sleep(0)

    def lose_answer_to(self, request: Callable[[bytes], bool]) -> asyncio.Event:
        """Let the first such request through and break its connection when the answer comes."""
        self._loses, self._lost = request, asyncio.Event()
        return self._lost

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._far)
        except OSError:
            writer.transport.abort()
            return
        self._streams |= {writer, far_writer}
        loses = asyncio.Event()

        def note_request(data: bytes) -> bool:
            if self._loses is not None and self._loses(data):
                self._loses = None
                loses.set()
            return True

        def let_answer_through(_: bytes) -> bool:
            if loses.is_set():
                self._lost.set()
                writer.transport.abort()
            return not loses.is_set()

        await asyncio.gather(
            _pump(reader, far_writer, note_request),
            _pump(far_reader, writer, let_answer_through),
        )
        self._streams -= {writer, far_writer}


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Callable[[bytes], bool]
) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            if passes(data):
                sink.write(data)
                await sink.drain()
    sink.close()
    with suppress(OSError):
        await sink.wait_closed()


class DatabaseWire(Wire):
    """A wire to the database server of a URL."""

    def __init__(self, url: str) -> None:
        """Lead to the server of a URL."""
        self._parts = urlsplit(url)
        super().__init__(self._parts.hostname or "127.0.0.1", self._parts.port or 5432)

    @property
    def url(self) -> str:
        """Give the URL that goes over this wire."""
        user = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[DatabaseWire]:
    """Hold a wire to the database for the time of a test."""
    wire = DatabaseWire(url)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.cut()

"""The city under attack: its door on a real socket, and books that tell whether anything moved."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import asyncpg

from libs.common.settings import SERVICES
from services.embedded import city
from tests.serving import HOST, Answer, serving
from tests.support import bearer, settings_for
from tests.system.walk import HERE, Walk

ENDLESS = ("text/event-stream",)

_FOLLOWING = (
    "queue.published_loads", "queue.known_states", "queue.episodes", "queue.outbox",
    "reporting.inbox",
)  # fmt: skip
"""What follows by itself, some seconds after a start or after somebody was served."""

Rows = dict[str, tuple[int, int]]


@dataclass
class House:
    """A running city, as somebody outside and somebody with its books see it."""

    port: int
    app: Any
    books: asyncpg.Connection
    walk: Walk
    """Knows every route, valid bodies for it, and an object that it may be called with."""
    kiosks: dict[str, str] = field(default_factory=dict)
    """API keys: good, foreign, revoked, replaced."""
    _addresses: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def known(self) -> dict[str, str]:
        """Name what is there, by the parameter of a path that names it."""
        made = self.walk.made
        return {
            "unit": HERE,
            "number": "1",
            "week": "2026-W47",
            "kiosk": f"kiosk-{HERE}",
            "ticket_id": made["/v1/tickets"],
            "appointment_id": made["/v1/appointments"],
            "client_id": made["/v1/clients"],
            "code": made["/v1/dossiers"],
        }

    async def exchange(self, request: bytes, within: float = 20) -> Answer:
        """Send bytes and read one answer.

        Its status is 0 where the server hung up instead, or waits for more than the request has.
        """
        try:
            async with asyncio.timeout(within):
                return await self._exchange(request)
        except TimeoutError:
            return Answer(0, [], b"")

    async def _exchange(self, request: bytes) -> Answer:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(request)
            return await _answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            return Answer(0, [], b"")
        finally:
            writer.close()

    async def call(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Make an ordinary call."""
        return await self.exchange(self.request(method, target, headers, body))

    def request(
        self,
        method: str,
        target: str | bytes,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> bytes:
        """Write an ordinary call: a body that is not bytes goes as JSON."""
        lines = {"Content-Type": "application/json"} if body is not None else {}
        return self.raw(
            method,
            target,
            *(f"{name}: {value}" for name, value in (lines | dict(headers or {})).items()),
            body=body if isinstance(body, bytes) else b"" if body is None else _json(body),
        )

    def raw(
        self, method: str, target: str | bytes, *lines: str | bytes, body: bytes = b""
    ) -> bytes:
        """Write a request line by line, from an address of its own: limits are tested elsewhere."""
        number = next(self._addresses)
        address = f"X-Forwarded-For: 10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        parts = [_bytes(line) for line in (*lines, address)]
        if not any(line.lower().startswith(b"connection:") for line in parts):
            parts.append(b"Connection: close")
        if body:
            parts.append(b"Content-Length: %d" % len(body))
        head = b"%s %s HTTP/1.1\r\nHost: motcua.test" % (method.encode(), _bytes(target))
        return b"\r\n".join([head, *parts, b"", body])

    async def state(self) -> Rows:
        """Count the rows of every service's tables, with a sum that any change in them changes."""
        tables = await self.books.fetch(
            "SELECT schemaname || '.' || quote_ident(tablename) AS name FROM pg_tables"
            " WHERE schemaname = ANY($1) ORDER BY 1",
            list(SERVICES),
        )
        each = (
            f"SELECT '{name}' AS name, count(*) AS rows,"
            f" coalesce(sum(hashtextextended(t::text, 0)), 0) AS sum FROM {name} t"
            for (name,) in tables
            if name not in _FOLLOWING
        )
        rows = await self.books.fetch(" UNION ALL ".join(each))
        return {row["name"]: (row["rows"], int(row["sum"])) for row in rows}

    async def settled(self) -> Rows:
        """Wait until what was done before has reached everybody; give the state then."""
        async with asyncio.timeout(20):
            state, last = await self.state(), None
            while state != last or not _told(state):
                await asyncio.sleep(0.1)
                state, last = await self.state(), state
        return state

    async def noted(self, traces: list[str]) -> list[asyncpg.Record]:
        """Give what the audit keeps of these calls."""
        rows: list[asyncpg.Record] = await self.books.fetch(
            "SELECT trace_id, outcome, status FROM audit.entries WHERE trace_id = ANY($1)", traces
        )
        return rows

    async def assert_ready(self) -> None:
        """See that the city stands, whatever it was told to change."""
        ready = await self.call("GET", "/readyz")
        assert ready.status == 200, ready.body

    async def assert_serving(self) -> None:
        """See that everybody is still served: ready, the units complete, a ticket for who asks."""
        await self.assert_ready()
        listed = await self.call("GET", "/v1/units?limit=200")
        assert len(json.loads(listed.body)["items"]) == 168
        wish = {"unit": HERE, "channel": "kiosk"}
        taken = await self.call("POST", "/v1/tickets", bearer("kiosk", HERE), wish)
        assert taken.status == 201, taken.body


def _told(state: Rows) -> bool:
    """Tell whether the reports know all that queue and intake have."""
    return all(
        state[f"reporting.{things}"][0] == state[f"{service}.{things}"][0]
        for service, things in (("queue", "tickets"), ("intake", "dossiers"))
    )


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head[:-4].decode("latin-1").split("\r\n")
    pairs = [(n.lower(), v) for n, _, v in (line.partition(": ") for line in lines)]
    endless = any(n == "content-type" and v.startswith(ENDLESS) for n, v in pairs)
    length = next((int(v) for n, v in pairs if n == "content-length"), None)
    body = b""
    if not endless:
        body = await (reader.read(-1) if length is None else reader.readexactly(length))
    return Answer(int(status.split()[1]), pairs, body)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[House]:
    """Run the whole city on a seeded database, its door on a free port."""
    async with city(settings_for(url)) as app, serving(app) as port:
        books = await asyncpg.connect(url)
        try:
            house = House(port, app, books, await Walk.begin(app))
            while (await house.call("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.02)
            yield house
        finally:
            await books.close()

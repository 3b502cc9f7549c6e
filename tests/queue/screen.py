"""A screen that follows a live stream: reads events off the wire and keeps a board by them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Sent:
    """An event as it was sent."""

    event: str
    id: str | None
    data: Any
    comment: str | None = None


def parse(block: str) -> Sent | None:
    """Read one block of a stream; None if it only sets how soon to come back."""
    fields: dict[str, str] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")
    if "data" not in fields:
        return None
    return Sent(fields["event"], fields.get("id"), json.loads(fields["data"]), fields.get(""))


@dataclass
class Screen:
    """What a screen shows, and everything it was sent."""

    board: dict[str, Any] = field(default_factory=dict)
    last_id: str | None = None
    sent: list[Sent] = field(default_factory=list)

    def take(self, event: Sent) -> None:
        """Show an event, as the API's description says."""
        self.sent.append(event)
        self.last_id = event.id or self.last_id
        if event.event == "snapshot":
            self.board = dict(event.data)
        elif "items" in event.data:
            known = {item["unit"]: item for item in self.board["items"]}
            known |= {item["unit"]: item for item in event.data["items"]}
            busy = [i for i in known.values() if i["waiting"] or i["open_counters"]]
            self.board |= event.data | {"items": busy}
        else:
            news = dict(event.data)
            news.pop("ticket", None)
            changed = {counter["number"]: counter for counter in news.pop("counters", [])}
            self.board |= news
            if changed:
                known = {counter["number"]: counter for counter in self.board["counters"]} | changed
                self.board["counters"] = [known[number] for number in sorted(known)]

    def of(self, kind: str) -> list[Sent]:
        """Give what was sent of one kind."""
        return [event for event in self.sent if event.event == kind]

    @property
    def moves(self) -> list[tuple[str, str, int | None]]:
        """Give number, status and counter of every ticket that was told of."""
        tickets = [event.data["ticket"] for event in self.of("change") if event.data["ticket"]]
        return [(t["number"], t["status"], t["counter"]) for t in tickets]


class Line:
    """An open stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = b""
        self.writer = writer
        self._reader = reader
        self._text = ""

    async def begin(self) -> None:
        """Read the head of the answer."""
        self.head = await self._reader.readuntil(b"\r\n\r\n")

    async def next(self, within: float = 15) -> Sent:
        """Wait for an event.

        Raises:
            EOFError: the stream has ended.
        """
        async with asyncio.timeout(within):
            while True:
                block, found, rest = self._text.partition("\n\n")
                if not found:
                    self._text += (await self._chunk()).decode()
                    continue
                self._text = rest
                if sent := parse(block):
                    return sent

    async def _chunk(self) -> bytes:
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        data = await self._reader.readexactly(size + 2)
        if not size:
            raise EOFError
        return data[:-2]


@asynccontextmanager
async def line(port: int, path: str, last_id: str | None = None) -> AsyncIterator[Line]:
    """Open a stream; leaving cuts the connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id is not None else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: motcua.test\r\n{resume}\r\n".encode())
        opened = Line(reader, writer)
        await opened.begin()
        yield opened
    finally:
        writer.transport.abort()


async def watch(screen: Screen, opened: Line, until: Any, within: float = 15) -> None:
    """Let a screen follow until what it shows is as wanted."""
    async with asyncio.timeout(within):
        while not until():
            screen.take(await opened.next(within))

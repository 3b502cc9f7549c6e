"""A service that goes wrong on the wire, in the way it is told."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.serving import HOST

_FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine"


@dataclass
class Faulty:
    """A listener; `mode` is `fine`, `silent`, `dribbling` or `resetting`."""

    port: int
    mode: str = "fine"
    calls: list[bytes] = field(default_factory=list)
    """The first line of each request that came."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Treat one connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/readyz" not in head:
                self.calls.append(head.partition(b"\r\n")[0])
            await getattr(self, f"_{self.mode}")(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _fine(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_FINE)
        await writer.drain()

    async def _silent(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    async def _dribbling(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def _resetting(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire: socket.socket = writer.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@asynccontextmanager
async def faulty(mode: str) -> AsyncIterator[Faulty]:
    """Listen; `down` gives a port on which nobody does."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        service = Faulty(listener.getsockname()[1], mode)
        if mode == "down":
            yield service
            return
        server = await asyncio.start_server(service.serve, sock=listener)
        try:
            yield service
        finally:
            server.close()

"""Live streams (server-sent events): a bounded buffer per reader, and what empties it."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from prometheus_client import Counter
from starlette.types import Receive, Scope, Send

from libs.common import fast_json

SLOW: Final = Counter(
    "motcua_stream_slow_readers",
    "Readers that fell behind: given the whole anew, or dropped as they took nothing at all.",
    ("what",),
)
for _what in ("renewed", "dropped"):
    SLOW.labels(_what)


def written(event: str, data: object, place: str | None = None) -> bytes:
    """Write an event as it goes over the wire; its id is the place that it leads to."""
    return format_sse_event(event=event, data_str=fast_json.dumps(data).decode(), id=place)


class Reader:
    """One open stream: what was offered waits here until the client takes it.

    Who offers never waits. A client that takes less than comes loses what is buffered and is given
    the whole anew when it takes something again: bounded memory, and nobody else is delayed.
    """

    __slots__ = ("_awake", "_behind", "_over", "_pieces", "_whole")

    limit: Final = 64

    def __init__(self, whole: Callable[[], bytes]) -> None:
        """Take what writes everything anew for a reader that fell behind."""
        self._whole = whole
        self._pieces: deque[bytes] = deque()
        self._awake = asyncio.Event()
        self._behind = False
        self._over = False

    def offer(self, piece: bytes) -> None:
        """Add a piece."""
        if self._behind:
            return
        self._pieces.append(piece)
        if len(self._pieces) > self.limit:
            self._pieces.clear()
            self._behind = True
        self._awake.set()

    def end(self) -> None:
        """Let the stream end; what was not taken is what the client resumes from."""
        self._over = True
        self._awake.set()

    async def take(self) -> bytes | None:
        """Wait for what comes next and give all of it; None when the stream is over."""
        await self._awake.wait()
        if self._over:
            return None
        self._awake.clear()
        if self._behind:
            self._behind = False
            SLOW.labels("renewed").inc()
            return self._whole()
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class LiveStream(StreamingResponse):
    """An answer that lasts: opens a reader, passes on what it is offered, closes it.

    It ends when the client goes, when the reader is ended, or when the client takes nothing for
    `patience` seconds. (FastAPI's own `EventSourceResponse` runs a generator for each stream, which
    can do none of this, writes each event once per reader, and costs three tasks a stream.)
    """

    media_type = "text/event-stream"
    patience = 30.0

    def __init__(self, opening: AbstractAsyncContextManager[Reader]) -> None:
        """Take the manager that opens the reader once the answer begins."""
        super().__init__((), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._opening = opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Stream until somebody ends it."""
        async with self._opening as reader:
            leaving = asyncio.create_task(self.listen_for_disconnect(receive))
            leaving.add_done_callback(lambda _: reader.end())
            try:
                await self._pour(reader, send)
            finally:
                leaving.cancel()

    async def _pour(self, reader: Reader, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        while (piece := await reader.take()) is not None:
            try:
                async with asyncio.timeout(self.patience):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                SLOW.labels("dropped").inc()
                return
        await send({"type": "http.response.body", "body": b""})

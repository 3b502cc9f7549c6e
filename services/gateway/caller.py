"""The caller's side of a forwarded request: its body, its patience, whether it is still there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from libs.common.problems import Problem
from services.gateway.bodies import WHOLE, CallerLeft, has_body

END: Final[Message] = {"type": "http.response.body", "body": b""}


class Time:
    """The time that is left for an exchange, which an event may take away."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        """Take the running time-out."""
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()

    def left(self, seconds: float | None) -> None:
        """Give so many seconds from now; None: as long as it takes."""
        if not self._timeout.expired():
            self._timeout.reschedule(None if seconds is None else self._loop.time() + seconds)

    def is_up(self) -> None:
        """End the exchange now."""
        self.left(0)


class Caller:
    """Whoever waits for an answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, patience: float) -> None:
        """Take the request; for `patience` seconds nothing may be taken of the answer."""
        self._receive, self._send, self._patience = receive, send, patience
        self._whole: bytes | None = scope.get(WHOLE)
        self._streams = self._whole is None and has_body(scope)
        self._harmless = scope["method"] in ("GET", "HEAD")
        self._sent = False
        """Whether a piece of a streamed body was passed on: it cannot be had again."""
        self._heard = asyncio.Event()
        """Set when the body is in: only then may somebody else listen for the end."""
        if not self._streams:
            self._heard.set()
        self._over = False
        """Whether the whole answer is given: the server then says that nobody listens any more."""
        self._time: Time | None = None
        self._seconds = 0.0
        self.answered = False
        self.left = False
        self.stopped = False
        self.refused: Problem | None = None
        """Why the body was refused in the middle."""

    def may_repeat(self, *, unsent: bool) -> bool:
        """Tell whether the request may be sent again: nobody heard of it, or it changes nothing."""
        return not (self.answered or self.left or self._sent) and (unsent or self._harmless)

    def body(self) -> bytes | AsyncIterator[bytes] | None:
        """Give the body as it goes on: whole, or as it comes in."""
        return self._pieces() if self._streams else self._whole

    async def _pieces(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            try:
                message = await self._receive()
            except Problem as problem:
                self.refused = problem
                raise
            self._sent = True
            if message["type"] == "http.disconnect":
                self.left = True
                raise CallerLeft
            if message.get("body"):
                self._allow(self._seconds)  # for the service to take it
                yield message["body"]
                self._allow(None)  # for the caller, whose own silence is bounded elsewhere
            more = message.get("more_body", False)
        self._heard.set()
        self._allow(self._seconds)

    def _allow(self, seconds: float | None) -> None:
        if self._time is not None and not self.answered:
            self._time.left(seconds)

    async def take(self, message: Message) -> None:
        """Pass a part of the answer on; a caller that takes nothing for long has left."""
        self.answered = True
        self._over = not message.get("more_body", message["type"] == "http.response.start")
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            self.left = True
            raise

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[Time]:
        """Bound an exchange: so many seconds until its answer begins, once the body is in, and for
        the service to take any piece of that.

        Raises:
            TimeoutError: they are over, or the caller left, or the answer is to end (`stopped`).
        """
        async with asyncio.timeout(None if self._streams else seconds) as timeout:
            self._time, self._seconds = Time(timeout), seconds
            try:
                if self.left:
                    self._time.is_up()
                yield self._time
            finally:
                self._time = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the exchange when the caller leaves, also while the service is still silent."""
        watching = asyncio.create_task(self._leaves())
        try:
            yield
        finally:
            watching.cancel()

    async def _leaves(self) -> None:
        await self._heard.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._over:
            self.left = True
            self._end()

    @contextmanager
    def ended_by(self, event: asyncio.Event | None) -> Iterator[None]:
        """End the exchange as a whole answer when something happens."""
        if event is None:
            yield
            return
        waiting = asyncio.create_task(self._stops(event))
        try:
            yield
        finally:
            waiting.cancel()

    async def _stops(self, event: asyncio.Event) -> None:
        await event.wait()
        self.stopped = True
        self._end()

    def _end(self) -> None:
        if self._time is not None:
            self._time.is_up()

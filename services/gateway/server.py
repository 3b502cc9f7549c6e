"""How the gateway stands on the network: uvicorn, with bounds on a head that is not whole yet.

`python -m services.gateway` starts it so. `uvicorn services.gateway.main:app` alone has none, and
believes what a process of the same machine says of a caller's address.
"""

from asyncio import TimerHandle
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from libs.common.problems import (
    PROBLEM_JSON,
    HeadTooLarge,
    NotHttp,
    Problem,
    TooSlow,
    problem_response,
)
from libs.common.serving import serve
from libs.common.settings import Settings
from libs.common.trace import continue_trace
from services.gateway.addresses import PEER
from services.gateway.refusals import REFUSED
from services.gateway.words import say


class BoundedProtocol(HttpToolsProtocol):
    """One connection, whose heads are bounded in size and time: the parser keeps what has come.

    A head that came in whole is measured by the door (`bodies.check_head`), to the byte.
    """

    settings: ClassVar[Settings | None] = None
    """Those of the app, unless its lifespan is entered by somebody else."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Expect a head."""
        super().__init__(*arguments, **named)
        settings = self.settings or self.app_state["settings"]
        self._most: int = settings.head_bytes + settings.url_bytes
        self._seconds: float = settings.head_seconds
        self._head: int | None = None
        """Bytes of a head that is not whole yet, whose first piece is not counted."""
        self._patience: TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        """Give a new connection its time to say something."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much."""
        if self._refused:
            return
        if self._head is not None:
            self._head += len(data)
            if self._head > self._most:
                REFUSED.labels("head").inc()
                self._refuse(
                    HeadTooLarge(say("at most {most} bytes are taken here", most=self._most))
                )
                return
        super().data_received(data)
        if self._patience is None and self.timeout_keep_alive_task is None and not self._busy:
            # Neither empty lines between two requests nor the rest of a body that nobody reads any
            # more are a way to stay. (Who is hung up on while sending does not hear the answer.)
            self._wait_for_head()

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self.scope["extensions"] = {PEER: self.client}  # type: ignore[dict-item]
        self._head = 0
        if self._patience is None:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Hand the request over: what follows is the door's."""
        self._head = None
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, with a problem as everywhere."""
        self._refuse(NotHttp(msg))

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(self._seconds, self._lose_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self._head is None:
            self.transport.close()  # it never began
            return
        REFUSED.labels("slow-head").inc()
        self._refuse(TooSlow(say("the head took longer than {seconds:g} s", seconds=self._seconds)))

    def _refuse(self, problem: Problem) -> None:
        """Answer and hang up; behind an answer that is still under way, only hang up."""
        self._refused = True
        self._stop_waiting()
        if self._busy:
            self.flow.pause_reading()
            self.pipeline.clear()
            self.cycle.keep_alive = False
            return
        trace = continue_trace(None)
        body = problem_response(problem, {"headers": []}).body  # whose language is not known yet
        lines = [
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
            f"content-type: {PROBLEM_JSON}",
            f"content-length: {len(body)}",
            f"x-trace-id: {trace.trace_id}",
            "connection: close",
        ]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(body))
        self.transport.close()


def bounded_by(settings: Settings) -> type[BoundedProtocol]:
    """Give the protocol for a server that does not enter the app's lifespan itself."""
    return type("BoundedProtocol", (BoundedProtocol,), {"settings": settings})


def main() -> None:
    """Serve the gateway where `MOTCUA_HOST` and `MOTCUA_PORT` say."""
    serve("services.gateway.main:app", BoundedProtocol)

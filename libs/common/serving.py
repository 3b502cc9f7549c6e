"""A service as a process of its own: `python -m services.queue`, which drains before it stops."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import uvicorn
from pydantic import ValidationError

from libs.common.settings import Settings, explain_settings

_LAST_ANSWER = (b"connection", b"close")


class DrainingServer(uvicorn.Server):
    """Stops so that nobody is cut off, and ends with 0.

    Told to stop, the app says so (`readyz`, the end of every stream). For `drain_seconds` calls are
    still taken from whoever has not heard of it yet, and each connection ends with its answer. Only
    then the door closes; what is under way has `timeout_graceful_shutdown` to finish, and the app
    leaves its group and hands over its relay.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        """Prepare to serve."""
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._closes_at: float | None = None

    async def on_tick(self, counter: int) -> bool:
        """Answer whether to close the door."""
        if not await super().on_tick(counter):
            return False
        if self._closes_at is None:
            self._closes_at = monotonic() + self._drain_seconds
            self.config.encoded_headers.append(_LAST_ANSWER)
            self.server_state.default_headers = [*self.server_state.default_headers, _LAST_ANSWER]
        return self.force_exit or monotonic() >= self._closes_at

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear signals; who was told to stop and has stopped has not failed."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # or they would be raised again, and be our end


def serve(app: str, protocol: type[asyncio.Protocol] | str = "auto") -> None:
    """Serve an app where `MOTCUA_HOST` and `MOTCUA_PORT` say until told to stop."""
    try:
        settings = Settings.from_environment()
    except ValidationError as error:
        sys.exit(f"{app} cannot start: {explain_settings(error)}")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol,
        proxy_headers=False,  # the door knows whom to believe, and services believe its tokens
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=settings.finish_seconds,
    )
    DrainingServer(config, settings.drain_seconds).run()

"""How a process hears that it is to stop before its server begins to wait for open requests."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def hearing_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Set an event at SIGINT and SIGTERM; who handled them before still does.

    The server tells nobody that it stops: it waits for open requests, and a stream has no end of
    its own. Where nobody handles a signal it keeps its default.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
    }

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        before[number](number, frame)

    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is heard:
                signal.signal(number, handler)

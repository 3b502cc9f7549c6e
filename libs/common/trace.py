"""The W3C trace context that joins one caller's request, its forwarding and its events."""

import os
import re
from contextvars import ContextVar
from dataclasses import dataclass

_FORM = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace id that travels and the span id of this step of the way."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """Write the header (https://www.w3.org/TR/trace-context/)."""
        return f"00-{self.trace_id}-{self.span_id}-01"


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def continue_trace(traceparent: str | None) -> Trace:
    """Go on with the caller's trace in a span of our own, or begin one; it becomes the current."""
    match = _FORM.fullmatch(traceparent) if traceparent else None
    known = match is not None and match["trace"] != "0" * 32
    trace = Trace(match["trace"] if match and known else os.urandom(16).hex(), os.urandom(8).hex())
    _current.set(trace)
    return trace


def current_trace_id() -> str | None:
    """Give the trace id of what is being done now."""
    trace = _current.get()
    return trace.trace_id if trace else None


def current_traceparent() -> str:
    """Give the header for what is sent now, beginning a trace where there is none."""
    return (_current.get() or continue_trace(None)).traceparent

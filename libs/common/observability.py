"""What operators see: JSON logs with the trace id, request metrics, and the middleware for both."""

import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from time import perf_counter
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import Processor

from libs.common.problems import TooLarge, problem_of, problem_response
from libs.common.trace import continue_trace, current_trace_id

REQUEST_SECONDS = Histogram(
    "motcua_http_request_duration_seconds",
    "Time from a request's arrival to the end of its answer; of a live stream to its beginning.",
    ("service", "route", "method", "status"),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
FAILURES = Counter(
    "motcua_http_failures",
    "Requests answered with 5xx; unlike a route's own child, there before the first of them.",
    ("service",),
)
SERVICE = Gauge(
    "motcua_service_info",
    "1 while the service runs; a service that shows none is not there, or not asked.",
    ("service", "version", "revision"),
)
CONNECTIONS = Gauge(
    "motcua_database_connections_used",
    "Connections of a pool that somebody holds.",
    ("service", "pool"),
)
CONNECTIONS_LIMIT = Gauge(
    "motcua_database_connections_limit",
    "Connections that a pool may open; who asks for one more waits.",
    ("service", "pool"),
)
OUTBOX_AGE = Gauge(
    "motcua_outbox_oldest_age_seconds",
    "Age of the oldest event that still waits for the bus, by the wall clock.",
    ("service",),
)
CONSUMER_LAG = Gauge(
    "motcua_consumer_lag",
    "Records of a topic that this service has not handled yet.",
    ("service", "topic"),
)
DEAD_LETTERS = Counter(
    "motcua_dlq_messages",
    "Messages given up and put on the dead letter topic.",
    ("service", "topic"),
)

_PERSONAL = re.compile(r"(?<!\d)(\d{12}|(?:\+84|0)\d{9})(?!\d)")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_ROW_DETAIL = re.compile(r"(DETAIL:\s+).*")
"""What PostgreSQL says of a refused row: all its values, a person's name among them."""
_SECRET_KEYS = frozenset({"authorization", "x-api-key", "password", "token", "api_key"})


def _mask(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide ID and telephone numbers and credentials: logs are read by people with no right to."""
    # A trace id may hold twelve digits in a row; without it nobody finds the line.
    return {
        key: _masked(value, key) if key != "trace_id" else value for key, value in entry.items()
    }


def _masked(value: Any, key: str = "") -> Any:
    if key in _SECRET_KEYS:
        return "***"
    if isinstance(value, Mapping):
        return {name: _masked(part, str(name)) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(part) for part in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    return without_numbers(_ROW_DETAIL.sub(r"\1***", text))


def without_numbers(text: str) -> str:
    """Hide ID and telephone numbers in what somebody typed."""
    return _PERSONAL.sub("***", text)


def _add_trace(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if trace_id := current_trace_id():
        entry["trace_id"] = trace_id
    return entry


class _NoteRepeats(logging.Filter):
    """Let one line a minute of the same message through: clients that reconnect write ten a second
    while their server is away. It sits on the handler: a logger's own filter does not see what
    its children log."""

    noisy = ("aiokafka", "asyncpg")

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self.noisy):
            return True
        last = self._seen.get(str(record.msg), 0.0)
        if record.created - last < 60:
            return False
        self._seen[str(record.msg)] = record.created
        return True


def configure_logging(level: str) -> None:
    """Write every log line of this process, libraries' too, as JSON to standard output."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _mask,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    handler.addFilter(_NoteRepeats())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"
    for name in ("httpx", "httpcore", "alembic", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)


Header = tuple[bytes, bytes]


def is_event_stream(headers: Iterable[Header]) -> bool:
    """Tell whether an answer with these headers is a live stream, which has no end of its own."""
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in headers
    )


def template_of(scope: Scope) -> str:
    """Name the route's template, never its values: labels must stay few."""
    route = scope.get("route")
    return str(getattr(route, "path", None) or scope.get("route_template") or "unmatched")


class Observed:
    """Pure ASGI middleware: trace in, trace out, duration measured, nothing escapes as a stack."""

    def __init__(self, app: ASGIApp, service: str) -> None:
        """Wrap an app whose requests are counted under `service`."""
        self._app = app
        self._service = service
        self._children: dict[tuple[str, str, int], Any] = {}
        self._failures = FAILURES.labels(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watching."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = continue_trace(_header(scope, b"traceparent"))
        trace_header = (b"x-trace-id", trace.trace_id.encode())
        started = perf_counter()
        status, took = 0, None

        async def watched(message: Message) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = _with(trace_header, message.get("headers", []))
                if is_event_stream(headers):
                    # It lasts as long as its reader likes: only its beginning is a latency.
                    took = perf_counter() - started
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if status == TooLarge.status:
                raise  # how the framework's own limit says that it has answered
            problem = problem_of(error)
            if not status:
                await problem_response(problem, scope)(scope, receive, watched)
        finally:
            took = perf_counter() - started if took is None else took
            self._observe(template_of(scope), scope["method"], status, took)

    def _observe(self, route: str, method: str, status: int, seconds: float) -> None:
        method = method if method in _METHODS else "other"  # a caller can make up any number
        key = (route, method, status)
        child = self._children.get(key)
        if child is None:
            child = REQUEST_SECONDS.labels(self._service, route, method, str(status or 499))
            self._children[key] = child
        child.observe(seconds)
        if status >= 500:
            self._failures.inc()


def _with(header: Header, headers: list[Header]) -> list[Header]:
    """Add a header unless somebody behind us has set it."""
    return headers if any(name == header[0] for name, _ in headers) else [*headers, header]


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None

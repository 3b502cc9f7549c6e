"""Errors as RFC 9457 problems: one exception tree, one shape on the wire, one place that logs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common import fast_json
from libs.common.trace import current_trace_id

log = structlog.get_logger()

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[Mapping[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Refuse with a sentence that names the value; further members go into the body."""
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.members = members

    @classmethod
    def type_uri(cls) -> str:
        """Name the kind of problem: the class name in kebab case, stable for clients."""
        return "urn:motcua:problem:" + re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def title(cls) -> str:
        """Say in one sentence what this kind of problem is: the class's docstring."""
        return (cls.__doc__ or cls.__name__).strip().splitlines()[0]

    @classmethod
    def remedy(cls) -> str:
        """Say what to do about it: what the docstring adds, or that of the nearest parent."""
        for kind in cls.__mro__:
            _, _, words = (kind.__doc__ or "").partition("\n\n")
            if issubclass(kind, Problem) and words:
                return " ".join(words.split())
        return ""

    def body(self) -> dict[str, Any]:
        """Give the members of the problem document."""
        document: dict[str, Any] = {
            "type": self.type_uri(),
            "title": self.title(),
            "status": self.status,
            "detail": self.detail or self.title(),
            "trace_id": current_trace_id(),
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return document | self.members


class NotHttp(Problem):
    """The request is not HTTP as it should be.

    Mend it as `detail` says: sent again as it is, it is refused again.
    """

    status = 400


class Unauthenticated(Problem):
    """Credentials are missing or not valid.

    Send a valid access token or API key; get a new token where the old one has run out.
    """

    status = 401

    def __init__(self, detail: str = "", **members: Any) -> None:
        """Refuse and tell which scheme would be accepted (RFC 9110 §11.6.1)."""
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"}, **members)


class Forbidden(Problem):
    """You may not do this.

    Call as somebody who may: `detail` names the role or the unit.
    """

    status = 403


class NotFound(Problem):
    """There is no such thing.

    Check the code or id: nothing goes by it.
    """

    status = 404


class MethodNotAllowed(Problem):
    """This address does not take that method.

    Use one of those that the header `Allow` names.
    """

    status = 405


class Conflict(Problem):
    """The present state does not allow this.

    Look at the present state, which `detail` tells, and take a step that it allows; where there is
    an `allowed`, it lists them.
    """

    status = 409


class TooLarge(Problem):
    """The body is larger than this address takes.

    Send less.
    """

    status = 413


class UnsupportedMediaType(Problem):
    """The body's media type is not taken here.

    Send JSON, with `Content-Type: application/json`.
    """

    status = 415


class Malformed(Problem):
    """The request is malformed or a value is out of range.

    Mend every field that `errors` names.
    """

    status = 422


class Later(Problem):
    """The same call may succeed later.

    Send it again after `Retry-After` seconds, with the same idempotency key.
    """

    status = 503

    def __init__(self, detail: str = "", *, retry_after: int = 1, **members: Any) -> None:
        """Refuse for now; `retry_after` is in seconds."""
        super().__init__(detail, headers={"Retry-After": str(retry_after)}, **members)


class TooManyRequests(Later):
    """Too many calls came in too short a time.

    Wait for `Retry-After` seconds, then go on more slowly.
    """

    status = 429


class Unavailable(Later):
    """Something this answer needs is away; try again soon."""

    status = 503


class Unexpected(Problem):
    """An unexpected error happened on our side; it has been logged.

    Send the call again with the same idempotency key; if that does not help, give the operators the
    `trace_id`.
    """

    status = 500


_BY_STATUS: dict[int, type[Problem]] = {
    kind.status: kind
    for kind in (
        NotHttp, Unauthenticated, Forbidden, NotFound, MethodNotAllowed, Conflict, TooLarge,
        UnsupportedMediaType, Malformed, TooManyRequests, Unavailable,
    )
}  # fmt: skip


def kinds() -> dict[str, type[Problem]]:
    """Give every kind of problem that this process knows, by its URI."""
    found: dict[str, type[Problem]] = {}
    waiting = Problem.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found[kind.type_uri()] = kind
    return found


def field_error(field: str, message: str) -> dict[str, str]:
    """Describe one bad field as it stands in a problem's `errors`."""
    return {"field": field, "message": message}


def malformed_field(field: str, message: str) -> Malformed:
    """Refuse one field by name."""
    return Malformed(f"{field}: {message}", errors=[field_error(field, message)])


def problem_response(problem: Problem) -> Response:
    """Write a problem as an HTTP response."""
    return Response(
        fast_json.dumps(problem.body()),
        status_code=problem.status,
        headers=problem.headers,
        media_type=PROBLEM_JSON,
    )


_NAMED_AT_MOST = 100
"""A body can hold tens of thousands of wrong fields; naming them all would serve nobody."""


def _of_validation(request: Request, error: RequestValidationError) -> Problem:
    errors = error.errors()
    in_body = any(entry["loc"] and entry["loc"][0] == "body" for entry in errors)
    media_type = request.headers.get("content-type", "").lower()
    chunked = "transfer-encoding" in request.headers
    sent_body = chunked or request.headers.get("content-length", "0") != "0"
    if in_body and sent_body and not re.match(r"application/([\w.+-]+\+)?json\b", media_type):
        return UnsupportedMediaType(f"{media_type or 'no media type'}: send application/json")
    named = [field_error(_field(entry), _sentence(entry)) for entry in errors[:_NAMED_AT_MOST]]
    fields = ", ".join(dict.fromkeys(entry["field"] for entry in named))
    return Malformed(f"{len(errors)} value(s) to mend: {fields}"[:2000], errors=named)


def _field(entry: Mapping[str, Any]) -> str:
    """Name the field as clients know it, without where it stood (body, query, path)."""
    location = entry["loc"]
    if entry["type"] == "json_invalid" or len(location) < 2:
        return str(location[0])
    return ".".join(str(part) for part in location[1:])


def _sentence(entry: Mapping[str, Any]) -> str:
    if entry["type"] == "json_invalid":
        return f"not JSON: {entry.get('ctx', {}).get('error', 'unreadable')}"
    return str(entry["msg"]).removeprefix("Value error, ")


def _of_http(error: HTTPException) -> Problem:
    if error.status_code == 400 and error.__cause__ is not None:
        # FastAPI's word for a body that json.loads fell over: nesting, digits, broken UTF-8.
        return malformed_field("body", "not JSON that can be read")
    kind = _BY_STATUS.get(error.status_code)
    if kind is None:
        return Unexpected() if error.status_code >= 500 else NotHttp(str(error.detail))
    problem = kind(str(error.detail) if error.status_code != 404 else "")
    problem.headers |= dict(error.headers or {})
    return problem


def problem_of(error: Exception) -> Problem:
    """Turn any exception into the problem a client may see; the unexpected is logged here, once."""
    from libs.common.db import refused_value, transient

    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return _of_http(error)
    if refused_value(error):
        return Malformed("a value is out of range, or a text holds what cannot be stored (NUL)")
    if transient(error):
        log.warning("database.away", error=type(error).__name__)
        return Unavailable("the database is away; nothing was changed")
    log.error("request.failed", exc_info=error)
    return Unexpected()


def _methods_of(request: Request) -> list[str]:
    """List what an address takes: the framework names the methods of one of its routes alone."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


class LimitAsProblem:
    """Pure ASGI, outermost: the framework refuses a body that declares itself too large in plain
    text, over the head of every handler."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap a whole app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but that one answer."""
        replaced = False

        async def watched(message: Message) -> None:
            nonlocal replaced
            plain = (b"content-type", b"text/plain; charset=utf-8")
            if message.get("status") == 413 and plain in message["headers"]:
                replaced = True
                response = problem_response(TooLarge())
                response.headers["x-trace-id"] = current_trace_id() or ""
                await response(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, watched)


def install(app: FastAPI) -> None:
    """Answer refusals as problems; what nobody expected is caught by `observability.Observed`."""

    async def on_problem(_: Request, error: Exception) -> Response:
        return problem_response(problem_of(error))

    async def on_method(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        problem.headers["Allow"] = ", ".join(_methods_of(request))
        return problem_response(problem)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(_of_validation(request, error))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_problem)
    app.add_exception_handler(405, on_method)
    app.add_exception_handler(RequestValidationError, on_validation)

"""What browsers are told with every answer of the door: what may frame, read and keep it."""

from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common.settings import Settings

ALLOWED: Final = (
    "Accept-Language", "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match",
    "Last-Event-ID", "X-API-Key", "traceparent",
)  # fmt: skip
"""Headers that a page from elsewhere may send."""

EXPOSED: Final = (
    "Content-Language", "ETag", "Idempotent-Replayed", "RateLimit", "RateLimit-Policy",
    "Retry-After", "WWW-Authenticate", "X-Trace-Id",
)  # fmt: skip
"""Headers of an answer that its script may read, beside those that any may."""

METHODS: Final = ("GET", "POST", "PUT", "DELETE")

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # An answer that is no page of ours runs nothing; pages bring a policy of their own.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    # The state of a moment, and often somebody's: no copy of it is kept on the way.
    (b"cache-control", b"no-store"),
)

_YEAR: Final = (b"strict-transport-security", b"max-age=31536000")


class Browsers:
    """Pure ASGI, outermost: also what goes wrong further in has these headers.

    A header that an answer brings along stays as it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the whole door."""
        self._app = app
        self._shared: ASGIApp = app
        self._settings: Settings | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings: Settings = scope["state"]["settings"]
        if settings is not self._settings:
            self._settings, self._shared = settings, _shared(self._app, settings)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                known = {name.lower() for name, _ in headers}
                # Asked only now: whoever knows the proxies has corrected the scheme meanwhile.
                secure = settings.only_tls or scope["scheme"] == "https"
                more = (*_ALWAYS, _YEAR) if secure else _ALWAYS
                message["headers"] = [*headers, *(pair for pair in more if pair[0] not in known)]
            await send(message)

        await self._shared(scope, receive, told)


def _shared(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Let pages of the origins that are named read the answers; without any, none may."""
    if not settings.shared_with:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.shared_with,
        allow_methods=METHODS,
        allow_headers=ALLOWED,
        allow_credentials=settings.cors_credentials,
        expose_headers=EXPOSED,
    )

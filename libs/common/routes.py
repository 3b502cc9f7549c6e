"""What happens to every request before and after its route: may it, and what the audit keeps."""

from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from libs.common.audit import Entry, HotPool
from libs.common.auth import NOBODY, Principal, caller
from libs.common.db import refused_value, transient
from libs.common.problems import Forbidden, Problem


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say of a call."""

    refusal: Problem | None = None
    audited: bool = False
    unit: str | None = None
    """The current code of the unit that is named, where the rules had to know it."""


Handle = Callable[[Request], Coroutine[Any, Any, Response]]

Guard = Callable[[Request, Principal, str], Ruling]
"""Rules on a call to a route, named by its template; what has no rule is refused."""


class Right(Protocol):
    """What the rules say of a route, as far as its description tells it."""

    @property
    def scope(self) -> str:
        """Name what is done."""
        ...

    @property
    def may(self) -> Mapping[str, str]:
        """Tell for which units a role may do it: `any`, or its `own`."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a service."""

    guard: Guard
    roles: Mapping[str, Collection[str]]
    """The roles there are, each with those it includes."""
    rights: Mapping[tuple[str, str], Right] = field(default_factory=dict)
    """What the guard goes by, by method and route."""
    foreign: type[Problem] = Forbidden
    """By what a call for a unit of others is refused."""
    with_keys: Collection[str] = ()
    """Roles whose holders may show an API key instead of a token."""


class EdgeRoute(APIRoute):
    """A route behind the service's guard, whose effects and personal reads are audited.

    The guard comes before anything of the request is read. The handler that FastAPI builds returns
    the finished response while the function-scoped session is still open; the entry goes in, the
    session's commit follows, and only then is the response sent.
    """

    def get_route_handler(self) -> Handle:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def enter(request: Request) -> Response:
            access: Access | None = request.app.state.access
            if access is None:
                return await handle(request)
            principal = await caller(request)
            ruling = access.guard(request, principal, self.path)
            if ruling.audited:
                entry = Entry.of(request, principal, self.path, ruling.unit)
                return await self._audited(request, entry, _or_refused(handle, ruling))
            return await _or_refused(handle, ruling)(request)

        return enter

    async def _audited(self, request: Request, entry: Entry, handle: Handle) -> Response:
        pool = request.state.hot
        request.state.hot = HotPool(pool, entry, self.status_code or 200)
        try:
            response = await handle(request)
        except Exception as error:
            outcome, status = _outcome_of(error)
            # Who has no name leaves nothing but what was done: anybody can be refused for ever.
            if entry.role != NOBODY or outcome == "replayed":
                await entry.note_refusal(pool, outcome, status)
            raise
        if entry.noted:
            return response
        entry.learn(response)
        transaction = getattr(request.state, "transaction", None)
        if transaction is not None:
            await entry.note_in(transaction, response.status_code)
        elif response.status_code != 204:  # a call that found nothing to do has done nothing
            await entry.note(pool, "done", response.status_code)
        return response


def _or_refused(handle: Handle, ruling: Ruling) -> Handle:
    if ruling.refusal is None:
        return handle
    refusal = ruling.refusal

    async def refuse(_: Request) -> Response:
        raise refusal

    return refuse


def _outcome_of(error: Exception) -> tuple[str, int]:
    from libs.common.idempotency import Replay

    match error:
        case Replay():
            return "replayed", error.status
        case Problem():
            return ("refused" if error.status < 500 else "failed"), error.status
        case HTTPException():
            return "refused", error.status_code
        case RequestValidationError():
            return "refused", 422
        case _ if refused_value(error):
            return "refused", 422
        case _:
            return "failed", 503 if transient(error) else 500


def guarded(router: APIRouter) -> APIRouter:
    """Put every route of a router behind the guard, also those whose router names no class.

    A route that was forgotten would be open to everybody.
    """
    for route in router.routes:
        if type(route) is APIRoute:
            route.__class__ = EdgeRoute
        assert isinstance(route, EdgeRoute), f"{route} cannot be guarded"
    return router

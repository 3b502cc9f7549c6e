"""Pages for people: the start page, a centre's board, the whole city; nothing from elsewhere."""

from functools import cache
from html import escape
from importlib.resources import files
from shlex import quote
from string import Template
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from libs.common.problems import NotFound, Problem
from libs.contracts.following import Registry

router = APIRouter(include_in_schema=False)

_FILES: Final = {
    "start.css": "text/css",
    "start.js": "text/javascript",
    "live.css": "text/css",
    "live.js": "text/javascript",
    "board.js": "text/javascript",
    "overview.js": "text/javascript",
}
_HEADERS: Final = {
    # Whatever a name in the registry holds, only our own scripts run and only our own API is asked.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    # A screen that stays on for weeks takes a new version the next time it loads.
    "Cache-Control": "no-cache",
}


@cache
def _text(name: str) -> str:
    return (files("services.gateway") / "web" / name).read_text("utf-8")


def _page(page: str, status: int = 200, **words: str) -> HTMLResponse:
    """Fill a page in; what is put there is text, whoever has written it."""
    filled = Template(_text(page)).substitute({key: escape(word) for key, word in words.items()})
    return HTMLResponse(filled, status_code=status, headers=_HEADERS)


@router.get("/units/{unit}/board")
async def board(unit: str, registry: Registry) -> HTMLResponse:
    """Show a centre's board, for a screen in its hall or the telephone of somebody who waits."""
    try:
        known = registry.current(unit)
    except Problem as problem:
        return _page("unknown.html", problem.status, detail=problem.detail)
    return _page("board.html", unit=known.code, name=known.name)


@router.get("/overview")
async def overview() -> HTMLResponse:
    """Show where in the city people wait."""
    return _page("overview.html")


@router.get("/web/{name}")
async def web_file(name: str) -> Response:
    """Give what the pages are made of."""
    if name not in _FILES:
        raise NotFound(f"no page is made of {name}")
    return Response(_text(name), media_type=_FILES[name], headers=_HEADERS)


@router.get("/")
async def start_page(request: Request) -> HTMLResponse:
    """Show what runs, where, and three calls to try."""
    base = str(request.base_url).rstrip("/")
    # The address comes from the request's Host header: anybody may have written it.
    return _page("start.html", base=base, calls="\n".join(calls_to_try(base)))


def calls_to_try(base: str) -> list[str]:
    """Give three calls that work on a fresh city at any hour."""
    # Quoted for a shell, as they will be pasted into one: `base` may be anybody's words.
    return [
        f"curl {quote(f'{base}/v1/units?q=sai+gon')}",
        (
            f"curl -X POST {quote(f'{base}/v1/tickets')} -H 'Content-Type: application/json' "
            """-d '{"unit": "H29.26740", "channel": "web"}'"""
        ),
        f"curl {quote(f'{base}/v1/units/H29.26740/queue')}",
    ]

"""What of a request may come in: heads, bodies, their sizes, and how long they may take."""

import asyncio
from typing import Final, NoReturn

from starlette.types import Message, Receive, Scope

from libs.common.problems import HeadTooLarge, NotHttp, Problem, TooLarge, TooSlow, UrlTooLong
from libs.common.settings import Settings
from libs.common.words import Words
from services.gateway.refusals import REFUSED
from services.gateway.words import say

_ONCE: Final = frozenset(
    {b"host", b"content-length", b"content-type", b"idempotency-key", b"transfer-encoding"}
)
"""Headers that two programs may read as two different requests where they stand twice."""


class CallerLeft(Exception):
    """Whoever called is not there any more: there is nobody to answer."""


WHOLE: Final = "motcua.body"
"""The scope's key for a body that has come in whole; what has none is streamed."""


def check_head(scope: Scope, settings: Settings) -> None:
    """Refuse a head that is too large, or that two programs could read in two ways.

    Raises:
        UrlTooLong, HeadTooLarge, NotHttp.
    """
    url = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
    if url > settings.url_bytes:
        _refuse("url", UrlTooLong(_bytes(url, settings.url_bytes)))
    size, seen = 0, set()
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in _ONCE:
            if name in seen:
                raise NotHttp(say("{header} was sent more than once", header=name.decode()))
            seen.add(name)
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            raise NotHttp(say("of transfer codings only chunked is understood"))
    if size > settings.head_bytes:
        _refuse("head", HeadTooLarge(_bytes(size, settings.head_bytes)))
    fields = len(scope["headers"])
    if fields > settings.head_fields:
        _refuse(
            "head",
            HeadTooLarge(
                say(
                    "{sent} headers; at most {most} are taken",
                    sent=fields,
                    most=settings.head_fields,
                )
            ),
        )
    if scope["http_version"] == "0.9":
        raise NotHttp(say("HTTP/0.9 has no headers; speak HTTP/1.1"))
    if b"host" not in seen and scope["http_version"] != "1.0":
        raise NotHttp(say("the Host header is missing"))


def _bytes(sent: int, most: int) -> Words:
    return say("{sent} bytes; at most {most} are taken", sent=sent, most=most)


def is_upload(scope: Scope) -> bool:
    """Tell whether a request brings a file, which streams through without being collected."""
    return (scope["method"], scope["path"]) == ("POST", "/v1/files")


def is_bulk(scope: Scope) -> bool:
    """Tell whether a request is about a file, which takes as long as the caller's line is slow."""
    path: str = scope["path"]
    return path.startswith("/v1/files")


async def taken_in(scope: Scope, receive: Receive, settings: Settings) -> Receive:
    """Take a body in, and give the `receive` with which it is read from here.

    A body is small but for files, and is collected before any service is bothered: who sends it
    slowly keeps no place from others, it can be sent again, and from then on somebody may listen
    for the caller's leaving. A file's is bounded as it streams.

    Raises:
        TooLarge, TooSlow.
        CallerLeft.
    """
    if not has_body(scope):
        return receive
    upload = is_upload(scope)
    most = settings.file_bytes if upload else settings.body_bytes
    declared = _declared(scope)
    if declared is not None and declared > most:
        _refuse("body", _too_large(most))
    bounded = _bounded(receive, most, settings.caller_silence_seconds)
    if upload:
        return bounded
    try:
        async with asyncio.timeout(settings.body_seconds):
            scope[WHOLE] = await _collected(bounded)
    except TimeoutError:
        _refuse(
            "slow-body",
            TooSlow(say("the body took longer than {seconds:g} s", seconds=settings.body_seconds)),
        )
    return _again(scope[WHOLE], receive)


def _declared(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise NotHttp(say("Content-Length is not a number"))
            return int(value)
    return None


def has_body(scope: Scope) -> bool:
    """Tell whether a request has a body, be it an empty one."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _too_large(most: int) -> TooLarge:
    # The connection stays: whoever hangs up on somebody who still sends is not heard.
    return TooLarge(say("at most {most} bytes are taken here", most=most))


def _refuse(reason: str, problem: Problem) -> NoReturn:
    REFUSED.labels(reason).inc()
    raise problem


def _bounded(receive: Receive, most: int, silence: float) -> Receive:
    """Read on while it is not too much and something comes; the end may be awaited for ever."""
    size, over = 0, False

    async def bounded() -> Message:
        nonlocal size, over
        if over:
            return await receive()
        try:
            async with asyncio.timeout(silence):
                message = await receive()
        except TimeoutError:
            _refuse(
                "slow-body",
                TooSlow(say("nothing of the body came for {seconds:g} s", seconds=silence)),
            )
        size += len(message.get("body", b""))
        if size > most:
            _refuse("body", _too_large(most))
        over = not message.get("more_body", False)
        return message

    return bounded


async def _collected(receive: Receive) -> bytes:
    pieces = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

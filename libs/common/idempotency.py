"""Idempotency keys: the same request twice has one effect and one answer.

An ordinary route claims its key before it looks at anything else: a twin in flight waits for the
claim, and a call that would now be refused finds its earlier answer first. The answer is kept in
the transaction that has the effect. Hot paths keep theirs inside their own single statement and
use only `Key` and `replay_if_answered` from here.
"""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import Depends, Header, Request
from fastapi.responses import Response
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from libs.common import fast_json
from libs.common.auth import Caller
from libs.common.db import Session
from libs.common.outbox import IDEMPOTENCY
from libs.common.problems import malformed_field
from libs.common.routes import EdgeRoute
from libs.common.words import say

HEADER = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Key:
    """A request's idempotency key: where its answer is kept and what was asked."""

    digest: bytes
    fingerprint: bytes


class Replay(Exception):
    """The request was answered before; the stored answer is given again."""

    def __init__(self, status: int, answer: str) -> None:
        """Carry the stored answer to the edge."""
        self.status = status
        self.answer = answer


def replayed(status: int, answer: str) -> Response:
    """Give a stored answer again, marked as such."""
    return Response(
        answer, status_code=status, media_type="application/json",
        headers={"Idempotent-Replayed": "true"},
    )  # fmt: skip


async def on_replay(_: Request, error: Exception) -> Response:
    """Answer a `Replay`."""
    assert isinstance(error, Replay)
    return replayed(error.status, error.answer)


async def idempotency_key(
    request: Request,
    principal: Caller,
    key: Annotated[
        str | None,
        Header(
            alias=HEADER,
            min_length=1,
            max_length=255,
            description="Repeat a call with the same key and it has one effect and one answer.",
        ),
    ] = None,
) -> Key | None:
    """Read the key of a call; its scope is principal, method and path.

    Raises:
        Malformed: several keys, or a caller without credentials sent something else than a UUID.
    """
    if key is None:
        return None
    if len(request.headers.getlist(HEADER)) > 1:
        raise malformed_field(
            HEADER, say("send one key; of several, nobody can tell which is meant")
        )
    if principal.anonymous and not _is_uuid(key):
        raise malformed_field(HEADER, say("without credentials the key must be a UUID"))
    scope = "\0".join((principal.role, principal.subject, request.method, request.url.path, key))
    asked = request.url.query.encode() + b"\0" + fast_json.canonical(await request.body())
    return Key(
        hashlib.sha256(scope.encode("utf-8", "surrogateescape")).digest(),
        hashlib.sha256(asked).digest(),
    )


OptionalKey = Annotated[Key | None, Depends(idempotency_key)]


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def check_same_request(key: Key, fingerprint: bytes) -> None:
    """Refuse a key that came before with another body.

    Raises:
        Malformed: the bodies differ.
    """
    if fingerprint != key.fingerprint:
        raise malformed_field(HEADER, say("this key came before with another body; use a new one"))


async def replay_if_answered(pool: asyncpg.Pool, key: Key | None) -> None:
    """Give the answer that a key was given before, if there is one; for hot paths.

    Raises:
        Replay: the stored answer. Malformed: the key came before with another body.
    """
    if key is None:
        return
    row = await pool.fetchrow(
        "SELECT fingerprint, status, answer FROM idempotency_keys WHERE digest = $1", key.digest
    )
    if row is not None:
        check_same_request(key, row["fingerprint"])
        raise Replay(row["status"], row["answer"])


async def once(request: Request, session: Session, key: OptionalKey) -> None:
    """Claim the key of an ordinary route, or raise what was answered before.

    Raises:
        Replay: the stored answer. Malformed: the key came before with another body.
    """
    request.state.claimed = None
    if key is None:
        return
    claim = (
        insert(IDEMPOTENCY)
        .values(digest=key.digest, fingerprint=key.fingerprint)
        .on_conflict_do_nothing()
        .returning(IDEMPOTENCY.c.digest)
    )
    # A twin in flight holds the row; the insert waits for it and then conflicts or succeeds.
    if await session.scalar(claim) is not None:
        request.state.claimed = (session, key)
        return
    kept = (
        await session.execute(
            select(IDEMPOTENCY.c.fingerprint, IDEMPOTENCY.c.status, IDEMPOTENCY.c.answer).where(
                IDEMPOTENCY.c.digest == key.digest
            )
        )
    ).one()
    check_same_request(key, kept.fingerprint)
    raise Replay(kept.status, kept.answer)


Once = Depends(once)
"""Put into a POST route's `dependencies`; the router's `route_class` must be `KeepingRoute`."""


class KeepingRoute(EdgeRoute):
    """A route that keeps its answer with the idempotency key, in the same transaction.

    The handler that FastAPI builds returns the finished response while the function-scoped session
    is still open; its commit follows, and only then is the response sent.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def handle_and_keep(request: Request) -> Response:
            response = await handle(request)
            await _keep(request, response)
            return response

        return handle_and_keep


async def _keep(request: Request, response: Response) -> None:
    claimed = getattr(request.state, "claimed", None)
    if claimed is None:
        return
    session, key = claimed
    row = IDEMPOTENCY.c.digest == key.digest
    if 200 <= response.status_code < 300 and response.status_code != 204:
        kept = getattr(request.state, "kept", None) or bytes(response.body)
        answer = kept.decode()
        await session.execute(
            update(IDEMPOTENCY).where(row).values(status=response.status_code, answer=answer)
        )
    else:
        await session.execute(delete(IDEMPOTENCY).where(row))

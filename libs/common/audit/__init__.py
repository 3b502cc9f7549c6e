"""The audit: who did what, for which unit, when and how it ended; added to and never changed.

An entry travels with its effect: on an ordinary route in the request's transaction, on a hot path
inside the one statement. Refusals and replays, which have no effect, are noted by themselves.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import asyncpg
import orjson
import structlog
from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.auth import Principal
from libs.common.db import transient
from libs.common.observability import without_numbers
from libs.common.trace import current_trace_id

log = structlog.get_logger()

_COLUMNS: Final = (
    "subject", "role", "method", "route", "trace_id", "unit", "object", "outcome", "status",
)  # fmt: skip
_INSERT: Final = f"INSERT INTO audit.entries ({', '.join(_COLUMNS)}) "
_IN_TRANSACTION: Final = text(f"{_INSERT} VALUES ({', '.join(f':{name}' for name in _COLUMNS)})")
_BY_ITSELF: Final = (
    f"{_INSERT} VALUES ({', '.join(f'${place}' for place in range(1, len(_COLUMNS) + 1))})"
)


@dataclass(slots=True)
class Entry:
    """What one call leaves in the audit; codes and ids only, nothing personal."""

    subject: str
    role: str
    method: str
    route: str
    """The template, as `/v1/tickets/{ticket_id}`."""
    object: str | None
    """The code or id that was acted on: as the path names it, until the answer tells."""
    unit: str | None
    trace_id: str | None
    noted: bool = False

    @classmethod
    def of(cls, request: Request, principal: Principal, route: str, unit: str | None) -> "Entry":
        """Begin the entry of a call."""
        named = [value for name, value in request.path_params.items() if name != "unit"]
        return cls(
            _who(principal),
            principal.role,
            request.method,
            route,
            without_numbers("/".join(named))[:200] if named else None,
            unit,
            current_trace_id(),
        )

    def learn(self, response: Response) -> None:
        """Take from a JSON answer what was made or moved, and for which unit."""
        body = getattr(response, "body", b"")  # a stream has none
        if response.media_type != "application/json" or not 0 < len(body) <= 100_000:
            return
        answer = orjson.loads(body)
        if isinstance(answer, dict):
            self.object = _text(answer.get("id") or answer.get("code")) or self.object
            self.unit = self.unit or _text(answer.get("unit") or answer.get("receiving_unit"))

    def _row(self, outcome: str, status: int) -> tuple[Any, ...]:
        return (
            self.subject, self.role, self.method, self.route, self.trace_id, self.unit,
            self.object, outcome, status,
        )  # fmt: skip

    async def note_in(self, transaction: AsyncSession, status: int) -> None:
        """Note what was done in the transaction that does it."""
        row = dict(zip(_COLUMNS, self._row("done", status), strict=True))
        await transaction.execute(_IN_TRANSACTION, row)
        self.noted = True

    async def note(self, pool: asyncpg.Pool, outcome: str, status: int) -> None:
        """Note by itself what has no transaction."""
        await pool.execute(_BY_ITSELF, *self._row(outcome, status))
        self.noted = True

    async def note_refusal(self, pool: asyncpg.Pool, outcome: str, status: int) -> None:
        """Note a call without effect; if the database is away, its refusal is answered anyway."""
        if status in (404, 422):
            self.object = None  # no such thing: what stands there may be anything
        try:
            await self.note(pool, outcome, status)
        except Exception as error:
            if not transient(error):
                raise
            log.warning("audit.away", error=type(error).__name__)

    @property
    def in_statement(self) -> tuple[Any, ...]:
        """What a hot statement cannot know of itself."""
        return self.subject, self.role, self.method, self.route, self.trace_id


def _who(principal: Principal) -> str:
    """Name the caller; an issuer that takes people's numbers for subjects is not followed in it."""
    if without_numbers(principal.subject) == principal.subject:
        return principal.subject
    return "sha256:" + hashlib.sha256(principal.subject.encode()).hexdigest()[:32]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


# Hot paths ------------------------------------------------------------------------------------

_ANSWER: Final = "\n)\nSELECT body::text"
"""How every statement of a hot path with an effect ends: it gives the answer that it kept."""
_PARAMETER: Final = re.compile(r"\$(\d+)")


@cache
def with_entry(statement: str) -> str | None:
    """Let a hot path's statement also write its audit entry; None for one without an effect.

    The answer, a JSON object called `body`, tells object and unit; what the statement cannot know
    comes as further parameters: `Entry.in_statement`, then the status.
    """
    head, found, tail = statement.rpartition(_ANSWER)
    if not found:
        return None
    count = max((int(number) for number in _PARAMETER.findall(statement)), default=0)
    told = ", ".join(f"${count + place}::text" for place in range(1, 6))
    learned = f"body->>'unit', body->>'id', 'done', ${count + 6}::smallint"
    entry = f"{_INSERT} SELECT {told}, {learned} FROM answer"  # noqa: S608  (all our own words)
    return f"{head}\n), audited AS ({entry}{found}{tail}"


class HotPool:
    """A service's hot connections for one request: what has an effect notes it in the statement."""

    def __init__(self, pool: asyncpg.Pool, entry: Entry, status: int) -> None:
        """Wrap the pool for one call, which answers `status` when it succeeds."""
        self._pool = pool
        self._entry = entry
        self._status = status

    async def fetchrow(self, statement: str, *arguments: Any, **options: Any) -> Any:
        """Run a statement, with its entry if it has an effect; give its first row, if any."""
        audited = with_entry(statement)
        if audited is None or self._entry.noted:
            return await self._pool.fetchrow(statement, *arguments, **options)
        told = (*self._entry.in_statement, self._status)
        row = await self._pool.fetchrow(audited, *arguments, *told, **options)
        # No row is no effect, and then no entry either.
        self._entry.noted = row is not None
        return row

    def __getattr__(self, name: str) -> Any:
        """Be the pool in everything else."""
        return getattr(self._pool, name)

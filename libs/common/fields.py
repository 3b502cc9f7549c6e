"""Field types of requests and answers: strict, bounded, and storable in PostgreSQL."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from libs.common.words import say
from libs.common.worktime import local

T = TypeVar("T")


class In(BaseModel):
    """What comes in: nothing is converted in silence and nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Out(BaseModel):
    """What goes out; read from a model's attributes where that is what the route has."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Page(Out, Generic[T]):
    """A list as every list is answered."""

    items: list[T]
    next_cursor: str | None = None


def _written_day(value: Any) -> Any:
    # Left to itself the parser would also take a count of seconds, or an instant at midnight.
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError(say("write it like 2026-11-20"))
    return value


def _printable(value: str) -> str:
    if any(ord(character) < 32 for character in value.replace("\n", "").replace("\t", "")):
        raise ValueError(say("control characters are not taken"))
    return value


Day = Annotated[date, BeforeValidator(_written_day), Field(strict=False)]
"""A date, ISO (2026-11-20)."""


def _written_instant(value: Any) -> Any:
    # Left to itself the parser would also take a count of seconds, or a date for its midnight.
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:", value):
        raise ValueError(say("write it like 2026-11-20T08:30:00+07:00"))
    return value


def _of_our_time(value: datetime) -> datetime:
    if not _SINCE <= value < _UNTIL:
        raise ValueError(say("an instant of the years 2000 to 2099 is meant"))
    return value.astimezone(UTC)


_SINCE, _UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_written_instant),
    AfterValidator(_of_our_time),
    Field(strict=False),
]
"""An instant that comes in: RFC 3339 with an offset; it is handed on in UTC."""

LocalTime = Annotated[
    datetime,
    PlainSerializer(lambda at: local(at).isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""An instant that goes out, with the offset of Ho Chi Minh City."""

Line = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]*$"
    ),
]
"""One line of text."""

Paragraph = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
    AfterValidator(_printable),
]
"""Text of several lines."""

Limit = Annotated[int, Query(ge=1, le=200, description="How many rows at the most.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the last page.")]
Search = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00-\x1f]*$")]

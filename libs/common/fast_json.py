"""JSON as bytes: one writer for answers that are not worth a model."""

from datetime import datetime
from typing import Any

import orjson

from libs.common.worktime import local


def _default(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: Any) -> bytes:
    """Write a value as JSON; dates are ISO, sets sorted lists."""
    return orjson.dumps(value, default=_default)


def loads(data: bytes | str) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is not JSON.
    """
    return orjson.loads(data)


def canonical(data: bytes) -> bytes:
    """Write JSON so that two texts of one value are equal; what is not JSON stays as it is."""
    try:
        return orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)
    except ValueError:
        return data


def instant(at: datetime) -> str:
    """Write an instant as clients read it: RFC 3339 with the offset of Ho Chi Minh City."""
    return local(at).isoformat()

"""Which language a caller asked for: `Accept-Language` (RFC 9110 §12.5.4), read when needed."""

import re
from typing import Final, Literal

from starlette.types import Scope

Language = Literal["en", "vi"]
ENGLISH: Final = "en"
VIETNAMESE: Final = "vi"

_RANGE: Final = re.compile(
    r"(?P<language>\*|[a-z]{1,8})(-[a-z0-9]{1,8})*\s*(;\s*q=(?P<quality>0(\.\d{0,3})?|1(\.0{0,3})?))?"
)
_READ_AT_MOST: Final = 1000
"""Characters; browsers send some dozens."""


def language_of(scope: Scope) -> Language:
    """Tell in which language a request wants its texts: English unless it prefers Vietnamese."""
    wanted = b",".join(value for name, value in scope["headers"] if name == b"accept-language")
    return preferred(wanted.decode("latin-1")) if wanted else ENGLISH


def preferred(accept_language: str) -> Language:
    """Choose by the header's weights, then by its order; what cannot be read does not count."""
    weights: dict[str, float] = {}
    for part in accept_language[:_READ_AT_MOST].lower().split(","):
        if match := _RANGE.fullmatch(part.strip()):
            weight = float(match["quality"] or 1)
            weights[match["language"]] = max(weight, weights.get(match["language"], 0))
    others = weights.get("*", 0)
    english, vietnamese = (weights.get(name, others) for name in (ENGLISH, VIETNAMESE))
    first = next((name for name in weights if name in (ENGLISH, VIETNAMESE)), ENGLISH)
    if vietnamese > english or (vietnamese == english > 0 and first == VIETNAMESE):
        return VIETNAMESE
    return ENGLISH


def spoken(language: Language) -> dict[str, str]:
    """Give the headers of an answer whose text is in a language because it was asked for."""
    return {"Content-Language": language, "Vary": "Accept-Language"}

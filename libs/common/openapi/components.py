"""Parts that the descriptions of all calls refer to: problems, headers, ways to say who calls."""

from collections.abc import Mapping
from typing import Any, Final

from libs.common.problems import PROBLEM_JSON, Later, Problem, Unauthenticated

Part = dict[str, Any]

PROBLEM: Final = "#/components/schemas/Problem"

_BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "An access token of the city's OIDC provider; in development one that "
    "`motcua token --role ROLE --unit CODE` prints.",
}
_API_KEY: Final = {
    "type": "apiKey",
    "in": "header",
    "name": "X-API-Key",
    "description": "The key of a registered kiosk or of the portal, shown once at registration.",
}

_FIELD_ERROR: Final = {
    "type": "object",
    "description": "One bad field of a request, as clients know it.",
    "required": ["field", "message"],
    "properties": {
        "field": {"type": "string", "examples": ["unit"]},
        "message": {"type": "string", "examples": ["Field required"]},
    },
}
_PROBLEM: Final = {
    "type": "object",
    "description": "What went wrong (RFC 9457). Some kinds carry further members: what is allowed "
    "now, when to come again. `x-problem-types` of this document lists the kinds.",
    "required": ["type", "title", "status", "detail", "trace_id"],
    "properties": {
        "type": {
            "type": "string",
            "description": "The kind of problem: decide by this, never by the texts.",
            "examples": ["urn:motcua:problem:malformed"],
        },
        "title": {"type": "string", "description": "What this kind of problem is, in a sentence."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What it is here; it names the value."},
        "trace_id": {
            "type": ["string", "null"],
            "description": "Name it to the operators: they find the call by it.",
        },
        "errors": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/FieldError"},
            "description": "Every bad field of a malformed request.",
        },
    },
    "additionalProperties": True,
}

_HEADERS: Final[Mapping[str, Part]] = {
    "X-Trace-Id": {
        "description": "Names this call in logs and in the audit.",
        "schema": {"type": "string"},
    },
    "Content-Language": {
        "description": "The language of the texts for people.",
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "`true` where the answer is one that was given before to the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {
        "description": "After how many seconds the same call may succeed.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "Which credentials would be taken.",
        "schema": {"type": "string"},
    },
}


LANGUAGE: Final = {
    "name": "Accept-Language",
    "in": "header",
    "required": False,
    "description": "`vi` or `en`: in which language to answer people.",
    "schema": {"type": "string", "examples": ["vi", "en;q=0.8"]},
}
"""Taken by every call, for the texts of problems; shown where an answer itself is for people."""


def headers(*names: str) -> Part:
    """Refer to headers of an answer."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def problem_answer(kind: type[Problem]) -> Part:
    """Describe the answer of one kind of problem."""
    return {
        "description": kind.title(),
        "headers": headers("X-Trace-Id", "Content-Language", *_headers_of(kind)),
        "content": {PROBLEM_JSON: {"schema": {"$ref": PROBLEM}}},
    }


def _headers_of(kind: type[Problem]) -> list[str]:
    if issubclass(kind, Later):
        return ["Retry-After"]
    return ["WWW-Authenticate"] if issubclass(kind, Unauthenticated) else []


def components(answers: Mapping[str, Part]) -> Part:
    """Give the parts that are referred to; the answers by the name of their problem's class."""
    return {
        "schemas": {"Problem": dict(_PROBLEM), "FieldError": dict(_FIELD_ERROR)},
        "responses": dict(answers),
        "headers": dict(_HEADERS),
        "securitySchemes": {"token": dict(_BEARER), "apiKey": dict(_API_KEY)},
    }

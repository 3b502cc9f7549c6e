"""Documents as they are sent: written once, known by a tag, not sent again to who has them."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from fastapi import APIRouter, Request
from fastapi.responses import Response

from libs.common import fast_json


@dataclass(frozen=True, slots=True)
class Written:
    """A document's bytes, what they are, and their entity tag."""

    body: bytes
    media_type: str
    tag: str

    @classmethod
    def of_text(cls, body: bytes, media_type: str) -> Self:
        """Take a text that is written already."""
        return cls(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Write a document as JSON."""
        return cls.of_text(fast_json.dumps(document), "application/json")

    def answer(self, request: Request) -> Response:
        """Send the document, or say that the caller has it already (RFC 9110 §13.1.2)."""
        headers = {"ETag": self.tag, "Cache-Control": "no-cache"}
        known = request.headers.get("if-none-match", "")
        if known == "*" or self.tag in {tag.strip().removeprefix("W/") for tag in known.split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def describe(request: Request) -> Response:
    """Describe this service's API; putting that together takes long enough to be in the way."""
    app = request.app
    written: Written | None = getattr(app.state, "described", None)
    if written is None:
        written = app.state.described = await asyncio.to_thread(lambda: Written.of(app.openapi()))
    return written.answer(request)

"""`/docs`: the API for reading and trying, in Swagger UI, which the service itself brings along.

Its files come from the package `fastapi-offline` (MIT; Swagger UI is Apache-2.0), of which nothing
else is used: no page of ours asks anybody else for a script.
"""

from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from libs.common.openapi.document import Written
from libs.common.problems import NotFound

router = APIRouter(include_in_schema=False)

_OURS: Final = "libs.common.openapi", "web"
_SWAGGER_UI: Final = "fastapi_offline", "static"
_FILES: Final = {
    "docs.js": (*_OURS, "text/javascript"),
    "swagger-ui-bundle.js": (*_SWAGGER_UI, "text/javascript"),
    "swagger-ui.css": (*_SWAGGER_UI, "text/css"),
}

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def _file(package: str, folder: str, name: str, media_type: str) -> Written:
    return Written.of_text((files(package) / folder / name).read_bytes(), media_type)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Show the API."""
    answer = _file(*_OURS, "docs.html", "text/html; charset=utf-8").answer(request)
    answer.headers["Content-Security-Policy"] = _POLICY
    return answer


@router.get("/docs/{name}")
async def docs_file(request: Request, name: str) -> Response:
    """Give what that page is made of."""
    if name not in _FILES:
        raise NotFound(f"that page is not made of {name}")
    package, folder, media_type = _FILES[name]
    return _file(package, folder, name, media_type).answer(request)

"""The page in the place of one that there is not, or that cannot be shown."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from noria.errors import NoriaError
from noria.surface.console.pages import HEADERS, template
from noria.surface.errors import outside, problem
from noria.surface.http.guard import COOKIE, identity_of

_PROGRAMS = ("/api/", "/ajax-api/")
"""Where even a browser is answered as programs are."""


def refuse(request: Request, error: Exception) -> Response:
    """A page with a way back to who looks at pages, a problem document to programs."""
    assert isinstance(error, NoriaError)
    status = outside(error).status
    if _is_read_by_people(request):
        return _page(request, status, error.message, error.remedy)
    return JSONResponse(problem(error), status, media_type="application/problem+json")


def refuse_address(request: Request, error: Exception) -> Response:
    """The same for an address that leads nowhere, or that takes no such request."""
    assert isinstance(error, HTTPException)
    if not _is_read_by_people(request):
        return PlainTextResponse(error.detail, error.status_code, error.headers)
    path, status = request.url.path[:200], error.status_code
    message = f"there is no page {path}" if status == 404 else f"{path} is no page that can be opened"
    return _page(request, status, message, "It may have been moved, or the address is not whole.", error.headers)


def _is_read_by_people(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(_PROGRAMS)


def _page(request: Request, status: int, message: str, remedy: str, more: object = None) -> Response:
    signed_in = identity_of(request).name if COOKIE in request.cookies else ""
    page = template("refused.html").render(signed_in=signed_in, status=status, message=message, remedy=remedy)
    headers = {**HEADERS, **(more if isinstance(more, dict) else {})}
    return HTMLResponse(page, status, headers)

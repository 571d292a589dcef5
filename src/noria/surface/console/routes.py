"""The console's routes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from noria.clock import iso
from noria.store.database import Database
from noria.surface.console.chart import HEIGHT, WIDTH
from noria.surface.console.overview import gather

if TYPE_CHECKING:
    from jinja2 import Template

STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def console_routes(database: Database) -> list[BaseRoute]:
    """The overview at ``/``."""

    def overview(_request: Request) -> Response:
        page = _template().render(overview=gather(database), width=WIDTH, height=HEIGHT)
        return HTMLResponse(page, headers=_HEADERS)

    return [Route("/", overview)]


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["iso"] = iso
    return environment.get_template("overview.html")

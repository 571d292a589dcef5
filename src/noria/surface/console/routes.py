"""The console's routes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from noria.access import Permission
from noria.audit.watch import ChainWatch
from noria.clock import SystemClock
from noria.store.database import Database
from noria.surface.console.chart import HEIGHT, WIDTH
from noria.surface.console.overview import gather
from noria.surface.console.pages import HEADERS, template
from noria.surface.http.guard import COOKIE, identity_of


def console_routes(database: Database) -> list[BaseRoute]:
    """The overview at ``/``."""
    watch = ChainWatch(database, SystemClock())

    def overview(request: Request) -> Response:
        identity = identity_of(request)
        identity.require(Permission.READ)
        signed_in = identity.name if COOKIE in request.cookies else ""
        page = template("overview.html").render(
            overview=gather(database, watch), width=WIDTH, height=HEIGHT, signed_in=signed_in
        )
        return HTMLResponse(page, headers=HEADERS)

    return [Route("/", overview)]

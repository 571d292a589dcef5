"""The server: MLflow's REST protocol and the console, over one workspace."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from noria.access import Authenticator
from noria.clock import Clock, SystemClock
from noria.config import ServerSettings
from noria.errors import NoriaError
from noria.registry import Policies
from noria.store.workspace import Workspace
from noria.surface.console.pages import STATIC
from noria.surface.console.routes import console_routes
from noria.surface.console.sign_in import sign_in_routes
from noria.surface.errors import outside, problem
from noria.surface.http.api import PREFIX, LazyApi
from noria.surface.http.guard import Guard
from noria.surface.http.mlflow import mlflow_routes


def create_app(workspace: Workspace, settings: ServerSettings, clock: Clock | None = None) -> Guard:
    """The ASGI application. Handlers that touch SQL are synchronous: Starlette runs them in threads."""
    clock, policies = clock or SystemClock(), Policies.from_settings(settings.policies)
    authenticator = Authenticator(workspace.database, clock) if settings.access.enabled else None
    routes: list[BaseRoute] = [
        Mount(PREFIX, LazyApi(workspace, policies, clock)),
        *mlflow_routes(workspace, policies, clock),
        *console_routes(workspace.database),
        *(sign_in_routes(workspace.database, settings.access, authenticator, clock) if authenticator else []),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/health", _health),
    ]
    return Guard(Starlette(routes=routes, exception_handlers={NoriaError: _refuse}), authenticator)


def _health(_request: Request) -> Response:
    return Response("OK", media_type="text/plain")


def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NoriaError)
    return JSONResponse(problem(error), outside(error).status, media_type="application/problem+json")

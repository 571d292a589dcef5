"""The server: MLflow's REST protocol and the console, over one workspace."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from noria.clock import Clock, SystemClock
from noria.errors import NoriaError
from noria.registry import Policies
from noria.store.workspace import Workspace
from noria.surface.console.routes import STATIC, console_routes
from noria.surface.errors import outside, problem
from noria.surface.http.mlflow import mlflow_routes


def create_app(workspace: Workspace, policies: Policies, clock: Clock | None = None) -> Starlette:
    """The ASGI application. Handlers that touch SQL are synchronous: Starlette runs them in threads."""
    routes: list[BaseRoute] = [
        *mlflow_routes(workspace, policies, clock or SystemClock()),
        *console_routes(workspace.database),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/health", _health),
    ]
    return Starlette(routes=routes, exception_handlers={NoriaError: _refuse})


def _health(_request: Request) -> Response:
    return Response("OK", media_type="text/plain")


def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NoriaError)
    return JSONResponse(problem(error), outside(error).status, media_type="application/problem+json")

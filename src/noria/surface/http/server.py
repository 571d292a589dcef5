"""The server: MLflow's REST protocol and the console, over one workspace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from noria import audit
from noria.access import Authenticator
from noria.audit.anchors import anchor
from noria.clock import Clock, SystemClock
from noria.config import AuditSettings, ServerSettings
from noria.errors import NoriaError
from noria.events.delivery import Sender
from noria.registry import Policies
from noria.store.database import Database
from noria.store.workspace import Workspace
from noria.surface.console.pages import STATIC
from noria.surface.console.refused import refuse, refuse_address
from noria.surface.console.routes import console_routes
from noria.surface.console.sign_in import sign_in_routes
from noria.surface.http.api import PREFIX, LazyApi
from noria.surface.http.feature_routes import feature_routes
from noria.surface.http.guard import Guard
from noria.surface.http.mlflow import mlflow_routes

_TEND_SECONDS = 30
_SETTLE_SECONDS = 1
_log = structlog.get_logger()


def create_app(folder: Path, workspace: Workspace, settings: ServerSettings, clock: Clock | None = None) -> Guard:
    """The ASGI application of the project in ``folder``. Handlers that touch SQL run in threads."""
    clock, policies = (
        clock or SystemClock(),
        Policies.from_settings(settings.policies, accounts=settings.access.enabled),
    )
    authenticator = Authenticator(workspace.database, clock) if settings.access.enabled else None
    sender = Sender(workspace.database, clock, allow_private=settings.webhooks.allow_private)
    routes: list[BaseRoute] = [
        Mount(PREFIX, LazyApi(workspace, policies, clock, settings.rollout)),
        *mlflow_routes(workspace, policies, clock, sender),
        *feature_routes(folder, workspace, clock),
        *console_routes(workspace, policies, clock),
        *(sign_in_routes(workspace.database, settings.access, authenticator, clock) if authenticator else []),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/health", _health),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        beside = [asyncio.create_task(_tend(sender)), asyncio.create_task(_settle(workspace.database))]
        if settings.audit.anchors:
            beside.append(asyncio.create_task(_anchor(workspace, settings.audit)))
        yield
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(sender.stop)
        await asyncio.to_thread(audit.settle_all, workspace.database)

    refusals = {NoriaError: refuse, HTTPException: refuse_address}
    application = Starlette(routes=routes, exception_handlers=refusals, lifespan=lifespan)
    return Guard(application, authenticator, settings.server.allowed_hosts)


async def _tend(sender: Sender) -> None:
    """Begin to send when there are webhooks; another server of the same database may have made the first."""
    while True:
        try:
            await asyncio.to_thread(sender.start)
        except NoriaError as error:
            _log.warning("webhooks_not_read", reason=str(error))
        await asyncio.sleep(_TEND_SECONDS)


async def _settle(database: Database) -> None:
    """Move what clients wrote into the audit chain, every second; when that fails it is said once, and tried again."""
    failed = False
    while True:
        try:
            await asyncio.to_thread(audit.settle_all, database)
            failed = False
        except NoriaError as error:
            if not failed:
                _log.error("audit_notes_not_settled", reason=str(error))
            failed = True
        await asyncio.sleep(_SETTLE_SECONDS)


async def _anchor(workspace: Workspace, settings: AuditSettings) -> None:
    """Keep an anchor now and every so many hours; a chain that does not verify is said in the log, every time."""
    while True:
        try:
            kept = await asyncio.to_thread(anchor, workspace.database, workspace.open_anchors(settings.anchors))
            _log.info("audit_chain_anchored", entries=kept.entries, head=kept.head)
        except NoriaError as error:
            _log.error("audit_chain_not_anchored", reason=str(error))
        await asyncio.sleep(settings.anchor_hours * 3600)


def _health(_request: Request) -> Response:
    return Response("OK", media_type="text/plain")

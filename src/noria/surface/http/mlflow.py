"""MLflow's REST protocol: one table from endpoint to handler, served under ``/api`` and ``/ajax-api``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from noria import __version__
from noria.access import Permission
from noria.clock import Clock
from noria.errors import InvalidInput, NoriaError
from noria.events.delivery import Sender
from noria.registry import Policies
from noria.store.workspace import Workspace
from noria.surface.errors import outside
from noria.surface.http import (
    mlflow_artifacts,
    mlflow_logged_models,
    mlflow_logging,
    mlflow_registry,
    mlflow_traces,
    mlflow_tracking,
    mlflow_webhooks,
    otlp,
)
from noria.surface.http.bodies import LARGEST_BYTES, read_body
from noria.surface.http.guard import SERVER_INFO, identity_of
from noria.surface.http.mlflow_call import Call, Handler, check_texts
from noria.surface.http.mlflow_permissions import permit
from noria.tracking import runs, spans
from noria.tracking.writer import GroupWriter

_log = structlog.get_logger()
_PREFIXES = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow", "/api/3.0/mlflow", "/ajax-api/3.0/mlflow")
_PROTOCOL_VERSION = "3.17.0"
"""The MLflow whose protocol this is: clients ask for it before they send spans."""
_LARGE_BODY_BYTES = 64 * 1024  # decoded beside the event loop


def mlflow_routes(workspace: Workspace, policies: Policies, clock: Clock, sender: Sender) -> list[BaseRoute]:
    """Every route of the protocol; an endpoint that is left out answers so in MLflow's error shape."""
    mlflow_tracking.prepare(workspace, clock)

    def endpoint(handler: Handler) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            return await _respond(request, handler, workspace, policies, clock)

        return respond

    table: Mapping[tuple[str, str], Handler] = {
        **mlflow_tracking.HANDLERS,
        **mlflow_logged_models.HANDLERS,
        **mlflow_registry.HANDLERS,
        **mlflow_traces.HANDLERS,
        **mlflow_webhooks.handlers(sender),
    }
    writer = GroupWriter(workspace.database)

    def logging(decode: mlflow_logging.Decode) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            return await _log_to_run(request, decode, writer)

        return respond

    async def log_spans(request: Request) -> Response:
        return await _log_spans(request, workspace)

    hot = [
        Route(prefix + path, logging(decode), methods=["POST"])
        for prefix in _PREFIXES
        for path, decode in mlflow_logging.DECODERS.items()
    ]
    routes: list[BaseRoute] = [
        Route(prefix + path, endpoint(handler), methods=[method])
        for prefix in _PREFIXES
        for (method, path), handler in table.items()
    ]
    routes += [Route(path, endpoint(_unknown)) for path in ("/api/{rest:path}", "/ajax-api/{rest:path}")]
    for route in routes[-2:]:
        assert isinstance(route, Route)
        route.methods = None
    artifacts = mlflow_artifacts.routes(workspace, _refusal)
    about = msgspec.json.encode(server_info(workspace))
    return [
        *hot,
        *artifacts,
        *(Route(path, lambda _request: Response(about, media_type="application/json")) for path in SERVER_INFO),
        *routes,
        Route("/v1/traces", log_spans, methods=["POST"]),
        Route(
            "/version", lambda _request: Response(f"{_PROTOCOL_VERSION}+noria.{__version__}", media_type="text/plain")
        ),
    ]


def server_info(workspace: Workspace) -> Mapping[str, object]:
    """What clients ask before they choose how to upload and download; told to anyone, like MLflow's."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": True,
        "multipart_downloads_enabled": workspace.artifacts.signs,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": {"gateway": False},
    }


async def _respond(
    request: Request, handler: Handler, workspace: Workspace, policies: Policies, clock: Clock
) -> Response:
    from starlette.concurrency import run_in_threadpool

    async def answer() -> bytes:
        arguments, identity = await _arguments(request), identity_of(request)
        check_texts([arguments, request.path_params])
        permit(identity, request.method, request.url.path, arguments)
        call = Call(arguments, request.path_params, identity, workspace, policies, clock)
        return await run_in_threadpool(lambda: msgspec.json.encode(handler(call)))

    return await _told(request, answer)


async def _log_to_run(request: Request, decode: mlflow_logging.Decode, writer: GroupWriter) -> Response:
    async def answer() -> bytes:
        identity_of(request).require(Permission.WRITE)
        body = await read_body(request)
        decoded = decode(body) if len(body) < _LARGE_BODY_BYTES else await asyncio.to_thread(decode, body)
        await writer.write(decoded)
        return b"{}"

    return await _told(request, answer)


async def _log_spans(request: Request, workspace: Workspace) -> Response:
    """OpenTelemetry's endpoint; decoding takes its time and so does the database: both beside the event loop."""

    def keep(body: bytes) -> None:
        headers = request.headers
        experiment_id, run_id = headers.get("x-mlflow-experiment-id", ""), headers.get("x-mlflow-run-id")
        if not experiment_id:
            raise InvalidInput("the header x-mlflow-experiment-id is missing", remedy="Send an experiment's id.")
        encoding = headers.get("content-encoding", "")
        found = otlp.decode(body, headers.get("content-type", ""), encoding, LARGEST_BYTES)
        with workspace.database.write() as tx:
            if run_id:
                runs.get(tx, run_id)
            spans.log(tx, experiment_id, found, run_id=run_id)

    async def answer() -> bytes:
        identity_of(request).require(Permission.WRITE)
        await asyncio.to_thread(keep, await read_body(request))
        return b""

    return await _told(request, answer, otlp.PROTOBUF)


async def _told(
    request: Request, answer: Callable[[], Awaitable[bytes]], media_type: str = "application/json"
) -> Response:
    """The answer, or the error in MLflow's shape."""
    try:
        return Response(await answer(), media_type=media_type)
    except NoriaError as error:
        return _refusal(error)
    except Exception:
        _log.exception("request_failed", path=request.url.path)
        return JSONResponse({"error_code": "INTERNAL_ERROR", "message": "Noria failed; its log says why."}, 500)


def _refusal(error: NoriaError) -> Response:
    seen = outside(error)
    return JSONResponse({"error_code": seen.mlflow, "message": str(error)}, seen.status)


async def _arguments(request: Request) -> dict[str, Any]:
    """The call's arguments: the query of a GET (repeated keys are lists), the JSON object of anything else."""
    body, query = await read_body(request), request.query_params
    if request.method == "GET" and (query or not body):
        return {key: query.getlist(key) if len(query.getlist(key)) > 1 else query[key] for key in query}
    try:
        arguments = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the request body is not JSON: {error}", remedy="Send a JSON object.") from None
    if not isinstance(arguments, dict):
        raise InvalidInput("the request body is not a JSON object", remedy="Send an object of arguments.")
    return arguments


def _unknown(call: Call) -> Mapping[str, object]:
    raise _NoEndpoint(
        f"Noria does not serve this endpoint of MLflow: {call.path.get('rest', '')}",
        remedy="Runs, traces, artifacts, models and webhooks are served so; /api/noria/v1/openapi.json has the rest.",
    )


class _NoEndpoint(NoriaError):
    """An endpoint that is left out: 404, as from an MLflow server that is too old for it."""

    code = "no_endpoint"

"""The gateway's HTTP front: bare ASGI, because every layer here is paid by every prediction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from noria.errors import InvalidInput, NoriaError, NotFound, Unavailable
from noria.rollout.routes import read_routes
from noria.serving.core import DataPlane
from noria.store.blobs import BlobStore
from noria.surface.errors import outside, problem
from noria.surface.http import inference_protocol as v2
from noria.surface.http.gateway_bodies import Receive, Scope, TooLarge, decode_labels, decode_predict, read_body
from noria.surface.http.listen import bind, serve

_log = structlog.get_logger()
_ROUTE_CHECK_SECONDS = 0.05
_RETRY_SECONDS = 2.0  # a version whose files were restored is served without a new route table
_JSON = b"application/json"
_PROBLEM = b"application/problem+json"
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where a gateway finds what it serves and writes what it saw."""

    route_file: Path
    artifacts: BlobStore
    online_store: str
    prediction_log: Path


class _MethodNotAllowed(InvalidInput):
    """The path exists, the method does not."""

    def __init__(self, path: str, allowed: str, method: str) -> None:
        super().__init__(f"{path} takes {allowed}, not {method}", remedy=f"Send a {allowed} request.")
        self.allowed = allowed


class Gateway:
    """The ASGI application. One instance a process; its state lives in the event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._plane = DataPlane(settings.artifacts, settings.online_store, settings.prediction_log)
        self._stamp: tuple[int, int] | None = None
        self._retry_at = 0.0
        self._encode = msgspec.json.Encoder().encode
        self._routes: Mapping[str, tuple[str, bytes, Callable[[bytes], Awaitable[bytes]]]] = {
            "/predict": ("POST", _JSON, self._predict),
            "/labels": ("POST", _JSON, self._record_labels),
            "/health": ("GET", _JSON, self._health),
            "/model/info": ("GET", _JSON, self._model_info),
            "/metrics": ("GET", _PROMETHEUS, self._metrics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            kind, body = await self._respond(scope, receive)
            status, headers = 200, [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        except Exception as error:
            status, headers, body = self._refusal(_clear(error, scope["path"]), scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        method, path = scope["method"], scope["path"]
        route = self._routes.get(path)
        if route is not None:
            allowed, kind, handler = route
            _check_method(path, allowed, method)
            return kind, await handler(await read_body(scope, receive))
        if _is_v2(path):
            _check_method(path, "POST" if path.endswith("/infer") else "GET", method)
            return _JSON, await v2.respond(self._plane, method, path, await read_body(scope, receive))
        raise NotFound(f"no such path: {path}", remedy=f"There are {', '.join([*self._routes, '/v2'])}.")

    def _refusal(self, error: NoriaError, path: str) -> tuple[int, _Headers, bytes]:
        if path == "/predict" or path.endswith("/infer"):
            self._plane.metrics.count_error(error.code)
        status = _status(error)
        document = {"error": str(error)} if _is_v2(path) else problem(error, status) | {"code": error.code}
        body = self._encode(document)
        kind = _JSON if _is_v2(path) else _PROBLEM
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if isinstance(error, _MethodNotAllowed):
            headers.append((b"allow", error.allowed.encode()))
        return status, headers, body

    async def _predict(self, body: bytes) -> bytes:
        request = decode_predict(body)
        if request.instances is None:
            return self._encode(await self._plane.predict(request))
        return self._encode({"predictions": await self._plane.predict_many(request.instances)})

    async def _record_labels(self, body: bytes) -> bytes:
        records = decode_labels(body)
        self._plane.record_labels(records)
        return self._encode({"accepted": len(records)})

    async def _metrics(self, _body: bytes) -> bytes:
        return self._plane.metrics.render()

    async def _health(self, _body: bytes) -> bytes:
        table = self._plane.table
        document: dict[str, object] = {"status": "healthy", "model_loaded": True, "route_revision": table.revision}
        fault = self._plane.fault or self._plane.log_fault
        if fault is not None:
            document |= {"status": "degraded", "fault": problem(fault)}
        return self._encode(document)

    async def _model_info(self, _body: bytes) -> bytes:
        table = self._plane.table
        champion = self._plane.runtime(table.variants[0].model, table.variants[0].version)
        return self._encode(
            {
                "deployment": table.deployment,
                "route_revision": table.revision,
                "model": champion.model,
                "model_version": champion.version,
                "task": champion.bundle.task,
                "request_features": champion.bundle.request_columns,
                "entity_keys": sorted({key for view in champion.bundle.views for key in view.join_keys}),
                "inputs": champion.bundle.inputs,
                "variants": [
                    {"name": v.name, "model_version": v.version, "percent": v.percent} for v in table.variants
                ],
            }
        )

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._check_routes()
        watcher = asyncio.create_task(self._watch_routes())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        self._plane.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch_routes(self) -> None:
        while True:
            await asyncio.sleep(_ROUTE_CHECK_SECONDS)
            await self._check_routes()

    async def _check_routes(self) -> None:
        """Swap in the route file when it changed; a bad one is reported, retried, and the old table goes on."""
        try:
            stat = self._settings.route_file.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns)
            retry = self._plane.fault is not None and time.monotonic() >= self._retry_at
            if stamp != self._stamp or retry:
                self._stamp, self._retry_at = stamp, time.monotonic() + _RETRY_SECONDS
                await self._plane.swap(read_routes(self._settings.route_file))
        except FileNotFoundError:
            return
        except NoriaError as error:
            self._plane.refuse(error)
        except Exception as error:
            # The watcher must outlive whatever is wrong with the file: the next one may be right.
            remedy = "`noria up` writes the route file again from the database."
            self._plane.refuse(Unavailable(f"the route file cannot be read: {error}", remedy=remedy))


def create_gateway(settings: GatewaySettings) -> Gateway:
    """The ASGI application over ``settings``, for a server of your own; `noria serve` runs it on uvicorn."""
    return Gateway(settings)


def serve_gateway(
    settings: GatewaySettings, *, host: str, port: int, ready: Callable[[int], None] | None = None
) -> None:
    """Serve until a signal ends the process; ``ready`` is told the port. Raises Unavailable when it is taken."""
    serve(create_gateway(settings), bind(host, port), ready=ready or (lambda _port: None))


def _check_method(path: str, allowed: str, method: str) -> None:
    if method != allowed and (allowed, method) != ("GET", "HEAD"):
        raise _MethodNotAllowed(path, allowed, method)


def _is_v2(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def _clear(error: Exception, path: str) -> NoriaError:
    """The error as the client is told it; one of ours that is not meant for them goes to the log."""
    if isinstance(error, NoriaError):
        return error
    if isinstance(error, RecursionError):
        return InvalidInput(
            "the request body is nested too deeply", remedy="Send rows or tensors, nested as documented."
        )
    _log.error("request_failed", path=path, exc_info=error)
    return NoriaError("the gateway failed at this request", remedy="Its log says why.")


def _status(error: NoriaError) -> int:
    if isinstance(error, _MethodNotAllowed):
        return 405
    return 413 if isinstance(error, TooLarge) else outside(error).status

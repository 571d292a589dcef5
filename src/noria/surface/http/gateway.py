"""The gateway's HTTP front: bare ASGI, because every layer here is paid by every prediction."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import structlog

from noria import __version__
from noria.errors import InvalidInput, NoriaError, NotFound, Overloaded, Unauthenticated, Unavailable
from noria.features.definition_watch import OnChanged
from noria.serving import DataPlane, Limits
from noria.serving.bare import bare
from noria.store.blobs import BlobStore
from noria.surface.errors import outside, problem
from noria.surface.http import cloudevents, inference_protocol, invocations, model_openapi, native, single_rows
from noria.surface.http.cross_origin import PREFLIGHT_KEPT, answer_headers, check_page, is_preflight, origins_of
from noria.surface.http.exchange import Exchange
from noria.surface.http.gateway_requests import (
    LARGE_BYTES,
    WORTH_COMPRESSING_BYTES,
    ClientGone,
    Receive,
    Request,
    Scope,
    TooLarge,
    TooSlow,
    admitting,
    compress,
    read_body,
)
from noria.surface.http.memory import give_back
from noria.surface.http.route_files import RouteFiles

_log = structlog.get_logger()
_JSON = b"application/json"
_OCTETS = b"application/octet-stream"
_PROBLEM = b"application/problem+json"
_PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
_TEXT = b"text/plain; charset=utf-8"
_CLOSE = (b"connection", b"close")
_CHECK_SECONDS = 0.05
_DRAIN_SECONDS = 10.0
_CHECKS_A_SHARE = 10
_COLLECTED_AFTER = (20_000, 20, 50)
"""Requests leave nothing that only the garbage collector frees; those under way, or waiting for a shadow, are many
objects, which it would go through in vain every 700."""
_SWELLING_BYTES = 2**20
"""Requests of so much leave the process larger than it needs to be."""

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Handler = Callable[[DataPlane, Request], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Where a gateway finds what it serves and writes what it saw, and what it takes on.

    ``route_folder`` has one file a deployment; ``limits`` gives those of a model's versions. ``cors_origins`` are the
    web pages that may call it, ``shared`` the folder where several workers leave their counts, ``rpc`` starts a
    gRPC server over the same data plane, which ends with the gateway.
    """

    route_folder: Path
    artifacts: BlobStore
    online_store: str
    prediction_log: Path
    largest_body_bytes: int = 16 * 2**20
    limits: Callable[[str], Limits] = lambda _deployment: Limits()
    cors_origins: Sequence[str] = field(default_factory=tuple)
    shared: Path | None = None
    on_changed_definition: OnChanged = "warn"
    rpc: Callable[[DataPlane], Awaitable[Any]] | None = None


class _MethodNotAllowed(InvalidInput):
    """The path exists, the method does not."""

    def __init__(self, path: str, allowed: str, method: str) -> None:
        super().__init__(f"{path} takes {allowed}, not {method}", remedy=f"Send a {allowed} request.")
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class _Route:
    """A path: its method, the content type it answers in, and whose error shape."""

    method: str
    kind: bytes
    handler: Handler
    shape: str = "problem"


class Gateway:
    """The ASGI application. One instance a process; its state lives in the event loop.

    While ``draining``, every answer asks its client to close the connection.
    """

    def __init__(self, settings: GatewayOptions) -> None:
        self._settings = settings
        self._largest = settings.largest_body_bytes
        self.plane = DataPlane(
            settings.artifacts,
            settings.online_store,
            settings.prediction_log,
            settings.limits,
            settings.shared,
            settings.on_changed_definition,
        )
        self._files = RouteFiles(settings.route_folder, self.plane)
        self.draining = False
        self._swollen = False
        self._encode = msgspec.json.Encoder().encode
        self._origins = origins_of(settings.cors_origins)
        self._routes: Mapping[str, _Route] = {
            "/predict": _Route("POST", _JSON, native.predict),
            "/predict/batch": _Route("POST", _JSON, native.predict_batch),
            "/labels": _Route("POST", _JSON, native.labels),
            "/rewards": _Route("POST", _JSON, native.rewards),
            "/health": _Route("GET", _JSON, native.health),
            "/model/info": _Route("GET", _JSON, native.info),
            "/metrics": _Route("GET", _PROMETHEUS, native.metrics),
            "/openapi.json": _Route("GET", _JSON, _openapi),
            "/invocations": _Route("POST", _JSON, invocations.invoke, "mlflow"),
            "/ping": _Route("GET", _TEXT, _ping, "mlflow"),
            "/version": _Route("GET", _TEXT, _version, "mlflow"),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event. What follows is in few functions: each one on the way is paid by every answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._lifespan(receive, send)
            return
        sent = dict(scope["headers"])
        try:
            status, headers, body = await self._respond(scope, sent, receive)
        except Exception as error:
            status, headers, body = self._refusal(error, scope["path"])
        if len(body) > WORTH_COMPRESSING_BYTES:
            body = await self._compressed(sent, headers, body)
        headers.append((b"content-length", b"%d" % len(body)))
        if self.draining:
            headers.append(_CLOSE)
        if self._origins:
            headers += answer_headers(self._origins, sent)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def take(self, exchange: Exchange) -> bool:
        """Whether the request is answered without ASGI, which costs more than all that is done for one row."""
        if self.draining or self._origins:
            return False
        return single_rows.take(self.plane, exchange, self._refusal)

    async def _respond(self, scope: Scope, sent: Mapping[bytes, bytes], receive: Receive) -> tuple[int, Headers, bytes]:
        method, path, model = scope["method"], scope["path"], None
        if self._origins and is_preflight(method, sent):
            return 204, [PREFLIGHT_KEPT], b""  # a refusal would hide from the page what is wrong with its request
        check_page(self._origins, method, sent)
        route = self._routes.get(path)
        if route is None and path.startswith("/models/"):
            model, _, rest = path[8:].partition("/")
            route = self._routes.get(f"/{rest}")
        if route is None and not _is_v2(path):
            raise NotFound(f"no such path: {path}", remedy=f"There are {', '.join([*self._routes, '/v2'])}.")
        allowed = inference_protocol.method_of(path) if route is None else route.method
        if method != allowed and (method, allowed) != ("HEAD", "GET"):
            return self._other_method(method, path, allowed)
        request = Request(method, path, model, sent, await read_body(sent, receive, self._largest))
        try:
            if method == "POST" and cloudevents.is_event(request):
                several = request.media_type == cloudevents.BATCH
                return await (self._answer_events if several else self._answer_event)(route, request)
            return await self._answer(route, request)
        finally:
            self._swollen |= len(request.body) >= _SWELLING_BYTES

    async def _answer(self, route: _Route | None, request: Request) -> tuple[int, Headers, bytes]:
        if route is None:
            return _v2_answer(await inference_protocol.respond(self.plane, request))
        return 200, [(b"content-type", route.kind)], await route.handler(self.plane, request)

    def _other_method(self, method: str, path: str, allowed: str) -> tuple[int, Headers, bytes]:
        """OPTIONS asks what may be sent; all else is refused."""
        if method == "OPTIONS" and self._origins:
            return 204, [(b"allow", allowed.encode())], b""
        raise _MethodNotAllowed(path, allowed, method)

    async def _answer_event(self, route: _Route | None, request: Request) -> tuple[int, Headers, bytes]:
        structured, source = request.media_type == cloudevents.STRUCTURED, f"/noria{request.path}"
        asked = cloudevents.open_event(request)
        status, headers, body = await self._answer(route, request)
        (_, kind), *more = headers
        if structured:
            body, kind = cloudevents.structured_answer(body, kind, asked, source), cloudevents.STRUCTURED.encode()
        else:
            more += cloudevents.answer_headers(asked, source)
        return status, [(b"content-type", kind), *more], body

    async def _answer_events(self, route: _Route | None, request: Request) -> tuple[int, Headers, bytes]:
        """Each event of a batch by itself; where none has an answer, the batch is refused as the first of them is."""
        events = cloudevents.of_batch(request)
        asked = [self._answer_event(route, replace(event)) for event in events]  # which it opens
        found = await asyncio.gather(*asked, return_exceptions=True)
        failed = [one for one in found if isinstance(one, BaseException)]
        if failed and len(failed) == len(found):
            for other in failed[1:]:
                bare(other)
            raise failed[0]
        answers = [
            one[2] if isinstance(one, tuple) else self._event_of(one, event)
            for event, one in zip(events, found, strict=True)
        ]
        return 200, [(b"content-type", cloudevents.BATCH.encode())], cloudevents.batch_answer(answers)

    def _event_of(self, error: BaseException, event: Request) -> bytes:
        if not isinstance(error, Exception):
            raise error
        _, headers, body = self._refusal(error, event.path)
        (_, kind), *_ = headers
        return cloudevents.structured_refusal(body, kind, event.body, f"/noria{event.path}")

    async def _compressed(self, sent: Mapping[bytes, bytes], headers: Headers, body: bytes) -> bytes:
        accepted = sent.get(b"accept-encoding", b"")
        if not accepted:
            return body
        if len(body) < LARGE_BYTES:
            body, more = compress(body, accepted)
        else:
            body, more = await asyncio.to_thread(compress, body, accepted)
        headers += more
        return body

    def _refusal(self, raised: Exception, path: str) -> tuple[int, Headers, bytes]:
        error, shape = bare(_clear(raised, path)), self._shape(path)
        self.plane.metrics.count_error(error.code)
        status = _status(error)
        headers: Headers = [(b"content-type", _PROBLEM if shape == "problem" else _JSON)]
        if isinstance(error, _MethodNotAllowed):
            headers.append((b"allow", error.allowed.encode()))
        if isinstance(error, Unauthenticated):
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, TooLarge | TooSlow):  # the rest of the body is not waited for
            headers.append(_CLOSE)
        self._swollen |= isinstance(error, TooLarge | TooSlow | ClientGone)
        if isinstance(error, Overloaded):
            headers.append((b"retry-after", b"%d" % error.retry_after))
        elif isinstance(error, Unavailable):
            headers.append((b"retry-after", b"1"))
        document: Mapping[str, object] = problem(error, status) | {"code": error.code}
        if shape == "v2":
            document = {"error": str(error)}
        elif shape == "mlflow":
            document = {"error_code": outside(error).mlflow, "message": str(error)}
        return status, headers, self._encode(document)

    def _shape(self, path: str) -> str:
        if _is_v2(path):
            return "v2"
        tail = path[8:].partition("/")[2] if path.startswith("/models/") else path[1:]
        route = self._routes.get(f"/{tail}")
        return "problem" if route is None else route.shape

    async def _watch(self) -> None:
        """Look at the route files often; leave the counts for the other workers, and memory for other processes."""
        while True:
            for _ in range(_CHECKS_A_SHARE):
                await asyncio.sleep(_CHECK_SECONDS)
                self._swollen |= await self._files.check()
            await asyncio.to_thread(self.plane.metrics.share)
            if self._swollen:
                self._swollen = False
                await asyncio.to_thread(give_back)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._files.check()
        gc.collect()
        gc.freeze()  # what is loaded now stays: going through it again and again would hold up requests
        gc.set_threshold(*_COLLECTED_AFTER)
        give_back()
        watcher = asyncio.create_task(self._watch())
        rpc = None if self._settings.rpc is None else await self._settings.rpc(self.plane)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if rpc is not None:
            await rpc.stop(_DRAIN_SECONDS)
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        self.plane.metrics.share()
        self.plane.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _openapi(plane: DataPlane, request: Request) -> bytes:
    """GET /openapi.json: the endpoints of all models served, or of one."""
    return msgspec.json.encode(model_openapi.document(admitting(plane, request), request.model))


async def _ping(plane: DataPlane, request: Request) -> bytes:
    """GET /ping: MLflow's probe."""
    plane.find(request.model) if request.model is not None else plane.deployments
    return b"\n"


async def _version(_plane: DataPlane, _request: Request) -> bytes:
    """GET /version: of Noria."""
    return __version__.encode()


def _v2_answer(answer: inference_protocol.Answer) -> tuple[int, Headers, bytes]:
    if answer.header_bytes is None:
        return 200, [(b"content-type", _JSON)], answer.body
    length = b"%d" % answer.header_bytes
    return 200, [(b"content-type", _OCTETS), (b"inference-header-content-length", length)], answer.body


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
    if isinstance(error, ClientGone):
        return 499
    if isinstance(error, TooSlow):
        return 408
    return 413 if isinstance(error, TooLarge) else outside(error).status

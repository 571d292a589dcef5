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

from noria.errors import InvalidInput, NoriaError, NotFound
from noria.monitoring.log import LabelRecord
from noria.rollout.routes import read_routes
from noria.serving.core import DataPlane, Prediction, PredictionRequest, parse_instant
from noria.surface.errors import outside, problem
from noria.surface.http import inference_protocol as v2

_log = structlog.get_logger()
_LARGEST_BODY_BYTES = 16 * 1024 * 1024
_ROUTE_CHECK_SECONDS = 0.05
_JSON = b"application/json"
_PROBLEM = b"application/problem+json"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where a gateway finds what it serves and writes what it saw."""

    route_file: Path
    artifacts: Path
    online_store: Path
    prediction_log: Path


class _Instances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instances: list[PredictionRequest]


class _Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prediction_id: str
    event_time: str
    label: float
    observed_at: str = ""


class _Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: list[_Label]


class _TooLarge(InvalidInput):
    """The body is larger than a gateway takes."""


class Gateway:
    """The ASGI application. One instance a process; its state lives in the event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._plane = DataPlane(settings.artifacts, settings.online_store, settings.prediction_log)
        self._stamp: tuple[int, int] | None = None
        self._one = msgspec.json.Decoder(PredictionRequest).decode
        self._many = msgspec.json.Decoder(_Instances).decode
        self._labels = msgspec.json.Decoder(_Labels).decode
        self._encode = msgspec.json.Encoder().encode
        self._routes: Mapping[str, tuple[str, Callable[[bytes], Awaitable[bytes]]]] = {
            "/predict": ("POST", self._predict),
            "/labels": ("POST", self._record_labels),
            "/health": ("GET", self._health),
            "/model/info": ("GET", self._model_info),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        try:
            status, kind, body = await self._respond(scope["method"], path, receive)
        except NoriaError as error:
            self._plane.metrics.count_error(error.code)
            status, kind, body = self._refusal(error, path)
        except Exception:
            _log.exception("request_failed", path=path)
            unknown = NoriaError("the gateway failed at this request", remedy="Its log says why.")
            status, kind, body = self._refusal(unknown, path)
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _respond(self, method: str, path: str, receive: Receive) -> tuple[int, bytes, bytes]:
        if path == "/metrics":
            return 200, b"text/plain; version=0.0.4; charset=utf-8", self._plane.metrics.render()
        if path == "/v2" or path.startswith("/v2/"):
            return 200, _JSON, await v2.respond(self._plane, method, path, await _body(receive))
        if path not in self._routes:
            raise NotFound(
                f"no such path: {path}", remedy=f"There are {', '.join([*self._routes, '/metrics', '/v2'])}."
            )
        allowed, handler = self._routes[path]
        if method not in (allowed, "HEAD" if allowed == "GET" else allowed):
            raise _MethodNotAllowed(f"{path} takes {allowed}, not {method}", remedy=f"Send a {allowed} request.")
        return 200, _JSON, await handler(await _body(receive))

    def _refusal(self, error: NoriaError, path: str) -> tuple[int, bytes, bytes]:
        status = _status(error)
        if path.startswith("/v2"):
            return status, _JSON, self._encode({"error": str(error)})
        return status, _PROBLEM, self._encode(problem(error, status))

    async def _predict(self, body: bytes) -> bytes:
        if b'"instances"' in body:
            rows = _decode(self._many, body).instances
            answers = await asyncio.gather(*(self._plane.predict(row) for row in rows), return_exceptions=True)
            return self._encode({"predictions": [_whole(answer, index) for index, answer in enumerate(answers)]})
        return self._encode(await self._plane.predict(_decode(self._one, body)))

    async def _record_labels(self, body: bytes) -> bytes:
        labels = _decode(self._labels, body).labels
        records = [_label_record(label) for label in labels]
        self._plane.record_labels(records)
        return self._encode({"accepted": len(records)})

    async def _health(self, _body: bytes) -> bytes:
        if self._plane.fault is not None and not self._plane.serving:
            raise self._plane.fault
        table = self._plane.table
        document: dict[str, object] = {"status": "healthy", "model_loaded": True, "route_revision": table.revision}
        if self._plane.fault is not None:
            document |= {"status": "degraded", "fault": problem(self._plane.fault)}
        return self._encode(document)

    async def _model_info(self, _body: bytes) -> bytes:
        table = self._plane.table
        champion = self._plane.runtime(table.variants[0].model)
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
        self._check_routes()
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
            self._check_routes()

    def _check_routes(self) -> None:
        """Swap in the route file when it changed; a bad one is reported and the old table goes on."""
        with contextlib.suppress(FileNotFoundError):
            stat = self._settings.route_file.stat()
            if (stamp := (stat.st_ino, stat.st_mtime_ns)) != self._stamp:
                self._stamp = stamp
                try:
                    self._plane.swap(read_routes(self._settings.route_file))
                except NoriaError as error:
                    self._plane.fault = error
                    _log.error("route_file_refused", reason=error.message)


class _MethodNotAllowed(InvalidInput):
    """The path exists, the method does not."""


def _status(error: NoriaError) -> int:
    if isinstance(error, _MethodNotAllowed):
        return 405
    return 413 if isinstance(error, _TooLarge) else outside(error).status


def _whole(answer: Prediction | BaseException, index: int) -> Prediction:
    """The answer; a row that failed fails the request, by its index, so that none is taken for answered."""
    if isinstance(answer, NoriaError):
        raise InvalidInput(f"instances[{index}]: {answer.message}", remedy=answer.remedy) from answer
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _label_record(label: _Label) -> LabelRecord:
    return LabelRecord(
        label.prediction_id,
        parse_instant(label.event_time, 0),
        parse_instant(label.observed_at, time.time()),
        label.label,
    )


def _decode(decode: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the request body cannot be read: {error}",
            remedy='Send JSON such as {"entities": {...}, "features": {...}}; /model/info names the fields.',
        ) from None


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LARGEST_BODY_BYTES:
            raise _TooLarge("the request body is larger than 16 MiB", remedy="Send fewer instances a request.")
    return body

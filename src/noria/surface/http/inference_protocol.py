"""Open Inference Protocol v2 over HTTP: https://github.com/open-inference/open-inference-protocol."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import msgspec

from noria import __version__
from noria.errors import NotFound, NotServed
from noria.serving import DataPlane
from noria.serving.live import Arm, Live
from noria.surface.http import tensor_bodies as wire
from noria.surface.http.gateway_requests import Request, admitted, beside
from noria.surface.tensors import InferResult, infer, metadata

_MODEL_PATH = re.compile(r"^/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?$")
_SHARED_MEMORY = ("/v2/systemsharedmemory/", "/v2/cudasharedmemory/")
_EXTENSIONS = ("binary_tensor_data", "model_repository(index)")
"""What of Triton's extensions is spoken, as server metadata lists it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with its content type; ``header_bytes`` is how much of it is JSON, where binary tensors follow."""

    body: bytes
    header_bytes: int | None = None


async def respond(plane: DataPlane, request: Request) -> Answer:
    """The answer to a v2 request. Raises NotFound for a path that is none."""
    path = request.path
    if path.rstrip("/") == "/v2":
        return _json({"name": "noria", "version": __version__, "extensions": _EXTENSIONS})
    if path == "/v2/health/live":
        return _json({"live": True})
    if path == "/v2/health/ready":
        return _json({"ready": bool(plane.deployments)})
    if path.startswith(_SHARED_MEMORY):
        raise NotServed("shared memory is not spoken here", remedy="Send tensors in the bodies, as data or raw.")
    if path.startswith("/v2/repository/"):
        return _repository(plane, path)
    match = _MODEL_PATH.match(path)
    if match is None:
        raise NotFound(f"no such path: {path}", remedy="See the Open Inference Protocol v2.")
    name, version = match["name"], match["version"]
    live = admitted(plane, request, name)
    arm = live.champion if version is None else live.arm(version)
    if match["verb"] == "/infer":
        found = await _infer(plane, live, arm, version, request)
        size = sum(len(output.data) for output in found.outputs) * 8
        return Answer(*await beside(size, wire.encode, replace(found, model_name=name)))
    if match["verb"] == "/ready":
        return _json({"name": name, "ready": True})
    return _json(metadata(live, arm) | {"name": name})


def method_of(path: str) -> str:
    """The method a path takes."""
    is_change = path.startswith(_SHARED_MEMORY) and not path.endswith("/status")
    return "POST" if path.endswith("/infer") or path.startswith("/v2/repository/") or is_change else "GET"


async def _infer(plane: DataPlane, live: Live, arm: Arm, version: str | None, request: Request) -> InferResult:
    header = request.header(b"inference-header-content-length")
    call = await beside(len(request.body), wire.decode, request.body, header)
    return await infer(plane, live, arm, version, call, request.timeout)


def _repository(plane: DataPlane, path: str) -> Answer:
    """Triton's repository extension: its index. Loading is what deployments are for."""
    if path != "/v2/repository/index":
        raise NotServed(
            "models are not loaded and unloaded over this protocol", remedy="Use `noria deploy` and `noria rollout`."
        )
    return _json(
        [
            {"name": live.table.deployment, "version": arm.version, "state": "READY", "reason": ""}
            for live in plane.deployments
            for arm in live.arms
        ]
    )


def _json(document: object) -> Answer:
    return Answer(msgspec.json.encode(document))

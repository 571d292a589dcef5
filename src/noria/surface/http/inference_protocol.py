"""Open Inference Protocol v2 over JSON: https://github.com/open-inference/open-inference-protocol."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from noria import __version__
from noria.errors import InvalidInput, NotFound
from noria.serving.core import DataPlane, Prediction
from noria.serving.runtime import Runtime

_MODEL_PATH = re.compile(r"^/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>\d+))?(?P<verb>/ready|/infer)?$")
_NUMBERS = ("FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8", "BOOL")


class Tensor(msgspec.Struct, frozen=True):
    """One input tensor; ``data`` is flat or nested, row-major."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferRequest(msgspec.Struct, frozen=True):
    """The body of an infer request; parameters and requested outputs are accepted and not needed."""

    inputs: list[Tensor]
    id: str = ""


_decoder = msgspec.json.Decoder(InferRequest)


async def respond(plane: DataPlane, method: str, path: str, body: bytes) -> bytes:
    """The JSON answer to a v2 request. Raises NotFound for a path that is none."""
    if path in ("/v2", "/v2/"):
        return msgspec.json.encode({"name": "noria", "version": __version__, "extensions": []})
    if path == "/v2/health/live":
        return b'{"live":true}'
    if path == "/v2/health/ready":
        return msgspec.json.encode({"ready": plane.table is not None})
    match = _MODEL_PATH.match(path)
    if match is None:
        raise NotFound(f"no such path: {path}", remedy="See the Open Inference Protocol v2.")
    version = None if match["version"] is None else int(match["version"])
    runtime = _runtime(plane, match["name"], version)
    if match["verb"] == "/infer":
        if method != "POST":
            raise InvalidInput(f"infer takes POST, not {method}", remedy="Send a POST request.")
        return await _infer(plane, runtime, version, body)
    return msgspec.json.encode(
        _metadata(plane, runtime) if match["verb"] is None else {"name": runtime.model, "ready": True}
    )


def _runtime(plane: DataPlane, name: str, version: int | None) -> Runtime:
    plane.table  # noqa: B018  raises Unavailable before a model is called unknown
    try:
        return plane.runtime(name, version)
    except InvalidInput as error:
        raise NotFound(error.message, remedy=error.remedy) from error


def _metadata(plane: DataPlane, runtime: Runtime) -> dict[str, object]:
    width = len(runtime.bundle.inputs)
    outputs = [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    if runtime.bundle.task == "classification":
        outputs.append({"name": "probability", "datatype": "FP64", "shape": [-1]})
    return {
        "name": runtime.model,
        "versions": [str(v.version) for v in plane.table.variants if v.model == runtime.model],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, width]}],
        "outputs": outputs,
        "parameters": {"columns": list(runtime.bundle.inputs)},
    }


async def _infer(plane: DataPlane, runtime: Runtime, version: int | None, body: bytes) -> bytes:
    try:
        request = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the request body cannot be read: {error}", remedy='Send {"inputs": [...]}.') from None
    rows = _rows(request.inputs, runtime.bundle.inputs)
    answers = await asyncio.gather(*(plane.predict_vector(runtime.model, version, row) for row in rows))
    return msgspec.json.encode(
        {
            "model_name": runtime.model,
            "model_version": str(answers[0].model_version if answers else runtime.version),
            "id": request.id,
            "outputs": _outputs(runtime, answers),
        }
    )


def _outputs(runtime: Runtime, answers: Sequence[Prediction]) -> list[dict[str, object]]:
    count = len(answers)
    columns: dict[str, list[object]] = {"prediction": [answer.prediction for answer in answers]}
    if runtime.bundle.task == "classification":
        columns["probability"] = [answer.probability for answer in answers]
    return [{"name": name, "datatype": "FP64", "shape": [count], "data": data} for name, data in columns.items()]


def _rows(tensors: Sequence[Tensor], columns: Sequence[str]) -> list[list[float | None]]:
    """One matrix tensor of all columns, or one tensor a column by name."""
    flat = {tensor.name: _flat(tensor) for tensor in tensors}
    if len(tensors) == 1 and tensors[0].name not in columns[1:] and len(columns) != 1:
        shape = tensors[0].shape
        if len(shape) != 2 or shape[1] != len(columns):
            raise InvalidInput(
                f"input {tensors[0].name!r} has shape {shape}, expected [rows, {len(columns)}]",
                remedy=f"The columns are, in order: {', '.join(columns)}.",
            )
        values = flat[tensors[0].name]
        return [values[start : start + shape[1]] for start in range(0, len(values), shape[1])]
    if set(flat) != set(columns):
        missing, unknown = sorted(set(columns) - set(flat)), sorted(set(flat) - set(columns))
        raise InvalidInput(
            f"input tensors do not fit the model: missing {missing}, unknown {unknown}",
            remedy=f"Send one tensor of shape [rows, {len(columns)}], or one for each of {', '.join(columns)}.",
        )
    if len({len(values) for values in flat.values()}) != 1:
        raise InvalidInput("input tensors differ in rows", remedy="Give all of them the same first dimension.")
    return [list(row) for row in zip(*(flat[name] for name in columns), strict=True)]


def _flat(tensor: Tensor) -> list[float | None]:
    if tensor.datatype not in _NUMBERS:
        raise InvalidInput(
            f"input {tensor.name!r} has datatype {tensor.datatype!r}", remedy=f"Use one of {', '.join(_NUMBERS)}."
        )
    values = list(_leaves(tensor.data))
    expected = 1
    for size in tensor.shape:
        expected *= size
    if len(values) != expected or any(size < 0 for size in tensor.shape):
        raise InvalidInput(
            f"input {tensor.name!r} holds {len(values)} values, its shape {tensor.shape} asks for {expected}",
            remedy="Make data and shape agree.",
        )
    if bad := [value for value in values if not isinstance(value, int | float | None)]:
        raise InvalidInput(f"input {tensor.name!r} holds {bad[0]!r}", remedy="Send numbers, or null for missing.")
    return values


def _leaves(data: list[Any]) -> list[Any]:
    return [leaf for item in data for leaf in (_leaves(item) if isinstance(item, list) else [item])]

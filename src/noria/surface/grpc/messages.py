"""Infer requests and answers as protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.surface.grpc import open_inference_pb2 as pb
from noria.surface.http.tensor_bodies import check_spoken, dtype_of, packed, size_of, unpacked
from noria.surface.tensors import InferCall, InferResult, InputTensor, OutputTensor

_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where values of a datatype are; FP16 goes as raw contents only."""


def read_call(request: pb.ModelInferRequest) -> InferCall:
    """The call a request makes. Raises InvalidInput when contents and shapes do not fit."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"{len(request.inputs)} inputs come with {len(raw)} raw contents", remedy="Send one for each, or none."
        )
    for output in request.outputs:
        check_spoken(output.parameters, f"output {output.name!r}")
    inputs = [_input(tensor, raw[place] if raw else None) for place, tensor in enumerate(request.inputs)]
    parameters = _parameters(request.parameters)
    outputs = {output.name: bool(raw) for output in request.outputs}
    return InferCall(inputs, request.id, parameters, outputs, bool(raw))


def write_result(result: InferResult) -> pb.ModelInferResponse:
    """The answer; as raw contents where the request had them, or an output has no others: all outputs or none."""
    response = pb.ModelInferResponse(model_name=result.model_name, model_version=result.model_version, id=result.id)
    for name, value in result.parameters.items():
        if isinstance(value, str):
            response.parameters[name].string_param = value
        else:
            response.parameters[name].int64_param = value
    raw = any(output.binary or output.datatype not in _CONTENTS for output in result.outputs)
    for output in result.outputs:
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if raw:
            response.raw_output_contents.append(packed(output.data))
        else:
            _fill(tensor, output)
    return response


def _input(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> InputTensor:
    check_spoken(tensor.parameters, f"input {tensor.name!r}")
    shape = list(tensor.shape)
    if raw is not None:
        if tensor.contents.ByteSize():
            raise InvalidInput(f"input {tensor.name!r} has typed contents and raw ones", remedy="Send one of them.")
        return InputTensor(tensor.name, tensor.datatype, unpacked(raw, tensor.datatype, shape, tensor.name))
    dtype = dtype_of(tensor.datatype, tensor.name)
    if tensor.datatype not in _CONTENTS:
        raise InvalidInput(f"input {tensor.name!r} is {tensor.datatype}", remedy="Send it as raw contents.")
    values: Sequence[Any] = getattr(tensor.contents, _CONTENTS[tensor.datatype])
    expected = size_of(shape, tensor.name)
    if len(values) != expected:
        raise InvalidInput(
            f"input {tensor.name!r} holds {len(values)} values, its shape {shape} asks for {expected}",
            remedy="Make contents and shape agree.",
        )
    return InputTensor(tensor.name, tensor.datatype, _array(values, tensor, dtype).reshape(shape))


def _array(values: Sequence[Any], tensor: pb.ModelInferRequest.InferInputTensor, dtype: type) -> NDArray[Any]:
    try:
        if tensor.datatype == "BYTES":
            return np.array([value.decode() for value in values], dtype=object)
        return np.array(values, dtype=dtype)
    except (OverflowError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"input {tensor.name!r} is no {tensor.datatype}: {error}", remedy="Send values of its datatype."
        ) from None


def _fill(tensor: pb.ModelInferResponse.InferOutputTensor, output: OutputTensor) -> None:
    values = output.data.tolist()
    if output.datatype == "BYTES":
        values = [value.encode() for value in values]
    getattr(tensor.contents, _CONTENTS[output.datatype]).extend(values)


def _parameters(sent: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in sent.items():
        chosen = parameter.WhichOneof("parameter_choice")
        if chosen is not None:
            found[name] = getattr(parameter, chosen)
    return found

"""Infer requests as bodies: JSON, or JSON followed by raw tensors (Triton's binary extension)."""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.optimize.bundle import DTYPES
from noria.surface.tensors import InferCall, InferResult, InputTensor, OutputTensor, whole_numbers

_LENGTH = struct.Struct("<I")
_LARGEST_SIZE = 2**40
_MOST_DIMENSIONS = 64
"""NumPy has no more."""
_DIGITS = re.compile("[0-9]{1,18}")


class _Tensor(msgspec.Struct, frozen=True):
    """One input tensor; ``data`` is flat or nested, row-major."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct, frozen=True):
    """One output asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct, frozen=True):
    """The JSON of an infer request; null is as good as absent."""

    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None


_decode = msgspec.json.Decoder(_Request).decode


def decode(body: bytes, header_length: str) -> InferCall:
    """The request in ``body``, whose first ``header_length`` bytes are JSON (all when empty). Raises InvalidInput."""
    size = _header_size(body, header_length)
    try:
        request = _decode(body[:size] if size < len(body) else body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the request body cannot be read: {error}", remedy='Send {"inputs": [...]}.') from None
    raw = _Raw(memoryview(body)[size:])
    inputs = [_input(tensor, raw) for tensor in request.inputs]
    raw.check_used()
    parameters = request.parameters or {}
    for output in request.outputs or ():
        check_spoken(output.parameters or {}, f"output {output.name!r}")
    outputs = {output.name: _wants_bytes(output) for output in request.outputs or ()}
    return InferCall(inputs, request.id or "", parameters, outputs, bool(parameters.get("binary_data_output")))


def check_spoken(parameters: Iterable[str], whose: str) -> None:
    """Raises InvalidInput for parameters of Triton's extensions that would have the tensor be elsewhere, or another."""
    for name in sorted(parameters):
        if name == "classification" or name.startswith("shared_memory_"):
            raise InvalidInput(
                f"{whose} has parameter {name!r}, and neither shared memory nor classification is spoken here",
                remedy="Send and take tensors in the bodies, as data or raw, and choose among classes yourself.",
            )


def _wants_bytes(output: _Output) -> bool | None:
    chosen = None if output.parameters is None else output.parameters.get("binary_data")
    return None if chosen is None else bool(chosen)


def encode(result: InferResult) -> tuple[bytes, int | None]:
    """The body of an answer, and how many of its bytes are JSON where raw tensors follow."""
    raw: list[bytes] = []
    outputs = [_output(output, raw) for output in result.outputs]
    header = msgspec.json.encode(
        {
            "model_name": result.model_name,
            "model_version": result.model_version,
            "id": result.id,
            "parameters": result.parameters,
            "outputs": outputs,
        }
    )
    return (header, None) if not raw else (b"".join([header, *raw]), len(header))


def _output(output: OutputTensor, raw: list[bytes]) -> dict[str, object]:
    described: dict[str, object] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
    if not output.binary:
        return described | {"data": output.data.tolist()}
    raw.append(packed(output.data))
    return described | {"parameters": {"binary_data_size": len(raw[-1])}}


def packed(data: NDArray[Any]) -> bytes:
    """A flat tensor as the protocol's bytes; texts each with their length before them."""
    if data.dtype.kind != "O":
        return data.tobytes()
    texts = [text.encode() for text in data.tolist()]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def unpacked(content: memoryview | bytes, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """The tensor in the protocol's bytes. Raises InvalidInput when they do not fill its shape."""
    expected = size_of(shape, name)
    if datatype == "BYTES":
        texts = list(_texts(bytes(content), name))
        if len(texts) != expected:
            raise _wrong_size(name, len(texts), shape, expected)
        found: NDArray[Any] = np.array(texts, dtype=object)
        return found.reshape(shape)
    dtype = np.dtype(dtype_of(datatype, name))
    if len(content) != expected * dtype.itemsize:
        raise _wrong_size(name, len(content) // dtype.itemsize, shape, expected)
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def dtype_of(datatype: str, name: str) -> type:
    """The numpy type of a datatype. Raises InvalidInput for one there is not."""
    if datatype not in DTYPES:
        raise InvalidInput(f"input {name!r} has datatype {datatype!r}", remedy=f"Use one of {', '.join(DTYPES)}.")
    return DTYPES[datatype]


def size_of(shape: Sequence[int], name: str) -> int:
    """How many values a shape holds. Raises InvalidInput for one that is none."""
    if len(shape) > _MOST_DIMENSIONS:
        raise InvalidInput(f"input {name!r} has {len(shape)} dimensions", remedy=f"Send at most {_MOST_DIMENSIONS}.")
    size = largest = 1
    for one in shape:
        size *= one
        largest *= one or 1
        if one < 0 or largest > _LARGEST_SIZE:
            raise InvalidInput(f"input {name!r} has shape {list(shape)}", remedy="Send its true, positive sizes.")
    return size


class _Raw:
    """The raw tensors behind the JSON, taken one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def take(self, size: object, name: str) -> memoryview:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(self._content):
            raise InvalidInput(
                f"input {name!r} has binary_data_size {size!r}, and {len(self._content)} bytes are left",
                remedy="Send the tensors' bytes after the JSON, in the order of the inputs.",
            )
        taken, self._content = self._content[:size], self._content[size:]
        return taken

    def check_used(self) -> None:
        if len(self._content):
            raise InvalidInput(
                f"{len(self._content)} bytes follow the last input", remedy="Give each input its binary_data_size."
            )


def _header_size(body: bytes, header_length: str) -> int:
    if not header_length:
        return len(body)
    if not _DIGITS.fullmatch(header_length) or int(header_length) > len(body):
        raise InvalidInput(
            f"inference-header-content-length is {header_length!r}, and the body has {len(body)} bytes",
            remedy="Send how many bytes of the body are JSON.",
        )
    return int(header_length)


def _input(tensor: _Tensor, raw: _Raw) -> InputTensor:
    check_spoken(tensor.parameters or {}, f"input {tensor.name!r}")
    if tensor.parameters and "binary_data_size" in tensor.parameters:
        content = raw.take(tensor.parameters["binary_data_size"], tensor.name)
        array = unpacked(content, tensor.datatype, tensor.shape, tensor.name)
    else:
        array = _array(tensor)
    return InputTensor(tensor.name, tensor.datatype, array)


def _array(tensor: _Tensor) -> NDArray[Any]:
    """The JSON data of a tensor, flat or nested; floats as doubles, as JSON has them, null for a missing number."""
    dtype = dtype_of(tensor.datatype, tensor.name)
    data = tensor.data
    if not isinstance(data, list):
        raise InvalidInput(f"input {tensor.name!r} has no data", remedy="Send a list of values, row-major.")
    expected = size_of(tensor.shape, tensor.name)
    leaves = _unnested(tensor) if data and data[0].__class__ is list else data
    if len(leaves) != expected:
        raise _wrong_size(tensor.name, len(leaves), tensor.shape, expected)
    found = doubles(leaves) if tensor.datatype in ("FP64", "FP32") else None
    return (_typed(leaves, tensor, dtype) if found is None else found).reshape(tensor.shape)


def _unnested(tensor: _Tensor) -> Sequence[Any]:
    """The values of data that is nested as its shape says. Raises InvalidInput for what is nested otherwise."""
    level = [tensor.data]
    for size in tensor.shape:
        try:
            fits = {size}.issuperset(map(len, level))
        except TypeError:  # a number among lists
            fits = False
        # a text is as long as a list may be, and its letters are texts; among numbers they are found out later
        if not fits or (tensor.datatype == "BYTES" and not {list}.issuperset(map(type, level))):
            raise _wrongly_nested(tensor)
        level = list(chain.from_iterable(level))
    if level and level[0].__class__ is list:
        raise _wrongly_nested(tensor)
    return level


def _typed(leaves: Sequence[Any], tensor: _Tensor, dtype: type) -> NDArray[Any]:
    """The values in their datatype, or as doubles where one is missing. Raises InvalidInput."""
    kinds = set(map(type, leaves))
    _check_kinds(leaves, kinds, tensor)
    try:
        if np.dtype(dtype).kind == "f":
            return np.array(leaves, dtype=np.float64)
        if dtype is np.object_ or kinds <= {bool if dtype is np.bool_ else int}:
            return np.array(leaves, dtype=dtype)
        found = whole_numbers([leaf for leaf in leaves if leaf is not None], tensor.name, tensor.datatype)
        return found if len(found) == len(leaves) else np.array(leaves, dtype=np.float64)
    except OverflowError:
        raise InvalidInput(
            f"input {tensor.name!r} has a value too large or too small for {tensor.datatype}",
            remedy="Send numbers that a double holds." if tensor.datatype == "FP64" else "Use a datatype that has it.",
        ) from None


def doubles(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """All of ``values``, or of the lists that they are, one after the other; None where one is no number.

    NumPy takes three times as long, and takes "1.5" for a number, too.
    """
    try:
        if values and values[0].__class__ is list:
            values = list(chain.from_iterable(values))
        return np.frombuffer(array("d", values)) if values else None
    except (TypeError, OverflowError):
        return None


def _check_kinds(leaves: Sequence[Any], kinds: Set[type], tensor: _Tensor) -> None:
    allowed = {str, type(None)} if tensor.datatype == "BYTES" else {int, float, bool, type(None)}
    if kinds <= allowed:
        return
    bad = next(value for value in leaves if type(value) not in allowed)
    wanted = "texts" if tensor.datatype == "BYTES" else "numbers, or null for missing"
    raise InvalidInput(f"input {tensor.name!r} holds {bad!r:.80}", remedy=f"Send {wanted}.")


def _texts(content: bytes, name: str) -> Iterator[str]:
    offset = 0
    while offset < len(content):
        if offset + _LENGTH.size > len(content):
            raise InvalidInput(f"input {name!r} ends within a length", remedy="Send 4 bytes of length, then the text.")
        (length,) = _LENGTH.unpack_from(content, offset)
        offset += _LENGTH.size
        if offset + length > len(content):
            raise InvalidInput(f"input {name!r} ends within a text", remedy="Send 4 bytes of length, then the text.")
        try:
            yield content[offset : offset + length].decode()
        except UnicodeDecodeError:
            raise InvalidInput(
                f"input {name!r} holds a text that is not UTF-8", remedy="Encode texts in UTF-8."
            ) from None
        offset += length


def _wrongly_nested(tensor: _Tensor) -> InvalidInput:
    return InvalidInput(
        f"the data of input {tensor.name!r} is not nested as its shape {tensor.shape} says",
        remedy="Nest it so, or send it flat, row-major.",
    )


def _wrong_size(name: str, found: int, shape: Sequence[int], expected: int) -> InvalidInput:
    return InvalidInput(
        f"input {name!r} holds {found} values, its shape {list(shape)} asks for {expected}",
        remedy="Make data and shape agree.",
    )

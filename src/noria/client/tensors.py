"""Tensors as raw bytes, as the Open Inference Protocol has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidConfig, InvalidInput

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_DATATYPES = {
    "b1": "BOOL",
    "i1": "INT8",
    "i2": "INT16",
    "i4": "INT32",
    "i8": "INT64",
    "u1": "UINT8",
    "u2": "UINT16",
    "u4": "UINT32",
    "u8": "UINT64",
    "f2": "FP16",
    "f4": "FP32",
    "f8": "FP64",
}


def infer_request(inputs: Mapping[str, ArrayLike]) -> tuple[bytes, bytes]:
    """The JSON and the raw bytes behind it. Raises InvalidInput for what is no tensor that can be sent."""
    described, raw = [], []
    for name, given in inputs.items():
        tensor = _tensor(name, given)
        datatype, content = _packed(name, tensor)
        raw.append(content)
        parameters = {"binary_data_size": len(content)}
        described.append({"name": name, "shape": list(tensor.shape), "datatype": datatype, "parameters": parameters})
    return json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode(), b"".join(raw)


def infer_answer(answer: bytes, header_bytes: int) -> dict[str, NDArray[Any]]:
    """The output tensors of an answer, raw or as JSON. Raises ValueError, KeyError or TypeError for what is none."""
    import numpy as np

    codes = {datatype: code for code, datatype in _DATATYPES.items()}
    found: dict[str, NDArray[Any]] = {}
    at = header_bytes
    for output in json.loads(answer[:header_bytes])["outputs"]:
        name, datatype, shape = output["name"], output["datatype"], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            dtype = object if datatype == "BYTES" else f"<{codes[datatype]}"
            found[name] = np.array(output["data"], dtype=dtype).reshape(shape)
            continue
        content, at = answer[at : at + size], at + size
        if datatype == "BYTES":
            found[name] = np.array(_texts(content), dtype=object).reshape(shape)
        elif datatype in codes:
            found[name] = np.frombuffer(content, dtype=f"<{codes[datatype]}").reshape(shape)
        else:
            raise InvalidConfig(f"output {name!r} has datatype {datatype!r}", remedy="Ask for it by gRPC or JSON.")
    return found


def _tensor(name: str, given: ArrayLike) -> NDArray[Any]:
    import numpy as np

    try:
        return np.asarray(given)
    except ValueError:  # rows of different lengths
        raise InvalidInput(f"input {name!r} is no tensor", remedy="Give every row as many values.") from None


def _packed(name: str, tensor: NDArray[Any]) -> tuple[str, bytes]:
    """A tensor's datatype and bytes, row-major and little-endian; texts each with their length before them."""
    import numpy as np

    if tensor.dtype.kind in "OSU":
        texts = [_encoded(name, text) for text in tensor.reshape(-1).tolist()]
        return "BYTES", b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    code = f"{tensor.dtype.kind}{tensor.dtype.itemsize}"
    if code not in _DATATYPES:
        raise _unsent(name, str(tensor.dtype))
    return _DATATYPES[code], np.ascontiguousarray(tensor, dtype=f"<{code}").tobytes()


def _encoded(name: str, text: object) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise _unsent(name, type(text).__name__)
    return text.encode()


def _unsent(name: str, kind: str) -> InvalidInput:
    return InvalidInput(
        f"input {name!r}: a tensor of {kind} cannot be sent", remedy="Send numbers, booleans or texts, of one kind."
    )


def _texts(content: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        texts.append(content[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return texts

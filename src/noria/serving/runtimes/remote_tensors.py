"""Tensors as the Open Inference Protocol's JSON has them: written for another server, and read strictly from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.optimize.bundle import DTYPES

_KINDS: Mapping[str, frozenset[type]] = {
    "f": frozenset({int, float, type(None)}),
    "b": frozenset({bool, int}),
    "i": frozenset({int, float}),
    "u": frozenset({int, float}),
    "O": frozenset({str}),
}
"""What JSON may hold for each kind of numpy types."""


def written(name: str, datatype: str, array: NDArray[Any]) -> dict[str, Any]:
    """An input tensor; NaN as null, which JSON has. Raises InvalidInput for an infinite number, which it has not."""
    data = array.reshape(-1).tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        if np.isinf(array).any():
            raise InvalidInput(
                f"input {name!r} has an infinite number, which cannot be sent on to another server as JSON",
                remedy="Send finite numbers, or none where one is missing.",
            )
        data = [None if value != value else value for value in data]
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def read_tensor(output: Mapping[str, Any]) -> tuple[str, NDArray[Any]]:
    """The name and values of an output, whose data is flat, or nested as its shape.

    Raises KeyError, TypeError, ValueError or ArithmeticError for what is none, or has values that its datatype has not.
    """
    name, shape, datatype = output["name"], output["shape"], output["datatype"]
    if not isinstance(name, str) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"output {name!r} has shape {shape!r}")
    if datatype not in DTYPES:
        raise ValueError(f"output {name!r} has datatype {datatype!r}")
    values = np.array(output["data"], dtype=object)
    if values.ndim != 1 and list(values.shape) != shape:
        raise ValueError(f"the data of output {name!r} is not nested as its shape {shape} says")
    dtype = np.dtype(DTYPES[datatype])
    if not _KINDS[dtype.kind].issuperset(map(type, values.flat)):
        raise ValueError(f"output {name!r} holds a value that is no {datatype}")
    return name, _typed(values, dtype, name, datatype).reshape(shape)


def _typed(values: NDArray[Any], dtype: np.dtype[Any], name: str, datatype: str) -> NDArray[Any]:
    """The values in their type; floats are rounded to narrower ones, all else is kept as it is or refused."""
    if dtype.kind == "O":
        return values
    if dtype.kind == "f":
        with np.errstate(over="raise"):
            return values.astype(np.float64).astype(dtype)
    found = values.astype(dtype)
    if not np.array_equal(found.astype(object), values):
        raise ValueError(f"output {name!r} holds a value that is no {datatype}")
    return found

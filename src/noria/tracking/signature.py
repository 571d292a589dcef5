"""Signatures in MLflow's shape: what a model takes and gives, told by an example."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from noria.errors import InvalidInput
from noria.tracking.frames import as_frame

if TYPE_CHECKING:
    import polars as pl


class Signature(TypedDict):
    """The MLmodel file's entry: JSON texts, each a list of columns or one tensor."""

    inputs: str
    outputs: str | None
    params: None


_TYPES = {
    "Boolean": "boolean", "Int8": "integer", "Int16": "integer", "Int32": "integer", "UInt8": "integer",
    "UInt16": "integer", "UInt32": "long", "Int64": "long", "Float32": "float", "Float64": "double",
    "String": "string", "Categorical": "string", "Enum": "string", "Date": "datetime", "Datetime": "datetime",
    "Binary": "binary",
}  # fmt: skip


def signature_of_columns(names: Sequence[str]) -> Signature:
    """Columns of float64, none of them required; says nothing of the output."""
    columns = [{"type": "double", "name": name, "required": False} for name in names]
    return {"inputs": json.dumps(columns), "outputs": None, "params": None}


def infer_signature(model: Any, example: Any) -> Signature:
    """What ``model`` takes, as ``example`` shows it, and what its ``predict`` answers to that.

    ``example`` is a polars or pandas frame (columns without nulls count as required) or a numpy array, rows first.
    Raises InvalidInput for another type, or when the model refuses the example.
    """
    try:
        answer = model.predict(example)
    except Exception as error:  # whatever a model raises
        raise InvalidInput(
            f"{type(model).__name__}.predict refuses the input example: {error}",
            remedy="Give rows as predict takes them, or leave input_example out.",
        ) from error
    inputs = _tensor(example) if _is_array(example) else list(columns(as_frame(example, "input_example")))
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(_tensor(answer)), "params": None}


def columns(frame: pl.DataFrame) -> Iterator[dict[str, object]]:
    """The columns of a frame in MLflow's types. Raises InvalidInput for one that MLflow has no type for."""
    for name, dtype in frame.schema.items():
        kind = _TYPES.get(str(dtype.base_type()))
        if kind is None:
            raise InvalidInput(
                f"column {name!r} is {dtype}, which a signature cannot say",
                remedy=f"Use one of {', '.join(sorted(set(_TYPES.values())))}.",
            )
        yield {"type": kind, "name": name, "required": frame[name].null_count() == 0}


def _is_array(example: Any) -> bool:
    return type(example).__module__ == "numpy"


def _tensor(rows: Any) -> list[dict[str, object]]:
    import numpy as np

    array = np.asarray(rows)
    kind = array.dtype.name if array.dtype.kind not in "US" else "str"
    return [{"type": "tensor", "tensor-spec": {"dtype": kind, "shape": [-1, *array.shape[1:]]}}]

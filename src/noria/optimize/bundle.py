"""The bundle: the folder a registered model version is served from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from noria.errors import CorruptArtifact
from noria.features import ViewSpec

BUNDLE_FILE = "bundle.json"
ONNX_FILE = "model.onnx"

Task = Literal["classification", "regression", "generic"]
Kind = Literal["double", "float", "long", "integer", "boolean", "string", "datetime"]
"""Kinds of columns, as MLflow's signatures name them."""

DTYPES: Mapping[str, type] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip
"""The Open Inference Protocol's datatypes."""

TEXTS = ("string", "datetime")
"""The kinds that travel as texts beside the numbers."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor a model takes or gives: Open Inference datatype, and a shape whose first entry is the rows (-1)."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a gateway needs beside the model's own file.

    A model of columns takes first ``request_columns`` as the client sends them, then the fields of every view in
    order; ``kinds`` says which of the former are no doubles. Its numbers become one matrix, float32 or float64
    (``input_dtype``), its texts another. A graph takes them as ``onnx_input`` and ``onnx_strings``, and answers with
    ``onnx_score``: the value, or the probability of every one of ``classes`` (of the last alone, when there are two).
    A classifier of two says the last when its probability is above ``decision_threshold``.

    ``example`` is a row it can score, in the order of its inputs; without one a row of zeros must do.

    A model of tensors has ``tensors`` and ``outputs`` instead. ``runtime`` names what loads and runs the folder, with
    ``options`` of its own.
    """

    task: Task
    request_columns: tuple[str, ...] = ()
    views: tuple[ViewSpec, ...] = ()
    onnx_input: str = ""
    onnx_score: str = ""
    input_dtype: Literal["float32", "float64"] = "float64"
    decision_threshold: float = 0.5
    kinds: Mapping[str, Kind] = {}
    onnx_strings: str = ""
    classes: tuple[int | str, ...] = (0, 1)
    tensors: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    runtime: str = "onnx"
    options: Mapping[str, Any] = {}
    example: tuple[float | str | None, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the input vector's entries, in order."""
        looked_up = (f"{view.name}__{field}" for view in self.views for field in view.fields)
        return (*self.request_columns, *looked_up)

    @property
    def string_places(self) -> tuple[int, ...]:
        """Which of the inputs are texts, by their place."""
        sent = [self.kinds.get(name) in TEXTS for name in self.request_columns]
        looked_up = [kind == "String" for view in self.views for kind in view.types or ("",) * len(view.fields)]
        return tuple(place for place, is_text in enumerate([*sent, *looked_up]) if is_text)


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Put ``bundle.json`` into the folder."""
    (folder / BUNDLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(bundle)))


def read_bundle(folder: Path) -> Bundle:
    """The bundle of a folder. Raises CorruptArtifact when it is missing or malformed."""
    try:
        return msgspec.json.decode((folder / BUNDLE_FILE).read_bytes(), type=Bundle)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptArtifact(
            f"model folder {folder.name!r} has no readable {BUNDLE_FILE}: {error}",
            remedy="Register the model again with `noria run`.",
        ) from error

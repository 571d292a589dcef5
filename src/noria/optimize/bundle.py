"""The bundle: the folder a registered model version is served from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from noria.errors import CorruptArtifact
from noria.features import ViewSpec

BUNDLE_FILE = "bundle.json"
ONNX_FILE = "model.onnx"

Task = Literal["classification", "regression"]


class Bundle(msgspec.Struct, frozen=True):
    """What a gateway needs beside the ONNX graph.

    The input vector is float32 or float64 (``input_dtype``) of shape (rows, inputs): first ``request_columns`` as the
    client sends them, then the fields of every view in order. The graph's single input is ``onnx_input``; the output
    ``onnx_score`` has shape (rows,) or (rows, 1): the probability of the positive class, or the predicted value.
    A classifier says 1 when the score is at least ``decision_threshold``.
    """

    task: Task
    request_columns: tuple[str, ...]
    views: tuple[ViewSpec, ...]
    onnx_input: str
    onnx_score: str
    input_dtype: Literal["float32", "float64"]
    decision_threshold: float = 0.5

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the input vector's entries, in order."""
        looked_up = (f"{view.name}__{field}" for view in self.views for field in view.fields)
        return (*self.request_columns, *looked_up)


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

"""The bundle: the folder a registered model version is served from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from noria.errors import CorruptArtifact
from noria.features import ViewSpec
from noria.structs import read_by_threads

BUNDLE_FILE = "bundle.json"
ONNX_FILE = "model.onnx"

GRAPH = "ONNX"
"""The algorithm of what was logged as a graph, whose outputs MLflow answers by their names."""

Task = Literal["classification", "regression", "generic"]
Kind = Literal[
    "double", "float", "long", "integer", "boolean", "string", "datetime", "binary", "array", "object", "map", "any"
]
"""Kinds of columns, as MLflow's signatures name them."""

DTYPES: Mapping[str, type] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_,
}  # fmt: skip
"""The Open Inference Protocol's datatypes."""

NESTED = ("array", "object", "map", "any")
"""The kinds whose values are whatever JSON holds."""

TEXTS = ("string", "datetime", "binary", *NESTED)
"""The kinds that travel as texts beside the numbers: bytes in base64, what is nested as JSON."""


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor a model takes or gives: Open Inference datatype, and a shape whose first entry is the rows (-1)."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ComputedSpec(msgspec.Struct, frozen=True):
    """Features that are computed for each request: those of one on-demand view, by the code in a file of the folder."""

    name: str
    fields: tuple[str, ...]
    definition: str
    file: str

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the features are called beside those of other views."""
        return tuple(f"{self.name}__{field}" for field in self.fields)


@read_by_threads
class Bundle(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a gateway needs beside the model's own file.

    A model of columns takes first ``request_columns`` as the client sends them, then the fields of every view in order,
    then what is ``computed`` from these, from columns that are ``sent_beside`` and from ``views_beside``; ``kinds``
    says which of the columns sent are no doubles, ``optional`` which may be left out, and are null then. Its numbers
    become one matrix, float32 or float64 (``input_dtype``), its texts another. A graph takes them as ``onnx_input`` and
    ``onnx_strings``, ``null_text`` in place of a null, and answers with ``onnx_score``: the value, or the probability
    of every one of ``classes`` (of the last alone, when there are two). A classifier of two says the last when its
    probability is above ``decision_threshold``. Of a classifier that ``predicts_scores`` its own predict gives these
    probabilities, as MLflow's clients expect it.

    ``example`` is a row it can score, in the order of its inputs; without one a row of zeros must do.

    ``one_value`` says that each row is a single value, whose column has a name only because every column has one.

    A model of tensors has ``tensors`` and ``outputs`` instead; ``rows_alone`` says that it was found to score each row
    by itself, so that requests may be scored together: where nobody found out, they are not. ``runtime`` names what
    loads and runs the folder, with ``options`` of its own.
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
    classes: tuple[bool | int | float | str, ...] = (0, 1)
    tensors: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    runtime: str = "onnx"
    options: Mapping[str, Any] = {}
    sent_beside: tuple[str, ...] = ()
    views_beside: tuple[ViewSpec, ...] = ()
    computed: tuple[ComputedSpec, ...] = ()
    example: tuple[float | str | None, ...] = ()
    optional: tuple[str, ...] = ()
    rows_alone: bool = False
    null_text: str = "None"
    predicts_scores: bool = False
    one_value: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the input vector's entries, in order."""
        stored = [name for view in self.views for name in view.feature_names]
        computed = [name for one in self.computed for name in one.feature_names]
        return (*self.request_columns, *stored, *computed)

    @property
    def sent(self) -> tuple[str, ...]:
        """The columns a client sends, in order."""
        return (*self.request_columns, *self.sent_beside)

    @property
    def looked_up(self) -> tuple[ViewSpec, ...]:
        """All views that are looked up."""
        return (*self.views, *self.views_beside)

    @property
    def entity_keys(self) -> tuple[str, ...]:
        """The keys a request names its entities by."""
        return tuple(sorted({key for view in self.looked_up for key in view.join_keys}))

    @property
    def string_places(self) -> tuple[int, ...]:
        """Which of the inputs are texts, by their place."""
        sent = [self.kinds.get(name) in TEXTS for name in self.request_columns]
        looked_up = [kind == "String" for view in self.views for kind in view.types or ("",) * len(view.fields)]
        return tuple(place for place, is_text in enumerate([*sent, *looked_up]) if is_text)

    @property
    def number_names(self) -> tuple[str, ...]:
        """The names of the inputs that are numbers, in order."""
        texts = set(self.string_places)
        return tuple(name for place, name in enumerate(self.inputs) if place not in texts)


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Put ``bundle.json`` into the folder."""
    (folder / BUNDLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(bundle)))


def bundles_below(folder: Path) -> list[tuple[Path, Bundle]]:
    """Every bundle in a model's folder, its own first: those of chains and ensembles hold their members'."""
    found = [path.parent for path in folder.rglob(BUNDLE_FILE) if path.parent != folder]
    return [(one, read_bundle(one)) for one in [folder, *sorted(found)]]


def read_bundle(folder: Path) -> Bundle:
    """The bundle of a folder. Raises CorruptArtifact when it is missing or malformed."""
    try:
        return msgspec.json.decode((folder / BUNDLE_FILE).read_bytes(), type=Bundle)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptArtifact(
            f"model folder {folder.name!r} has no readable {BUNDLE_FILE}: {error}",
            remedy="Register the model again with `noria run`.",
        ) from error

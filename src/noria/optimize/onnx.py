"""Conversion to ONNX, with the promise that the graph says what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput, NoriaError
from noria.optimize.bundle import ONNX_FILE, Task

_OPSET = 17
_REGRESSION_TOLERANCE = 1e-4


class ParityBroken(NoriaError):
    """The converted graph answers differently from the model it was made of."""

    code = "parity_broken"


@dataclass(frozen=True, slots=True)
class Conversion:
    """A written graph: its names, its input type, and how close it is to the source on the rows checked."""

    onnx_input: str
    onnx_score: str
    input_dtype: Literal["float32", "float64"]
    rows_checked: int
    labels_flipped: int
    largest_difference: float


def convert(model: Any, task: Task, inputs: Sequence[str], sample: NDArray[np.float64], folder: Path) -> Conversion:
    """Write ``model`` (a fitted scikit-learn style estimator) as ``folder``/model.onnx.

    ``sample`` (rows, inputs) is scored by both. Raises ParityBroken when a label flips, or a regression differs by
    more than 1e-4 relative; InvalidInput when no converter knows the model.
    """
    graph, dtype = _convert(model, len(inputs))
    graph.graph.name = "model"  # converters draw a random one; the same model is to be the same bytes
    (folder / ONNX_FILE).write_bytes(graph.SerializeToString(deterministic=True))
    score = graph.graph.output[-1].name
    expected = source_scores(model, task, sample)
    found = onnx_scores(folder / ONNX_FILE, sample.astype(dtype))
    result = Conversion(
        onnx_input=graph.graph.input[0].name,
        onnx_score=score,
        input_dtype=dtype,
        rows_checked=len(sample),
        labels_flipped=int(np.sum((expected >= 0.5) != (found >= 0.5))) if task == "classification" else 0,
        largest_difference=float(np.max(np.abs(expected - found), initial=0.0)),
    )
    _check(result, task, float(np.max(np.abs(expected), initial=1.0)))
    return result


def source_scores(model: Any, task: Task, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of the positive class, or the predicted value, shape (rows,)."""
    raw = model.predict_proba(matrix)[:, 1] if task == "classification" else model.predict(matrix)
    return np.asarray(raw, dtype=np.float64).reshape(-1)


def onnx_scores(path: Path, matrix: NDArray[Any]) -> NDArray[np.float64]:
    """The same, by the graph at ``path``."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (score,) = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: matrix})
    return np.asarray(score, dtype=np.float64).reshape(len(matrix), -1)[:, -1]


def _convert(model: Any, width: int) -> tuple[Any, Literal["float32", "float64"]]:
    """LightGBM compares in float32 whatever it is given; scikit-learn keeps float64, which scalers need."""
    import onnxmltools
    import skl2onnx
    from onnxmltools.convert.common.data_types import FloatTensorType
    from skl2onnx.common.data_types import DoubleTensorType

    try:
        if type(model).__module__.startswith("lightgbm"):
            spec = [("input", FloatTensorType([None, width]))]
            graph = onnxmltools.convert_lightgbm(model, initial_types=spec, zipmap=False, target_opset=15)
            return graph, "float32"
        options = {"zipmap": False} if hasattr(model, "predict_proba") else None
        wide = [("input", DoubleTensorType([None, width]))]
        graph = skl2onnx.convert_sklearn(
            model, initial_types=wide, options=None if options is None else {id(model): options}, target_opset=_OPSET
        )
    except Exception as error:
        raise InvalidInput(
            f"{type(model).__name__} cannot be converted to ONNX: {error}",
            remedy="Use a LightGBM or scikit-learn estimator that skl2onnx supports.",
        ) from error
    return graph, "float64"


def _check(result: Conversion, task: Task, scale: float) -> None:
    differs = task == "regression" and result.largest_difference > _REGRESSION_TOLERANCE * scale
    if result.labels_flipped or differs:
        raise ParityBroken(
            f"the ONNX graph differs from its model: {result.labels_flipped} labels of {result.rows_checked} flipped, "
            f"largest difference {result.largest_difference:.2g}",
            remedy="Try another estimator or round the features: the served model must say what was evaluated.",
        )

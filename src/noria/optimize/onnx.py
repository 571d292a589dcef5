"""Conversion to ONNX, with the promise that the graph says what the model says."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput, NoriaError
from noria.optimize.bundle import ONNX_FILE, Task

DType = Literal["float32", "float64"]

_OPSET = 17
_LIGHTGBM_OPSET = 15
_REGRESSION_TOLERANCE = 1e-4
_PROBABILITY_TOLERANCE = 0.01


class ParityBroken(NoriaError):
    """The converted graph answers differently from the model it was made of."""

    code = "parity_broken"


@dataclass(frozen=True, slots=True)
class Conversion:
    """A written graph: its names, its input type, and how close it is to the source on the rows checked."""

    onnx_input: str
    onnx_score: str
    input_dtype: DType
    rows_checked: int
    labels_flipped: int
    largest_difference: float


def convert(model: Any, task: Task, inputs: Sequence[str], sample: NDArray[np.float64], folder: Path) -> Conversion:
    """Write ``model`` (a fitted scikit-learn style estimator) as ``folder``/model.onnx.

    Both input types are tried and the closer graph is kept: linear models need float64, trees compare in float32.
    ``sample`` (rows, inputs) is scored by model and graph. Raises ParityBroken when a label flips, a probability
    differs by more than 0.01, or a regression by more than 1e-4 relative; InvalidInput when no converter knows it.
    """
    expected = source_scores(model, task, sample)
    found: list[tuple[Conversion, bytes]] = []
    failures: list[str] = []
    for dtype in _dtypes(model):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the converters' own code, which users cannot act on
                graph = _canonical_bytes(_convert(model, len(inputs), dtype))
            found.append((_compare(graph, task, expected, sample, dtype), graph))
        except Exception as error:  # whatever converters and the runtime raise: the other type may do
            failures.append(f"{dtype}: {str(error).splitlines()[0][:300]}")
    if not found:
        raise InvalidInput(
            f"{type(model).__name__} cannot be converted to ONNX",
            details=failures,
            remedy="Use a LightGBM estimator, or a scikit-learn one that skl2onnx supports.",
        )
    closest, graph = min(found, key=lambda item: (item[0].labels_flipped, item[0].largest_difference))
    _check(closest, task, float(np.max(np.abs(expected), initial=1.0)))
    (folder / ONNX_FILE).write_bytes(graph)
    return closest


def source_scores(model: Any, task: Task, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of the positive class, or the predicted value, shape (rows,)."""
    raw = model.predict_proba(matrix)[:, 1] if task == "classification" else model.predict(matrix)
    return np.asarray(raw, dtype=np.float64).reshape(-1)


def onnx_scores(graph: Path | bytes, matrix: NDArray[Any]) -> NDArray[np.float64]:
    """The same, by ``graph``: a file, or its bytes."""
    session = _session(graph)
    (score,) = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: matrix})
    return np.asarray(score, dtype=np.float64).reshape(len(matrix), -1)[:, -1]


def _session(graph: Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised and told in our words
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _dtypes(model: Any) -> Sequence[DType]:
    return ("float32",) if _is_lightgbm(model) else ("float64", "float32")


def _is_lightgbm(model: Any) -> bool:
    return type(model).__module__.startswith("lightgbm")


def _convert(model: Any, width: int, dtype: DType) -> Any:
    import onnxmltools
    import skl2onnx
    from onnxmltools.convert.common.data_types import FloatTensorType as LightGBMFloat
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    if _is_lightgbm(model):
        spec = [("input", LightGBMFloat([None, width]))]
        return onnxmltools.convert_lightgbm(model, initial_types=spec, zipmap=False, target_opset=_LIGHTGBM_OPSET)
    tensor = DoubleTensorType if dtype == "float64" else FloatTensorType
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    return skl2onnx.convert_sklearn(
        model, initial_types=[("input", tensor([None, width]))], options=options, target_opset=_OPSET
    )


def _compare(
    graph: bytes, task: Task, expected: NDArray[np.float64], sample: NDArray[np.float64], dtype: DType
) -> Conversion:
    session = _session(graph)
    found = onnx_scores(graph, sample.astype(dtype))
    return Conversion(
        onnx_input=session.get_inputs()[0].name,
        onnx_score=session.get_outputs()[-1].name,
        input_dtype=dtype,
        rows_checked=len(sample),
        labels_flipped=int(np.sum((expected >= 0.5) != (found >= 0.5))) if task == "classification" else 0,
        largest_difference=float(np.max(np.abs(expected - found), initial=0.0)),
    )


def _canonical_bytes(graph: Any) -> bytes:
    """The same model as the same bytes: converters draw a random name and list operator sets in hash order."""
    graph.graph.name = "model"
    domains = sorted(graph.opset_import, key=lambda entry: entry.domain)
    del graph.opset_import[:]
    graph.opset_import.extend(domains)
    return bytes(graph.SerializeToString(deterministic=True))


def _check(result: Conversion, task: Task, scale: float) -> None:
    allowed = _REGRESSION_TOLERANCE * scale if task == "regression" else _PROBABILITY_TOLERANCE
    if result.labels_flipped or result.largest_difference > allowed:
        raise ParityBroken(
            f"the ONNX graph differs from its model: {result.labels_flipped} labels of {result.rows_checked} flipped, "
            f"largest difference {result.largest_difference:.2g}",
            remedy="Trees need no scaler before them, which rounds at their thresholds; or try another estimator.",
        )

"""Conversion to ONNX, with the promise that the graph says what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput, NoriaError
from noria.optimize.bundle import ONNX_FILE, Task
from noria.optimize.conversion.closeness import Conversion, NotConverted, closest
from noria.optimize.conversion.graphs import session_of
from noria.optimize.conversion.guards import guarded, refused_by
from noria.optimize.conversion.samples import Oddity

_REGRESSION_TOLERANCE = 1e-4
_PROBABILITY_TOLERANCE = 0.01


class ParityBroken(NoriaError):
    """The converted graph answers differently from the model it was made of."""

    code = "parity_broken"


def convert(model: Any, task: Task, inputs: Sequence[str], sample: NDArray[np.float64], folder: Path) -> Conversion:
    """Write ``model`` (a fitted scikit-learn style estimator of doubles) as ``folder``/model.onnx.

    ``sample`` (rows, inputs) is scored by model and graph. Raises ParityBroken when a label flips, a probability
    differs by more than 0.01, or a regression by more than 1e-4 relative; InvalidInput when no converter knows it.
    The graph answers NaN where a number is missing that the model cannot do without.
    """
    expected = source_scores(model, task, sample)
    columns = [(name, "double") for name in inputs]
    try:
        found = closest(model, columns, expected, sample, labels=task == "classification")
    except NotConverted as failures:
        raise InvalidInput(
            f"{type(model).__name__} cannot be converted to ONNX",
            details=failures.args,
            remedy="Use a LightGBM or XGBoost estimator, or a scikit-learn one that skl2onnx supports.",
        ) from None
    check_parity(task, found.rows_checked, found.labels_flipped, found.largest_difference)
    missing = [Oddity(name, "double", at, np.nan) for at, name in enumerate(inputs)]
    refused = refused_by(lambda numbers, _: source_scores(model, task, numbers), missing, sample, None)
    graph = guarded(found.graph, refused, sample, None, {})
    (folder / ONNX_FILE).write_bytes(graph.content)
    return replace(found, graph=graph)


def check_parity(task: Task, rows: int, flipped: int, difference: float) -> None:
    """Raises ParityBroken when a graph is not close enough to its model; see Conversion for what ``difference`` is."""
    allowed = _REGRESSION_TOLERANCE if task == "regression" else _PROBABILITY_TOLERANCE
    if flipped or difference > allowed:
        raise ParityBroken(
            f"the ONNX graph differs from its model: {flipped} labels of {rows} flipped, "
            f"largest difference {difference:.2g}",
            remedy="Try another estimator, or serve it with its own runtime.",
        )


def source_scores(model: Any, task: Task, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of the positive class, or the predicted value, shape (rows,)."""
    raw = model.predict_proba(matrix)[:, 1] if task == "classification" else model.predict(matrix)
    return np.asarray(raw, dtype=np.float64).reshape(-1)


def onnx_scores(graph: Path | bytes, matrix: NDArray[Any]) -> NDArray[np.float64]:
    """The same, by ``graph``: a file, or its bytes."""
    session = session_of(graph.read_bytes() if isinstance(graph, Path) else graph)
    (score,) = session.run([session.get_outputs()[-1].name], {session.get_inputs()[0].name: matrix})
    return np.asarray(score, dtype=np.float64).reshape(len(matrix), -1)[:, -1]

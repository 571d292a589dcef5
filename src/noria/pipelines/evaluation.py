"""How good a model is on rows it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
_CALIBRATION_BINS = 10
_LEAST_SLICE_ROWS = 30


def evaluate(task: str, scores: Floats, labels: Floats) -> dict[str, float]:
    """Metrics of ``scores`` against ``labels``, both of shape (rows,).

    Classification: auc, accuracy (at 0.5), brier, log_loss and calibration_error (expected calibration error over ten
    equal-width bins; Naeini et al., 2015). Regression: mae, rmse, r2.
    """
    if task == "regression":
        return _regression(scores, labels)
    from sklearn.metrics import log_loss, roc_auc_score

    both = len(np.unique(labels)) == 2
    return {
        "auc": float(roc_auc_score(labels, scores)) if both else 0.5,
        "accuracy": float(np.mean((scores >= 0.5) == (labels >= 0.5))),
        "brier": float(np.mean((scores - labels) ** 2)),
        "log_loss": float(log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7), labels=[0, 1])),
        "calibration_error": _calibration_error(scores, labels),
    }


def evaluate_slices(task: str, scores: Floats, labels: Floats, slices: pl.DataFrame) -> dict[str, float]:
    """The first metric of ``evaluate`` for every value of every slicing column: ``auc.carrier.UA``."""
    found: dict[str, float] = {}
    name = primary_metric(task)
    for column in slices.columns:
        values = slices[column].cast(str).fill_null("null").to_numpy()
        for value in np.unique(values):
            chosen = values == value
            if chosen.sum() >= _LEAST_SLICE_ROWS and (task == "regression" or len(np.unique(labels[chosen])) == 2):
                found[f"{name}.{column}.{value}"] = evaluate(task, scores[chosen], labels[chosen])[name]
    return found


def primary_metric(task: str) -> str:
    """The metric a task is tuned and compared by."""
    return "auc" if task == "classification" else "mae"


def gain(task: str, metrics: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How much better ``metrics`` are than ``other``, positive is better: auc difference, or relative mae."""
    name = primary_metric(task)
    if task == "classification":
        return metrics[name] - other[name]
    return (other[name] - metrics[name]) / max(other[name], 1e-12)


def _regression(scores: Floats, labels: Floats) -> dict[str, float]:
    errors = scores - labels
    spread = float(np.sum((labels - labels.mean()) ** 2))
    return {
        "mae": float(np.mean(np.abs(errors))),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "r2": 1 - float(np.sum(errors**2)) / spread if spread else 0.0,
    }


def _calibration_error(scores: Floats, labels: Floats) -> float:
    bins = np.minimum((scores * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        inside = bins == number
        error += inside.mean() * abs(float(scores[inside].mean()) - float(labels[inside].mean()))
    return float(error)

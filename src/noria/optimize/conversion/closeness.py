"""Which graph of a model is closest to it, and how close that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.graphs import Column, Graph, graphs_of, scores_of

_TIE = 1e-5
"""Labels of probabilities this close to each other may differ: they are ties that rounding decides."""
_CLOSE_ENOUGH = 1e-6


class NotConverted(Exception):
    """No converter writes a graph of the model; the arguments say why not, one by one."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A graph, and how close it is to its model on the rows checked."""

    graph: Graph
    rows_checked: int
    labels_flipped: int
    largest_difference: float


def closest(
    model: Any,
    columns: Sequence[Column],
    expected: NDArray[np.float64],
    numbers: NDArray[np.float64],
    strings: NDArray[np.object_] | None = None,
    *,
    labels: bool,
) -> Conversion:
    """The graph of ``model`` whose answers are nearest to ``expected``; ``labels`` says that classes count most.

    Raises NotConverted when there is none.
    """
    best: Conversion | None = None
    failures: list[str] = []
    for graph in graphs_of(model, columns):
        if isinstance(graph, str):
            failures.append(graph)
            continue
        try:
            answers = scores_of(graph, numbers, strings)
        except Exception as error:  # the runtime's own errors have no public class
            failures.append(f"{graph.way}: {str(error).splitlines()[0][:300]}")
            continue
        candidate = _compared(graph, expected, answers, labels)
        if best is None or _distance(candidate) < _distance(best):
            best = candidate
        if not best.labels_flipped and best.largest_difference < _CLOSE_ENOUGH:
            break
    if best is None:
        raise NotConverted(*failures)
    return best


def _compared(graph: Graph, expected: NDArray[np.float64], answers: NDArray[np.float64], labels: bool) -> Conversion:
    if expected.shape != answers.shape:
        return Conversion(graph, len(expected), len(expected) if labels else 0, float("inf"))
    flipped = int(np.sum(_flips(expected, answers))) if labels else 0
    same = np.isnan(expected) & np.isnan(answers)
    difference = np.where(same, 0.0, np.abs(expected - answers))
    return Conversion(graph, len(expected), flipped, float(np.max(difference, initial=0.0)))


def _flips(expected: NDArray[np.float64], answers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The rows whose predicted class differs and was no tie."""
    if expected.ndim == 1:
        expected, answers = (np.stack([1 - column, column], axis=1) for column in (expected, answers))
    ordered = np.sort(expected, axis=1)
    clear: NDArray[np.bool_] = ordered[:, -1] - ordered[:, -2] > 2 * _TIE
    differs: NDArray[np.bool_] = expected.argmax(axis=1) != answers.argmax(axis=1)
    return differs & clear


def _distance(found: Conversion) -> tuple[int, float]:
    return found.labels_flipped, found.largest_difference

"""Which graph of a model is closest to it, and how close that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.graphs import Column, Graph, graphs_of, scores_of

_TIE = 1e-5
"""Labels of probabilities this close to each other may differ: they are ties that rounding decides."""
_CLOSE_ENOUGH = 1e-6
_ROUNDING = 1e-6
"""By how much a graph's probability may be off for being summed in float32."""
_SMALL = 0.1


class NotConverted(Exception):
    """No converter writes a graph of the model; the arguments say why not, one by one."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A graph, and how close it is to its model on the rows checked.

    ``largest_difference`` is that of a probability, or of a value in parts of itself; of the smallest tenth, in parts
    of the largest of these.
    """

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
    threshold: float = 0.5,
    null_text: str = "None",
) -> Conversion:
    """The graph of ``model`` whose answers are nearest to ``expected``; ``labels`` says that classes count most.

    Of two classes the second is said when its probability is above ``threshold``. A text that is None is given to a
    graph as ``null_text``.

    Raises NotConverted when there is none.
    """
    best: Conversion | None = None
    failures: list[str] = []
    for graph in graphs_of(model, columns):
        if isinstance(graph, str):
            failures.append(graph)
            continue
        graph = replace(graph, null_text=null_text)
        try:
            answers = scores_of(graph, numbers, strings, labels=labels)
        except Exception as error:  # the runtime's own errors have no public class
            failures.append(f"{graph.way}: {str(error).splitlines()[0][:300]}")
            continue
        candidate = _compared(graph, expected, answers, labels, threshold)
        if best is None or _distance(candidate) < _distance(best):
            best = candidate
        if not best.labels_flipped and best.largest_difference < _CLOSE_ENOUGH:
            break
    if best is None:
        raise NotConverted(*failures)
    return best


def _compared(
    graph: Graph, expected: NDArray[np.float64], answers: NDArray[np.float64], labels: bool, threshold: float
) -> Conversion:
    if expected.shape != answers.shape:
        return Conversion(graph, len(expected), len(expected) if labels else 0, float("inf"))
    flipped = int(np.sum(flips(expected, answers, threshold))) if labels else 0
    return Conversion(graph, len(expected), flipped, largest_difference(expected, answers, labels))


def largest_difference(expected: NDArray[np.float64], answers: NDArray[np.float64], labels: bool) -> float:
    """How far apart they are at most: see Conversion. Infinite where only one of them is a number."""
    same = (expected == answers) | (np.isnan(expected) & np.isnan(answers))
    with np.errstate(invalid="ignore"):
        difference = np.abs(expected - answers) if labels else np.abs(expected - answers) / _sizes(expected)
    return float(np.max(np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference)), initial=0.0))


def _sizes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """By what each of ``values`` is measured: near zero by what is small, since sums that cancel out keep rounding."""
    sizes = np.abs(values)
    present = sizes[(sizes > 0) & np.isfinite(sizes)]
    return np.maximum(sizes, np.quantile(present, _SMALL) if len(present) else 1.0)


def flips(
    expected: NDArray[np.float64], answers: NDArray[np.float64], threshold: float = 0.5, tie: float = _TIE
) -> NDArray[np.bool_]:
    """The rows whose predicted class differs and was no tie; with a ``tie`` of zero none is."""
    if expected.ndim == 1:
        crosses: NDArray[np.bool_] = (expected > threshold) != (answers > threshold)
        return crosses & (np.abs(expected - threshold) >= tie)
    ordered = np.sort(expected, axis=1)
    clear: NDArray[np.bool_] = ordered[:, -1] - ordered[:, -2] >= 2 * tie
    differs: NDArray[np.bool_] = expected.argmax(axis=1) != answers.argmax(axis=1)
    return differs & clear


def beside_ties(threshold: float, answers: NDArray[np.float64], is_second: NDArray[np.bool_]) -> float:
    """The threshold, or one beside it by which a graph's ``answers`` say the second class more often where it is said.

    Half of a forest's trees may vote for each class: what the model finds equal is a hair more or less as a sum of
    float32, and would be said to be the other class.
    """
    near = [threshold, *(threshold + away for away in (_ROUNDING, -_ROUNDING))]
    return min(near, key=lambda one: int(np.sum((answers > one) != is_second)))


def _distance(found: Conversion) -> tuple[int, float]:
    return found.labels_flipped, found.largest_difference

"""Made-up tensors, and whether what scores them scores each row by itself.

Imports numpy alone: it also runs in the environment of a model that needs other versions than ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Score = Callable[[Arrays], Sequence[NDArray[Any]]]

OPEN_SIZES = ((4, 7), (32, 40), (224, 256))
"""Two sizes for the axes that a model leaves open; the next pair is for what is too small a picture."""
SCALES = (1.0, 10.0, 0.01)
_ROWS, _DRAWS = 8, 2
_TOLERANCE = 1e-3
_LEAST_SCALE = 0.1
_LETTERS = np.array(["a", "b", "c"], dtype=object)


def made_up(
    random: np.random.Generator, kind: str, shape: Sequence[int], rows: int, open_size: int, scale: Any = 1.0
) -> NDArray[Any]:
    """``rows`` rows of the numpy type ``kind``, "object" for texts; ``scale`` is a number, or one a row.

    What ``shape`` leaves open after the rows is ``open_size``. Whole numbers are between 0 and 9 at a scale of 1.
    """
    sizes = [rows, *(size if size > 0 else open_size for size in shape[1:])]
    if kind in ("object", "str"):
        return random.choice(_LETTERS, sizes)
    if kind == "bool":
        return random.random(sizes) < 0.5
    by_row = np.broadcast_to(np.asarray(scale, dtype=np.float64), (rows,)).reshape([rows, *[1] * (len(sizes) - 1)])
    values = random.integers(0, 10, sizes) if "int" in kind else random.normal(size=sizes)
    return np.asarray(values * by_row).astype(kind)


def difference(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """How far apart two tensors are at most, in parts of the largest number.

    Infinite where they differ in shape or in what is no float, or where only one of them is a number.
    """
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f" or found.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    one, other = expected.astype(np.float64), found.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
    largest = np.max(np.abs(one[np.isfinite(one)]), initial=_LEAST_SCALE)
    return float(np.max(apart, initial=0.0) / largest)


def each_alone(score: Score, draw: Callable[[np.random.Generator, int, Any], Arrays]) -> bool:
    """Whether ``score`` answers rows together what it answers each of them by itself.

    ``draw`` makes rows of a count and of scales, one a row. Rows of unlike scales are scored together, so that a mean
    or a maximum of them all shows. What fails proves nothing, as ids beyond a table.
    """
    random = np.random.default_rng(20130301)
    found = []
    for scales in (*(random.choice(SCALES, _ROWS) for _ in range(_DRAWS)), np.ones(_ROWS)):
        try:
            found.append(_is_alone(score, draw(random, _ROWS, scales)))
        except Exception:  # whatever a model raises at made-up rows
            continue
    return bool(found) and all(found)


def _is_alone(score: Score, rows: Arrays) -> bool:
    together = score(rows)
    for place in range(_ROWS):
        alone = score({name: values[place : place + 1] for name, values in rows.items()})
        pairs = zip(together, alone, strict=True)
        if any(len(all_) != _ROWS or not difference(one, all_[place : place + 1]) <= _TOLERANCE for all_, one in pairs):
            return False
    return True

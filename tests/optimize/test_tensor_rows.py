"""Tensors are compared as they are, and rows that change what is said of others are found."""

from __future__ import annotations

import numpy as np
import pytest

from noria.optimize.conversion.tensor_rows import difference, each_alone, made_up

NAN, INF = np.nan, np.inf


def drawn(random, rows, scale):
    return {"x": made_up(random, "float32", [-1, 3, -1], rows, 4, scale)}


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        ([1.0, NAN, INF], [1.0, NAN, INF], 0.0),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([INF], [-INF], INF),
        ([10.0, 0.0], [10.0, 1.0], 0.1),
        ([[1.0], [2.0]], [1.0, 2.0], INF),
        ([1, 2], [1, 3], INF),
        ([], [], 0.0),
    ],
)
def test_a_number_is_never_near_to_none(expected, found, apart):
    assert difference(np.array(expected), np.array(found)) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("score", "alone"),
    [
        (lambda x: x.sum(axis=(1, 2)), True),
        (np.log, True),
        (lambda x: np.array(["b" if row.sum() > 0 else "a" for row in x], dtype=object), True),
        (lambda x: x - x.mean(axis=0), False),
        (lambda x: x * (np.abs(x).max() > 10), False),
        (lambda x: x.mean(axis=0, keepdims=True), False),
        (lambda x: x / len(x), False),
        (lambda _: 1 / 0, False),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rows_that_depend_on_each_other_are_found(score, alone):
    assert each_alone(lambda given: [score(given["x"])], drawn) is alone


@pytest.mark.parametrize("kind", ["float16", "float64", "int8", "uint16", "bool", "object"])
def test_tensors_are_made_up_in_every_type(kind):
    random = np.random.default_rng(0)
    found = made_up(random, kind, [-1, 2, -1], 5, 7, random.choice([0.01, 1.0, 10.0], 5))
    assert (found.dtype.name, found.shape) == (kind, (5, 2, 7))

"""Conversion: what people train is served as it was evaluated, or refused with the reason."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from noria.errors import InvalidInput
from noria.optimize.bundle import ONNX_FILE
from noria.optimize.onnx import ParityBroken, convert, onnx_scores, source_scores

INPUTS = ["a", "b", "c", "d"]


def rows(count=2000, *, missing=False):
    random = np.random.default_rng(0)
    matrix = random.normal(size=(count, len(INPUTS))) * 100
    if missing:
        matrix[::7, 2] = np.nan
    signal = matrix[:, 0] + np.abs(matrix[:, 1]) + random.normal(size=count) * 20
    return matrix, signal


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        (LogisticRegression(), False),
        (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), True),
        (DecisionTreeClassifier(random_state=0), False),
        (RandomForestClassifier(20, random_state=0), False),
        (GradientBoostingClassifier(n_estimators=20), False),
        (HistGradientBoostingClassifier(max_iter=20), True),
        (LGBMClassifier(n_estimators=20, verbose=-1), True),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_classifier_keeps_its_labels_and_probabilities(model, missing, tmp_path):
    matrix, signal = rows(missing=missing)
    model.fit(matrix, (signal > 60).astype(int))
    found = convert(model, "classification", INPUTS, matrix, tmp_path)
    assert (found.rows_checked, found.labels_flipped) == (2000, 0)
    served = onnx_scores(tmp_path / ONNX_FILE, matrix.astype(found.graph.dtype))
    assert np.abs(served - source_scores(model, "classification", matrix)).max() < 1e-5


@pytest.mark.parametrize("trained_with_missing", [False, True])
@pytest.mark.parametrize(
    "model", [RandomForestClassifier(10, random_state=0), HistGradientBoostingClassifier(max_iter=10)]
)
def test_missing_numbers_go_where_the_trees_send_them(model, trained_with_missing, tmp_path):
    matrix, signal = rows(missing=trained_with_missing)
    model.fit(matrix, (signal > 60).astype(int) ^ np.isnan(matrix[:, 2]))
    matrix[::3, 0] = np.nan
    found = convert(model, "classification", INPUTS, matrix, tmp_path)
    assert (found.labels_flipped, found.largest_difference < 1e-6) == (0, True)


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        RandomForestRegressor(20, random_state=0),
        HistGradientBoostingRegressor(max_iter=20),
        LGBMRegressor(n_estimators=20, verbose=-1),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_regressor_keeps_its_values(model, tmp_path):
    matrix, signal = rows()
    model.fit(matrix, signal)
    found = convert(model, "regression", INPUTS, matrix, tmp_path)
    assert found.largest_difference < 1e-4 * np.abs(signal).max()


def test_a_scaler_before_trees_computes_in_float64_and_the_trees_compare_in_float32(tmp_path):
    matrix, signal = rows(20_000)
    boosted = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)
    model = make_pipeline(StandardScaler(), boosted).fit(matrix, (signal > 60).astype(int))
    found = convert(model, "classification", INPUTS, matrix, tmp_path)
    assert (found.graph.dtype, found.graph.way) == ("float64", "staged matrix")
    assert found.largest_difference < 1e-6


def test_a_graph_that_would_answer_differently_is_refused_and_not_written(tmp_path):
    matrix, signal = rows(20_000)
    matrix = np.round(matrix) + 1e9  # whole numbers that float32 does not tell apart
    model = HistGradientBoostingClassifier(max_iter=20).fit(matrix, (signal > 60).astype(int))
    with pytest.raises(ParityBroken, match="largest difference"):
        convert(model, "classification", INPUTS, matrix, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_number_that_a_model_refuses_has_no_answer(tmp_path):
    matrix, signal = rows(500)
    model = GradientBoostingClassifier(n_estimators=5).fit(matrix, (signal > 60).astype(int))
    found = convert(model, "classification", INPUTS, matrix, tmp_path)
    spoilt = matrix[:3].astype(found.graph.dtype)
    spoilt[1, 2] = np.nan
    assert np.isnan(onnx_scores(tmp_path / ONNX_FILE, spoilt)).tolist() == [False, True, False]


class Coin(ClassifierMixin, BaseEstimator):
    """An estimator no converter knows."""

    def fit(self, _matrix, labels):
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, matrix):
        return np.full((len(matrix), 2), 0.5)


def test_an_estimator_no_converter_knows_is_refused_with_the_reasons(tmp_path):
    matrix, signal = rows(100)
    with pytest.raises(InvalidInput, match="Coin cannot be converted") as caught:
        convert(Coin().fit(matrix, (signal > 60).astype(int)), "classification", INPUTS, matrix, tmp_path)
    assert all("Coin" in detail for detail in caught.value.details)


def test_the_same_model_is_the_same_bytes_in_every_process(tmp_path):
    digests = set()
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-W", "ignore", __file__, folder], env=environment, check=True)
        digests.add(hashlib.sha256((folder / ONNX_FILE).read_bytes()).hexdigest())
    assert len(digests) == 1


if __name__ == "__main__":
    from pathlib import Path

    some_rows, some_signal = rows(300)
    some_model = LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(some_rows, (some_signal > 60).astype(int))
    convert(some_model, "classification", INPUTS, some_rows, Path(sys.argv[1]))

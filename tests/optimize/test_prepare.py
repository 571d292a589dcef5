"""Preparation: a graph stands for a model only where it says all that the model says, and refuses what that refuses."""

from __future__ import annotations

import importlib
import json
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBRegressor

from noria.errors import InvalidData, InvalidInput
from noria.optimize.conversion.closeness import closest
from noria.optimize.prepare import prepare
from noria.serving.runtimes import Rows, load
from optimize.logged_models import prepared

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=list("abc"))
DOUBLES = [{"name": name, "type": "double"} for name in ROWS]
BOTH = np.stack([ROWS.a * 2, ROWS.b - ROWS.c], axis=1)
COUNTS = pd.DataFrame({"age": ROWS.a, "visits": np.arange(300) % 9, "member": np.arange(300) % 2 == 0})
KINDS = {"age": "double", "visits": "long", "member": "boolean"}


@pytest.fixture(autouse=True)
def no_environments(monkeypatch):
    """What is served as it was logged gets no environment: nothing here starts it."""
    monkeypatch.setenv("NORIA_MODEL_PYTHON", sys.executable)


@pytest.mark.parametrize(
    "model", [RandomForestRegressor(5, random_state=0), LinearRegression(), XGBRegressor(n_estimators=5)]
)
def test_a_regressor_of_several_outputs_is_served_as_it_was_logged(model, tmp_path):
    found = prepared(tmp_path, model.fit(ROWS, BOTH), DOUBLES)
    assert (found.bundle.runtime, found.bundle.task) == ("pyfunc", "generic")
    assert "several outputs" in found.notes[0]


def test_a_python_model_without_a_signature_is_refused_with_a_way(tmp_path):
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": {"loader_module": "own"}}}))
    with pytest.raises(InvalidData, match="nobody knows what the model takes") as refused:
        prepare(tmp_path, tmp_path / "prepared")
    assert "signature=" in refused.value.remedy


def test_a_python_model_of_values_that_no_request_holds_is_refused_by_the_columns_name(tmp_path):
    inputs = [{"name": "words", "type": "sparkml_vector"}, {"name": "age", "type": "double"}]
    document = {"flavors": {"python_function": {}}, "signature": {"inputs": json.dumps(inputs)}}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidData, match=r"takes: words \(sparkml_vector\)"):
        prepare(tmp_path, tmp_path / "prepared")


@pytest.mark.parametrize("kept", [0, -1])
def test_a_graph_of_several_outputs_is_never_close_to_one_of_them(kept):
    model = LinearRegression().fit(ROWS.to_numpy(), BOTH)
    columns, rows = [(name, "double") for name in ROWS], ROWS.to_numpy()
    found = closest(model, columns, model.predict(rows)[:, kept], rows, labels=False)
    assert found.largest_difference == np.inf


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_classifier_of_several_labels_is_served_as_it_was_logged(tmp_path):
    model = MLPClassifier((4,), max_iter=5, random_state=0)
    found = prepared(tmp_path, model.fit(ROWS, np.stack([ROWS.a > 0, ROWS.b > 0], axis=1).astype(int)), DOUBLES)
    assert found.bundle.runtime == "pyfunc"
    assert "several outputs" in found.notes[0]


CODE = """
class Search:
    def __init__(self, found):
        self.best_estimator_ = found
"""


def test_a_model_of_its_own_code_is_converted_with_it(tmp_path, monkeypatch):
    code = tmp_path / "logged/code"
    code.mkdir(parents=True)
    (code / "own_search.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(code))
    own = importlib.import_module("own_search")
    (tmp_path / "logged/model.pkl").write_bytes(pickle.dumps(own.Search(LinearRegression().fit(ROWS, ROWS.a))))
    sklearn = {"pickled_model": "model.pkl", "code": "code"}
    flavors = {"sklearn": sklearn, "python_function": {"loader_module": "mlflow.sklearn", "code": "code"}}
    document = {"flavors": flavors, "signature": {"inputs": json.dumps(DOUBLES)}}
    (tmp_path / "logged/MLmodel").write_text(yaml.safe_dump(document))
    (tmp_path / "out").mkdir()
    found = prepare(tmp_path / "logged", tmp_path / "out")
    assert (found.bundle.runtime, found.bundle.task) == ("onnx", "regression"), found.notes


def test_a_graph_refuses_what_its_whole_numbers_cannot_hold_and_names_the_column(tmp_path):
    scaled = make_column_transformer((StandardScaler(), list(COUNTS)))
    model = make_pipeline(scaled, LinearRegression()).fit(COUNTS, COUNTS.age + COUNTS.visits + COUNTS.member * 10)
    columns = [{"name": name, "type": kind, "required": name != "visits"} for name, kind in KINDS.items()]
    found = prepared(tmp_path, model, columns)
    assert (found.bundle.runtime, found.bundle.optional) == ("onnx", ("visits",)), found.notes
    runtime = load(tmp_path / "prepared", found.bundle)
    rows = COUNTS.to_numpy(dtype=np.float64)
    assert runtime.score(Rows(rows)) == pytest.approx(model.predict(COUNTS))
    for name, value in [("visits", np.nan), ("visits", 3.9), ("visits", 2.0**70), ("member", 0.5), ("member", np.nan)]:
        spoilt = rows.copy()
        spoilt[7, list(COUNTS).index(name)] = value
        with pytest.raises(InvalidInput, match=f"column '{name}' is .* in row 7"):
            runtime.score(Rows(spoilt))
    runtime.unload()

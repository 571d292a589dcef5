"""Conversion: what a graph would answer otherwise than its model is found on rows made of what the model knows."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import NuSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

from noria.optimize.bundle import ONNX_FILE, Bundle
from noria.optimize.conversion import run
from noria.optimize.conversion.closeness import largest_difference
from noria.optimize.conversion.samples import sample
from noria.optimize.onnx import onnx_scores
from noria.optimize.prepare import prepare
from noria.serving.items import Outcome, outcome_of
from noria.serving.runtimes import Rows, load
from noria.serving.runtimes.boosters import BoosterRuntime
from optimize.logged_models import converted, prepared, signature_of
from support import mlflow_models_environment

RANDOM = np.random.default_rng(1)
COUNT = 800
NUMBERS = pd.DataFrame({"a": RANDOM.normal(size=COUNT), "b": RANDOM.normal(size=COUNT) * 100})
IS_HIGH = (NUMBERS.a + np.sin(NUMBERS.b / 30) > 0).astype(int)
THIRDS = np.array(["x", "y", "z"])[np.digitize(NUMBERS.a + RANDOM.normal(size=COUNT) * 0.3, [-0.5, 0.5])]
PLACES = pd.DataFrame(
    {
        "city": RANDOM.choice(["Paris", "Oslo", "Köln"], COUNT),
        "plan": RANDOM.choice(["a", "b", "c"], COUNT),
        "v": RANDOM.normal(size=COUNT),
    }
)
IS_LIKELY = ((PLACES.city == "Oslo").astype(int) + (PLACES.plan == "b") + PLACES.v > 0.7).astype(int)


@pytest.fixture(autouse=True)
def no_environments(monkeypatch):
    """What is served as it was logged gets no environment: nothing here starts it."""
    monkeypatch.setenv("NORIA_MODEL_PYTHON", sys.executable)


def encoded(encoder, last):
    """A pipeline of encoded texts, and of numbers as they are."""
    return make_pipeline(ColumnTransformer([("texts", encoder, ["city", "plan"])], remainder="passthrough"), last)


def rows_of(frame: pd.DataFrame) -> Rows:
    """A frame as a gateway hands it to a runtime."""
    texts = [name for name in frame if frame[name].dtype.kind not in "bif"]
    numbers = frame.drop(columns=texts).to_numpy(dtype=np.float64)
    columns = [np.array([None if one != one else one for one in frame[name]], dtype=object) for name in texts]
    return Rows(numbers, np.stack(columns, axis=1) if columns else None)


def served(folder, bundle: Bundle, frame: pd.DataFrame) -> Outcome:
    runtime = load(folder / "prepared", bundle)
    outcome = outcome_of(bundle, runtime.score(rows_of(frame)))
    runtime.unload()
    return outcome


@pytest.mark.parametrize("union", [False, True])
def test_values_that_float32_cannot_hold_are_sampled_where_a_scaler_within_the_model_knows_them(union, tmp_path):
    frame = pd.DataFrame({"city": PLACES.city, "t": 1.7e9 + RANDOM.integers(0, 1000, COUNT)})
    scaler = FeatureUnion([("one", StandardScaler())]) if union else StandardScaler()
    columns = ColumnTransformer([("city", OneHotEncoder(), ["city"]), ("t", scaler, ["t"])])
    model = make_pipeline(columns, LogisticRegression(C=1e6)).fit(frame, (frame.t > 1.7e9 + 500).astype(int))
    numbers, _ = sample(model, [("city", "string"), ("t", "double")])
    assert np.median(numbers) == pytest.approx(1.7e9 + 500, abs=200)
    found = prepared(tmp_path, model, signature_of(frame))
    if found.bundle.runtime == "onnx":
        assert served(tmp_path, found.bundle, frame).predictions == model.predict(frame).tolist()


def test_trees_of_xgboost_in_a_pipeline_compare_in_float32_as_they_do_alone(tmp_path):
    model = encoded(OneHotEncoder(handle_unknown="ignore"), XGBClassifier(n_estimators=20)).fit(PLACES, IS_LIKELY)
    found = prepared(tmp_path, model, signature_of(PLACES))
    assert found.bundle.runtime == "onnx", found.notes
    assert served(tmp_path, found.bundle, PLACES).scores == pytest.approx(model.predict_proba(PLACES)[:, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (make_pipeline(StandardScaler(), SGDClassifier(loss="modified_huber", random_state=0)), THIRDS),
        (make_pipeline(StandardScaler(), NuSVC(probability=True, random_state=0)), THIRDS),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_classifier_that_says_another_class_than_its_likeliest_is_not_converted(model, labels, tmp_path):
    found = prepared(tmp_path, model.fit(NUMBERS, labels), signature_of(NUMBERS))
    assert found.bundle.runtime == "pyfunc"
    assert "highest probability" in found.notes[0]


def test_the_threshold_that_a_model_was_tuned_to_is_the_one_it_is_served_with(tmp_path):
    model = TunedThresholdClassifierCV(LogisticRegression(), scoring="recall").fit(NUMBERS, IS_HIGH)
    found = prepared(tmp_path, model, signature_of(NUMBERS))
    assert found.bundle.decision_threshold == pytest.approx(model.best_threshold_)
    assert served(tmp_path, found.bundle, NUMBERS).predictions == model.predict(NUMBERS).tolist()


def test_a_row_that_half_of_a_forest_votes_for_is_of_the_class_that_the_model_says(tmp_path):
    doubtful = (NUMBERS.a + RANDOM.normal(size=COUNT) > 0).astype(int)
    model = RandomForestClassifier(20, random_state=0).fit(NUMBERS, doubtful)
    fresh = NUMBERS + RANDOM.normal(size=(COUNT, 2)) * [0.1, 10]
    assert np.isclose(model.predict_proba(fresh)[:, 1], 0.5).sum() > 20
    result = converted(tmp_path, model, signature_of(NUMBERS))
    answers = onnx_scores(tmp_path / "prepared" / ONNX_FILE, fresh.to_numpy(np.float32))
    assert (answers > result["threshold"]).tolist() == model.predict(fresh).astype(bool).tolist()


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (GradientBoostingRegressor(n_estimators=5), NUMBERS.a * 3),
        (AdaBoostClassifier(n_estimators=5), THIRDS),
        (KNeighborsRegressor(), NUMBERS.a * 3),
    ],
)
def test_a_missing_number_that_a_model_refuses_has_no_answer_and_the_rest_do(model, target, tmp_path):
    found = prepared(tmp_path, model.fit(NUMBERS, target), signature_of(NUMBERS))
    assert found.bundle.runtime == "onnx", found.notes
    spoilt = NUMBERS.copy()
    spoilt.iloc[::7, 0] = np.nan
    spoilt.iloc[3, 1] = np.inf
    assert np.flatnonzero(np.isnan(served(tmp_path, found.bundle, spoilt).scores)).tolist() == sorted(
        {3, *range(0, COUNT, 7)}
    )


def test_a_category_and_a_null_that_a_model_refuses_have_no_answer_and_the_rest_do(tmp_path):
    model = encoded(OrdinalEncoder(), RandomForestClassifier(10, random_state=0)).fit(PLACES, IS_LIKELY)
    found = prepared(tmp_path, model, signature_of(PLACES))
    assert found.bundle.runtime == "onnx", found.notes
    spoilt = PLACES.copy()
    spoilt.loc[2, "plan"], spoilt.loc[5, "city"], spoilt.loc[7, "v"] = "unknown", None, np.nan
    scores = served(tmp_path, found.bundle, spoilt).scores
    assert np.flatnonzero(np.isnan(scores)).tolist() == [2, 5]
    kept = [0, 1, *range(8, COUNT)]
    assert scores[kept] == pytest.approx(model.predict_proba(PLACES)[kept, 1], abs=1e-6)


def test_a_whole_number_that_an_encoder_never_saw_has_no_answer(tmp_path):
    frame = pd.DataFrame({"code": RANDOM.integers(0, 9, COUNT), "v": PLACES.v})
    columns = ColumnTransformer([("code", OrdinalEncoder(), ["code"])], remainder="passthrough")
    model = make_pipeline(columns, DecisionTreeClassifier(max_depth=3)).fit(frame, (frame.code > 4).astype(int))
    found = prepared(tmp_path, model, signature_of(frame))
    assert found.bundle.runtime == "onnx", found.notes
    unknown = pd.DataFrame({"code": [4, 77, -1], "v": [0.0, 0.0, 0.0]})
    assert np.isnan(served(tmp_path, found.bundle, unknown).scores).tolist() == [False, True, True]


def test_a_category_that_a_model_takes_and_its_graph_does_not_keeps_it_as_it_was_logged(tmp_path):
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=260)
    found = prepared(tmp_path, encoded(encoder, LogisticRegression()).fit(PLACES, IS_LIKELY), signature_of(PLACES))
    assert found.bundle.runtime == "pyfunc"


def test_a_null_that_is_a_category_keeps_a_model_as_it_was_logged_where_its_graph_knows_none(tmp_path):
    frame = PLACES.copy()
    frame.loc[::9, "city"] = None
    model = encoded(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(
        frame, IS_LIKELY | frame.city.isna()
    )
    found = prepared(tmp_path, model, signature_of(frame))
    assert found.bundle.runtime == "pyfunc"
    assert "differs from its model" in found.notes[0]


def test_words_are_lowered_where_no_language_is_installed_too(tmp_path):
    words = np.array(["Gut", "GUT", "schlecht", "Ärger", "ärger", "Straße", "ОЧЕНЬ", "очень"])
    texts = pd.DataFrame({"text": [" ".join(RANDOM.choice(words, 5)) for _ in range(COUNT)]})
    is_good = texts.text.str.lower().str.contains("gut")
    counts = CountVectorizer(token_pattern=r"\S+")
    model = make_pipeline(ColumnTransformer([("words", counts, "text")]), LogisticRegression())
    found = prepared(tmp_path, model.fit(texts, is_good), signature_of(texts))
    assert found.bundle.runtime == "onnx", found.notes
    outcome = served(tmp_path, found.bundle, texts)
    assert outcome.scores == pytest.approx(model.predict_proba(texts)[:, 1], abs=1e-6)


def test_a_value_is_compared_by_its_own_size_not_by_that_of_the_largest():
    expected = np.logspace(0, 28, 1000)
    answers = expected.copy()
    answers[500] *= 2
    assert largest_difference(expected, answers, labels=False) == pytest.approx(1)
    assert largest_difference(expected, np.where(expected > 1e20, np.inf, expected), labels=False) == np.inf


def test_sums_that_cancel_out_are_compared_by_what_is_small_and_not_by_themselves():
    expected = np.append(RANDOM.normal(size=1000), 1e-12)
    assert largest_difference(expected, expected + 1e-8, labels=False) < 1e-6


@pytest.mark.parametrize("label", ["only", 0])
def test_a_classifier_of_one_class_says_it(label, tmp_path):
    model = DecisionTreeClassifier().fit(NUMBERS, [label] * COUNT)
    bundle = Bundle("classification", ("a", "b"), classes=(label,))
    outcome = outcome_of(bundle, model.predict_proba(NUMBERS)[:, -1])
    assert set(outcome.predictions) == {label}
    assert outcome.probabilities is not None and (outcome.probabilities == 1).all()


def test_whole_numbers_that_no_double_tells_apart_keep_a_model_from_conversion(tmp_path):
    frame = pd.DataFrame({"id": RANDOM.integers(2**60, 2**60 + 50, COUNT), "v": PLACES.v})
    columns = ColumnTransformer([("id", OneHotEncoder(handle_unknown="ignore"), ["id"])], remainder="passthrough")
    found = prepared(tmp_path, make_pipeline(columns, LogisticRegression()).fit(frame, IS_LIKELY), signature_of(frame))
    assert found.bundle.runtime == "pyfunc"
    assert found.notes[0].startswith("id: whole numbers beyond 2^53")


def test_trees_after_the_best_ones_of_an_early_stop_are_not_in_the_native_file(tmp_path):
    model = XGBRegressor(n_estimators=300, learning_rate=0.8, early_stopping_rounds=5)
    noisy = NUMBERS.a * 3 + RANDOM.normal(size=COUNT)
    model.fit(NUMBERS[:500], noisy[:500], eval_set=[(NUMBERS[500:], noisy[500:])], verbose=False)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    columns = [[name, "double"] for name in NUMBERS]
    spec = {"folder": str(tmp_path), "out": str(tmp_path), "columns": columns, "tensors": []}
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"flavors": {"sklearn": {"pickled_model": "model.pkl"}}}))
    run.main(str(tmp_path / "spec.json"))
    native = json.loads((tmp_path / "result.json").read_text())["native"]
    runtime = BoosterRuntime(tmp_path, Bundle("regression", ("a", "b")), native)
    assert runtime.score(rows_of(NUMBERS)) == pytest.approx(model.predict(NUMBERS), abs=1e-5)


_LOG = """
import sys, lightgbm, mlflow, numpy
rows = numpy.random.default_rng(0).normal(size=(300, 3))
model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(rows, (rows[:, 0] > 0).astype(int))
mlflow.lightgbm.save_model(model, sys.argv[1])
"""


@pytest.mark.peer
def test_an_estimator_of_lightgbm_as_mlflow_saves_it_by_default_becomes_a_graph(tmp_path, monkeypatch):
    monkeypatch.delenv("NORIA_MODEL_PYTHON")
    logged, out = tmp_path / "logged", tmp_path / "prepared"
    subprocess.run([mlflow_models_environment(), "-c", _LOG, logged], check=True)
    out.mkdir()
    found = prepare(logged, out)
    assert found.bundle.runtime == "onnx", found.notes

"""Columns as people have them: whole numbers beside others, texts of every script, categories called None."""

from __future__ import annotations

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from noria.optimize.bundle import Bundle
from noria.optimize.conversion.run import _task_of
from noria.optimize.prepare import _from_result
from noria.serving.items import Outcome, outcome_of
from noria.serving.runtimes import Labelled, load
from optimize.logged_models import converted, signature_of
from optimize.test_conversion import rows_of

RANDOM = np.random.default_rng(4)
COUNT = 400
MIXED = pd.DataFrame(
    {"a": RANDOM.normal(size=COUNT), "count": RANDOM.integers(0, 90, COUNT), "flag": RANDOM.random(COUNT) < 0.5}
)
IS_MANY = (MIXED["count"] > 40) ^ MIXED.flag


def outcome(folder, model, frame, asked) -> Outcome:
    """What the graph of a model of ``frame`` says of the rows ``asked``."""
    result = converted(folder, model, signature_of(frame))
    assert "failures" not in result, result
    bundle = _from_result(folder / "prepared", result | {"optional": []}).bundle
    runtime = load(folder / "prepared", bundle)
    found = outcome_of(bundle, runtime.score(rows_of(asked)))
    runtime.unload()
    return found


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(5, random_state=0),
        xgboost.XGBClassifier(n_estimators=5),
        lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
    ],
)
def test_a_model_of_whole_numbers_and_truth_values_beside_doubles_becomes_a_graph(model, tmp_path):
    target = IS_MANY if isinstance(model, lightgbm.LGBMClassifier) else IS_MANY.astype(int)
    found = outcome(tmp_path, model.fit(MIXED, target), MIXED, MIXED)
    assert found.predictions == model.predict(MIXED).tolist()
    assert found.scores == pytest.approx(model.predict_proba(MIXED)[:, 1], abs=1e-6)


@pytest.mark.parametrize("sublinear", [False, True])
def test_words_of_every_script_count_and_single_letters_do_not(sublinear, tmp_path):
    said = ["ok I guess", "terrible; broke after 2 days", "Überraschend gut!", "не работает", "None", ""]
    texts = pd.DataFrame({"text": RANDOM.choice(said, COUNT)})
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=sublinear)
    model = make_pipeline(ColumnTransformer([("t", vectorizer, "text")]), LogisticRegression())
    model.fit(texts, texts.text.str.contains("ok|не|gut|None").astype(int))
    asked = pd.DataFrame({"text": [*said, "gut, ok?", "I don't guess, guess, guess", "работает", "naïve", None]})
    scores = outcome(tmp_path, model, texts, asked).scores
    assert scores[:-1] == pytest.approx(model.predict_proba(asked[:-1])[:, 1], abs=1e-5)
    assert np.isnan(scores[-1])  # which the model refuses


def test_a_category_called_none_is_told_from_a_null(tmp_path):
    frame = pd.DataFrame({"city": RANDOM.choice(["None", "nan", "", "Oslo"], COUNT), "v": RANDOM.normal(size=COUNT)})
    encoder = ColumnTransformer([("city", OneHotEncoder(handle_unknown="ignore"), ["city"])], remainder="passthrough")
    model = make_pipeline(encoder, LogisticRegression()).fit(frame, (frame.city == "None").astype(int))
    asked = pd.DataFrame({"city": ["None", "nan", "", "Oslo", "new", None], "v": 0.5})
    expected = model.predict_proba(asked.fillna({"city": np.nan}))[:, 1]
    assert outcome(tmp_path, model, frame, asked).scores == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("imputer", "encoder", "unknown_is_refused"),
    [
        (SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"), False),
        (SimpleImputer(strategy="constant", fill_value="none"), OrdinalEncoder(), True),
    ],
)
def test_a_null_among_texts_is_imputed_as_the_model_imputes_it(imputer, encoder, unknown_is_refused, tmp_path):
    frame = pd.DataFrame({"age": MIXED.a, "city": RANDOM.choice(["Oslo", "Bonn", "Rome"], COUNT)}).astype(object)
    frame.loc[::7, "age"] = frame.loc[::5, "city"] = np.nan
    frame["age"] = frame.age.astype(float)
    steps = [("age", SimpleImputer(strategy="median"), ["age"]), ("city", make_pipeline(imputer, encoder), ["city"])]
    model = make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(frame, frame.city.isin(["Oslo", "Rome"]))
    asked = pd.DataFrame({"age": [0.1, np.nan, 0.3, np.nan, 1.0], "city": ["Oslo", "Rome", None, None, "Bonn"]})
    unknown = pd.DataFrame({"age": [0.5], "city": ["Paris"]})
    scores = outcome(tmp_path, model, frame, pd.concat([asked, unknown])).scores
    assert scores[:-1] == pytest.approx(model.predict_proba(asked.fillna({"city": np.nan}))[:, 1], abs=1e-6)
    assert np.isnan(scores[-1]) == unknown_is_refused


@pytest.mark.parametrize(
    ("numeric", "last"),
    [
        (StandardScaler(), RandomForestClassifier(9, random_state=0)),
        (make_pipeline(SimpleImputer(), StandardScaler()), xgboost.XGBClassifier(n_estimators=5)),
    ],
)
@pytest.mark.parametrize("names", [("Größe (cm)", "a b", "numbers"), ("a", "label", "1.5")])
def test_numbers_scaled_beside_encoded_texts_reach_trees_as_the_doubles_that_they_are(names, numeric, last, tmp_path):
    places, numbers = RANDOM.choice(["Oslo", "Bonn", "Rome"], COUNT), MIXED.a * 1000 + 3000
    frame = pd.DataFrame(dict(zip(names, (places, numbers, MIXED["count"]), strict=True)))
    encoder = OneHotEncoder(handle_unknown="ignore")
    encoded = ColumnTransformer([("texts", encoder, [names[0]]), ("numbers", numeric, list(names[1:]))])
    model = make_pipeline(encoded, last).fit(frame, (IS_MANY & (places != "Rome")).astype(int))
    found = outcome(tmp_path, model, frame, frame)
    assert found.predictions == model.predict(frame).tolist()
    assert found.scores == pytest.approx(model.predict_proba(frame)[:, 1], abs=1e-6)


@pytest.mark.parametrize("together", [VotingClassifier, StackingClassifier])
def test_models_made_of_forests_and_others_become_graphs(together, tmp_path):
    members = [("forest", RandomForestClassifier(3, random_state=0)), ("line", LogisticRegression())]
    options = {"voting": "soft", "weights": [2, 1]} if together is VotingClassifier else {"cv": 2}
    numbers = MIXED[["a"]]
    model = together(members, **options).fit(numbers, np.digitize(numbers.a, [-0.5, 0.5]))
    found = outcome(tmp_path, model, numbers, numbers)
    assert found.predictions == model.predict(numbers).tolist()
    assert found.probabilities == pytest.approx(model.predict_proba(numbers).max(axis=1), abs=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        BaggingClassifier(n_estimators=3, random_state=0),
        VotingClassifier([(str(depth), DecisionTreeClassifier(max_depth=depth)) for depth in (3, 6)], voting="soft"),
    ],
)
def test_a_missing_number_takes_the_side_that_each_of_several_trees_learned(model, tmp_path):
    numbers = MIXED[["a"]].mask(RANDOM.random((COUNT, 1)) < 0.2)
    found = outcome(tmp_path, model.fit(numbers, IS_MANY.astype(int)), numbers, numbers)
    assert found.predictions == model.predict(numbers).tolist()
    assert found.scores == pytest.approx(model.predict_proba(numbers)[:, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("func", "inverse", "last"),
    [
        (np.log1p, np.expm1, make_pipeline(StandardScaler(), LinearRegression())),
        (np.log, np.exp, LinearRegression()),
        (np.sqrt, np.square, DecisionTreeRegressor(max_depth=3)),
        (None, None, HistGradientBoostingRegressor(max_iter=5, loss="poisson")),
    ],
)
def test_a_model_of_the_logarithm_of_its_target_answers_the_target(func, inverse, last, tmp_path):
    numbers = MIXED[["a", "count"]]
    target = TransformedTargetRegressor(last, func=func, inverse_func=inverse) if func else last
    model = make_pipeline(StandardScaler(), target).fit(numbers, np.exp(numbers.a) + numbers["count"] / 10 + 1)
    assert outcome(tmp_path, model, numbers, numbers).scores == pytest.approx(model.predict(numbers), rel=1e-5)


def test_a_model_that_is_sent_an_instant_beside_what_it_takes_is_served_as_it_was_logged(tmp_path):
    frame = MIXED.assign(at=pd.Timestamp("2024-01-31"))[["at", "a", "count"]]
    model = make_pipeline(ColumnTransformer([("n", "passthrough", ["a"])]), LogisticRegression()).fit(frame, IS_MANY)
    columns = [{"name": "at", "type": "datetime"}, *signature_of(MIXED[["a", "count"]])]
    told = converted(tmp_path, model, columns)
    assert told["failures"] == ["at: no graph takes instants, bytes or nested values"]
    assert (told["known"]["task"], told["known"]["classes"]) == ("classification", [False, True])


def test_a_number_that_no_float32_holds_is_refused_as_the_model_refuses_it(tmp_path):
    numbers = MIXED[["a"]]
    model = RandomForestClassifier(5, random_state=0).fit(numbers, IS_MANY)
    scores = outcome(tmp_path, model, numbers, pd.DataFrame({"a": [0.5, 1e300, -1e300, 1e30, np.nan]})).scores
    assert np.isnan(scores).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize(
    "model",
    [
        lightgbm.LGBMRegressor(n_estimators=3, min_child_samples=3, verbose=-1),
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=3),
    ],
)
def test_instants_that_a_float32_does_not_tell_apart_keep_trees_from_becoming_a_graph(model, tmp_path):
    frame = pd.DataFrame({"at": 1_700_000_000.0 + np.arange(COUNT)})
    model = model.fit(frame, frame["at"] % 7)
    assert converted(tmp_path, model, signature_of(frame))["largest_difference"] > 0.01


@pytest.mark.parametrize("objective", ["binary:logitraw", "binary:hinge"])
def test_a_booster_whose_objective_gives_no_probability_predicts_a_value(objective):
    booster = xgboost.train({"objective": objective}, xgboost.DMatrix(MIXED, IS_MANY), 2)
    assert _task_of(booster) == ("regression", [])


def test_what_a_model_answers_that_is_no_graph_is_known_by_asking_it(tmp_path):
    frame = MIXED.assign(count=MIXED["count"] % 3, plan=RANDOM.choice(["a", "b"], COUNT))
    model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1)
    model.fit(frame.astype({"plan": "category", "count": "category"}), np.array(["x", "y"])[IS_MANY.astype(int)])
    result = converted(tmp_path, model, signature_of(frame))
    assert result["failures"] == ["count, plan: no converter knows categories of pandas"]
    assert (result["known"]["task"], result["known"]["classes"]) == ("classification", ["x", "y"])
    assert result["known"]["categorical"] == ["count", "plan"]


def test_a_model_that_was_logged_to_answer_by_another_function_keeps_it(tmp_path):
    model = LogisticRegression().fit(MIXED, IS_MANY)
    result = converted(tmp_path, model, signature_of(MIXED), predict_fn="predict_proba")
    assert result["failures"] == ["it was logged to answer by its predict_proba"]
    assert "task" not in result["known"]


def test_a_label_that_is_not_the_likeliest_comes_with_its_own_probability():
    places, every = np.array([1, 0]), np.array([[0.6, 0.4], [0.7, 0.3]])
    two = outcome_of(Bundle("classification", classes=("no", "yes")), Labelled(places, every), 2)
    assert (two.predictions, two.probabilities.tolist(), two.scores.tolist()) == (["yes", "no"], [0.4, 0.7], [0.4, 0.3])
    three = np.array([[0.2, 0.5, 0.3]])
    found = outcome_of(Bundle("classification", classes=(1, 2, 3)), Labelled(np.array([2]), three), 1)
    assert (found.predictions, found.probabilities.tolist()) == ([3], [0.3])
    assert found.all_classes.tolist() == three.tolist()

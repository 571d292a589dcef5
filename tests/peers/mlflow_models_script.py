"""Logs models of many flavors with the stock client: run with its own interpreter, prints what each answers."""

import json
import sys

import mlflow
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

mlflow.set_tracking_uri(sys.argv[1])
random = np.random.default_rng(0)
frame = pd.DataFrame(
    {
        "age": random.integers(18, 90, 600),
        "income": random.normal(3000, 800, 600),
        "plan": random.choice(["basic", "plus", "pro"], 600),
    }
)
churned = ((frame["age"] < 40) & (frame["plan"] == "basic")).astype(int)
numbers = pd.DataFrame(random.normal(size=(600, 4)), columns=list("abcd"))
three = np.digitize(numbers["a"] + numbers["b"], [-0.7, 0.7])
found = {}


def logged(name, model, log, rows, answers, **options):
    signature = mlflow.models.infer_signature(rows, answers)
    with mlflow.start_run():
        log(model, name="model", registered_model_name=name, signature=signature, **options)
    found[name] = {"rows": json.loads(rows.head(5).to_json(orient="split")), "answers": answers[:5].tolist()}


def pipeline(last):
    encoded = make_column_transformer((OneHotEncoder(), ["plan"]), (StandardScaler(), ["age", "income"]))
    return make_pipeline(encoded, last)


def sklearn_models():
    log, options = mlflow.sklearn.log_model, {"serialization_format": "cloudpickle"}
    mixed = pipeline(LogisticRegression()).fit(frame, churned)
    logged("mixed", mixed, log, frame, mixed.predict(frame), **options)
    classes = RandomForestClassifier(20, random_state=0).fit(numbers, np.array(["low", "mid", "high"])[three])
    logged("three-classes", classes, log, numbers, classes.predict(numbers), **options)
    values = HistGradientBoostingRegressor(max_iter=20).fit(numbers, numbers["a"] * 3)
    logged("values", values, log, numbers, values.predict(numbers), **options)


def boosters():
    import lightgbm
    import xgboost

    trees = xgboost.XGBClassifier(n_estimators=20).fit(numbers, three)
    logged("xgboost", trees, mlflow.xgboost.log_model, numbers, trees.predict(numbers))
    data = lightgbm.Dataset(numbers, numbers["c"] > 0)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, data, 20)
    logged("lightgbm", booster, mlflow.lightgbm.log_model, numbers, booster.predict(numbers))


class Sentences(mlflow.pyfunc.PythonModel):
    """A model of its own kind: texts in, objects out, with a parameter."""

    def predict(self, context, model_input, params=None):
        del context
        word = (params or {}).get("word", "is")
        lines = zip(model_input["plan"], model_input["age"], strict=True)
        return [{"text": f"{plan} {word} {age:.0f}"} for plan, age in lines]


def python_models():
    signature = mlflow.models.infer_signature(frame[["plan", "age"]], [{"text": "a"}], params={"word": "is"})
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            python_model=Sentences(), name="model", registered_model_name="sentences", signature=signature
        )
    found["sentences"] = {
        "rows": json.loads(frame[["plan", "age"]].head(5).to_json(orient="split")),
        "answers": Sentences().predict(None, frame[["plan", "age"]].head(5)),
    }


def without_signature():
    model = LogisticRegression().fit(numbers.to_numpy(), numbers["a"] > 0)
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model, name="model", registered_model_name="classic", serialization_format="cloudpickle"
        )
    found["classic"] = {
        "rows": {"columns": [f"x{n}" for n in range(4)], "data": numbers.head(5).to_numpy().tolist()},
        "answers": model.predict(numbers.head(5).to_numpy()).astype(int).tolist(),
    }


def graphs():
    from skl2onnx import to_onnx

    model = LogisticRegression().fit(numbers.to_numpy(np.float32), numbers["a"] > 0)
    graph = to_onnx(model, numbers.to_numpy(np.float32)[:1], options={"zipmap": False})
    with mlflow.start_run():
        mlflow.onnx.log_model(graph, name="model", registered_model_name="graph")
    found["graph"] = {"rows": numbers.head(5).to_numpy().tolist(), "answers": model.predict(numbers.head(5)).tolist()}


mlflow.set_experiment("flavors")
for part in (sklearn_models, boosters, python_models, without_signature, graphs):
    part()
print(json.dumps(found, default=lambda value: value.item()))

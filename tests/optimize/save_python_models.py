"""Run by MLflow's interpreter: save models that no graph can stand for, each in a folder below the one named."""

import json
import sys
from pathlib import Path

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import pydantic
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property


class Sums(mlflow.pyfunc.PythonModel):
    """A tensor in, in the signature's type, and one out."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        assert model_input.dtype == np.float32
        model_input *= 2  # arrays are the model's own
        return model_input.sum(axis=(1, 2))


class Named(mlflow.pyfunc.PythonModel):
    """Tensors in and out by name, one of texts."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        words = [f"{word}!" for word in model_input["word"]]
        return {"total": model_input["p"].sum(axis=1) + model_input["q"][:, 0], "word": np.array(words)}


class Total(mlflow.pyfunc.PythonModel):
    """One tensor for all rows."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        return model_input.sum(axis=(0, 2))


class Matrix(mlflow.pyfunc.PythonModel):
    """The sum of each row of a matrix in the signature's type."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        assert model_input.dtype == np.float32
        return model_input.sum(axis=1)


class Columns(mlflow.pyfunc.PythonModel):
    """Says what it was given in every column."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        return [{name: str(value) for name, value in row.items()} for row in model_input.to_dict("records")]


class Scaled(mlflow.pyfunc.PythonModel):
    """A tensor times a param."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        return model_input.sum(axis=(1, 2)) * params["k"]


class ByColumn(mlflow.pyfunc.PythonModel):
    """A dict of columns."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        return {"double": np.array(model_input["a"]) * 2, "word": ["x"] * len(model_input)}


class Nothings(mlflow.pyfunc.PythonModel):
    """What is nothing to pandas, bytes, and the columns' names, of which the signature has none."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        row = {"na": pd.NA, "nat": pd.NaT, "bytes": b"ab", "columns": list(model_input.columns)}
        return [row] * len(model_input)


class Nested(mlflow.pyfunc.PythonModel):
    """What it was given in each column, and as what, in JSON's words."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        return [repr({name: row[name] for name in sorted(row)}) for row in model_input.to_dict("records")]


class Order(pydantic.BaseModel):
    """What a client orders."""

    item: str
    count: int = 1


class Orders(mlflow.pyfunc.PythonModel):
    """Objects in and out, as the hints say."""

    def predict(self, model_input: list[Order]) -> list[Order]:
        return [Order(item=one.item.upper(), count=one.count * 2) for one in model_input]


class Dates(mlflow.pyfunc.PythonModel):
    """The instants as it was given them, and as what."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        return [f"{model_input['at'].dtype} {one}" for one in model_input["at"]]


FLOAT = np.dtype("float32")
NAMED = [
    TensorSpec(FLOAT, (-1, 3), "p"),
    TensorSpec(np.dtype("int64"), (-1, 1), "q"),
    TensorSpec(np.dtype("str"), (-1,), "word"),
]
COLUMNS = [
    ColSpec("boolean", "flag"),
    ColSpec("double", "amount", required=False),
    ColSpec("long", "count", required=False),
    ColSpec("string", "word", required=False),
]
NESTED = [
    ColSpec(Array(DataType.double), "array"),
    ColSpec(Object([Property("a", DataType.string), Property("b", DataType.long, required=False)]), "object"),
    ColSpec(Map(DataType.string), "map"),
    ColSpec(AnyType(), "any"),
    ColSpec("binary", "binary"),
    ColSpec("long", "count"),
]
MODELS = {
    "sums": (Sums(), ModelSignature(Schema([TensorSpec(FLOAT, (-1, 2, 3))]), Schema([TensorSpec(FLOAT, (-1,))]))),
    "named": (Named(), ModelSignature(Schema(NAMED))),
    "total": (Total(), ModelSignature(Schema([TensorSpec(FLOAT, (-1, 2, 3))]))),
    "matrix": (Matrix(), ModelSignature(Schema([TensorSpec(FLOAT, (-1, 2))]))),
    "columns": (Columns(), ModelSignature(Schema(COLUMNS))),
    "scaled": (
        Scaled(),
        ModelSignature(Schema([TensorSpec(FLOAT, (-1, 2, 3))]), params=ParamSchema([ParamSpec("k", "double", 2.0)])),
    ),
    "nested": (Nested(), ModelSignature(Schema(NESTED))),
    "orders": (Orders(), None),
    "dates": (Dates(), ModelSignature(Schema([ColSpec("datetime", "at", required=False)]))),
    "nothings": (Nothings(), ModelSignature(Schema([ColSpec("double"), ColSpec("double")]))),
    "bycolumn": (ByColumn(), ModelSignature(Schema([ColSpec("double", "a")]))),
}
for name, (model, signature) in MODELS.items():
    folder = str(Path(sys.argv[1], name))
    mlflow.pyfunc.save_model(
        folder, python_model=model, signature=signature, pip_requirements=["mlflow", "cloudpickle"]
    )

random = np.random.default_rng(0)
plans = pd.DataFrame({"plan": random.choice(["basic", "plus", "pro"], 300), "age": random.integers(18, 90, 300)})
churned = np.where(plans["plan"] == "basic", "left", np.where(plans["age"] > 50, "stayed", "grew"))
trees = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(plans.astype({"plan": "category"}), churned)
mlflow.lightgbm.save_model(
    trees,
    str(Path(sys.argv[1], "category")),
    signature=ModelSignature(Schema([ColSpec("string", "plan"), ColSpec("long", "age")])),
    pip_requirements=["mlflow", "lightgbm", "scikit-learn", "skops"],
)
asked = plans.head(5).astype({"plan": pd.CategoricalDtype(["basic", "plus", "pro"])})
told = {"labels": trees.predict(asked).tolist(), "probabilities": trees.predict_proba(asked).max(axis=1).tolist()}
Path(sys.argv[1], "category.json").write_text(json.dumps(told | {"rows": plans.head(5).to_dict("records")}))

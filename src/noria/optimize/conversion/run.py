"""Converts the model of an MLflow folder, in a process of its own and with the packages that the model needs.

Called with a JSON file: {"folder", "out", "flavors", "columns", "tensors"}. Writes what it made into "out", and beside
it result.json, which says what it is or why there is none.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from noria.optimize.conversion.closeness import NotConverted, beside_ties, closest, flips, largest_difference
from noria.optimize.conversion.graphs import NUMERIC, scores_of, session_of, unwrapped
from noria.optimize.conversion.guards import guarded, refused_by
from noria.optimize.conversion.loading import load
from noria.optimize.conversion.marks import booster_of
from noria.optimize.conversion.samples import (
    categories_of,
    null_text_of,
    oddities_of,
    own_thresholds,
    pandas_categories_of,
    present,
    rounded_in,
    sample,
    sprinkle,
)
from noria.optimize.conversion.tensors import convert_torch, convert_torch_of_columns

_BATCHES = (1, 32, 256, 2048)
_ROWS_TRIED = 20
_SECONDS_A_BATCH = 0.15
_LEAST_INTEGER, _MOST_INTEGER = -(2.0**31), 2.0**31 - 1
_SAME = 1e-4
_WHOLE = {"long": np.int64, "integer": np.int32, "boolean": np.bool_}
_NO_PROBABILITY = ("binary:logitraw", "binary:hinge")
_SEVERAL = "a model of several outputs is not converted"


def main(spec_file: str) -> None:
    """Convert, and write result.json."""
    spec = json.loads(Path(spec_file).read_text())
    out = Path(spec["out"])
    if code := spec["flavors"].get("python_function", {}).get("code"):
        sys.path.insert(0, str(Path(spec["folder"], code)))  # what MLflow does with a model's code_paths
    known: dict[str, Any] = {}
    try:
        result = _convert(Path(spec["folder"]), out, spec["flavors"], spec["columns"], spec["tensors"], known)
    except NotConverted as failures:
        result = {"failures": list(failures.args)}
    except Exception as error:  # the model's own code runs here
        result = {"failures": [f"{type(error).__name__}: {error}"], "traceback": traceback.format_exc()}
    result["known"] = known
    (out / "result.json").write_text(json.dumps(result))


def _convert(
    folder: Path, out: Path, flavors: dict[str, Any], columns: list[Any], tensors: list[Any], known: dict[str, Any]
) -> dict[str, Any]:
    """What became of the model; ``known`` is told what there is to know of it should nothing come of that."""
    if "pytorch" in flavors:
        data, write = folder / flavors["pytorch"]["model_data"], convert_torch if tensors else convert_torch_of_columns
        return write(data, out, tensors or columns, folder)
    model = unwrapped(load(folder, flavors))
    columns = [(name, kind) for name, kind in columns] or _columns_of(model)
    known |= {"columns": columns, "categorical": pandas_categories_of(model)}
    if (function := flavors.get("python_function", {}).get("predict_fn", "predict")) != "predict":
        raise NotConverted(f"it was logged to answer by its {function}")
    known |= _told_by(model, columns, _example(folder))
    if strange := [name for name, kind in columns if kind not in (*NUMERIC, "string")]:
        raise NotConverted(f"{', '.join(strange)}: no graph takes instants, bytes or nested values")
    if known["categorical"]:
        raise NotConverted(f"{', '.join(known['categorical'])}: no converter knows categories of pandas")
    if rounded := rounded_in(model, columns):
        raise NotConverted(f"{', '.join(rounded)}: whole numbers beyond 2^53 travel rounded; train on them as texts")
    numbers, strings = sample(model, columns, _example(folder))
    example = _row(columns, numbers, strings)
    task, classes = _task_of(model)
    ask = _Asked(model, columns, task)
    oddities = list(oddities_of(model, columns))
    refused = refused_by(ask, oddities, numbers, strings)
    sprinkle([one for one in oddities if one not in refused and not one.is_large], numbers, strings)
    expected = ask(numbers, strings)
    labels = ask.labels(numbers, strings) if task == "classification" and hasattr(model, "predict_proba") else None
    threshold = 0.5 if labels is None else _threshold_of(model, labels, expected)
    categories = categories_of(model, [name for name, _ in columns])
    found = closest(
        model,
        columns,
        expected,
        numbers,
        strings,
        labels=task == "classification",
        threshold=threshold,
        null_text=null_text_of(categories),
    )
    if labels is not None and len(classes) == 2:
        answers = scores_of(found.graph, numbers, strings, labels=True)
        threshold = beside_ties(threshold, answers, (labels == np.asarray(model.classes_))[:, 1])
    graph = guarded(found.graph, refused, numbers, strings, categories)
    (out / "model.onnx").write_bytes(graph.content)
    result: dict[str, Any] = {
        "task": task,
        "threshold": threshold,
        "classes": classes,
        "predicts_scores": _predicts_scores(model, task),
        "columns": columns,
        "numbers": graph.numbers,
        "strings": graph.strings,
        "null_text": graph.null_text,
        "score": graph.score,
        "dtype": graph.dtype,
        "way": graph.way,
        "rows_checked": found.rows_checked,
        "labels_flipped": found.labels_flipped,
        "largest_difference": found.largest_difference,
        "algorithm": type(model).__name__,
        "example": example,
    }
    return result | _native(model, out, graph, numbers, expected)


def _row(columns: list[tuple[str, str]], numbers: Any, strings: Any) -> list[Any]:
    """One of the rows checked, in the order of the columns; null where a number is missing."""
    left, words = iter(numbers[0].tolist()), iter([] if strings is None else strings[0].tolist())
    row = [next(words) if kind == "string" else _within(kind, next(left)) for _, kind in columns]
    return [None if value != value else value for value in row]


def _within(kind: str, value: float) -> float:
    """The nearest value that a kind can hold: those near a threshold may lie beyond, and are refused when served."""
    return min(max(value, _LEAST_INTEGER), _MOST_INTEGER) if kind == "integer" else value


def _told_by(model: Any, columns: list[tuple[str, str]], example: Any) -> dict[str, Any]:
    """Task and classes of a model that answers its rows with one of its classes, or a number; found by asking it."""
    try:
        task, classes = _task_of(model)
        ask = _Asked(model, columns, task)
        numbers, strings = sample(model, columns, example)
    except Exception:  # of a model that no sample can be made for nothing is known
        return {}
    for row in range(_ROWS_TRIED):
        one = slice(row, row + 1)
        try:
            scores, labels = ask(numbers[one], None if strings is None else strings[one]), None
            if hasattr(model, "predict_proba"):
                labels = ask.labels(numbers[one], None if strings is None else strings[one])
        except NotConverted:
            return {}
        except Exception:  # the model refuses this row
            continue
        if task == "regression":
            return {"task": task} if ask.gives_fractions else {}
        fits = scores.shape in ((1,), (1, len(classes))) and (labels is None or labels.shape == (1, 1))
        told = {"task": task, "classes": classes, "predicts_scores": _predicts_scores(model, task)}
        return told if fits else {}
    return {}


def _threshold_of(model: Any, labels: Any, expected: Any) -> float:
    """The probability above which a model says the second of two classes: its own, or one half.

    Raises NotConverted for one whose ``labels`` neither explains, as of votes, and for several labels a row.
    """
    if labels.shape[1] > 1:
        raise NotConverted(_SEVERAL)
    said = (labels == np.asarray(model.classes_)).astype(np.float64)
    said = said[:, -1] if said.shape[1] < 3 else said
    for threshold in (*own_thresholds(model), 0.5):
        if not flips(expected, said, threshold, tie=0.0).any():
            return threshold
    raise NotConverted("its labels are not those that it gives the highest probability")


class _Asked:
    """The model's own answers: probabilities as a graph gives them, or values.

    Raises NotConverted for several outputs a row, of which a served row has one.
    """

    def __init__(self, model: Any, columns: list[tuple[str, str]], task: str) -> None:
        self._model, self._columns = model, columns
        self._gives_classes = task == "classification" and hasattr(model, "predict_proba")
        self.gives_fractions = False
        categories = categories_of(model, [name for name, _ in columns])
        self._nulls = {name: None for name, known in categories.items() if None in known}  # to others it is NaN
        self._categorical = pandas_categories_of(model)
        self._named = getattr(model, "feature_names_in_", None) is not None or any(k == "string" for _, k in columns)

    def __call__(self, numbers: Any, strings: Any) -> Any:
        rows, model = self._rows(numbers, strings), self._model
        if type(model).__module__.startswith("xgboost") and not hasattr(model, "get_booster"):
            import xgboost

            names = model.feature_names if strings is None else None
            found = model.predict(xgboost.DMatrix(rows, feature_names=names, enable_categorical=True))
        elif self._gives_classes:
            found = model.predict_proba(rows)
        else:
            found = model.predict(rows)
        self.gives_fractions = np.asarray(found).dtype.kind == "f"
        array = np.asarray(found, dtype=np.float64).reshape(len(numbers), -1)
        if array.shape[1] > 1 and not self._gives_classes:
            raise NotConverted(_SEVERAL)
        return array[:, -1] if array.shape[1] < 3 else array

    def labels(self, numbers: Any, strings: Any) -> Any:
        """What a classifier says, (rows, labels of a row)."""
        return np.asarray(self._model.predict(self._rows(numbers, strings))).reshape(len(numbers), -1)

    def _rows(self, numbers: Any, strings: Any) -> Any:
        return self._frame(numbers, strings) if self._named else numbers

    def _frame(self, numbers: Any, strings: Any) -> Any:
        import pandas as pd

        left = {"string": iter(range(0 if strings is None else strings.shape[1]))}
        places = iter(range(numbers.shape[1]))
        found = {}
        for name, kind in self._columns:
            if kind == "string":
                texts = strings[:, next(left["string"])]
                found[name] = np.where(texts == None, self._nulls.get(name, np.nan), texts)  # noqa: E711  one by one
            else:
                column = numbers[:, next(places)]
                found[name] = column.astype(_WHOLE[kind]) if kind in _WHOLE else column
        return pd.DataFrame(found).astype(dict.fromkeys(self._categorical, "category"))


def _task_of(model: Any) -> tuple[str, list[Any]]:
    """What it predicts, and its classes."""
    classes = getattr(model, "classes_", None)
    if classes is not None and hasattr(model, "predict_proba"):
        if isinstance(classes, list):
            raise NotConverted(_SEVERAL)
        return "classification", [_plain(one) for one in classes]
    objective = _objective(model)
    if objective.startswith(("binary", "reg:logistic")) and objective not in _NO_PROBABILITY:
        return "classification", [0, 1]
    if objective.startswith("multi"):
        raise NotConverted("a booster of several classes without its estimator is not converted")
    if hasattr(model, "decision_function") or not hasattr(model, "predict"):
        raise NotConverted(f"{type(model).__name__} gives no probabilities")
    return "regression", []


def _predicts_scores(model: Any, task: str) -> bool:
    """Whether a classifier's own predict gives probabilities, as that of boosters alone does."""
    return task == "classification" and not hasattr(model, "predict_proba")


def _objective(model: Any) -> str:
    if hasattr(model, "params") and isinstance(model.params, dict):
        return str(model.params.get("objective", ""))
    if hasattr(model, "save_config"):
        return str(json.loads(model.save_config())["learner"]["objective"]["name"])
    return ""


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, int | float | str) else str(value)


def _columns_of(model: Any) -> list[tuple[str, str]]:
    """The columns of a model that was logged without a signature."""
    first = model.steps[0][1] if hasattr(model, "steps") else model
    names = getattr(model, "feature_names_in_", None)
    if names is None and hasattr(model, "feature_name"):
        names = model.feature_name()
    if names is None:
        names = getattr(model, "feature_names", None)
    width = getattr(model, "n_features_in_", None) or getattr(first, "n_features_in_", None)
    if names is None and width is None and hasattr(model, "num_features"):
        width = model.num_features()
    if names is not None:
        listed = [str(name) for name in names]
    elif width is not None:
        listed = [f"x{place}" for place in range(int(width))]
    else:
        raise NotConverted("the model says neither its columns' names nor how many it takes")
    known = {name: present(values) for name, values in categories_of(model, listed).items()}
    texts = {name for name, values in known.items() if all(isinstance(one, str) for one in values)}
    return [(name, "string" if name in texts else "double") for name in listed]


def _example(folder: Path) -> Any:
    """The input example logged with the model, as a pandas frame, or None."""
    path = folder / "input_example.json"
    if not path.is_file():
        return None
    try:
        import pandas as pd

        document = json.loads(path.read_text())
        return pd.DataFrame(document["data"], columns=document["columns"]) if "columns" in document else None
    except Exception:
        return None  # an example only helps


def _native(model: Any, out: Path, graph: Any, numbers: Any, expected: Any) -> dict[str, Any]:
    """For a booster alone its own file, and from how many rows on it is faster than its graph.

    Nothing where the file alone answers otherwise, without what its estimator adds.
    """
    kind = type(model).__module__.split(".")[0]
    if kind not in ("lightgbm", "xgboost"):
        return {}
    booster = _trees_asked(model)
    file = "model.lgb" if kind == "lightgbm" else "model.ubj"
    booster.save_model(str(out / file))
    if kind == "lightgbm":

        def native(rows: Any) -> Any:
            return booster.predict(rows, num_threads=1)
    else:
        booster.set_param({"nthread": 1})

        def native(rows: Any) -> Any:
            return booster.inplace_predict(rows, validate_features=False)

    alone = np.asarray(native(numbers), dtype=np.float64).reshape(expected.shape)
    if largest_difference(expected, alone, labels=expected.ndim > 1) > _SAME:
        (out / file).unlink()
        return {}
    session = session_of(graph.content)
    name = session.get_inputs()[0].name

    def onnx(rows: Any) -> Any:
        return session.run([graph.score], {name: rows.astype(graph.dtype)})

    ratios = {size: _seconds(onnx, numbers, size) / _seconds(native, numbers, size) for size in _BATCHES}
    faster = [size for size in _BATCHES if all(ratios[more] > 1.2 for more in _BATCHES if more >= size)]
    return {"native": {"kind": kind, "file": file, "from_rows": faster[0] if faster else 0, "speed": ratios}}


def _trees_asked(model: Any) -> Any:
    """A model's trees; of an estimator of XGBoost that stopped early, those until its best, which alone it asks."""
    best = getattr(model, "best_iteration", None) if hasattr(model, "get_booster") else None
    return booster_of(model) if best is None else booster_of(model)[: best + 1]


def _seconds(score: Any, numbers: Any, size: int) -> float:
    rows = np.ascontiguousarray(numbers[:size])
    score(rows)
    best, until = float("inf"), time.perf_counter() + _SECONDS_A_BATCH
    while time.perf_counter() < until:
        started = time.perf_counter()
        score(rows)
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main(sys.argv[1])

"""Graphs of fitted estimators: several ways to write one, of which the caller keeps the closest.

Imports nothing of Noria but what lies beside it: it also runs in the environment of a model that needs other versions
than ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.converter_gaps import as_converters_know, correct, last_step
from noria.optimize.conversion.marks import booster_of
from noria.optimize.conversion.samples import WHOLE, categories_of
from noria.optimize.conversion.targets import fitted_on, undone

NUMBERS, STRINGS = "row:numbers", "row:strings"
"""No column is called that in a graph, where converters leave no colon in a name."""
_OPSET, _ML_OPSET, _IR = 17, 3, 8
_TEXTS = ("string",)
NUMERIC = ("double", "float", "long", "integer", "boolean")

Column = tuple[str, str]
"""A name and a kind, as MLflow's signatures have them."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph: its inputs' names (empty where it has none), the type of its numbers, the output with the scores.

    ``null_text`` is what it is given in place of a text that is None.
    """

    content: bytes
    numbers: str
    strings: str
    dtype: Literal["float32", "float64"]
    score: str
    way: str
    null_text: str = "None"


def graphs_of(model: Any, columns: Sequence[Column]) -> Iterator[Graph | str]:
    """Every graph that a converter writes of ``model``; for one that cannot be written, why not.

    Trees compare in float32, after what precedes them computed in float64; linear models need float64 throughout: so
    both are tried, and for pipelines a graph in two stages with a cast between them. Where the estimator takes its
    columns by name, or some are no numbers, columns are fed one by one, split from one matrix of numbers and one of
    texts.
    """
    estimator, operators = fitted_on(unwrapped(model))
    for name, write in _ways(estimator, columns):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the converters' own code, which users cannot act on
                yield undone(write(), operators)
        except Exception as error:  # whatever converters raise: another way may do
            yield f"{name}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__}"


def unwrapped(model: Any) -> Any:
    """The estimator that a finished search found, or the model itself."""
    return getattr(model, "best_estimator_", model)


_DType = Literal["float32", "float64"]
_DTYPES: Sequence[_DType] = ("float64", "float32")


def _ways(model: Any, columns: Sequence[Column]) -> Iterator[tuple[str, Callable[[], Graph]]]:
    for by_column in (False, True):
        if not by_column and any(kind not in NUMERIC for _, kind in columns):
            continue
        where = "columns" if by_column else "matrix"
        for dtype in _DTYPES:
            yield f"{dtype} {where}", partial(_whole, model, columns, dtype, by_column)
        if _is_pipeline(model):
            yield f"staged {where}", partial(_staged, model, columns, by_column)


def _is_pipeline(model: Any) -> bool:
    return hasattr(model, "steps") and len(model.steps) > 1


def _whole(model: Any, columns: Sequence[Column], dtype: _DType, by_column: bool) -> Graph:
    """One conversion of all of it."""
    converted = _convert(model, _types(model, columns, dtype, by_column), dtype)
    return _finished(converted, columns, dtype, by_column, f"{dtype} {'columns' if by_column else 'matrix'}")


def _staged(model: Any, columns: Sequence[Column], by_column: bool) -> Graph:
    """What precedes the last step in float64, a cast, and the last step in float32."""
    from onnx import compose, helper

    before, last = model[:-1], model.steps[-1][1]
    first = _convert(before, _types(model, columns, "float64", by_column), "float64")
    width = int(getattr(last, "n_features_in_", 0)) or None
    second = _convert(last, [("staged", _tensor("float32", width))], "float32")
    for graph in (first, second):
        _normalize(graph)
    first = compose.add_prefix(first, "before_")
    second = compose.add_prefix(second, "last_", rename_outputs=False)
    found = first.graph.output[0].name
    first.graph.node.append(helper.make_node("Cast", [found], ["before_cast"], to=1))
    del first.graph.output[:]
    first.graph.output.append(helper.make_tensor_value_info("before_cast", 1, [None, width]))
    merged = compose.merge_models(first, second, io_map=[("before_cast", second.graph.input[0].name)])
    return _finished(merged, columns, "float64", by_column, f"staged {'columns' if by_column else 'matrix'}")


def _convert(model: Any, types: Sequence[tuple[str, Any]], dtype: str) -> Any:
    """By the converter that knows the model: onnxmltools for boosters alone, skl2onnx for the rest."""
    model = as_converters_know(model)
    kind = type(model).__module__.split(".")[0]
    if kind == "lightgbm":
        import onnxmltools

        if dtype != "float32":
            raise ValueError("LightGBM's converter takes float32")
        return onnxmltools.convert_lightgbm(model, initial_types=_mltools(types), zipmap=False, target_opset=_OPSET - 2)
    if kind == "xgboost":
        import onnxmltools

        if dtype != "float32":
            raise ValueError("XGBoost's converter takes float32")
        return onnxmltools.convert_xgboost(_unnamed(model), initial_types=_mltools(types), target_opset=_OPSET - 2)
    import skl2onnx

    _register_boosters()
    last = last_step(model)
    options = {id(last): {"zipmap": False}} if hasattr(last, "predict_proba") else None
    converted = skl2onnx.convert_sklearn(
        model, initial_types=list(types), options=options, target_opset={"": _OPSET, "ai.onnx.ml": _ML_OPSET}
    )
    correct(converted, last)
    return converted


def _unnamed(model: Any) -> Any:
    """A copy without feature names, which the converter wants numbered, and types, which have thresholds rounded."""
    copied = deepcopy(model)
    booster = booster_of(copied)
    booster.feature_names = booster.feature_types = None
    return copied


def _mltools(types: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    from onnxmltools.convert.common.data_types import FloatTensorType

    if len(types) != 1:
        raise ValueError("boosters take one matrix")
    return [(name, FloatTensorType(kind.shape)) for name, kind in types]


_registered: list[bool] = []


def _register_boosters() -> None:
    """Teach skl2onnx the boosters that are installed, for pipelines with one in them."""
    if _registered:
        return
    _registered.append(True)
    from importlib.util import find_spec

    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    classes, values = shapes.calculate_linear_classifier_output_shapes, shapes.calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    if find_spec("lightgbm") is not None and find_spec("onnxmltools") is not None:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        update_registered_converter(
            lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", classes, convert_lightgbm, options=options
        )
        update_registered_converter(
            lightgbm.LGBMRegressor, "LightGbmLGBMRegressor", values, convert_lightgbm, options={"split": None}
        )
    if find_spec("xgboost") is not None and find_spec("onnxmltools") is not None:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        update_registered_converter(
            xgboost.XGBClassifier, "XGBoostXGBClassifier", classes, convert_xgboost, options=options
        )
        update_registered_converter(xgboost.XGBRegressor, "XGBoostXGBRegressor", values, convert_xgboost)


def _types(model: Any, columns: Sequence[Column], dtype: str, by_column: bool) -> list[tuple[str, Any]]:
    """What the converter is told of the columns: whole numbers are such to encoders alone, to all else floats."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    if not by_column:
        return [("input", _tensor(dtype, len(columns)))]
    encoded = categories_of(model, [name for name, _ in columns])
    found: list[tuple[str, Any]] = []
    for name, kind in columns:
        if kind == "string":
            found.append((name, StringTensorType([None, 1])))
        else:
            is_whole = kind in WHOLE and name in encoded
            found.append((name, Int64TensorType([None, 1]) if is_whole else _tensor(dtype, 1)))
    return found


def _tensor(dtype: str, width: int | None) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return (DoubleTensorType if dtype == "float64" else FloatTensorType)([None, width])


def _finished(converted: Any, columns: Sequence[Column], dtype: _DType, by_column: bool, way: str) -> Graph:
    _impute(converted)
    _normalize(converted)
    names = (converted.graph.input[0].name, "")
    if by_column:
        names = _gather_columns(converted, columns, dtype)
    outputs = [output.name for output in converted.graph.output]
    return Graph(_canonical_bytes(converted), *names, dtype, outputs[-1], way)


def _impute(model: Any) -> None:
    """Imputers as what every runtime computes in float64, too: the constant where there is no number."""
    from onnx import helper, numpy_helper

    graph, nodes = model.graph, []
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "Imputer" or "imputed_value_floats" not in attributes:
            nodes.append(node)
            continue
        values: NDArray[Any] = np.array(attributes["imputed_value_floats"].floats, _element_type(graph))
        constant, absent = f"{node.output[0]}_constant", f"{node.output[0]}_absent"
        graph.initializer.append(numpy_helper.from_array(values.reshape(1, -1), constant))
        nodes.append(helper.make_node("IsNaN", [node.input[0]], [absent]))
        nodes.append(helper.make_node("Where", [absent, constant, node.input[0]], list(node.output)))
    del graph.node[:]
    graph.node.extend(nodes)


def _element_type(graph: Any) -> type:
    """float32 where some input of the graph is, else float64: a graph's numbers are of one type."""
    return np.float32 if any(one.type.tensor_type.elem_type == 1 for one in graph.input) else np.float64


def _gather_columns(model: Any, columns: Sequence[Column], dtype: str) -> tuple[str, str]:
    """In place of an input a column: one matrix of numbers and one of texts, of which the columns are taken."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    element = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    nodes, places = [], {NUMBERS: 0, STRINGS: 0}
    for (_, kind), end in zip(columns, graph.input, strict=True):
        source = STRINGS if kind in _TEXTS else NUMBERS
        place, places[source] = places[source], places[source] + 1
        name, declared = end.name, end.type.tensor_type.elem_type  # converters write a_b for a column "a b"
        index = f"{name}:place"
        graph.initializer.append(numpy_helper.from_array(np.array([place], np.int64), index))
        taken = name if declared in (element, TensorProto.STRING) else f"{name}:taken"
        nodes.append(helper.make_node("Gather", [source, index], [taken], axis=1))
        if taken != name:
            nodes.append(helper.make_node("Cast", [taken], [name], to=declared))
    nodes.extend(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:]
    used = {name for node in graph.node for name in node.input}
    for source, stored in ((NUMBERS, element), (STRINGS, TensorProto.STRING)):
        if source in used:
            graph.input.append(helper.make_tensor_value_info(source, int(stored), [None, places[source]]))
    return NUMBERS if NUMBERS in used else "", STRINGS if STRINGS in used else ""


def _normalize(model: Any) -> None:
    """One set of operators for all parts: converters ask for the least that each needs."""
    from onnx import helper

    others = [entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx.ml")]
    del model.opset_import[:]
    wanted = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET), *others]
    model.opset_import.extend(sorted(wanted, key=lambda entry: entry.domain))
    model.ir_version = _IR


def _canonical_bytes(model: Any) -> bytes:
    """The same model as the same bytes: converters draw a random name."""
    model.graph.name = "model"
    return bytes(model.SerializeToString(deterministic=True))


def session_of(content: bytes) -> Any:
    """A session of a graph's bytes, quiet: what fails is raised and told in our words."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def feeds_of(graph: Graph, numbers: NDArray[Any], strings: NDArray[np.object_] | None) -> dict[str, Any]:
    """Rows as a graph takes them."""
    feeds: dict[str, Any] = {}
    if graph.numbers:
        with np.errstate(over="ignore"):  # what is too large for a float32 is infinite to the graph, as when it serves
            feeds[graph.numbers] = numbers.astype(graph.dtype)
    if graph.strings and strings is not None:
        feeds[graph.strings] = np.where(strings == None, graph.null_text, strings)  # noqa: E711  one by one
    return feeds


def scores_of(
    graph: Graph, numbers: NDArray[Any], strings: NDArray[np.object_] | None = None, *, labels: bool
) -> NDArray[np.float64]:
    """What a graph answers to rows: the value, or of two classes, with ``labels``, the probability of the second.

    Shape (rows,); of more classes, and of several values a row, all of them: (rows, columns).
    """
    (found,) = session_of(graph.content).run([graph.score], feeds_of(graph, numbers, strings))
    array = np.asarray(found, dtype=np.float64).reshape(len(numbers), -1)
    return array[:, -1] if array.shape[1] <= (2 if labels else 1) else array

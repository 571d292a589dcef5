"""Models that were fitted on the logarithm, or another function, of what they predict: their graphs undo it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from noria.optimize.conversion.converter_gaps import last_step

if TYPE_CHECKING:
    from noria.optimize.conversion.graphs import Graph

_UNDONE = "undone"
_OPERATORS: dict[Any, list[str]] = {np.exp: ["Exp"], np.expm1: ["Exp", "Sub"], np.square: ["Square"], np.sqrt: ["Sqrt"]}
"""What a graph computes in place of a function of NumPy; Sub takes one away, Square takes a number twice."""
_OF_LOGARITHMS = ("poisson", "gamma")


def fitted_on(model: Any) -> tuple[Any, list[str]]:
    """The model that converters know, and the operators that make what ``model`` predicts of what that one does.

    The model itself, and none, where it predicts what it was fitted on, or nobody knows the way back.
    """
    last = last_step(model)
    if type(last).__name__ == "HistGradientBoostingRegressor" and last.loss in _OF_LOGARITHMS:
        return model, ["Exp"]  # its converter leaves that out
    operators = _OPERATORS.get(getattr(last, "inverse_func", None)) if hasattr(last, "regressor_") else None
    if operators is None:
        return model, []
    if last is model:
        return last.regressor_, operators
    return type(model)([*model.steps[:-1], (model.steps[-1][0], last.regressor_)]), operators


def undone(graph: Graph, operators: list[str]) -> Graph:
    """The graph with ``operators`` after its score."""
    if not operators:
        return graph
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(graph.content)
    score = next(one for one in model.graph.output if one.name == graph.score)
    element = score.type.tensor_type.elem_type
    one = np.ones((), helper.tensor_dtype_to_np_dtype(element))
    model.graph.initializer.append(numpy_helper.from_array(one, f"{_UNDONE}_one"))
    found = graph.score
    for place, operator in enumerate(operators):
        taken, made = found, f"{_UNDONE}_{place}"
        second = {"Sub": [f"{_UNDONE}_one"], "Square": [taken]}.get(operator, [])
        kind = "Mul" if operator == "Square" else operator
        model.graph.node.append(helper.make_node(kind, [taken, *second], [made]))
        found = made
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(found, element, None))
    return replace(graph, content=model.SerializeToString(deterministic=True), score=found)

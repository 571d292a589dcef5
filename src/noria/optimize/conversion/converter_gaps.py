"""What converters do not know of the models they take, or get wrong: told beforehand, or mended in the graph."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.samples import NO_TEXT, deep_parts

_WORDS_OF_ASCII, _WORDS = b"[a-zA-Z0-9_]+", rb"[\pL\pN_]{2,}"
_LOGARITHMS = "plus1logged"
"""What the converter calls the logarithms of a vectorizer's counts."""


def as_converters_know(model: Any) -> Any:
    """The model, or a copy that answers the same and that its converter knows."""
    return _voting_by_rows(_with_texts_for_nulls(_without_infinite_thresholds(_with_numbered_truths(model))))


def last_step(model: Any) -> Any:
    """The estimator that ends a pipeline; of what is none, that itself."""
    return model.steps[-1][1] if hasattr(model, "steps") else model


def correct(converted: Any, last: Any) -> None:
    """Have the graph that skl2onnx wrote of a model answer as that does; ``last`` is the model's last step."""
    _join_as_doubles(converted)
    _send_missing_as(last, converted)
    lower_anywhere(converted)
    _take_words_of_all_scripts(converted)
    _take_logarithms_of_counts(converted)


# beforehand


def _with_numbered_truths(model: Any) -> Any:
    """The model, or a copy of one of LightGBM whose classes False and True are 0 and 1: its converter knows no others.

    Which class is which is told by their places.
    """
    last = last_step(model)
    if not type(last).__module__.startswith("lightgbm") or np.asarray(getattr(last, "_classes", ())).dtype != np.bool_:
        return model
    copied = deepcopy(model)
    last_step(copied)._classes = np.arange(2)
    return copied


def _without_infinite_thresholds(model: Any) -> Any:
    """The model, or a copy whose trees split what is missing from all numbers by the largest float32.

    They split there by infinity, in which the converter's search for a float32 threshold never ends.
    """
    if not any(np.isinf(thresholds).any() for thresholds in _thresholds(model)):
        return model
    copied = deepcopy(model)
    for thresholds in _thresholds(copied):
        thresholds[np.isinf(thresholds)] = np.finfo(np.float32).max
    return copied


def _thresholds(model: Any) -> Iterator[NDArray[np.float64]]:
    """The thresholds of every tree, as they lie in the model."""
    for part in deep_parts(model):
        if hasattr(part, "tree_"):
            yield part.tree_.threshold
        for predictors in getattr(part, "_predictors", ()):
            yield from (predictor.nodes["num_threshold"] for predictor in predictors)


def _with_texts_for_nulls(model: Any) -> Any:
    """The model, or a copy whose imputers of texts look for what a graph is given in place of a null.

    Their converter knows no texts that are missing otherwise.
    """

    def change(part: Any) -> None:
        part.missing_values = NO_TEXT

    return _with(model, _imputes_texts, change)


def _imputes_texts(part: Any) -> bool:
    statistics = getattr(part, "statistics_", None)
    return isinstance(statistics, np.ndarray) and statistics.dtype.kind in "OU" and part.missing_values != NO_TEXT


def _voting_by_rows(model: Any) -> Any:
    """The model, or a copy whose votes have weights in an array and one answer a row: the converter knows no others."""

    def change(part: Any) -> None:
        part.weights = None if part.weights is None else np.asarray(part.weights)
        part.flatten_transform = False

    return _with(model, _votes, change)


def _votes(part: Any) -> bool:
    return type(part).__name__ in ("VotingClassifier", "VotingRegressor")


def _with(model: Any, concerns: Callable[[Any], bool], change: Callable[[Any], None]) -> Any:
    """The model, or a copy in which each part that it ``concerns`` is changed."""
    if not any(map(concerns, deep_parts(model))):
        return model
    copied = deepcopy(model)
    for part in filter(concerns, deep_parts(copied)):
        change(part)
    return copied


# afterwards


def _send_missing_as(model: Any, converted: Any) -> None:
    """Let missing numbers take the side of each split that ``model``'s trees learned: converters send all to one."""
    nodes = [part.tree_.__getstate__()["nodes"] for part in deep_parts(model) if hasattr(part, "tree_")]
    if not nodes or "missing_go_to_left" not in nodes[0].dtype.names:
        return
    sides = np.concatenate([tree["missing_go_to_left"] for tree in nodes]).astype(int).tolist()
    attributes = (attribute for node in converted.graph.node for attribute in node.attribute)
    tracks = [one for one in attributes if one.name == "nodes_missing_value_tracks_true"]
    if sum(len(one.ints) for one in tracks) != len(sides):  # not these trees alone
        return
    start = 0
    for one in tracks:
        end = start + len(one.ints)
        one.ints[:], start = sides[start:end], end


def _join_as_doubles(converted: Any) -> None:
    """Let what is a float32 whatever goes in, as what encoders give, be a double where it is joined to doubles."""
    from onnx import TensorProto, helper, shape_inference

    graph = shape_inference.infer_shapes(converted).graph
    known = {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.value_info)}
    nodes: list[Any] = []
    for node in converted.graph.node:
        types = {name: known.get(name) for name in node.input}
        if node.op_type == "Concat" and TensorProto.DOUBLE in types.values():
            for at, name in enumerate(node.input):
                if types[name] == TensorProto.FLOAT:
                    node.input[at] = f"{name}_as_double"
                    nodes.append(helper.make_node("Cast", [name], [node.input[at]], to=TensorProto.DOUBLE))
        nodes.append(node)
    del converted.graph.node[:]
    converted.graph.node.extend(nodes)


def lower_anywhere(model: Any) -> None:
    """Let texts be lowered by the locale that every Linux has: ONNX Runtime's own choice, en_US, is in few containers.

    Without it neither the graph's check here nor a gateway elsewhere could load it.
    """
    from onnx import helper

    for node in model.graph.node if sys.platform == "linux" else ():
        if node.op_type == "StringNormalizer" and not any(one.name == "locale" for one in node.attribute):
            node.attribute.append(helper.make_attribute("locale", "C.UTF-8"))


def _take_words_of_all_scripts(converted: Any) -> None:
    """Let a vectorizer's usual words be those of two letters and more, of any script: the converter takes ASCII's."""
    for node in converted.graph.node:
        named = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Tokenizer" and "tokenexp" in named and named["tokenexp"].s == _WORDS_OF_ASCII:
            named["tokenexp"].s = _WORDS


def _take_logarithms_of_counts(converted: Any) -> None:
    """Let the logarithm of a count be 1 + log(count), and of none 0: the converter takes log(1 + count)."""
    from onnx import helper

    nodes: list[Any] = []
    for node in converted.graph.node:
        if node.op_type != "Log" or not node.output[0].startswith(_LOGARITHMS):
            nodes.append(node)
            continue
        added = next(one for one in nodes if one.output[0] == node.input[0])
        counts, ones = added.input
        least, most, logged, more = (f"{node.output[0]}_{part}" for part in ("least", "most", "of", "more"))
        nodes.append(helper.make_node("Max", [counts, ones], [least]))
        nodes.append(helper.make_node("Log", [least], [logged]))
        nodes.append(helper.make_node("Add", [logged, ones], [more]))
        nodes.append(helper.make_node("Min", [counts, ones], [most]))
        nodes.append(helper.make_node("Mul", [more, most], list(node.output)))
    del converted.graph.node[:]
    converted.graph.node.extend(nodes)

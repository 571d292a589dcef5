"""What a model refuses: found by asking it, and refused by its graph, too, which would answer anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.conversion.closeness import NotConverted
from noria.optimize.conversion.graphs import Graph, feeds_of, scores_of, session_of
from noria.optimize.conversion.samples import WHOLE, Numbers, Oddity, Texts, present

_MOST_ASKED = 400
_GUARDED = "answer_or_nothing"

Ask = Callable[[Any, Any], Any]


def refused_by(ask: Ask, oddities: Sequence[Oddity], numbers: Numbers, texts: Texts) -> list[Oddity]:
    """Those of ``oddities`` that a model raises an error for, in the first row of a sample.

    It is asked about many at once, and about halves of those where one is refused. What it was not asked about after
    a few hundred times counts as refused.
    """
    refused: list[Oddity] = []
    waiting, asked = [list(oddities)] if oddities else [], 0
    while waiting:
        group = waiting.pop()
        asked += 1
        if asked > _MOST_ASKED:
            refused += group
        elif not _raises(ask, *_rows_with(group, numbers, texts)):
            continue
        elif len(group) == 1:
            refused += group
        else:
            half = len(group) // 2
            waiting += [group[half:], group[:half]]
    return refused


def guarded(
    graph: Graph, refused: Sequence[Oddity], numbers: Numbers, texts: Texts, categories: Mapping[str, Sequence[Any]]
) -> Graph:
    """``graph``, or one that answers what is ``refused`` with NaN, which is served as a refusal.

    Raises NotConverted when what is refused cannot be told from the rest by the graph's input.
    """
    answered = _answered(graph, refused, numbers, texts)
    if not answered:
        return graph
    found = _with_guards(graph, answered, categories)
    if still := _answered(found, answered, numbers, texts):
        columns = ", ".join(dict.fromkeys(one.column for one in still))
        raise NotConverted(f"the model refuses values of {columns} that its graph would answer")
    if (_answers(found, numbers, texts) != _answers(graph, numbers, texts)).any():
        raise NotConverted("the graph cannot tell what the model refuses from what it answers")
    return found


def _rows_with(oddities: Sequence[Oddity], numbers: Numbers, texts: Texts) -> tuple[Numbers, Texts]:
    """A row for each, which but for it is the first of the sample."""
    rows = np.zeros(len(oddities), dtype=int)
    some, words = numbers[rows], None if texts is None else texts[rows]
    for row, oddity in enumerate(oddities):
        oddity.put_into(some, words, row)
    return some, words


def _raises(ask: Ask, numbers: Numbers, texts: Texts) -> bool:
    try:
        ask(numbers, texts)
    except Exception:  # whatever the model's own code raises
        return True
    return False


def _answered(graph: Graph, oddities: Sequence[Oddity], numbers: Numbers, texts: Texts) -> list[Oddity]:
    """Those that a graph gives a number for."""
    session = session_of(graph.content)
    return [one for one in oddities if _gives_numbers(session, graph, *_rows_with([one], numbers, texts))]


def _gives_numbers(session: Any, graph: Graph, numbers: Numbers, texts: Texts) -> bool:
    try:
        (found,) = session.run([graph.score], feeds_of(graph, numbers, texts))
    except Exception:  # the runtime's own errors have no public class
        return False
    return bool(np.isfinite(found).all())


def _answers(graph: Graph, numbers: Numbers, texts: Texts) -> NDArray[np.bool_]:
    """Which rows a graph gives numbers for."""
    found = scores_of(graph, numbers, texts, labels=False).reshape(len(numbers), -1)
    complete: NDArray[np.bool_] = np.isfinite(found.sum(axis=1))
    return complete


def _with_guards(graph: Graph, refused: Sequence[Oddity], categories: Mapping[str, Sequence[Any]]) -> Graph:
    """The graph, with a zero added to its scores that is NaN in the rows with what is refused."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(graph.content)
    score = next(one for one in model.graph.output if one.name == graph.score)
    element = score.type.tensor_type.elem_type
    guard = _Guard(model.graph, graph)
    absent = [one.at for one in refused if one.is_absence and one.kind != "string"]
    large = [one.at for one in refused if one.is_large]
    zeros = [guard.of_absence(absent)] if absent and graph.numbers else []
    zeros += [guard.of_size(large)] if large and graph.numbers else []
    without_null = {one.column for one in refused if one.is_absence}
    zeros += [
        made
        for one in refused
        if not one.is_large
        and (made := guard.of_category(one, categories.get(one.column, ()), one.column not in without_null)) is not None
    ]
    if not zeros:
        return graph
    guard.node("Sum", [guard.node("Cast", [zero], to=element) for zero in zeros], "guard")
    guard.node("Reshape", [graph.score, guard.constant(np.array([0, -1]))], "scores_by_row")
    guard.node("Add", ["scores_by_row", "guard"], _GUARDED)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(_GUARDED, element or TensorProto.FLOAT, [None, None]))
    return replace(graph, content=model.SerializeToString(deterministic=True), score=_GUARDED)


class _Guard:
    """Nodes added to a graph; each ``of_`` names a column that is zero in good rows and NaN in others."""

    def __init__(self, body: Any, graph: Graph) -> None:
        self._body, self._graph, self._count = body, graph, 0

    def node(self, kind: str, inputs: Sequence[str], name: str = "", domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self._count += 1
        output = name or f"guard_{self._count}"
        self._body.node.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        self._count += 1
        name = f"guard_{self._count}"
        self._body.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def of_absence(self, places: Sequence[int]) -> str:
        """Of numbers that must be there, and finite: nothing times zero is nothing."""
        taken = self.node("Gather", [self._graph.numbers, self.constant(np.array(places, np.int64))], axis=1)
        zeros = self.node("Mul", [taken, self.constant(np.zeros((), self._graph.dtype))])
        return self.node("ReduceSum", [zeros, self.constant(np.array([1], np.int64))], keepdims=1)

    def of_size(self, places: Sequence[int]) -> str:
        """Of numbers that a float32 must hold."""
        taken = self.node("Gather", [self._graph.numbers, self.constant(np.array(places, np.int64))], axis=1)
        most = self.constant(np.array(np.finfo(np.float32).max, self._graph.dtype))
        beyond = self.node("Greater", [self.node("Abs", [taken]), most])
        zero, nothing = (self.constant(np.array(value, self._graph.dtype)) for value in (0.0, np.nan))
        zeros = self.node("Where", [beyond, nothing, zero])
        return self.node("ReduceSum", [zeros, self.constant(np.array([1], np.int64))], keepdims=1)

    def of_category(self, oddity: Oddity, categories: Sequence[Any], takes_null: bool) -> str | None:
        """Of a text that must be there, or a category that must be known; None where the graph cannot tell."""
        if oddity.kind == "string" and oddity.is_absence:
            return self._looked_up(oddity, {self._graph.null_text: np.nan}, otherwise=0.0)
        known = present(categories)
        if not known or oddity.kind not in ("string", *WHOLE):
            return None
        lacking = [self._graph.null_text] if takes_null and oddity.kind == "string" else []
        return self._looked_up(oddity, dict.fromkeys([*known, *lacking], 0.0), otherwise=np.nan)

    def _looked_up(self, oddity: Oddity, values: Mapping[Any, float], otherwise: float) -> str | None:
        from onnx import TensorProto

        is_text = oddity.kind == "string"
        source = self._graph.strings if is_text else self._graph.numbers
        if not source:
            return None
        taken = self.node("Gather", [source, self.constant(np.array([oddity.at], np.int64))], axis=1)
        table: dict[str, Any] = {"values_floats": list(values.values()), "default_float": otherwise}
        if is_text:
            table["keys_strings"] = [str(key) for key in values]
        else:
            table["keys_int64s"] = [int(key) for key in values]
            taken = self.node("Cast", [taken], to=TensorProto.INT64)
        return self.node("LabelEncoder", [taken], domain="ai.onnx.ml", **table)

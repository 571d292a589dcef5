"""A transformer before a model, behind it, or both: its code runs in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput, NoriaError
from noria.optimize.bundle import Bundle, read_bundle
from noria.optimize.environments import environment_for
from noria.serving.items import outcome_of
from noria.serving.runtimes import load
from noria.serving.runtimes.base import Floats, Labelled, Rows, Tensors, columns_of
from noria.serving.runtimes.process import ModelProcesses
from noria.structs import read_by_threads

TRANSFORMER_FILE = "transformer.py"
MEMBER = "model"
_LONGEST_VALUE = 60


@read_by_threads
class Described(msgspec.Struct, frozen=True):
    """What a transformer says of itself: the functions it has, and columns and example when it names them."""

    verbs: tuple[str, ...]
    columns: Mapping[str, str] | tuple[str, ...] | None = None
    example: Mapping[str, Any] | None = None


def transformer_packages(requirements: Sequence[str]) -> Sequence[str]:
    """What the environment of a transformer holds; nothing where it needs none of its own."""
    return ["numpy", *requirements] if requirements else []


class Transformer:
    """The process of a transformer file, with the packages it needs."""

    def __init__(self, file: Path, requirements: Sequence[str]) -> None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        packages = transformer_packages(requirements)
        interpreter = environment_for(packages, version) if packages else Path(sys.executable)
        self._processes = ModelProcesses(interpreter, ["transformer", str(file)], file.name)

    def describe(self) -> Described:
        """What it has. Raises InvalidInput when that makes no sense."""
        try:
            return msgspec.convert(self._processes.ask("describe", {}), Described)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"the transformer's description cannot be read: {error}",
                remedy="`columns` is a list of names or a dict of name to kind, `example` a dict of name to value.",
            ) from None

    def preprocess(self, columns: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
        """The columns that it makes of those it is given."""
        found: Mapping[str, Sequence[Any]] = self._processes.ask("preprocess", columns)
        return found

    def postprocess(self, answers: Sequence[Any], columns: Mapping[str, Any]) -> Sequence[Any]:
        """What it makes of the model's answers."""
        found: Sequence[Any] = self._processes.ask("postprocess", columns, answers=answers)
        return found

    def stop(self) -> None:
        """End its process."""
        self._processes.stop()


class ChainRuntime:
    """Columns through the transformer into the model, and its answers back through it."""

    inline = False
    concurrency = 2

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self._bundle, self._member = bundle, read_bundle(folder / MEMBER)
        self._model = load(folder / MEMBER, self._member)
        self._transformer = Transformer(folder / TRANSFORMER_FILE, bundle.options["requirements"])
        self._verbs = bundle.options["verbs"]

    def score(self, rows: Rows) -> Floats | Labelled | Sequence[Any]:
        """See Runtime. Raises InvalidInput for what the transformer refuses."""
        columns = columns_of(rows, self._bundle)
        made = {**columns, **self._transformer.preprocess(columns)} if "preprocess" in self._verbs else columns
        found = self._model.score(self._rows(made, len(rows), rows.params))
        if "postprocess" not in self._verbs:
            return found
        answers = self._transformer.postprocess(self._answers(found, len(rows)), columns)
        if not isinstance(answers, list) or len(answers) != len(rows):
            given = f"{len(answers)} answers" if isinstance(answers, list) else _no_list(answers)
            raise NoriaError(f"postprocess gave {given} for {len(rows)} rows", remedy="It must give one a row.")
        return answers

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """See Runtime: chains take columns."""
        raise NotImplementedError

    def unload(self) -> None:
        """See Runtime."""
        self._transformer.stop()
        self._model.unload()

    def _rows(self, columns: Mapping[str, Any], count: int, params: Mapping[str, Any] | None) -> Rows:
        """The model's own inputs, in its order, out of the columns by name."""
        texts = set(self._member.string_places)
        numbers: list[NDArray[Any]] = []
        strings: list[NDArray[Any]] = []
        for place, name in enumerate(self._member.inputs):
            values = columns.get(name)
            if not isinstance(values, list | np.ndarray) or len(values) != count:
                raise NoriaError(
                    f"column {name!r} {_lacking(values, count)} after preprocess",
                    remedy="It must return a value a row for each column.",
                )
            if place in texts:
                strings.append(_texts(name, values))
            else:
                numbers.append(_numbers(name, values))
        matrix = np.stack(numbers, axis=1) if numbers else np.empty((count, 0))
        return Rows(matrix, np.stack(strings, axis=1) if strings else None, params)

    def _answers(self, found: Floats | Labelled | Sequence[Any], rows: int) -> Sequence[Any]:
        """What postprocess is given: one object a row, as /predict has it."""
        outcome = outcome_of(self._member, found, rows)
        if outcome.probabilities is None:
            return [{"prediction": prediction} for prediction in outcome.predictions]
        pairs = zip(outcome.predictions, outcome.probabilities.tolist(), strict=True)
        return [{"prediction": prediction, "probability": probability} for prediction, probability in pairs]


def _lacking(values: Any, count: int) -> str:
    if values is None:
        return "is missing"
    return f"has {len(values)} of {count} rows" if isinstance(values, list | np.ndarray) else f"is {values!r}"


def _numbers(name: str, values: Any) -> Floats:
    """A column of numbers, NaN where there is none. Raises InvalidInput."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        strange = next((one for one in values if not isinstance(one, int | float | None)), values[0])
        raise _of_another_kind(name, strange, "numbers") from None
    if found.ndim > 1:
        raise _of_another_kind(name, values[0], "numbers")
    return found


def _texts(name: str, values: Any) -> NDArray[np.object_]:
    """A column of texts, None where there is none, also where pandas has NaN for that. Raises InvalidInput."""
    found = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        found[row] = None if value is None or value != value else value
        if found[row] is not None and not isinstance(value, str):
            raise _of_another_kind(name, value, "texts")
    return found


def _of_another_kind(name: str, value: Any, wanted: str) -> InvalidInput:
    return InvalidInput(
        f"column {name!r} is {repr(value)[:_LONGEST_VALUE]} after preprocess, and the model takes {wanted} there",
        remedy="Send what the transformer makes such a value of, or have it make one.",
    )


def _no_list(found: Any) -> str:
    return "nothing" if found is None else f"{type(found).__name__} instead of a list"

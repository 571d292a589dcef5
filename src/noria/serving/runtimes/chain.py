"""A transformer before a model, behind it, or both: its code runs in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from noria.errors import InvalidInput, NoriaError
from noria.optimize.bundle import Bundle, read_bundle
from noria.optimize.environments import environment_for
from noria.serving.items import outcome_of
from noria.serving.runtimes import load
from noria.serving.runtimes.base import Floats, Labelled, Rows, Tensors, columns_of
from noria.serving.runtimes.process import ModelProcesses

TRANSFORMER_FILE = "transformer.py"
MEMBER = "model"


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
        numbers: list[Any] = []
        strings: list[Any] = []
        for place, name in enumerate(self._member.inputs):
            if name not in columns or len(columns[name]) != count:
                given = f"has {len(columns[name])} of {count} rows" if name in columns else "is missing"
                raise NoriaError(
                    f"column {name!r} {given} after preprocess", remedy="It must return a value a row for each column."
                )
            (strings if place in texts else numbers).append(columns[name])
        matrix = np.array(numbers, dtype=np.float64).T if numbers else np.empty((count, 0))
        return Rows(np.ascontiguousarray(matrix), np.array(strings, dtype=object).T if strings else None, params)

    def _answers(self, found: Floats | Labelled | Sequence[Any], rows: int) -> Sequence[Any]:
        """What postprocess is given: one object a row, as /predict has it."""
        outcome = outcome_of(self._member, found, rows)
        if outcome.probabilities is None:
            return [{"prediction": prediction} for prediction in outcome.predictions]
        pairs = zip(outcome.predictions, outcome.probabilities.tolist(), strict=True)
        return [{"prediction": prediction, "probability": probability} for prediction, probability in pairs]


def _no_list(found: Any) -> str:
    return "nothing" if found is None else f"{type(found).__name__} instead of a list"

"""Any MLflow model, in a process with the environment it was logged with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import NoriaError
from noria.optimize.bundle import Bundle
from noria.optimize.prepare import MODEL_FOLDER, interpreter_of
from noria.serving.runtimes.base import Floats, Labelled, Rows, Tensors, columns_of
from noria.serving.runtimes.process import ModelProcesses
from noria.serving.runtimes.whole import WHOLE, WholeColumns


class PyfuncRuntime:
    """A model that answers whatever it likes, one entry a row; of a classifier its labels with their probabilities."""

    inline = False
    concurrency = 1

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        model = folder / MODEL_FOLDER
        self._bundle, self._whole = bundle, WholeColumns.of(bundle, nulls=True)
        self._output = bundle.outputs[0].name if len(bundle.outputs) == 1 else "output"
        self._processes = ModelProcesses(interpreter_of(model), ["pyfunc", str(model)], "the model")

    def score(self, rows: Rows) -> Floats | Labelled | Sequence[Any]:
        """See Runtime. Raises NoriaError when the model does not answer one entry a row."""
        if self._whole is not None:
            self._whole.check(rows.numbers)
        columns, task = self._columns(rows), self._bundle.task
        bundle = self._bundle
        known = {"kinds": dict(bundle.kinds), "categorical": bundle.options.get("categorical", ())}
        if task == "classification":
            found = self._processes.ask("classes", columns, **known)
            return Labelled(
                np.array(found["places"], dtype=np.intp), np.array(found["probabilities"], dtype=np.float64)
            )
        found = self._processes.ask("rows", columns, **known, one_value=bundle.one_value, params=rows.params)
        if isinstance(found, dict):
            found = _by_row(found)
        if not isinstance(found, list) or len(found) != len(rows):
            count = len(found) if isinstance(found, list) else "no list"
            raise NoriaError(
                f"the model answered {len(rows)} rows with {count}", remedy="Its predict must give one entry a row."
            )
        return np.array(found, dtype=np.float64).reshape(len(rows)) if task == "regression" else found

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """See Runtime. Raises NoriaError when the model does not answer one entry a row."""
        found = self._processes.ask("tensors", tensors, params=params)
        answers = {name or self._output: np.array(values, dtype) for name, dtype, values in found}
        rows = len(next(iter(tensors.values())))
        for name, answer in answers.items():
            if not answer.ndim or len(answer) != rows:
                raise NoriaError(
                    f"the model answered {rows} rows with {name!r} of shape {list(answer.shape)}",
                    remedy="Its predict must give one entry a row.",
                )
        return answers

    def unload(self) -> None:
        """See Runtime."""
        self._processes.stop()

    def _columns(self, rows: Rows) -> Mapping[str, NDArray[Any]]:
        """The rows by column, without optional ones of whole numbers that no row has: those know no null."""
        columns, optional = columns_of(rows, self._bundle), self._bundle.optional
        absent = [name for name in optional if self._bundle.kinds.get(name) in WHOLE and np.isnan(columns[name]).all()]
        return {name: column for name, column in columns.items() if name not in absent}


def _by_row(columns: Mapping[str, Any]) -> Any:
    """A dict of columns, which MLflow allows, as one object a row; what is none as it is."""
    lists = [one for one in columns.values() if isinstance(one, list)]
    if not lists or len(lists) < len(columns) or len(set(map(len, lists))) > 1:
        return columns
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]

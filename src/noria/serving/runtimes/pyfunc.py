"""Any MLflow model, in a process with the environment it was logged with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import NoriaError
from noria.optimize.bundle import Bundle
from noria.optimize.prepare import MODEL_FOLDER, interpreter_of
from noria.serving.runtimes.base import Floats, Rows, Tensors, columns_of
from noria.serving.runtimes.process import ModelProcesses


class PyfuncRuntime:
    """A model that answers whatever it likes: one entry a row."""

    inline = False
    concurrency = 1

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        model = folder / MODEL_FOLDER
        self._bundle = bundle
        self._processes = ModelProcesses(interpreter_of(model), ["pyfunc", str(model)], folder.name)

    def score(self, rows: Rows) -> Floats | Sequence[Any]:
        """See Runtime. Raises NoriaError when the model does not answer one entry a row."""
        columns = columns_of(rows, self._bundle)
        found = self._processes.ask("rows", columns, kinds=dict(self._bundle.kinds), params=rows.params)
        if not isinstance(found, list) or len(found) != len(rows):
            count = len(found) if isinstance(found, list) else "no list"
            raise NoriaError(
                f"the model answered {len(rows)} rows with {count}", remedy="Its predict must give one entry a row."
            )
        return found

    def infer(self, tensors: Tensors) -> Tensors:
        """See Runtime."""
        found = self._processes.ask("tensors", tensors)
        if isinstance(found, dict):
            return {name: np.asarray(value) for name, value in found.items()}
        return {"output": np.asarray(found)}

    def unload(self) -> None:
        """See Runtime."""
        self._processes.stop()

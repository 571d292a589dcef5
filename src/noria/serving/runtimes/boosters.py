"""LightGBM and XGBoost by their own libraries: alone, or beside a graph for the batches they are faster at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import MissingExtra
from noria.optimize.bundle import Bundle
from noria.serving.runtimes.base import Floats, Rows, Tensors
from noria.serving.runtimes.whole import WholeColumns


class BoosterRuntime:
    """A booster's own file and library."""

    inline = True
    concurrency = 2

    def __init__(self, folder: Path, bundle: Bundle, options: dict[str, Any] | None = None) -> None:
        options = options or dict(bundle.options)
        kind = options.get("kind", bundle.runtime)
        self._predict = _LOADERS[kind](str(folder / options["file"]))
        self._whole = WholeColumns.of(bundle)
        self._classes = len(bundle.classes) if bundle.task == "classification" else 0

    def score(self, rows: Rows) -> Floats:
        """See Runtime."""
        if self._whole is not None:
            self._whole.check(rows.numbers)
        found = np.asarray(self._predict(rows.numbers), dtype=np.float64)
        return found.reshape(len(rows), -1) if self._classes > 2 else found.reshape(-1)

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """See Runtime: boosters take columns."""
        raise NotImplementedError

    def unload(self) -> None:
        """See Runtime."""
        self._predict = _unloaded


def _unloaded(_rows: Floats) -> Floats:
    raise RuntimeError("the model was unloaded")


def _lightgbm(path: str) -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtra("this model needs LightGBM", remedy="pip install lightgbm") from None
    booster = lightgbm.Booster(model_file=path)
    return lambda rows: booster.predict(rows, num_threads=1)


def _xgboost(path: str) -> Any:
    try:
        import xgboost
    except ImportError:
        raise MissingExtra("this model needs XGBoost", remedy="pip install 'noria[xgboost]'") from None
    booster = xgboost.Booster(model_file=path)
    booster.set_param({"nthread": 1})
    return lambda rows: booster.inplace_predict(rows, validate_features=False)


_LOADERS = {"lightgbm": _lightgbm, "xgboost": _xgboost}

"""The fitted objects that MLflow's flavors keep, read without MLflow: it need not be where models are converted."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from noria.optimize.conversion.closeness import NotConverted


def load(folder: Path, flavors: dict[str, Any]) -> Any:
    """The fitted object of a model's ``folder``. Raises NotConverted for flavors without one."""
    if "lightgbm" in flavors:
        import lightgbm

        path = folder / flavors["lightgbm"]["data"]
        if str(flavors["lightgbm"].get("model_class", "")).endswith("Booster"):
            return lightgbm.Booster(model_file=str(path))
        return _deserialized(path, flavors["lightgbm"])
    if "xgboost" in flavors:
        return _load_xgboost(folder, flavors["xgboost"])
    sklearn = flavors.get("sklearn") or flavors.get("python_function") or {}
    file = sklearn.get("pickled_model") or sklearn.get("model_path") or sklearn.get("data")
    if file is None:
        raise NotConverted(f"no converter knows models of the flavors {', '.join(sorted(flavors))}")
    return _deserialized(folder / file, sklearn)


def _deserialized(path: Path, flavor: dict[str, Any]) -> Any:
    if flavor.get("serialization_format") == "skops":
        import skops.io

        return skops.io.load(path, trusted=flavor.get("skops_trusted_types") or [])
    try:
        with path.open("rb") as file:
            return pickle.load(file)
    except (pickle.UnpicklingError, KeyError):
        import joblib

        return joblib.load(path)


def _load_xgboost(folder: Path, flavor: dict[str, Any]) -> Any:
    import xgboost

    path = str(folder / flavor["data"])
    kind = str(flavor.get("model_class", "xgboost.core.Booster")).rsplit(".", 1)[-1]
    model = getattr(xgboost, kind)()
    model.load_model(path)
    return model

"""The MLmodel folder: what lets any MLflow client load a model that Noria saved, and Noria what MLflow saved."""

from __future__ import annotations

import json
import pickle
import platform
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from noria.clock import iso
from noria.errors import CorruptArtifact, MissingExtra, NotFound
from noria.tracking.signature import Signature

MLMODEL_FILE = "MLmodel"
_PICKLE_FILE = "model.pkl"
_LOADER = "mlflow.sklearn"
"""Its loader unpickles and calls ``predict``, which suits any object that has one."""


def write_mlmodel(
    folder: Path,
    model: Any,
    signature: Signature | None,
    *,
    at: datetime,
    run_id: str | None,
    model_id: str | None = None,
    name: str = "model",
) -> None:
    """Write the pickled object and its MLmodel (JSON, which is YAML too), for estimators with the scikit-learn flavor.

    Loading it runs what the pickle says: load only what comes from people you trust.
    """
    import cloudpickle

    (folder / _PICKLE_FILE).write_bytes(cloudpickle.dumps(model))
    document = {
        "artifact_path": name,
        "run_id": run_id,
        "model_id": model_id,
        "utc_time_created": iso(at).replace("T", " ").removesuffix("Z"),
        "flavors": _flavors(model),
        "signature": signature,
    }
    kept = {key: value for key, value in document.items() if value is not None}
    (folder / MLMODEL_FILE).write_text(json.dumps(kept, indent=1))


def read_model(folder: Path) -> Any:
    """The object an MLmodel folder holds: one written here, or MLflow's scikit-learn flavor (pickle or skops).

    Raises NotFound without an MLmodel file, CorruptArtifact when it cannot be read, MissingExtra for other flavors.
    """
    flavors = _read_document(folder).get("flavors", {})
    sklearn, generic = flavors.get("sklearn", {}), flavors.get("python_function", {})
    file = sklearn.get("pickled_model") or (
        generic.get("model_path") if generic.get("loader_module") == _LOADER else None
    )
    if file is None:
        raise MissingExtra(
            f"a model of the flavors {', '.join(sorted(flavors)) or '(none)'} is not read without MLflow",
            remedy="Install mlflow and use mlflow.pyfunc.load_model.",
        )
    if sklearn.get("serialization_format") == "skops":
        return _read_skops(folder / file, sklearn.get("skops_trusted_types"))
    return _read_pickle(folder / file)


def _flavors(model: Any) -> dict[str, object]:
    generic = {
        "loader_module": _LOADER,
        "model_path": _PICKLE_FILE,
        "predict_fn": "predict",
        "env": {},
        "python_version": platform.python_version(),
    }
    sklearn = sys.modules.get("sklearn")  # an estimator's own module has loaded it
    if sklearn is None or not _is_estimator(model):
        return {"python_function": generic}
    named = {"pickled_model": _PICKLE_FILE, "serialization_format": "cloudpickle", "code": None}
    return {"python_function": generic, "sklearn": named | {"sklearn_version": sklearn.__version__}}


def _is_estimator(model: Any) -> bool:
    """Whether it derives from scikit-learn's base class, as those of LightGBM and XGBoost do."""
    return any(kind.__module__ == "sklearn.base" and kind.__name__ == "BaseEstimator" for kind in type(model).__mro__)


def _read_document(folder: Path) -> Mapping[str, Any]:
    import yaml

    path = folder / MLMODEL_FILE
    if not path.is_file():
        raise NotFound(f"no {MLMODEL_FILE} file at this address", remedy="Name the folder that log_model made.")
    try:
        document = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise CorruptArtifact(f"{MLMODEL_FILE} cannot be read: {error}", remedy="Log the model again.") from error
    if not isinstance(document, dict):
        raise CorruptArtifact(f"{MLMODEL_FILE} says nothing of a model", remedy="Log the model again.")
    return document


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return pickle.load(file)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the model needs {error.name}, which is not installed", remedy="Install it.") from error
    except (OSError, pickle.UnpicklingError, EOFError) as error:
        raise CorruptArtifact(f"{path.name} cannot be unpickled: {error}", remedy="Log the model again.") from error


def _read_skops(path: Path, trusted: Any) -> Any:
    try:
        import skops.io
    except ModuleNotFoundError:
        raise MissingExtra(
            "the model was saved in the skops format, and skops is not installed",
            remedy='Install skops, or log with serialization_format="cloudpickle".',
        ) from None
    return skops.io.load(path, trusted=trusted)

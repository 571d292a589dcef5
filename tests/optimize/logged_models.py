"""Models as MLflow would log them, without MLflow, and what they are prepared to be."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from noria.optimize.conversion import run
from noria.optimize.prepare import Prepared, prepare

FLAVORS: Mapping[str, Mapping[str, Any]] = {
    "sklearn": {"pickled_model": "model.pkl"},
    "python_function": {"loader_module": "mlflow.sklearn"},
}


def prepared(folder: Path, model: Any, columns: list[dict[str, Any]]) -> Prepared:
    """What a scikit-learn model becomes, from the folder that MLflow would write."""
    logged = _logged(folder, model)
    document = {"flavors": FLAVORS, "signature": {"inputs": json.dumps(columns)}}
    (logged / "MLmodel").write_text(yaml.safe_dump(document))
    out = folder / "prepared"
    out.mkdir()
    return prepare(logged, out)


def converted(folder: Path, model: Any, columns: Sequence[dict[str, Any]], **flavor: Any) -> dict[str, Any]:
    """The same as far as the conversion goes, in this process: what it tells, beside the graph in ``prepared``."""
    out = folder / "prepared"
    out.mkdir()
    flavors = {**FLAVORS, "python_function": {**FLAVORS["python_function"], **flavor}}
    told = [(one["name"], one["type"]) for one in columns]
    spec = {"folder": str(_logged(folder, model)), "out": str(out), "flavors": flavors, "columns": told, "tensors": []}
    (folder / "spec.json").write_text(json.dumps(spec))
    run.main(str(folder / "spec.json"))
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def _logged(folder: Path, model: Any) -> Path:
    logged = folder / "logged"
    logged.mkdir()
    (logged / "model.pkl").write_bytes(pickle.dumps(model))
    return logged


def signature_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The columns of a frame as MLflow infers them."""
    kinds = {"b": "boolean", "i": "long", "f": "double"}
    return [{"name": name, "type": kinds.get(frame[name].dtype.kind, "string")} for name in frame]

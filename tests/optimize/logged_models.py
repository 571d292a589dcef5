"""Models as MLflow would log them, without MLflow, and what they are prepared to be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from noria.optimize.prepare import Prepared, prepare


def prepared(folder: Path, model: Any, columns: list[dict[str, Any]]) -> Prepared:
    """What a scikit-learn model becomes, from the folder that MLflow would write."""
    logged = folder / "logged"
    logged.mkdir()
    (logged / "model.pkl").write_bytes(pickle.dumps(model))
    flavors = {"sklearn": {"pickled_model": "model.pkl"}, "python_function": {"loader_module": "mlflow.sklearn"}}
    document = {"flavors": flavors, "signature": {"inputs": json.dumps(columns)}}
    (logged / "MLmodel").write_text(yaml.safe_dump(document))
    out = folder / "prepared"
    out.mkdir()
    return prepare(logged, out)


def signature_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The columns of a frame as MLflow infers them."""
    kinds = {"b": "boolean", "i": "long", "f": "double"}
    return [{"name": name, "type": kinds.get(frame[name].dtype.kind, "string")} for name in frame]

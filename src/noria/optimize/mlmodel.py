"""The MLmodel file: what lets any MLflow client load a version that Noria trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from noria.clock import iso

_PICKLE_FILE = "model.pkl"


def write_mlmodel(folder: Path, model: Any, inputs: Sequence[str], *, at: datetime, run_id: str) -> None:
    """Write the pickled estimator and its MLmodel (JSON, which is YAML too) with the scikit-learn flavor."""
    import cloudpickle
    import sklearn

    (folder / _PICKLE_FILE).write_bytes(cloudpickle.dumps(model))
    columns = [{"type": "double", "name": name, "required": False} for name in inputs]
    document = {
        "artifact_path": "model",
        "run_id": run_id,
        "utc_time_created": iso(at).replace("T", " ").removesuffix("Z"),
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.sklearn",
                "model_path": _PICKLE_FILE,
                "predict_fn": "predict",
                "env": {},
            },
            "sklearn": {
                "pickled_model": _PICKLE_FILE,
                "serialization_format": "cloudpickle",
                "sklearn_version": sklearn.__version__,
                "code": None,
            },
        },
        "signature": {"inputs": json.dumps(columns), "outputs": None, "params": None},
    }
    (folder / "MLmodel").write_text(json.dumps(document, indent=1))

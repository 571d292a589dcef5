"""The model as a peer's own code loads it, from the folder in SERVING_MODEL: scikit-learn, or ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(os.environ["SERVING_MODEL"])
ON_ONNX = os.environ.get("SERVING_RUNTIME") == "onnx"


class Forest:
    """``predict_proba`` of (rows, 30) doubles, (rows, 2), by either runtime."""

    def __init__(self) -> None:
        self._session: Any = None
        self._pipeline: Any = None
        if ON_ONNX:
            import onnxruntime

            self._session = onnxruntime.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])
        else:
            import joblib

            self._pipeline = joblib.load(FOLDER / "pipeline.joblib")

    def predict_proba(self, rows: Any) -> np.ndarray[Any, Any]:
        if self._session is not None:
            (found,) = self._session.run(["probabilities"], {"X": np.asarray(rows, dtype=np.float64)})
            return found  # type: ignore[no-any-return]
        return self._pipeline.predict_proba(np.asarray(rows, dtype=np.float64))  # type: ignore[no-any-return]

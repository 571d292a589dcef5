"""Saves the MLflow models that ``mlflow models serve`` answers with: the pipeline, and a pyfunc on ONNX Runtime."""

# ruff: noqa: TID253  this is another program, in an environment of its own
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np


class OnOnnx(mlflow.pyfunc.PythonModel):
    """A pyfunc as its users write it; the graph travels as an artifact."""

    def load_context(self, context: Any) -> None:
        import onnxruntime

        path = context.artifacts["graph"]
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        return self._session.run(["probabilities"], {"X": np.asarray(model_input, dtype=np.float64)})[0]


def main() -> None:
    folder = Path(sys.argv[1])
    mlflow.sklearn.save_model(
        joblib.load(folder / "pipeline.joblib"),
        str(folder / "mlflow-sklearn"),
        serialization_format="cloudpickle",
        pyfunc_predict_fn="predict_proba",
        pip_requirements=[],
    )
    mlflow.pyfunc.save_model(
        str(folder / "mlflow-onnx"),
        python_model=OnOnnx(),
        artifacts={"graph": str(folder / "model.onnx")},
        pip_requirements=[],
    )


if __name__ == "__main__":
    main()

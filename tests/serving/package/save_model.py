"""Run by MLflow's interpreter: save a model that no graph can stand for, with an environment of its own."""

import sys
from importlib.metadata import version

import mlflow
import pandas as pd
from mlflow.models import infer_signature


class Greeter(mlflow.pyfunc.PythonModel):
    """Answers with words, and with the version of pandas it runs on."""

    def predict(self, context, model_input, params=None):  # noqa: ARG002  MLflow's signature
        import pandas

        return [f"{name} {visits * 2:g} pandas {pandas.__version__}" for name, visits in model_input.values.tolist()]


rows = pd.DataFrame({"name": ["ada", "bob"], "visits": [1.0, 2.0]})
mlflow.pyfunc.save_model(
    sys.argv[1],
    python_model=Greeter(),
    signature=infer_signature(rows, ["a", "b"]),
    pip_requirements=[f"mlflow-skinny=={version('mlflow')}", "pandas==2.2.3", f"cloudpickle=={version('cloudpickle')}"],
)

"""The stock client of MLflow 2, which many still run, against a live server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.peer


def test_a_client_of_mlflow_2_logs_registers_moves_and_loads_a_model_and_is_told_why_not(server, mlflow2_python):
    script = Path(__file__).parent / "mlflow_script.py"
    command = [mlflow2_python, script, server]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    errors = found.pop("errors")
    assert found == {
        "params": {"depth": "3", "rate": "0.1", "kind": "x"},
        "metrics": {"loss": 0.2, "accuracy": 0.93, "auc": 0.95},
        "team": "growth",
        "status": "FINISHED",
        "history": [1.0, 0.5, 1 / 3, 0.25, 0.2],
        "artifacts": ["notes/note.txt"],
        "downloaded": "hello",
        "found_runs": ["first"],
        "child_parent": True,
        "experiments": ["Default", "churn"],
        "version": ["Production", "first", "yes", True],
        "alias": "1",
        "latest": ["1"],
        "versions": ["1"],
        "models": ["churn"],
        "same": True,
        "files": ["MLmodel", "conda.yaml", "model.pkl", "python_env.yaml", "registered_model_meta", "requirements.txt"],
    }
    assert {name: told.partition(":")[0] for name, told in errors.items()} == {
        "unknown run": "RESOURCE_DOES_NOT_EXIST",
        "duplicate model": "RESOURCE_ALREADY_EXISTS",
        "changed param": "INVALID_PARAMETER_VALUE",
        "bad filter": "INVALID_PARAMETER_VALUE",
        "delete production": "PERMISSION_DENIED",
        "policy": "PERMISSION_DENIED",
        "policy met": "accepted",
    }
    assert "reviewed" in errors["policy"]

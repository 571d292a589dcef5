"""Scripts as people wrote them for years, run by the stock client against a live server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

FOREST = {"n_estimators": "100", "max_depth": "10"}


@pytest.fixture
def run(server, mlflow_python, tmp_path):
    """Runs a script with MLflow's interpreter; what it found."""

    def run(name):
        script = Path(__file__).parent / name
        command = [mlflow_python, script, server, tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


def test_a_forest_is_registered_promoted_archived_and_loaded_by_its_stage(run):
    found = run("quick_start.py")
    assert found["default format"] == "refused by the client"
    assert found["stages"] == {"1": "None", "2": "Archived", "3": "Production"}
    assert found["same"] and found["metrics"]
    assert found["params"] == FOREST | {"random_state": "42", "data_version": "v2.3"}
    assert "train.csv" in found["artifacts"]


def test_values_are_logged_one_by_one(run):
    found = run("single_values.py")
    assert (found["params"], found["metrics"]) == (FOREST, ["accuracy", "f1_score"])
    assert found["accuracy"] and found["named"] and found["same"]
    assert found["data"] == "a,b\n1,2\n"


def test_a_named_run_keeps_a_forest_and_a_picture(run):
    found = run("named_run.py")
    assert (found["name"], found["status"]) == ("random_forest_v1", "FINISHED")
    assert found["params"] == FOREST | {"random_state": "42"} and found["metrics"]
    assert "feature_importance.png" in found["artifacts"]


def test_the_registry_does_what_ten_chapters_ask_of_it(run):
    found = run("classic_registry.py")
    assert found["versions"] == [[number, "READY", "None"] for number in "123"]
    assert found["one"] == ["Production", "Initial production model with 95% accuracy", "true"]
    assert (found["named"], found["dated"], found["loaded"]) == ("v1.0.1", True, "RandomForestClassifier")
    assert found["lineage"] == ["FINISHED", "RandomForest", 0.95]
    assert found["data"] == ["s3://fgedu-data/raw/customer_data_2026q1.parquet", "N/A"]
    assert (found["samples"], found["best"], found["rollback"]) == (80000, "1", "2")
    assert found["stages"] == {"1": "Production", "2": "Archived", "3": "None"}
    assert "training_log.txt" in found["artifacts"] and "MLmodel" in found["files"]
    assert (found["old"], found["left"], found["serve"]) == (0, ["1", "3"], False)

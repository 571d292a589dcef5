"""The stock MLflow client, in an environment of its own, against a live server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from support import process_of, resident_megabytes


@pytest.fixture(scope="module")
def found(server, mlflow_python):
    """What the script saw."""
    script = Path(__file__).parent / "mlflow_script.py"
    done = subprocess.run([mlflow_python, script, server], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_runs_keep_params_metrics_tags_and_artifacts(found):
    assert found["params"] == {"depth": "3", "rate": "0.1", "kind": "x"}
    assert found["metrics"] == {"loss": 0.2, "accuracy": 0.93, "auc": 0.95}
    assert found["history"] == [1.0, 0.5, 1 / 3, 0.25, 0.2]
    assert (found["team"], found["status"]) == ("growth", "FINISHED")
    assert (found["artifacts"], found["downloaded"]) == (["notes/note.txt"], "hello")
    assert found["child_parent"]


def test_searches_find_what_the_grammar_asks_for(found):
    assert found["found_runs"] == ["first"]
    assert found["experiments"] == ["Default", "churn"]
    assert (found["models"], found["versions"]) == (["churn"], ["1"])


def test_a_logged_model_is_registered_staged_aliased_and_loaded_back(found):
    assert found["version"] == ["Production", "first", "yes", True]
    assert (found["alias"], found["latest"], found["same"]) == ("1", ["1"], True)
    assert "MLmodel" in found["files"]


def test_refusals_reach_the_client_in_mlflows_shape(found):
    errors = found["errors"]
    assert errors["unknown run"].startswith("RESOURCE_DOES_NOT_EXIST")
    assert errors["duplicate model"].startswith("RESOURCE_ALREADY_EXISTS")
    assert errors["changed param"].startswith("INVALID_PARAMETER_VALUE")
    assert errors["bad filter"].startswith("INVALID_PARAMETER_VALUE")
    assert "Production" in errors["delete production"]
    assert errors["policy"].startswith("PERMISSION_DENIED")
    assert "reviewed" in errors["policy"]
    assert errors["policy met"] == "accepted"


def test_the_server_stays_light(found, governed_project):
    assert found
    assert resident_megabytes(process_of("server", governed_project)) < 150


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/2.0/mlflow/runs/create", "{", 400),
        ("POST", "/api/2.0/mlflow/runs/create", "[]", 400),
        ("POST", "/api/2.0/mlflow/runs/log-metric", '{"run_id": "x", "key": "k", "value": "no"}', 400),
        ("POST", "/api/2.0/mlflow/runs/log-metric", '{"run_id": "x", "key": "k", "value": 1}', 404),
        ("POST", "/api/2.0/mlflow/registered-models/create", '{"name": "a/b"}', 400),
        ("GET", "/api/2.0/mlflow/nothing", "", 404),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts/%2e%2e/%2e%2e/noria.toml", "", 400),
    ],
)
def test_bad_requests_get_a_clear_error(server, method, path, body, status):
    answer = httpx.request(method, server + path, content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error_code", "message"}

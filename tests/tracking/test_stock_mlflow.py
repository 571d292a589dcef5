"""Our client and the stock MLflow one, each reading what the other wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import noria.tracking as nt
from noria.errors import MissingExtra
from support import require

PYTHON = Path(__file__).parents[2] / ".bench/mlflow/bin/python"
FRAME = pl.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "visits": [1, 2, 3, 4]})


COUNTER = """
import noria.tracking as nt

class Counter:
    def predict(self, rows):
        return [rows.shape[1]] * len(rows)

with nt.start_run() as run:
    nt.log_model(Counter(), "counter")
print(f"runs:/{run.run_id}/counter")
"""
"""A user's script with a model that is no estimator: its class lives in the script alone."""


@pytest.fixture(scope="module")
def estimator():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(FRAME, [0, 0, 1, 1])


@pytest.fixture(scope="module")
def found(server, estimator):
    """What MLflow saw of our models, and the run it logged itself; our client stays set to the server."""
    require(PYTHON.exists(), "MLflow's environment", "run tests/surface/test_mlflow_client.py first")
    nt.set_tracking_uri(server)
    nt.set_experiment("ours")
    with nt.start_run() as run:
        logged = nt.log_model(estimator, "model", registered_model_name="ours", input_example=FRAME)
    nt.set_alias("ours", "best", logged.registered.version)
    uris = [
        f"models:/ours/{logged.registered.version}",
        "models:/ours@best",
        f"runs:/{run.run_id}/model",
        logged.model_uri,
    ]
    rows = json.dumps(FRAME.to_dict(as_series=False))
    script = Path(__file__).parent / "stock_script.py"
    environment = {**os.environ, "NORIA_TRACKING_URI": server}
    counter = subprocess.run(
        [sys.executable, "-c", COUNTER], env=environment, capture_output=True, text=True, check=True
    )
    command = [PYTHON, script, server, rows, json.dumps(uris), counter.stdout.strip()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    yield json.loads(done.stdout.strip().splitlines()[-1])
    nt.set_tracking_uri(None)


def test_mlflow_loads_our_models_by_every_address(found, estimator):
    assert found["pyfunc"] == [estimator.predict(FRAME).tolist()] * 4
    assert found["sklearn"] == [estimator.predict_proba(FRAME).tolist()] * 4
    assert found["other"] == [2] * 4


def test_mlflow_reads_our_signature(found):
    assert "'age': double (required)" in found["signature"] and "'visits': long (required)" in found["signature"]


def test_we_load_mlflows_models(found):
    for uri in ("models:/stock/1", f"runs:/{found['run_id']}/own"):
        assert nt.load_model(uri).predict_proba(FRAME.to_pandas()).tolist() == found["scores"]


def test_a_model_in_skops_format_is_read_or_says_what_is_missing(found):
    uri = f"runs:/{found['run_id']}/safe"
    if importlib.util.find_spec("skops"):
        assert nt.load_model(uri).predict_proba(FRAME.to_pandas()).tolist() == found["scores"]
    else:
        with pytest.raises(MissingExtra, match="skops"):
            nt.load_model(uri)


def test_we_read_mlflows_runs(found):
    run = nt.get_run(found["run_id"])
    assert (run.params, run.metrics["auc"].step, run.status) == ({"depth": "3"}, 4, "FINISHED")
    assert run.datasets[0]["name"] == "rows"
    assert nt.download_artifacts(run_id=run.run_id, artifact_path="note.txt").read_text() == "hello"

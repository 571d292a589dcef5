"""`noria predict batch` as a user runs it: addresses, deployments, a job file, features as of a time, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lifecycle.rollout_world import INPUTS, MODEL, RolloutWorld
from support import noria

SEED = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: ml-model-service
---
apiVersion: batchpredict.kserve.io/v1alpha1
kind: BatchJob
metadata:
  name: batch-prediction-job
spec:
  model:
    name: churn
  inputs:
    source: {source}
    format: json
  outputs:
    destination: {output}
  parallelism: 3
  maxRetryCount: 3
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with two versions, the first of which is deployed, and a table."""
    folder = tmp_path_factory.mktemp("world")
    world = RolloutWorld(folder)
    world.deploy(world.add_version())
    world.add_version()
    random = np.random.default_rng(1)
    rows = pl.DataFrame({"id": range(90), **{name: random.normal(size=90) for name in INPUTS}})
    rows.write_parquet(folder / "rows.parquet")
    rows.write_ndjson(folder / "rows.json")
    return folder


@pytest.mark.parametrize(
    ("words", "version"),
    [
        (["--model", f"models:/{MODEL}/2"], "2"),
        (["--model", f"models:/{MODEL}/Production"], "1"),
        (["--deployment", MODEL], "1"),
    ],
)
def test_a_version_a_stage_or_a_deployment_scores(world, tmp_path, words, version):
    where = ["--project", str(world), "--input", str(world / "rows.parquet"), "--output", str(tmp_path / "out")]
    told = json.loads(noria("predict", "batch", *words, *where, "--json", cwd=tmp_path).stdout)
    assert (told["rows"], told["parts"], told["model"]) == (90, 1, f"{MODEL}@{version}")
    assert set(pl.read_parquet(tmp_path / "out")["model_version"]) == {version}


def test_a_job_is_read_from_the_seeds_yaml(world, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(SEED.format(source=world / "rows.json", output=tmp_path / "out/"))
    told = json.loads(noria("predict", "batch", "--job", str(job), "-p", str(world), "--json", cwd=tmp_path).stdout)
    assert told["rows"] == 90 and pl.read_parquet(tmp_path / "out")["id"].n_unique() == 90
    job.write_text(job.read_text().replace("parallelism", "paralelism"))
    failed = noria("predict", "batch", "--job", str(job), "-p", str(world), cwd=tmp_path, check=False)
    assert failed.returncode == 2 and "unknown field `paralelism`" in failed.stderr
    both = noria("predict", "batch", "--job", str(job), "--model", "m", "-p", str(world), cwd=tmp_path, check=False)
    assert both.returncode == 2 and "--job stands beside" in both.stderr


def test_what_goes_wrong_is_said_with_an_exit_code(world, tmp_path):
    def failed(*words: str) -> tuple[int, str]:
        done = noria("predict", "batch", "-p", str(world), *words, cwd=tmp_path, check=False)
        return done.returncode, done.stderr

    code, text = failed("--input", "x.csv", "--output", "out", "--deployment", "nobody")
    assert code == 1 and "nothing is deployed as 'nobody'" in text
    code, text = failed("--input", str(world / "rows.parquet"), "--output", "out")
    assert code == 2 and "either a model or a deployment" in text
    shutil.copy(world / "rows.parquet", tmp_path / "good.parquet")
    (tmp_path / "t.csv").write_text("id,a,b,c\n0,1,2,3\n1,?,2,3\n")
    code, text = failed("--input", "t.csv", "--output", "out", "--deployment", MODEL, "--max-retries", "0")
    assert code == 1 and "t.csv: column 'a' is \"?\", not a number" in text and "--on-error skip" in text
    code, text = failed("--input", "t.csv", "--output", "skipped.csv", "--deployment", MODEL, "--on-error", "skip")
    assert code == 0 and (tmp_path / "skipped.csv").read_text().count("\n") == 2
    assert text == text.lstrip()  # where nobody sees the progress bar, nothing is written of it


def test_features_are_joined_as_of_each_rows_time(project, tmp_path):
    import sys

    from noria.features import join_as_of
    from noria.pipelines import load_project

    loaded = load_project(project)
    orders = loaded.observations.load().tail(400)
    asked = orders.select("id", "shop", "hour", "weekday", when="at")
    asked.write_parquet(tmp_path / "asked.parquet")
    joined = join_as_of(asked, loaded.views, event_time="when", folder=project)
    joined.drop("shop").write_parquet(tmp_path / "joined.parquet")
    model = ["--model", "models:/hourly-demand/1", "-p", str(project)]
    noria("predict", "batch", *model, "--input", "asked.parquet", "--output", "out", "--as-of", "when", cwd=tmp_path)
    noria("predict", "batch", *model, "--input", "joined.parquet", "--output", "expected", cwd=tmp_path)
    found, expected = (pl.read_parquet(tmp_path / name).sort("id") for name in ("out", "expected"))
    assert found["id"].equals(expected["id"])
    np.testing.assert_allclose(found["prediction"], expected["prediction"])
    late = asked.with_columns(when=pl.lit("2020-01-01T00:00:00Z"))
    late.write_csv(tmp_path / "late.csv")
    noria(
        "predict", "batch", *model, "--input", "late.csv", "--output", "late.csv.out", "--as-of", "when", cwd=tmp_path
    )
    sys.modules.pop("noria_project_features", None)

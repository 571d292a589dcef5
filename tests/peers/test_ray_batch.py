"""Batch jobs as Ray tasks: the same output as by processes, on a local Ray that the job starts."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lifecycle.rollout_world import INPUTS, MODEL, RolloutWorld
from support import noria, with_ray

pytestmark = pytest.mark.peer


def test_ray_tasks_write_what_processes_write(tmp_path):
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    random = np.random.default_rng(0)
    rows = pl.DataFrame({"id": range(4000), **{name: random.normal(size=4000) for name in INPUTS}})
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=1000)
    job = ["predict", "batch", "-p", str(tmp_path), "--deployment", MODEL, "--input", "rows.parquet", "--json"]
    more = ["--part-rows", "1000", "--parallelism", "2"]
    noria(*job, *more, "--output", "plain", cwd=tmp_path)
    told = json.loads(noria(*job, *more, "--output", "ray", "--engine", "ray", cwd=tmp_path, **with_ray()).stdout)
    assert (told["rows"], told["parts"], told["retries"]) == (4000, 4, 0)
    assert_frame_equal(pl.read_parquet(tmp_path / "plain").sort("id"), pl.read_parquet(tmp_path / "ray").sort("id"))
    (tmp_path / "bad.csv").write_text("id,a,b,c\n1,x,2,3\n")
    job[job.index("rows.parquet")] = "bad.csv"
    failed = noria(*job, "--output", "bad", "--engine", "ray", cwd=tmp_path, check=False, **with_ray())
    assert failed.returncode == 1 and "column 'a' is" in failed.stderr


def test_without_ray_the_engine_says_how_to_get_it(tmp_path):
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    (tmp_path / "t.csv").write_text("id,a,b,c\n1,1,2,3\n")
    job = ["predict", "batch", "-p", str(tmp_path), "--deployment", MODEL, "--input", "t.csv", "--output", "out"]
    failed = noria(*job, "--engine", "ray", cwd=tmp_path, check=False)
    assert failed.returncode == 1 and "pip install 'noria[ray]'" in failed.stderr

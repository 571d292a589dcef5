"""A job that is killed and run again ends as one that was not, and another job's output is left alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from noria.errors import Conflict
from noria.serving.batch import PartsFailed, Progress, run_job
from serving.batch.batch_world import killed_until_done

JOB = {"part_rows": 400, "batch_rows": 50, "parallelism": 2, "with_ids": True, "skip": True}
DELAYS = [0.5, 0.9, 1.3, 1.6, 1.1]


@pytest.fixture
def source(batch) -> Path:
    """Eight parts' rows, some of which are refused."""
    path = batch.folder / "t.parquet"
    table = batch.table(3200).with_columns(hour=pl.when(pl.col("id") % 100 != 3).then("hour"))
    table.write_parquet(path, row_group_size=400)
    return path


def parts(folder: Path) -> dict[str, pl.DataFrame]:
    return {path.name: pl.read_parquet(path) for path in sorted(folder.iterdir())}


def test_a_folder_ends_the_same_however_often_the_job_is_killed(batch, source):
    batch.run(source, batch.folder / "calm", **JOB)
    killed = killed_until_done(lambda: batch.start(source, batch.folder / "out", **JOB), DELAYS)
    assert killed >= 3
    calm, rough = parts(batch.folder / "calm"), parts(batch.folder / "out")
    assert list(calm) == list(rough) and len(calm) == 8
    for name in calm:
        assert_frame_equal(calm[name].drop("prediction_id"), rough[name].drop("prediction_id"))
    together = pl.concat(list(rough.values()))
    assert together["id"].n_unique() == together["prediction_id"].n_unique() == together.height == 3168
    refused = {path.name: path.read_bytes() for path in sorted((batch.folder / "calm.noria/refused").iterdir())}
    assert refused == {path.name: path.read_bytes() for path in sorted((batch.folder / "out.noria/refused").iterdir())}


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_table_ends_the_same_however_often_the_job_is_killed(batch, source, new_database_url, engine):
    import sqlalchemy

    url = new_database_url(engine)
    killed = killed_until_done(lambda: batch.start(source, f"{url}#scores", **JOB), DELAYS)
    assert killed >= 3
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = pl.read_database("SELECT * FROM scores", connection)
        refused = connection.execute(sqlalchemy.text("SELECT count(*) FROM scores_refused")).scalar()
    engine.dispose()
    assert found.height == found["id"].n_unique() == 3168 and refused == 32
    batch.run(source, batch.folder / "calm", **JOB)
    calm = pl.read_parquet(batch.folder / "calm")
    assert_frame_equal(calm.select("id", "score").sort("id"), found.select("id", "score").sort("id"))


def test_an_object_store_ends_the_same_however_often_the_job_is_killed(batch, source, s3_environment, monkeypatch):
    from noria.store.blobs import open_blobs

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    root = f"s3://noria/{batch.folder.name}"
    blobs = open_blobs(root, folder=batch.folder, cache=batch.folder)
    blobs.write("in/t.parquet", source.read_bytes())
    killed_until_done(lambda: batch.start(f"{root}/in", f"{root}/out/", **JOB), DELAYS[:3])
    found = pl.concat([pl.read_parquet(blobs.read(file.key)) for file in blobs.files("out")])
    assert found.height == found["id"].n_unique() == 3168
    assert len(blobs.files("out.noria/refused")) == 8


def test_a_worker_that_is_killed_costs_a_retry_and_no_rows(batch, source):
    process = batch.start(source, batch.folder / "out", **JOB)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while not (workers := children.read_text().split()) or not list(batch.folder.glob("out/part-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    for worker in workers:
        os.kill(int(worker), signal.SIGINT)  # as Ctrl-C does, which the leader alone is to hear
    os.kill(int(workers[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and not errors, errors.decode()
    assert pl.read_parquet(batch.folder / "out").height == 3168


def test_what_is_done_is_not_done_again_and_what_was_removed_is(batch, source):
    first = batch.run(source, batch.folder / "out", **JOB)
    again = batch.run(source, batch.folder / "out", **JOB)
    assert (again.rows, again.parts_done_before, again.job_id) == (3168, 8, first.job_id)
    (batch.folder / "out/part-00004.parquet").unlink()
    assert batch.run(source, batch.folder / "out", **JOB).parts_done_before == 7
    assert pl.read_parquet(batch.folder / "out").height == 3168


def test_changed_inputs_and_other_jobs_want_a_restart(batch, source):
    batch.run(source, batch.folder / "out", **JOB)
    with pytest.raises(Conflict, match="another job") as other:
        batch.run(source, batch.folder / "out", **{**JOB, "with_ids": False})
    assert "ids was True and is False" in str(other.value)
    batch.table(400).write_parquet(source)
    with pytest.raises(Conflict, match="inputs changed since") as changed:
        batch.run(source, batch.folder / "out", **JOB)
    assert "t.parquet changed" in str(changed.value)
    assert batch.run(source, batch.folder / "out", restart=True, **JOB).rows == 400
    assert pl.read_parquet(batch.folder / "out").height == 400


def test_a_table_keeps_the_rows_of_other_jobs(batch, source):
    target = f"sqlite:///{batch.folder}/out.db#scores"
    batch.run(source, target, **JOB)
    batch.table(100).write_parquet(batch.folder / "more.parquet")
    batch.run(batch.folder / "more.parquet", target, **JOB)
    batch.table(50).write_parquet(batch.folder / "more.parquet")
    with pytest.raises(Conflict, match="inputs changed since"):
        batch.run(batch.folder / "more.parquet", target, **JOB)
    batch.run(batch.folder / "more.parquet", target, restart=True, **JOB)
    with sqlite3.connect(batch.folder / "out.db") as connection:
        counts = connection.execute("SELECT count(*) FROM scores GROUP BY job_id ORDER BY 1").fetchall()
    connection.close()
    assert counts == [(50,), (3168,)]


def test_two_runs_do_not_write_to_one_folder_at_once(batch, source):
    process = batch.start(source, batch.folder / "out", **JOB)
    deadline = time.monotonic() + 60
    while not (batch.folder / "out.noria/manifest.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(Conflict, match="another run writes"):
        batch.run(source, batch.folder / "out", **JOB)
    process.communicate(timeout=60)
    np.testing.assert_equal(process.returncode, 0)


@pytest.mark.parametrize("change", ["cut", "grown", "replaced", "gone"])
@pytest.mark.parametrize("output", ["out", "out.csv"])
def test_inputs_that_change_while_they_are_read_are_told(batch, change, output):
    file, table = batch.folder / "in.csv", batch.table(400)
    table.write_csv(file)
    other = {"cut": table.head(3), "grown": table.vstack(table), "replaced": table.reverse(), "gone": table}[change]

    def told(progress: Progress) -> None:
        if not progress.done:  # before the first part is read
            other.write_csv(file)
            if change == "gone":
                file.unlink()

    with pytest.raises((Conflict, PartsFailed)) as found:  # a part may have begun in the middle of a row
        run_job(*batch.asked(file, batch.folder / output, part_rows=100, max_retries=0), told=told)
    assert change in ("replaced", "gone") or "changed while the job ran" in found.value.message
    assert not (batch.folder / "out.csv").exists()


def test_two_runs_that_write_to_one_table_at_once_both_end_well(batch, source, new_database_url):
    import sqlalchemy

    url = new_database_url("postgresql")
    runs = [batch.start(source, f"{url}#scores", **JOB) for _ in range(2)]
    said = [run.communicate(timeout=120)[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT count(*), count(DISTINCT id) FROM scores")).one()
    engine.dispose()
    assert tuple(found) == (3168, 3168)

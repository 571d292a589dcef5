"""Sweeps: trials are runs, in several processes that may die, and a sweep goes on where it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import noria.tracking as nt
import sweep_objectives
from noria.errors import Conflict, InvalidInput, NoriaError
from noria.store import Database

RATES = {"alpha": (1e-6, 1.0, "log"), "eta0": (1e-4, 10.0, "log")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A bare project, in use."""
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n')
    monkeypatch.setenv("DIES_ONCE", str(tmp_path / "died"))
    monkeypatch.chdir(tmp_path)
    nt.set_tracking_uri(tmp_path)
    yield tmp_path
    nt.set_tracking_uri(None)


def children(result, **wanted):
    """The runs of the trials."""
    found = nt.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{result.run_id}'")
    return [run for run in found if all(getattr(run, key) == value for key, value in wanted.items())]


def test_two_workers_search_and_stop_what_is_hopeless_early(folder):
    best = nt.sweep(
        sweep_objectives.digits, search_space=RATES, trials=16, workers=2, name="digits", experiment="sweeps"
    )
    assert best.counts["complete"] + best.counts["pruned"] == 16
    assert best.counts["pruned"] > 0 and best.best_value > 0.85
    winner, parent = nt.get_run(best.best_run_id), nt.get_run(best.run_id)
    assert winner.metrics["objective"].value == best.best_value
    assert {key: float(value) for key, value in winner.params.items()} == best.best_params
    assert (parent.status, parent.tags["noria.best_run_id"]) == ("FINISHED", best.best_run_id)
    assert Counter(run.status for run in children(best)) == {
        "FINISHED": best.counts["complete"],
        "KILLED": best.counts["pruned"],
    }
    assert all(run.tags["noria.pruned"] == "true" for run in children(best, status="KILLED"))
    assert [point.step for point in nt.get_metric_history(best.best_run_id, "objective")] == [0, 1, 2, 3, 4]
    again = nt.sweep(sweep_objectives.digits, search_space=RATES, trials=16, name="digits", experiment="sweeps")
    assert again == best
    with pytest.raises(Conflict, match="does not minimize"):
        nt.sweep(sweep_objectives.digits, search_space=RATES, name="digits", direction="minimize")


def test_an_objective_that_suggests_for_itself_and_fails_at_times(folder):
    best = nt.sweep(sweep_objectives.parabola, trials=20, seed=1)
    failed = children(best, status="FAILED")
    assert best.counts["failed"] == len(failed)
    assert sum(best.counts.values()) == 20 and abs(best.best_params["x"] - 3) < 2
    assert all("is too far" in run.tags["noria.error"] and float(run.params["x"]) > 9 for run in failed)


def test_a_trial_whose_worker_was_killed_runs_again(folder):
    best = nt.sweep(sweep_objectives.dies_once, search_space={"x": (0.0, 1.0)}, trials=3)
    assert best.counts == {"complete": 3, "pruned": 0, "failed": 0, "lost": 1}
    (lost,) = children(best, status="FAILED")
    assert lost.tags["noria.error"] == "its worker was killed by signal 9"
    (repeated,) = [run for run in children(best) if run.tags.get("noria.attempt") == "2"]
    assert repeated.status == "FINISHED"
    assert float(repeated.params["x"]) in {float(run.params["x"]) for run in children(best)}


def test_a_trial_whose_worker_is_always_interrupted_is_given_up_without_a_traceback(folder, capfd):
    with pytest.raises(NoriaError, match="no trial of the sweep"):
        nt.sweep(sweep_objectives.always_dies, search_space={"x": (0.0, 1.0)}, trials=1)
    assert "Traceback" not in capfd.readouterr().err


def test_a_sweep_without_any_value_says_so_and_ends_failed(folder):
    said = r"no trial of the sweep 'broken' had a value: .*; the last one ended by ValueError: no data"
    with pytest.raises(NoriaError, match=said):
        nt.sweep(sweep_objectives.broken, search_space={"x": (0.0, 1.0)}, trials=2, name="broken")
    statuses = Counter(run.status for run in nt.search_runs())
    assert statuses == {"FAILED": 3}


def test_a_killed_sweep_goes_on_and_nothing_of_it_lives_on(folder):
    code = (
        "import noria.tracking as nt, sweep_objectives\n"
        "nt.sweep(sweep_objectives.held, search_space={'x': (0.0, 1.0)}, trials=6, workers=2, name='s')"
    )
    (folder / "held").touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    leader = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=folder)
    try:
        wait_for(lambda: any(run.status == "FINISHED" for run in nt.search_runs()))
        with pytest.raises(Conflict, match="is led by process"):
            nt.sweep(sweep_objectives.held, search_space={"x": (0.0, 1.0)}, trials=6, name="s")
    finally:
        workers = children_of(leader.pid)
        os.kill(leader.pid, signal.SIGKILL)
        leader.wait()
        (folder / "held").unlink()
    assert workers
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    best = nt.sweep(sweep_objectives.held, search_space={"x": (0.0, 1.0)}, trials=6, workers=2, name="s")
    assert best.counts["complete"] == 6 and best.counts["lost"] >= 1
    assert not children(best, status="RUNNING")
    assert len([run for run in nt.search_runs() if "noria.sweep" in run.tags]) == 1


@pytest.mark.parametrize("space", [{"x": 3}, {"x": (2, 1)}, {"x": []}, {"x": (0.0, 1.0, "log")}, {"x": (1, 2, "exp")}])
def test_what_is_no_search_space_is_told(folder, space):
    with pytest.raises(InvalidInput, match="search_space"):
        nt.sweep(sweep_objectives.held, search_space=space)


def test_over_http_runs_go_to_the_server_and_the_study_stays_here(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nt.set_tracking_uri(server)
    best = nt.sweep(sweep_objectives.parabola, trials=3)
    assert len(children(best)) == 3 and nt.get_run(best.run_id).status == "FINISHED"
    assert (tmp_path / "noria-sweeps.db").is_file()
    nt.set_tracking_uri(None)


def test_the_study_lies_in_postgresql_beside_our_tables(folder, new_database_url, monkeypatch):
    url = new_database_url("postgresql")
    monkeypatch.setenv("NORIA_STORE__DATABASE", url)
    nt.set_tracking_uri(folder)
    best = nt.sweep(sweep_objectives.parabola, trials=4, workers=2)
    assert sum(best.counts.values()) == 4
    database = Database(url)
    database.migrate()  # finds the revision Noria left, not Optuna's
    with database.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM trials").scalar() == 4
        assert tx.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 5
    database.close()


def children_of(pid):
    """The processes a process started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)

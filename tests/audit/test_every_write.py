"""Every write has an entry, those of many clients at once too; no run, metric or param changes behind the chain."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from datetime import UTC, datetime
from threading import Thread

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from noria import audit
from noria.audit import tallies
from noria.audit.verification import verify
from noria.errors import BrokenChain
from noria.registry import NewVersion, Policies, register_version
from noria.registry.models import delete_model
from noria.store import Database
from noria.store.database import _MIGRATIONS
from noria.surface.cli.processes import Child
from noria.tracking import experiments, imports, logged_models, runs
from noria.tracking.entities import Metric
from noria.tracking.writer import Batch, GroupWriter
from support import noria, process_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
API = "/api/2.0/mlflow"


@pytest.fixture
def run(empty_database):
    """The id of a run with metrics, params and tags, of a logged model in its experiment."""
    with empty_database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=NOW)
        run = runs.start(tx, "0", name="r", user="u", at=NOW).run_id
        runs.log_params(tx, run, {"depth": "3", "rate": "0.1"})
        values = [0.25, math.nan, math.inf, -0.0, 1e-320]
        runs.log_metrics(tx, run, [Metric(f"m{i % 2}", value, i, i) for i, value in enumerate(values)])
        runs.set_tags(tx, run, {"team": "growth"})
        logged_models.create(tx, "0", name="x", source_run_id=run, model_type="", params={}, tags={}, at=NOW)
    return run


def write(database, *batches):
    async def together():
        writer = GroupWriter(database)
        await asyncio.gather(*(writer.write(batch) for batch in batches))

    asyncio.run(together())


def told(database, **options):
    """What the chain says, oldest first."""
    audit.settle_all(database)
    with database.read() as tx:
        verify(tx)
        return audit.entries(tx, newest_first=False, limit=1000, **options)


def test_what_is_noted_verifies_before_it_is_in_the_chain_and_after(empty_database, run):
    with empty_database.read() as tx:
        assert verify(tx).entries == 0
    found = told(empty_database)
    assert [entry.action for entry in found] == [
        "experiment.create", "run.create", "run.log", "logged_model.create",
    ]  # fmt: skip
    tally = found[2].detail["tally"][f"run:{run}"]
    assert (tally["metrics"][0], tally["params"][0], tally["tags"], found[2].detail["notes"]) == (5, 2, 1, 3)


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            "UPDATE run_metrics SET value = 0.99 WHERE value = 0.25",
            "metrics of run:{run} are not the 5 that were written",
        ),
        ("UPDATE run_metrics SET step = 9 WHERE step = 0", "metrics of run:{run} are not the 5"),
        ("DELETE FROM run_metrics WHERE step = 0", "metrics of run:{run}: 4 are in the records, 5 were written"),
        ("UPDATE latest_metrics SET value = 0.99", "the newest metrics of run:{run} are not the last of its history"),
        ("DELETE FROM latest_metrics WHERE key = 'm1'", "the newest metrics of run:{run} are not the last"),
        ("UPDATE run_params SET value = '9' WHERE key = 'depth'", "params of run:{run} are not the 2"),
        ("DELETE FROM run_params", "params of run:{run}: 0 are in the records, 2 were written"),
    ],
)
def test_a_value_changed_behind_the_chain_is_found(empty_database, run, change, finding, settled):
    if settled:
        told(empty_database)
    with empty_database.write() as tx:
        tx.execute(text(change))
    with empty_database.read() as tx, pytest.raises(BrokenChain) as caught:
        verify(tx)
    assert finding.format(run=run) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE runs SET status = 'FINISHED'", "runs {run} was changed without an audit entry"),
        ("UPDATE runs SET failed_as = 'FAILED'", "runs {run} was changed"),
        ("UPDATE run_tags SET value = 'other' WHERE key = 'team'", "runs {run} was changed"),
        ("DELETE FROM run_tags WHERE key = 'team'", "runs {run} was changed"),
        ("INSERT INTO run_inputs VALUES ('{run}', 'd', 'n', '', '{{}}')", "runs {run} was changed"),
        ("UPDATE experiments SET name = 'other'", "experiments 0 was changed"),
        ("UPDATE logged_models SET name = 'other'", "was changed"),
        ("DELETE FROM logged_models", "was removed"),
    ],
)
def test_a_record_changed_behind_the_chain_is_found(empty_database, run, change, finding):
    told(empty_database)
    with empty_database.write() as tx:
        tx.exec_driver_sql(change.format(run=run))
    with empty_database.read() as tx, pytest.raises(BrokenChain) as caught:
        verify(tx)
    assert finding.format(run=run) in str(caught.value)
    with empty_database.read() as tx:
        verify(tx, tracking=False)


def test_a_value_that_is_sent_again_is_counted_once_whoever_sends_it(empty_database, run):
    told(empty_database)
    good = [Metric("auc", 0.5, 1, 1), Metric("auc", 0.6, 1, 2)]
    write(empty_database, Batch(run, good), Batch(run, good[:1]), Batch(run, [*good, *good, Metric("auc", 0.7, 1, 3)]))
    write(empty_database, Batch(run, good, params={"depth": "3", "width": "4"}))
    entries = told(empty_database)[4:]
    counted: dict[str, dict[str, tuple[int, int]]] = {}
    for entry in entries:
        tallies.add(counted, tallies.read(entry.detail.get("tally")))
    assert {kind: count for kind, (count, _) in counted[f"run:{run}"].items()} == {"metrics": 3, "params": 1}


def test_notes_of_one_actor_are_one_entry_and_others_stay_apart(empty_database, run):
    told(empty_database)
    for actor in ("ada", "carl", "ada"):
        with audit.request("request-1", actor):
            write(empty_database, *(Batch(run, [Metric(actor, 1.0, step, step)]) for step in range(3)))
    found = told(empty_database, about=f"run:{run}")[-2:]
    assert [(entry.actor, entry.action, entry.subject) for entry in found] == [
        ("ada", "run.log", f"run:{run}"),
        ("carl", "run.log", f"run:{run}"),
    ]
    assert [entry.detail["tally"][f"run:{run}"]["metrics"][0] for entry in found] == [3, 3]


def test_clients_of_postgresql_log_beside_each_other(new_database_url):
    database = Database(new_database_url("postgresql"))
    database.migrate()
    with database.write() as tx:
        experiments.ensure_default(tx, artifact_root="", at=NOW)
        first, second = (runs.start(tx, "0", name="", user="u", at=NOW).run_id for _ in range(2))
    with database.append() as tx:
        runs.log_metrics(tx, first, [Metric("auc", 0.5, 1, 1)])
        other = Thread(target=write, args=(database, Batch(second, [Metric("auc", 0.5, 1, 1)])))
        other.start()
        other.join(30)
        assert not other.is_alive()
    assert [entry.action for entry in told(database)] == ["experiment.create", "run.create", "run.log"]
    database.close()


def test_an_import_that_replaces_params_leaves_a_sum_of_those_there_are(empty_database, run):
    with empty_database.write() as tx:
        found = runs.get(tx, run)
        imports.put_run(tx, found)
        imports.put_metrics(tx, run, [Metric("m0", 0.25, 0, 0), Metric("late", 1.0, 1, 1)])
    told(empty_database)


def test_a_model_that_is_deleted_leaves_what_it_was_and_lets_its_runs_go(empty_database, run):
    with empty_database.write() as tx:
        new = NewVersion(model="m", source="mlflow-artifacts:/x", run_id=run, digest="d")
        register_version(tx, new, policies=Policies(), at=NOW, actor="someone")
        delete_model(tx, "m", at=NOW, actor="someone")
        runs.change(tx, run, lifecycle_stage="deleted")
    entry = next(entry for entry in told(empty_database) if entry.action == "model.delete")
    version = {"version": 1, "stage": "None", "source": "mlflow-artifacts:/x", "run_id": run, "digest": "d"}
    assert entry.detail["before"] == {"description": "", "tags": {}, "aliases": {}, "versions": [version]}


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_what_was_there_before_is_taken_stock_of(engine, new_database_url):
    database = Database(new_database_url(engine))
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with database.write() as tx:
        config.attributes["connection"] = tx
        command.upgrade(config, "0006")
        tx.exec_driver_sql("INSERT INTO experiments VALUES ('1', 'old', '', 'active', 5, 5, '{}')")
        for run in ("a", "b"):
            tx.exec_driver_sql(
                f"INSERT INTO runs VALUES ('{run}', '1', '', 'u', 'FAILED', 'active', 1, 2, '', NULL, 0)"
            )
        tx.exec_driver_sql("INSERT INTO run_params VALUES ('a', 'p', 'ü')")
        for value, is_nan in ((0.5, 0), (0.0, 1)):
            tx.exec_driver_sql(f"INSERT INTO run_metrics VALUES ('a', 'auc', 1, {is_nan}, {value}, {is_nan})")
        tx.exec_driver_sql("INSERT INTO latest_metrics VALUES ('a', 'auc', 1, 1, 0.0, 1)")
    database.migrate()
    assert [entry.action for entry in told(database)] == ["tracking.adopt"]
    with database.write() as tx:
        assert runs.state(tx, "a").failed_as == "FAILED"
        runs.log_metrics(tx, "a", [Metric("auc", 0.75, 2, 2)])
    told(database)
    with database.write() as tx:
        tx.exec_driver_sql("UPDATE run_metrics SET value = 0.9 WHERE value = 0.5")
    with database.read() as tx, pytest.raises(BrokenChain, match="metrics of run:a"):
        verify(tx)
    database.close()


def call(url, method, path, request_id, prefix=API, **content):
    headers = {"x-request-id": request_id}
    answer = httpx.request(method, url + prefix + path, headers=headers, auth=("ada", "x"), timeout=30, **content)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else {}


def test_every_endpoint_that_writes_leaves_an_entry_of_its_caller(governed_project, server):
    made = call(server, "POST", "/experiments/create", "made", json={"name": "every write"})["experiment_id"]
    run = call(server, "POST", "/runs/create", "run", json={"experiment_id": made})["run"]["info"]["run_id"]
    trace = call(server, "POST", "/traces", "trace", json={"experiment_id": made})["trace_info"]["request_id"]
    logged = call(server, "POST", "/logged-models", "logged", json={"experiment_id": made, "name": "m"})
    model, of_run, tag = logged["model"]["info"]["model_id"], {"run_id": run}, {"key": "k", "value": "v"}
    feedback = {
        "assessment_name": "good",
        "feedback": {"value": True},
        "source": {"source_type": "HUMAN", "source_id": "a"},
    }
    said = call(server, "POST", f"/traces/{trace}/assessments", "said", json={"assessment": feedback})
    assessment = said["assessment"]["assessment_id"]
    steps = [
        ("POST", "/experiments/set-experiment-tag", {"experiment_id": made, **tag}, "experiment.update"),
        ("POST", "/experiments/update", {"experiment_id": made, "new_name": "every write 2"}, "experiment.update"),
        ("POST", "/experiments/delete-experiment-tag", {"experiment_id": made, "key": "k"}, "experiment.update"),
        ("POST", "/runs/log-metric", {**of_run, "key": "m", "value": 1, "timestamp": 1}, "run.log"),
        ("POST", "/runs/log-parameter", {**of_run, **tag}, "run.log"),
        ("POST", "/runs/set-tag", {**of_run, **tag}, "run.log"),
        ("POST", "/runs/log-batch", {**of_run, "tags": [tag]}, "run.log"),
        ("POST", "/runs/log-inputs", {**of_run, "datasets": [{"dataset": {"name": "d", "digest": "d"}}]}, "run.log"),
        ("POST", "/runs/outputs", {**of_run, "models": [{"model_id": model, "step": 0}]}, "run.log"),
        ("POST", "/runs/delete-tag", {**of_run, "key": "k"}, "run.delete_tag"),
        ("POST", "/runs/update", {**of_run, "status": "FINISHED"}, "run.update"),
        ("POST", "/runs/delete", of_run, "run.delete"),
        ("POST", "/runs/restore", of_run, "run.restore"),
        ("PATCH", f"/logged-models/{model}", {"status": "LOGGED_MODEL_READY"}, "logged_model.update"),
        ("POST", f"/logged-models/{model}/params", {"params": [tag]}, "logged_model.update"),
        ("PATCH", f"/logged-models/{model}/tags", {"tags": [tag]}, "logged_model.update"),
        ("DELETE", f"/logged-models/{model}/tags/k", {}, "logged_model.delete_tag"),
        ("DELETE", f"/logged-models/{model}", {}, "logged_model.delete"),
        ("PATCH", f"/traces/{trace}/tags", tag, "trace.set_tag"),
        ("DELETE", f"/traces/{trace}/tags", {"key": "k"}, "trace.delete_tag"),
        ("PATCH", f"/traces/{trace}", {"status": "OK", "timestamp_ms": 5}, "trace.end"),
        ("POST", "/traces/link-to-run", {**of_run, "trace_ids": [trace]}, "trace.link"),
        ("PATCH", f"/traces/{trace}/assessments/{assessment}", {"assessment": feedback, "update_mask": "feedback"},
         "assessment.update"),
        ("DELETE", f"/traces/{trace}/assessments/{assessment}", {}, "assessment.delete"),
        ("POST", "/traces/delete-traces", {"experiment_id": made, "request_ids": [trace]}, "trace.delete"),
        ("POST", "/experiments/delete", {"experiment_id": made}, "experiment.delete"),
        ("POST", "/experiments/restore", {"experiment_id": made}, "experiment.restore"),
    ]  # fmt: skip
    expected = {"made": "experiment.create", "run": "run.create", "trace": "trace.write"}
    expected |= {"logged": "logged_model.create", "said": "assessment.create"}
    database = Database(f"sqlite:///{governed_project}/.noria/noria.db")
    for number, (method, path, body, action) in enumerate(steps):
        call(server, method, path, f"step-{number}", json=body)
        expected[f"step-{number}"] = action
        audit.settle_all(database)  # so that each has an entry of its own
    database.close()
    artifacts = {"prefix": "/api/2.0/mlflow-artifacts/artifacts"}
    call(server, "PUT", f"/{made}/{run}/artifacts/a.txt", "put", **artifacts, content=b"hello")
    call(server, "DELETE", f"/{made}/{run}/artifacts/a.txt", "gone", **artifacts)
    expected |= {"put": "artifact.write", "gone": "artifact.delete"}
    entries = json.loads(noria("audit", "show", "--json", "--limit", "1000", cwd=governed_project).stdout)
    found = {entry["detail"].get("request_id"): entry for entry in entries}
    assert {name: found[name]["action"] for name in expected if name in found} == expected
    assert {found[name]["actor"] for name in expected} == {"mlflow:ada"}
    assert found["put"]["detail"]["bytes"] == 5
    noria("audit", "verify", cwd=governed_project)


def test_what_a_killed_server_had_answered_is_noted_and_the_next_one_settles_it(
    tmp_path, new_database_url, monkeypatch
):
    monkeypatch.setenv("NORIA_STORE__DATABASE", new_database_url("sqlite"))
    (tmp_path / "noria.toml").write_text('[project]\nname = "g"\n[model]\nname = "m"\ntask = "regression"\n')
    child = Child("server", tmp_path, 0)
    run = call(child.url, "POST", "/runs/create", "r", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    for step in range(50):
        body = {"run_id": run, "key": "m", "value": step, "timestamp": 1, "step": step}
        call(child.url, "POST", "/runs/log-metric", f"s{step}", json=body)
    os.kill(process_of("server", tmp_path), signal.SIGKILL)
    child.stop()
    entries = json.loads(noria("audit", "show", "--json", "--about", f"run:{run}", cwd=tmp_path).stdout)
    counted = sum(
        entry["detail"]["tally"][f"run:{run}"]["metrics"][0] for entry in entries if "tally" in entry["detail"]
    )
    assert counted == 50
    noria("audit", "verify", cwd=tmp_path)

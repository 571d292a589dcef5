"""The client: one contract over a project's folder and over a live server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import noria.tracking as nt
from noria.errors import Conflict, InvalidConfig, InvalidInput, MissingExtra, NotFound, PolicyRefused
from noria.tracking import session
from support import noria

HEAVY = ("mlflow", "sqlalchemy", "msgspec", "pydantic", "polars", "numpy", "sklearn", "http.client")


class Doubler:
    """A model that is no estimator."""

    def predict(self, rows):
        return [2 * value for value in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project of its own with the policy of the served one."""
    folder = tmp_path_factory.mktemp("client") / "shop"
    noria("init", str(folder), cwd=folder.parent)
    config = folder / "noria.toml"
    governed = '[policies."governed*".stages.Production]\nrequired_tags = ["reviewed"]\n'
    config.write_text(config.read_text().replace('[policies."*"', governed + '\n[policies."hourly*"'))
    return folder


@pytest.fixture(params=["folder", "server"])
def client(request):
    """The verbs, at work on a folder or a server."""
    nt.set_tracking_uri(request.getfixturevalue(request.param))
    nt.set_experiment("churn")
    yield nt
    while nt.active_run():
        nt.end_run()
    nt.set_tracking_uri(None)


@pytest.fixture(scope="module")
def estimator():
    """A classifier fitted on two named columns, with the frame it learnt from."""
    from sklearn.linear_model import LogisticRegression

    frame = pl.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "visits": [1, 2, 3, 4]})
    return LogisticRegression().fit(frame, [0, 0, 1, 1]), frame


def test_a_run_keeps_what_is_logged(client):
    with client.start_run(run_name="first", tags={"team": "growth"}, description="a note") as run:
        client.log_param("depth", 3)
        client.log_params({"rate": 0.1, "kind": "x"})
        client.log_metrics({"auc": 0.9, "loss": 0.3}, step=2, timestamp=1_700_000_000_000)
        client.set_tag("reviewed", True)
    found = client.get_run(run.run_id)
    assert (found.name, found.status, found.params) == ("first", "FINISHED", {"depth": "3", "rate": "0.1", "kind": "x"})
    assert {key: metric.value for key, metric in found.metrics.items()} == {"auc": 0.9, "loss": 0.3}
    assert (found.metrics["auc"].step, found.metrics["auc"].timestamp_millis) == (2, 1_700_000_000_000)
    assert (found.tags["team"], found.tags["reviewed"], found.tags["mlflow.note.content"]) == (
        "growth",
        "True",
        "a note",
    )
    assert found.ended_at is not None and found.ended_at >= found.started_at


def test_a_history_keeps_every_value_by_step_and_what_is_no_number(client):
    with client.start_run() as run:
        for step in (2, 0, 1):
            client.log_metric("loss", 1 / (step + 1), step)
        client.log_metric("odd", float("nan"))
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, 1 / 3),
    ]
    assert client.get_run(run.run_id).metrics["odd"].value != client.get_run(run.run_id).metrics["odd"].value


def test_more_than_one_batch_of_params_arrives(client):
    with client.start_run() as run:
        client.log_params({f"p{i}": i for i in range(250)})
    assert len(client.get_run(run.run_id).params) == 250


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "FAILED")]
)
def test_a_block_that_raises_ends_its_run_so(client, error, status):
    with pytest.raises(error), client.start_run() as run, client.start_run(nested=True) as child:
        raise error("no")
    assert [client.get_run(r.run_id).status for r in (run, child)] == [status, status]
    assert client.active_run() is None


def test_nested_runs_know_their_parent_and_others_are_refused(client):
    with client.start_run() as run:
        with pytest.raises(Conflict, match=run.run_id):
            client.start_run()
        with client.start_run(nested=True) as child:
            client.log_metric("auc", 0.5)
        client.log_metric("auc", 0.6)
    assert client.get_run(child.run_id).tags["mlflow.parentRunId"] == run.run_id
    assert [client.get_run(r.run_id).metrics["auc"].value for r in (run, child)] == [0.6, 0.5]


def test_a_run_is_gone_on_with(client):
    with client.start_run() as run:
        client.log_param("depth", 3)
    with client.start_run(run.run_id) as again:
        assert client.get_run(run.run_id).status == "RUNNING"
        client.log_metric("auc", 0.7)
    found = client.get_run(run.run_id)
    assert (again.run_id, found.status, found.metrics["auc"].value) == (run.run_id, "FINISHED", 0.7)


def test_another_value_of_a_param_is_refused(client):
    with client.start_run():
        client.log_param("depth", 3)
        client.log_param("depth", 3)
        with pytest.raises((Conflict, InvalidInput), match="depth"):
            client.log_param("depth", 4)


def test_what_does_not_exist_is_said_so(client):
    with pytest.raises(NotFound, match="0000"):
        client.get_run("0" * 32)
    with pytest.raises(NotFound):
        client.load_model("models:/nobody/1")
    with client.start_run() as run:
        pass
    with pytest.raises(NotFound):
        client.load_model(f"runs:/{run.run_id}/model")
    with pytest.raises(NotFound):
        client.register_model(f"runs:/{run.run_id}/model", "churn")
    with pytest.raises(NotFound):
        client.download_artifacts(run_id=run.run_id, artifact_path="nothing.txt")
    with pytest.raises(InvalidInput):
        client.search_runs(filter_string="metrics.auc >")
    with pytest.raises(InvalidInput, match="not a number"):
        client.log_metric("auc", "high", run_id=run.run_id)


def test_searches_filter_order_and_limit(client):
    client.set_experiment("searched")
    for auc in (0.7, 0.9, 0.8):
        with client.start_run(run_name=f"auc {auc}"):
            client.log_metric("auc", auc)
    found = client.search_runs(filter_string="metrics.auc > 0.75", order_by=["metrics.auc DESC"])
    assert [run.name for run in found] == ["auc 0.9", "auc 0.8"]
    assert len(client.search_runs(max_results=1)) == 1
    assert len(client.search_runs(experiment_names=["searched", "churn"])) >= 3
    table = found.to_polars()
    assert table["metrics.auc"].to_list() == [0.9, 0.8] and "tags.mlflow.runName" in table.columns


def test_artifacts_come_back_as_they_were(client, tmp_path):
    (tmp_path / "plots/deep").mkdir(parents=True)
    (tmp_path / "plots/deep/é ü.bin").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "note.txt").write_text("hello")
    with client.start_run() as run:
        client.log_artifact(tmp_path / "note.txt", "notes")
        client.log_artifacts(tmp_path / "plots", "plots")
        client.log_text("grüezi", "notes/greeting.txt")
        client.log_dict({"a": [1]}, "facts.json")
        client.log_dict({"a": [1]}, "facts.yaml")
        with pytest.raises(InvalidInput, match="leaves"):
            client.log_text("x", "../up.txt")
        with pytest.raises(NotFound):
            client.log_artifact(tmp_path / "nothing")
    root = client.list_artifacts(run.run_id)
    assert [(e.path, e.is_dir) for e in root] == [
        ("facts.json", False),
        ("facts.yaml", False),
        ("notes", True),
        ("plots", True),
    ]
    assert [e.path for e in client.list_artifacts(run.run_id, "notes")] == ["notes/greeting.txt", "notes/note.txt"]
    folder = client.download_artifacts(run_id=run.run_id, dst_path=tmp_path / "back")
    assert (folder / "plots/deep/é ü.bin").read_bytes() == (tmp_path / "plots/deep/é ü.bin").read_bytes()
    assert (folder / "notes/greeting.txt").read_text() == "grüezi"
    assert json.loads((folder / "facts.json").read_text()) == {"a": [1]}
    one = client.download_artifacts(f"runs:/{run.run_id}/notes/note.txt", dst_path=tmp_path / "one")
    assert one.read_text() == "hello"


def test_a_dataset_is_told_by_its_rows_whatever_the_frame(client):
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    with client.start_run() as run:
        told = client.log_input(frame, "training", name="customers")
        same = client.log_input(frame.to_pandas(), "training", name="customers")
        other = client.log_input(frame.with_columns(a=pl.lit(3)), "training", name="customers")
        with pytest.raises(InvalidInput):
            client.log_input([1, 2])
    assert told.digest == same.digest != other.digest
    kept = client.get_run(run.run_id).datasets
    assert {(item["name"], item["digest"]) for item in kept} == {
        ("customers", told.digest),
        ("customers", other.digest),
    }


def test_a_model_is_logged_registered_moved_and_loaded(client, estimator):
    model, frame = estimator
    with client.start_run() as run:
        client.log_metric("auc", 0.95)
        logged = client.log_model(model, "model", registered_model_name="churn", input_example=frame)
    assert logged.registered.run_id == run.run_id
    number = logged.registered.version
    client.set_alias("churn", "champion", number)
    assert client.transition_stage("churn", number, "Production", reason="better").stage == "Production"
    for uri in (
        logged.model_uri,
        f"runs:/{run.run_id}/model",
        f"models:/churn/{number}",
        "models:/churn/Production",
        "models:/churn/latest",
        "models:/churn@champion",
    ):
        assert (client.load_model(uri).predict(frame) == model.predict(frame)).all(), uri
    again = client.register_model(f"runs:/{run.run_id}/model", "churn", tags={"why": "again"})
    assert (again.version, again.tags["why"], again.logged_model_id) == (number + 1, "again", logged.model_id)
    assert client.get_model_version("churn", "@champion").aliases == ["champion"]


def test_anything_that_predicts_can_be_logged_and_nothing_else(client):
    with client.start_run() as run:
        client.log_model(Doubler(), "doubler")
        with pytest.raises(InvalidInput, match="predict"):
            client.log_model(object())
    assert client.load_model(f"runs:/{run.run_id}/doubler").predict([1, 2]) == [2, 4]


def test_a_policys_refusal_names_every_condition(client, estimator):
    with client.start_run():
        version = client.log_model(estimator[0], registered_model_name="governed").registered.version
    with pytest.raises(PolicyRefused) as refusal:
        client.transition_stage("governed", version, "Production")
    assert any("reviewed" in detail for detail in refusal.value.details)
    client.set_version_tag("governed", version, "reviewed", "yes")
    with client.start_run(), pytest.raises(PolicyRefused, match="governed"):
        raise_after_registering(client, estimator[0])


def raise_after_registering(client, model):
    """A version of a run that failed is not registered."""
    failed = client.active_run().run_id
    client.log_model(model)
    client.end_run("FAILED")
    client.register_model(f"runs:/{failed}/model", "governed")


def test_logging_without_a_run_starts_one_that_ends_with_the_process(client):
    script = "import sys, noria.tracking as nt; nt.log_metric('auc', 0.5); print(nt.active_run().run_id); {}"
    for ending, status in (("", "FINISHED"), ("1 / 0", "FAILED")):
        done = run_python(script.format(ending), NORIA_TRACKING_URI=client.get_tracking_uri())
        assert client.get_run(done.stdout.strip()).status == status, done.stderr


def test_a_thread_has_runs_of_its_own(client):
    from threading import Thread

    seen = []
    with client.start_run() as run:

        def work():
            seen.append(client.active_run())
            client.log_metric("auc", 0.5, run_id=run.run_id)

        thread = Thread(target=work)
        thread.start()
        thread.join()
    assert seen == [None]
    assert client.get_run(run.run_id).metrics["auc"].value == 0.5


def test_importing_the_client_needs_the_standard_library_alone():
    code = f"import sys, noria.tracking; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_the_address_is_the_one_chosen_then_the_environment_then_the_project_around(folder, tmp_path):
    code = "import noria.tracking as nt; print(nt.get_tracking_uri())"
    inside = folder / "deep/er"
    inside.mkdir(parents=True)
    assert run_python(code, cwd=inside).stdout.strip() == str(folder.resolve())
    both = {"NORIA_TRACKING_URI": str(folder), "MLFLOW_TRACKING_URI": "http://localhost:1"}
    assert run_python(code, cwd=tmp_path, **both).stdout.strip() == str(folder.resolve())
    chosen = f"import noria.tracking as nt; nt.set_tracking_uri('http://localhost:2'); {code}"
    assert run_python(chosen, cwd=tmp_path, **both).stdout.strip() == "http://localhost:2"
    assert "InvalidConfig" in run_python(code, cwd=tmp_path).stderr


def test_a_scheme_nobody_serves_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="sqlite"):
        session.backend("sqlite:///x.db")
    with pytest.raises(InvalidInput, match="such as 'htp://x'"):
        nt.set_tracking_uri("htp://x")
    with pytest.raises(InvalidInput, match="'x' names nothing to log"):
        nt.set_tags("x", run_id="any")
    with pytest.raises(InvalidConfig):
        session.backend(str(tmp_path))


def test_a_flavor_that_only_mlflow_reads_is_named(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n")
    with pytest.raises(MissingExtra, match="pytorch"):
        nt.load_model(tmp_path)


def run_python(code, cwd=None, **environment):
    """Run ``code`` in a new interpreter without our addresses in its environment."""
    kept = {key: value for key, value in os.environ.items() if not key.endswith("TRACKING_URI")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd or Path(__file__).parent,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

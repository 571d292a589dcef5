"""`noria models`: the way back from a version, its files, and what is changed about it by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from noria.config import load_server_settings
from noria.registry import NewVersion, Policies, Stage, register_version, transition
from noria.rollout import Variant, set_routes
from noria.store.workspace import Workspace
from noria.surface.cli.main import app
from noria.tracking import experiments, runs
from noria.tracking.entities import Metric
from support import noria

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = "a" * 32


@pytest.fixture
def folder(tmp_path):
    """A project with version 1 in Production, serving, and version 2 of the same run; both have files."""
    (tmp_path / "noria.toml").write_text('[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n')
    workspace = Workspace(tmp_path, load_server_settings(tmp_path, environment={}))
    with workspace.database.write() as tx:
        experiment = experiments.get_or_create(tx, "churn", artifact_root="mlflow-artifacts:/", at=NOW)
        root = f"mlflow-artifacts:/{experiment.experiment_id}/{RUN}/artifacts"
        tags = {"mlflow.source.git.commit": "abc", "team": "growth"}
        runs.create(tx, experiment.experiment_id, run_id=RUN, name="r", user="u", artifact_uri=root, at=NOW, tags=tags)
        runs.log_params(tx, RUN, {"depth": "3"})
        runs.log_metrics(tx, RUN, [Metric("auc", 0.8, 1, 1)])
        runs.log_dataset(tx, RUN, "customers", "d1", {})
        for name in ("one", "two"):
            new = NewVersion(model="m", source=f"{root}/{name}", run_id=RUN)
            register_version(tx, new, policies=Policies(), at=NOW, actor="trainer")
        transition(tx, "m", 1, Stage.PRODUCTION, policies=Policies(), at=NOW, actor="someone", reason="better")
        set_routes(tx, "shop", [Variant("champion", "m", 1, "s", "", 100)], at=NOW, actor="someone", reason="first")
    for name in ("one", "two"):
        workspace.artifacts.write(f"{experiment.experiment_id}/{RUN}/artifacts/{name}/MLmodel", b"flavors")
        workspace.artifacts.write(f"{experiment.experiment_id}/{RUN}/artifacts/{name}/data/weights", b"x" * 10)
    workspace.database.close()
    return tmp_path


def test_the_lineage_goes_back_to_data_and_code_and_on_to_where_it_served(folder):
    noria("models", "alias", "m", "champion", "1", cwd=folder)
    found = json.loads(noria("models", "lineage", "m", "1", "--json", cwd=folder).stdout)
    assert (found["run"]["params"], found["run"]["metrics"]) == ({"depth": "3"}, {"auc": 0.8})
    assert (found["run"]["experiment"], found["code"]) == ("churn", {"mlflow.source.git.commit": "abc"})
    assert [(item["name"], item["digest"]) for item in found["data"]] == [("customers", "d1")]
    assert (found["aliases"], len(found["moves"])) == (["champion"], 1)
    assert [(item["deployment"], item["percent"]) for item in found["deployments"]] == [("shop", 100)]
    assert "None → Production by someone: better" in noria("models", "lineage", "m", "1", cwd=folder).stdout


def test_a_model_that_is_not_there_has_no_empty_lists(folder):
    for words in [("models", "versions"), ("models", "history"), ("rollout", "list")]:
        refused = CliRunner().invoke(app, [*words, "nobodys", "--json", "--project", str(folder)])
        assert (refused.exit_code, json.loads(refused.stdout)["error"]["title"]) == (1, "not found")
    cardless = CliRunner().invoke(app, ["models", "card", "m", "1", "--project", str(folder)])
    assert (cardless.exit_code, "m@1 has no model card" in cardless.output) == (1, True)


def test_files_are_listed_and_downloaded(folder):
    command = ("models", "artifacts", "m", "1", "--json", "--download", "copy")
    rows = json.loads(noria(*command, cwd=folder).stdout)
    assert rows == [{"path": "MLmodel", "size_bytes": 7}, {"path": "data/weights", "size_bytes": 10}]
    assert (folder / "copy/data/weights").read_bytes() == b"x" * 10


def test_tags_are_set_and_what_serves_is_not_deleted(folder):
    noria("models", "tag", "m", "2", "reviewed", "yes", cwd=folder)
    noria("models", "tag", "m", "2", "team", "growth", cwd=folder)
    found = json.loads(noria("models", "lineage", "m", "2", "--json", cwd=folder).stdout)
    assert found["version"]["tags"] == {"reviewed": "yes", "team": "growth"}
    refused = noria("models", "delete", "m", "1", "--yes", cwd=folder, check=False)
    assert refused.returncode == 3 and "cannot be deleted" in refused.stderr
    assert noria("models", "delete", "m", "2", cwd=folder, check=False, stdin="n\n").returncode == 1
    done = noria("models", "delete", "m", "2", "--yes", "--reason", "wrong data", cwd=folder)
    assert "with its files" in done.stdout
    assert noria("models", "lineage", "m", "2", cwd=folder, check=False).returncode == 1

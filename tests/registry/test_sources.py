"""A version is of the files and the run that made it, whatever a client calls them, and they stay while it is there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from noria.config import PolicySettings
from noria.errors import InvalidInput, NotFound, PolicyRefused, Protected
from noria.registry import Policies
from noria.registry.models import create_model, update_model
from noria.registry.protection import require_open, require_unregistered
from noria.registry.registration import Saved, register_source
from noria.registry.versions import delete_version, get_version, update_version
from noria.tracking import experiments, logged_models, runs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEASURED = {"*": PolicySettings.model_validate({"stages": {"Production": {"required_metrics": ["auc"]}}})}
PROMPT = {"mlflow.prompt.is_prompt": "true"}


@pytest.fixture
def tx(empty_database):
    with empty_database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=NOW)
        yield tx


def new_run(tx):
    return runs.start(tx, "0", name="", user="u", at=NOW)


def logged_by(tx, run, name="model"):
    return logged_models.create(
        tx, "0", name=name, source_run_id=run and run.run_id, model_type="", params={}, tags={}, at=NOW
    )


def register(tx, source, model="m", policies=None, **fields):
    saved = Saved(source, **fields)
    return register_source(tx, model, saved, policies=policies or Policies(), at=NOW, actor="someone")


def test_every_name_of_a_logged_model_leads_to_its_files_and_its_run(tx):
    run = new_run(tx)
    logged = logged_by(tx, run)
    for source, fields, named in (
        (f"models:/{logged.model_id}", {}, True),
        (f"models:/{logged.model_id}", {"logged_model_id": logged.model_id, "run_id": run.run_id}, True),
        (f"runs:/{run.run_id}/model", {"run_id": run.run_id}, True),
        (logged.artifact_uri, {}, False),
        (f"{logged.artifact_uri}//data/./", {}, False),
    ):
        made = register(tx, source, **fields)
        assert (made.run_id, made.logged_model_id) == (run.run_id, logged.model_id), source
        assert made.source.startswith(logged.artifact_uri) and "//" not in made.source
        assert made.named_source == (source if named else "")


def test_a_path_of_a_run_is_where_the_run_keeps_it(tx):
    run = new_run(tx)
    made = register(tx, f"runs:/{run.run_id}/kept")
    assert (made.source, made.run_id) == (f"{run.artifact_uri}/kept", run.run_id)
    assert register(tx, f"{run.artifact_uri}/kept").run_id == run.run_id


def test_another_run_is_not_named_for_what_a_run_made(tx):
    good, bad = new_run(tx), new_run(tx)
    logged, homeless = logged_by(tx, bad), logged_by(tx, None, "homeless")
    version = register(tx, f"{bad.artifact_uri}/m", model="other")
    for source, fields in (
        (f"models:/{logged.model_id}", {}),
        (f"models:/{homeless.model_id}", {}),
        (f"{good.artifact_uri}/m", {"logged_model_id": logged.model_id}),
        (logged.artifact_uri, {}),
        (f"{bad.artifact_uri}/m", {}),
        (f"models:/other/{version.version}", {}),
        (f"runs:/{bad.run_id}/m", {}),
        ("mlflow-artifacts:/somewhere", {}),
    ):
        with pytest.raises(InvalidInput):
            register(tx, source, run_id=good.run_id, **fields)


@pytest.mark.parametrize(
    "source",
    [
        "mlflow-artifacts:/", "mlflow-artifacts:/0", "mlflow-artifacts:/0/models", "mlflow-artifacts:/0/r/a?x=1",
        "mlflow-artifacts:/0/%6d", "mlflow-artifacts:/a#b", "http://host/model", "https://host/model", "file:/etc",
        "/etc", "model", "s3://a/../b", "models:/other/Production", "mlflow-artifacts:/a\\b",
    ],
)  # fmt: skip
def test_what_is_no_place_of_one_model_is_refused(tx, source):
    with pytest.raises(InvalidInput):
        register(tx, source)


def test_files_elsewhere_prove_nothing_of_a_run_where_metrics_are_required(tx):
    run, policies = new_run(tx), Policies.from_settings(MEASURED)
    with pytest.raises(PolicyRefused, match="outside of run"):
        register(tx, "s3://bucket/model", policies=policies, run_id=run.run_id)
    register(tx, "s3://bucket/model", policies=policies)
    register(tx, "s3://bucket/model", run_id=run.run_id)
    lenient = {"*": MEASURED["*"].model_copy(update={"external_sources": True})}
    register(tx, "s3://bucket/model", policies=Policies.from_settings(lenient), run_id=run.run_id)


def test_a_copy_outlives_what_it_was_copied_of(tx):
    run = new_run(tx)
    first = register(tx, f"{run.artifact_uri}/m", model="dev")
    copy = register(tx, "models:/dev/1", model="prod")
    again = register(tx, "models:/prod/1", model="prod")
    delete_version(tx, "dev", 1, at=NOW, actor="someone")
    for made, named in ((copy, "models:/dev/1"), (again, "models:/prod/1")):
        found = get_version(tx, "prod", made.version)
        assert (found.source, found.named_source, found.run_id) == (first.source, named, run.run_id)
    with pytest.raises(Protected, match="registered as prod@"):
        runs.change(tx, run.run_id, lifecycle_stage="deleted")
    with pytest.raises(NotFound):
        register(tx, "models:/dev/1", model="prod")


def test_files_are_closed_from_above_and_below_until_the_version_goes(tx):
    run = new_run(tx)
    register(tx, f"{run.artifact_uri}/m_1")
    experiment = run.artifact_uri.rpartition(f"/{run.run_id}")[0]
    for uri in (experiment, run.artifact_uri, f"{run.artifact_uri}/m_1", f"{run.artifact_uri}/m_1/a/b"):
        with pytest.raises(Protected, match="m@1"):
            require_open(tx, uri)
    for uri in (f"{run.artifact_uri}/m", f"{run.artifact_uri}/m_11", f"{run.artifact_uri}/m%1"):
        require_open(tx, uri)
    delete_version(tx, "m", 1, at=NOW, actor="someone")
    require_open(tx, run.artifact_uri)


def test_a_logged_model_stays_while_a_version_is_of_it(tx):
    logged = logged_by(tx, new_run(tx))
    require_unregistered(tx, logged)
    register(tx, f"models:/{logged.model_id}")
    with pytest.raises(Protected, match="registered as m@1"):
        require_unregistered(tx, logged)


def test_no_model_or_version_hides_as_a_prompt(tx):
    register(tx, f"{new_run(tx).artifact_uri}/m")
    create_model(tx, "greeting", policies=Policies(), at=NOW, actor="someone", tags=PROMPT)
    made = register(tx, "greeting-1", model="greeting", tags={**PROMPT, "mlflow.prompt.text": "Hello"})
    assert made.source == "greeting-1"
    for change in (
        lambda: update_model(tx, "m", at=NOW, actor="someone", tags=PROMPT),
        lambda: update_model(tx, "greeting", at=NOW, actor="someone", tags={}),
        lambda: update_version(tx, "m", 1, at=NOW, actor="someone", tags=PROMPT),
        lambda: register(tx, f"{new_run(tx).artifact_uri}/m", tags=PROMPT),
        lambda: register(tx, f"{new_run(tx).artifact_uri}/m", model="greeting", tags=PROMPT),
        lambda: register(tx, f"{new_run(tx).artifact_uri}/m", model="greeting"),
    ):
        with pytest.raises(InvalidInput):
            change()

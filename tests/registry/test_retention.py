"""Old versions go when their policy says so, with their files; those that something needs stay."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from noria import audit
from noria.config import PolicySettings, load_server_settings
from noria.errors import Protected
from noria.lifecycle.retention import clean_up, remove_version
from noria.registry import NewVersion, Policies, Stage, list_versions, register_version, transition
from noria.registry.models import set_alias
from noria.registry.registration import Saved, register_source
from noria.rollout import Variant, set_routes
from noria.store.workspace import Workspace
from support import noria

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD = NOW - timedelta(days=400)
RULES = {"retention_days": 365, "archive_stages": ["Archived", "Staging"]}


@pytest.fixture
def workspace(tmp_path):
    opened = Workspace(tmp_path, load_server_settings(tmp_path, environment={}))
    yield opened
    opened.database.close()


@pytest.fixture
def policies():
    return Policies.from_settings({"*": PolicySettings.model_validate(RULES)})


def add(workspace, stages=(), at=OLD, source="", **fields):
    """Register a version with a file, and take it through stages."""
    with workspace.database.write() as tx:
        number = len(list_versions(tx, "m")) + 1
        source = source or f"mlflow-artifacts:/0/run{number}/artifacts/model"
        new = NewVersion(model="m", source=source, **fields)
        made = register_version(tx, new, policies=Policies(), at=at, actor="trainer")
        for stage in stages:
            transition(tx, "m", made.version, stage, policies=Policies(), at=at, actor="trainer")
    workspace.artifacts.write(f"{source.removeprefix('mlflow-artifacts:/')}/weights", b"x" * 10)
    return made.version


def cleaned(workspace, policies, **options):
    removed = clean_up(workspace, policies, "m", at=NOW, actor="keeper", **options)
    return [removal.version.version for removal in removed]


def test_only_old_versions_of_the_stages_named_go_and_what_is_needed_stays(workspace, policies):
    archived = add(workspace, [Stage.ARCHIVED])
    add(workspace)  # in no stage
    add(workspace, [Stage.ARCHIVED], at=NOW - timedelta(days=364))  # too young
    add(workspace, [Stage.PRODUCTION])  # what a rollback would go to
    add(workspace, [Stage.PRODUCTION])
    named = add(workspace, [Stage.STAGING])
    staged = add(workspace, [Stage.STAGING])
    routed = add(workspace, [Stage.STAGING])
    with workspace.database.write() as tx:
        set_alias(tx, "m", "keeper", named, at=NOW, actor="someone")
        variant = Variant("champion", "m", routed, "s", "", 100)
        set_routes(tx, "shop", [variant], at=NOW, actor="someone", reason="")
    assert cleaned(workspace, policies, dry_run=True) == [archived, staged]
    assert cleaned(workspace, policies) == [archived, staged]
    assert cleaned(workspace, policies) == []
    with workspace.database.read() as tx:
        assert [version.version for version in list_versions(tx, "m")] == [2, 3, 4, 5, 6, 8]
        entries = [entry for entry in audit.entries(tx) if entry.action == "version.delete"]
        assert {(entry.actor, entry.detail["reason"]) for entry in entries} == {
            ("keeper", "older than 365 days, in Archived"),
            ("keeper", "older than 365 days, in Staging"),
        }
        audit.verify(tx)
    assert workspace.artifacts.entries("0/run1/artifacts/model") == []
    assert workspace.artifacts.entries("0/run2/artifacts/model") != []


@pytest.mark.parametrize(
    "other", ["mlflow-artifacts:/0/run1/artifacts/model", "mlflow-artifacts:/0/run1/artifacts", "models:/m/1"]
)
def test_files_that_another_version_needs_stay(workspace, policies, other):
    add(workspace, [Stage.ARCHIVED])
    with workspace.database.write() as tx:
        register_source(tx, "copy", Saved(other), policies=Policies(), at=NOW, actor="trainer")
    assert cleaned(workspace, policies) == [1]
    assert workspace.artifacts.entries("0/run1/artifacts/model") != []


def test_a_version_that_serves_or_is_in_production_is_not_deleted(workspace):
    production, served, free = add(workspace, [Stage.PRODUCTION]), add(workspace), add(workspace)
    with workspace.database.write() as tx:
        set_routes(tx, "shop", [Variant("champion", "m", served, "s", "", 100)], at=NOW, actor="someone", reason="")
    for version in (production, served):
        with pytest.raises(Protected):
            remove_version(workspace, "m", version, at=NOW, actor="someone", reason="")
    assert remove_version(workspace, "m", free, at=NOW, actor="someone", reason="").files_deleted


def test_the_command_follows_the_projects_policy(tmp_path):
    (tmp_path / "noria.toml").write_text(
        '[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n'
        '[policies."*"]\nretention_days = 30\narchive_stages = ["Archived"]\n'
    )
    workspace = Workspace(tmp_path, load_server_settings(tmp_path, environment={}))
    add(workspace, [Stage.ARCHIVED])
    add(workspace)
    told = json.loads(noria("models", "cleanup", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert [(row["version"], row["deleted"]) for row in told] == [(1, False)]
    done = json.loads(noria("models", "cleanup", "m", "--json", cwd=tmp_path).stdout)
    assert [(row["version"], row["deleted"], row["files_deleted"]) for row in done] == [(1, True, True)]
    workspace.database.close()

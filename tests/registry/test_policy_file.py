"""A policy kept in YAML loads as it is, rules each move by itself, and says what is wrong with it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from noria.config import load_server_settings, load_settings
from noria.errors import InvalidConfig, PolicyRefused
from noria.registry import NewVersion, Policies, Stage, approve, register_version
from noria.registry.models import create_model
from noria.registry.stages import request_transition
from noria.registry.versions import update_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILE = Path(__file__).parent / "production_config.yaml"
PLAIN = '[project]\nname = "shop"\n[model]\nname = "m"\ntask = "regression"\n'
PROJECT = PLAIN + '[registry]\npolicy_file = "policy.yaml"\n'


@pytest.fixture
def policies(tmp_path):
    """The policies of a project with the file, and with a pattern of its own."""
    shutil.copy(FILE, tmp_path / "policy.yaml")
    own = '[policies."free_*"]\nretention_days = 1\n'
    (tmp_path / "noria.toml").write_text(PROJECT + own)
    return Policies.from_settings(load_settings(tmp_path, {}).policies)


def load(tmp_path, text, toml=PROJECT):
    (tmp_path / "policy.yaml").write_text(text)
    (tmp_path / "noria.toml").write_text(toml)
    return load_settings(tmp_path, {})


def test_the_file_is_the_policy_of_every_model_without_one(policies):
    policy = policies.of("fgedu_classifier")
    assert (policy.pattern, policies.of("free_one").pattern) == ("*", "free_*")
    assert (policy.max_versions, policy.retention_days) == (50, 365)
    assert policy.archive_stages == (Stage.ARCHIVED, Stage.STAGING)
    assert policy.unmet_by_name("Bad-Name") and not policy.unmet_by_name("good_name")
    assert policy.unmet_by_name("a" * 101) and not policy.unmet_by_name("a" * 100)


def test_each_move_has_its_own_rules(policies, empty_database):
    def move(stage, reason=""):
        return request_transition(
            empty_database, "m", 1, stage, policies=policies, at=NOW, actor="someone", reason=reason
        )

    def refused(stage):
        with pytest.raises(PolicyRefused) as caught:
            move(stage)
        return caught.value.details

    def tag(**tags):
        with empty_database.write() as tx:
            update_version(tx, "m", 1, tags=tags, at=NOW, actor="someone")

    with empty_database.write() as tx:
        new = NewVersion(model="m", source="s", metrics={"accuracy": 0.95, "f1_score": 0.8})
        register_version(tx, new, policies=policies, at=NOW, actor="trainer")
        with pytest.raises(PolicyRefused, match="does not match"):
            create_model(tx, "Bad-Name", policies=policies, at=NOW, actor="trainer")
    assert refused(Stage.STAGING) == ("tag 'tested' is missing", "tag 'reviewed' is missing")
    assert "the move None → Production is not allowed" in refused(Stage.PRODUCTION)[0]
    tag(tested="yes", reviewed="yes")
    assert move(Stage.STAGING).stage is Stage.STAGING
    assert refused(Stage.PRODUCTION) == (
        "tag 'approved' is missing",
        "tag 'performance_validated' is missing",
        "metric f1_score = 0.8, required >= 0.9",
        "0 of 1 approvals for Production given",
    )


def test_leaving_production_needs_an_approval_and_a_reason(policies, empty_database):
    def move(stage, reason=""):
        return request_transition(
            empty_database, "m", 1, stage, policies=policies, at=NOW, actor="someone", reason=reason
        )

    tags = dict.fromkeys(("tested", "reviewed", "approved", "performance_validated"), "yes")
    with empty_database.write() as tx:
        new = NewVersion(model="m", source="s", metrics={"accuracy": 0.95, "f1_score": 0.9}, tags=tags)
        register_version(tx, new, policies=policies, at=NOW, actor="trainer")
        approve(tx, "m", 1, Stage.PRODUCTION, at=NOW, actor="reviewer", reason="read")
    move(Stage.STAGING)
    assert move(Stage.PRODUCTION).stage is Stage.PRODUCTION
    with pytest.raises(PolicyRefused) as caught:
        move(Stage.ARCHIVED)
    assert caught.value.details == ("0 of 1 approvals for Archived given", "a reason is required")
    with empty_database.write() as tx:
        approve(tx, "m", 1, Stage.ARCHIVED, at=NOW, actor="reviewer", reason="old")
    assert move(Stage.ARCHIVED, "replaced by a rule").stage is Stage.ARCHIVED


def test_noria_toml_has_rules_of_moves_too_beside_those_of_stages(tmp_path):
    (tmp_path / "noria.toml").write_text(
        PLAIN + '[policies."*".stages.Production]\nrequired_tags = ["reviewed"]\nreason_required = true\n'
        '[policies."*".moves."Staging -> Production"]\nrequired_metrics = ["auc"]\nreason_required = true\n'
    )
    policy = Policies.from_settings(load_settings(tmp_path, {}).policies).of("m")
    assert set(policy.rules) == {(None, Stage.PRODUCTION), (Stage.STAGING, Stage.PRODUCTION)}


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("model_registry:\n  version_polcy: {}\n", "unknown key; did you mean 'version_policy'?"),
        ("model_registry:\n  version_policy:\n    max_version: 1\n", "did you mean 'max_versions'?"),
        (
            "model_registry:\n  stage_transitions:\n    None -> Staging:\n      required_tag: [a]\n",
            "model_registry.stage_transitions.None -> Staging.required_tag: unknown key; did you mean 'required_tags'?",
        ),
        ("model_registry:\n  version_policy:\n    max_versions: many\n", "Input should be a valid integer"),
        ("model_registry:\n  version_policy:\n    archive_stages: [Production]\n", "'None', 'Staging' or 'Archived'"),
        ("model_registry: 3\n", "model_registry: should be a mapping"),
        ("- a\n", "the file: should be a mapping"),
        ("", "the file: should be a mapping"),
        ("deployment: {}\n", "model_registry: Field required"),
    ],
)
def test_a_fault_is_told_by_the_key_it_is_at(tmp_path, text, finding):
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, text)
    assert any(finding in detail for detail in caught.value.details), caught.value.details


def test_what_is_no_yaml_missing_or_given_twice_is_told(tmp_path):
    with pytest.raises(InvalidConfig, match="is not valid YAML"):
        load(tmp_path, "model_registry: [")
    with pytest.raises(InvalidConfig, match=r"missing\.yaml cannot be read: No such file"):
        load(tmp_path, "", PROJECT.replace("policy.yaml", "missing.yaml"))
    with pytest.raises(InvalidConfig, match="Keep one"):
        load(tmp_path, "model_registry: {}\n", PROJECT + '[policies."*"]\nmax_versions = 1\n')
    with pytest.raises(InvalidConfig, match="is not a move"):
        moves = "model_registry:\n  stage_transitions:\n    Staging to Production: {}\n"
        Policies.from_settings(load(tmp_path, moves).policies)


def test_a_server_without_a_project_takes_the_file_from_the_environment(tmp_path):
    shutil.copy(FILE, tmp_path / "policy.yaml")
    settings = load_server_settings(tmp_path, {}, {"NORIA_REGISTRY__POLICY_FILE": "policy.yaml"})
    assert settings.policies["*"].max_versions == 50

"""A version moves only when its policy's every condition holds, and each that does not is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from noria import audit
from noria.config import PolicySettings
from noria.errors import InvalidConfig, PolicyRefused
from noria.registry import NewVersion, Policies, Signature, Stage, approve, get_version, register_version
from noria.registry.stages import history, request_transition
from noria.store import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULES = {
    "late-*": {
        "stages": {
            "Production": {
                "required_tags": ["reviewed"],
                "required_metrics": ["auc >= 0.7", "calibration"],
                "approvals": 2,
                "reason_required": True,
            }
        }
    }
}


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/noria.db")
    database.migrate()
    yield database
    database.close()


def policies(rules=RULES):
    return Policies.from_settings({name: PolicySettings.model_validate(rule) for name, rule in rules.items()})


def register(database, model="late-arrivals", **fields):
    with database.write() as tx:
        return register_version(tx, NewVersion(model=model, source="s", **fields), at=NOW, actor="trainer")


def promote(database, model="late-arrivals", version=1, reason="", actor="someone"):
    return request_transition(
        database, model, version, Stage.PRODUCTION, policies=policies(), at=NOW, actor=actor, reason=reason
    )


def test_every_unmet_condition_is_listed_and_the_refusal_is_audited(database):
    register(database, metrics={"auc": 0.65})
    with pytest.raises(PolicyRefused) as caught:
        promote(database)
    assert caught.value.details == (
        "tag 'reviewed' is missing",
        "metric auc = 0.65, required >= 0.7",
        "metric 'calibration' was not logged",
        "0 of 2 approvals for Production given",
        "a reason is required",
    )
    with database.read() as tx:
        assert get_version(tx, "late-arrivals", 1).stage is Stage.NONE
        assert (history(tx, "late-arrivals"), audit.entries(tx)[0].action) == ([], "version.refuse")


def test_one_person_is_one_approval(database):
    register(database, metrics={"auc": 0.8, "calibration": 0.1}, tags={"reviewed": "yes"})
    with database.write() as tx:
        for actor in ("first", "first"):
            approve(tx, "late-arrivals", 1, Stage.PRODUCTION, at=NOW, actor=actor, reason="read")
    with pytest.raises(PolicyRefused, match="1 of 2 approvals"):
        promote(database, reason="ready")
    with database.write() as tx:
        approve(tx, "late-arrivals", 1, Stage.PRODUCTION, at=NOW, actor="second", reason="read")
    assert promote(database, reason="ready").stage is Stage.PRODUCTION


def test_a_new_production_version_archives_the_one_before_it(database):
    for _ in range(2):
        register(database, model="free")
    promote(database, "free", 1)
    promote(database, "free", 2)
    with database.read() as tx:
        assert [get_version(tx, "free", number).stage for number in (1, 2)] == [Stage.ARCHIVED, Stage.PRODUCTION]
        assert audit.verify(tx).entries == 6


@pytest.mark.parametrize("text", ["auc !! 3", "auc >=", ">= 0.5", ""])
def test_what_is_no_condition_is_told_when_it_is_read(text):
    with pytest.raises(InvalidConfig, match="is not a metric condition"):
        policies({"m": {"stages": {"Production": {"required_metrics": [text]}}}})


def test_the_semantic_version_says_what_changed(database):
    two = Signature((("a", "number"), ("b", "number")), "classification")
    three = Signature((*two.inputs, ("c", "number")), "classification")
    made = [
        register(database, signature=two, algorithm="trees"),
        register(database, signature=two, algorithm="trees"),
        register(database, signature=two, algorithm="linear"),
        register(database, signature=three, algorithm="linear"),
        register(database, signature=two, algorithm="linear"),
    ]
    assert [version.semantic_version for version in made] == ["1.0.0", "1.0.1", "1.1.0", "1.2.0", "2.0.0"]

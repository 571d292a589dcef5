"""A version moves only when its policy's every condition holds, and each that does not is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Semaphore

import pytest

from noria import audit
from noria.config import PolicySettings
from noria.errors import Conflict, InvalidConfig, PolicyRefused, Protected
from noria.registry import NewVersion, Policies, Signature, Stage, approve, get_version, register_version, transition
from noria.registry.models import create_model
from noria.registry.stages import history, request_transition, roll_back
from noria.registry.versions import delete_version
from noria.store import Database
from noria.tracking import experiments, runs
from noria.tracking.entities import Metric
from noria.tracking.writer import Batch, write_all

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
def database(empty_database):
    return empty_database


def policies(rules=RULES):
    return Policies.from_settings({name: PolicySettings.model_validate(rule) for name, rule in rules.items()})


def register(database, model="late-arrivals", **fields):
    with database.write() as tx:
        return register_version(
            tx, NewVersion(model=model, source="s", **fields), policies=policies(), at=NOW, actor="trainer"
        )


class Watched(Database):
    """A database that counts how many snapshots were taken of it."""

    def __init__(self, url):
        super().__init__(url)
        self.snapshots = Semaphore(0)

    @contextmanager
    def read(self):
        with super().read() as tx:
            yield tx
        self.snapshots.release()


def test_of_moves_asked_for_at_the_same_time_exactly_one_is_made(database):
    numbers = [register(database, model="open").version for _ in range(8)]
    watched = Watched(database.url)

    def attempt(number):
        try:
            return promote(watched, model="open", version=number).version
        except Conflict as conflict:
            return str(conflict)

    with ThreadPoolExecutor(8) as pool:
        with database.write():  # nobody moves before all of them have looked
            asked = [pool.submit(attempt, number) for number in numbers]
            for _ in numbers:
                watched.snapshots.acquire()
        outcomes = [one.result() for one in asked]
    watched.close()
    won = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert len(won) == 1 and all("at the same time" in text for text in outcomes if text not in won)
    assert promote(database, model="open", version=1 + won[0] % 8).stage is Stage.PRODUCTION
    with database.read() as tx:
        entered = [move.version for move in history(tx, "open") if move.to_stage is Stage.PRODUCTION]
        assert entered == [won[0], 1 + won[0] % 8]
        audit.verify(tx)


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


@pytest.mark.parametrize(
    ("after", "algorithm", "semantic"),
    [
        (Signature((("a", "long"), ("b", "string")), "long", ("a",)), "trees", "1.0.1"),
        (Signature((("b", "string"), ("a", "long")), "long"), "trees", "1.0.1"),
        (Signature((("a", "long"), ("b", "string"), ("c", "long")), "long", ("a",)), "trees", "1.1.0"),
        (Signature((("a", "long"), ("b", "string"), ("c", "long")), "long", ("a", "c")), "trees", "2.0.0"),
        (Signature((("a", "long"), ("b", "string")), "long", ("a", "b")), "trees", "2.0.0"),
        (Signature((("a", "long"),), "long", ("a",)), "trees", "2.0.0"),
        (Signature((("z", "long"), ("b", "string")), "long", ("z",)), "trees", "2.0.0"),
        (Signature((("a", "double"), ("b", "string")), "long", ("a",)), "trees", "2.0.0"),
        (Signature((("a", "long"), ("b", "string")), "double", ("a",)), "trees", "2.0.0"),
        (Signature((("a", "long"), ("b", "string")), "long", ("a",)), "linear", "1.1.0"),
        (Signature(), "", "1.0.1"),
    ],
)
def test_callers_that_must_change_make_a_major_version(database, after, algorithm, semantic):
    before = Signature((("a", "long"), ("b", "string")), "long", ("a",))
    register(database, signature=before, algorithm="trees")
    assert register(database, signature=after, algorithm=algorithm).semantic_version == semantic


def test_a_version_that_says_nothing_does_not_hide_a_change_from_the_next(database):
    one, other = Signature((("a", "long"),)), Signature((("z", "long"),))
    made = [register(database, signature=signature) for signature in (one, Signature(), other)]
    assert [version.semantic_version for version in made] == ["1.0.0", "1.0.1", "2.0.0"]


STRICT = {
    "*": {
        "name_pattern": "[a-z][a-z_]*",
        "max_versions": 2,
        "own_approval": False,
        "transitions": ["None -> Staging", "Staging -> Production", "Production -> Archived"],
        "stages": {"Production": {"required_metrics": ["auc >= production - 0.01"], "approvals": 1}},
    }
}


def new_run(database, run_id, status):
    with database.write() as tx:
        experiment = experiments.get_or_create(tx, "e", artifact_root="", at=NOW)
        runs.create(tx, experiment.experiment_id, run_id=run_id, name="", user="", artifact_uri="", at=NOW, tags={})
        runs.log_metrics(tx, run_id, [Metric("auc", 0.8, 1, 1)])
        runs.finish(tx, run_id, status, at=NOW)


def strictly(database, action, *arguments, **fields):
    with database.write() as tx:
        return action(tx, *arguments, policies=policies(STRICT), at=NOW, actor="trainer", **fields)


def move(database, version, stage):
    return request_transition(
        database, "m", version, stage, policies=policies(STRICT), at=NOW, actor="someone", reason=""
    )


def test_names_counts_and_failed_runs_are_refused_at_registration(database):
    for status in ("FAILED", "KILLED"):
        new_run(database, status, status)
        with pytest.raises(PolicyRefused, match=f"its run ended as {status}"):
            strictly(database, register_version, NewVersion(model="m", source="s", run_id=status))
    with pytest.raises(PolicyRefused, match="does not match"):
        strictly(database, register_version, NewVersion(model="Bad-Name", source="s"))
    with pytest.raises(PolicyRefused, match="does not match"):
        strictly(database, create_model, "Bad-Name")
    for _ in range(2):
        strictly(database, register_version, NewVersion(model="m", source="s"))
    with pytest.raises(PolicyRefused, match="'m' has 2 versions, at most 2 are allowed"):
        strictly(database, register_version, NewVersion(model="m", source="s"))


def test_only_the_moves_listed_are_allowed_and_authors_do_not_approve_themselves(database):
    strictly(database, register_version, NewVersion(model="m", source="s", metrics={"auc": 0.8}))
    with pytest.raises(PolicyRefused, match="the move None → Production is not allowed; allowed are None → Staging"):
        move(database, 1, Stage.PRODUCTION)
    move(database, 1, Stage.STAGING)
    with database.write() as tx:
        approve(tx, "m", 1, Stage.PRODUCTION, at=NOW, actor="trainer", reason="mine")
    with pytest.raises(PolicyRefused, match="0 of 1 approvals for Production given; its author's does not count"):
        move(database, 1, Stage.PRODUCTION)
    with database.write() as tx:
        approve(tx, "m", 1, Stage.PRODUCTION, at=NOW, actor="reviewer", reason="read")
    assert move(database, 1, Stage.PRODUCTION).stage is Stage.PRODUCTION


def test_a_version_is_measured_against_the_one_in_production(database):
    for auc in (0.8, 0.78):
        strictly(database, register_version, NewVersion(model="m", source="s", metrics={"auc": auc}))
    for version in (1, 2):
        move(database, version, Stage.STAGING)
        with database.write() as tx:
            approve(tx, "m", version, Stage.PRODUCTION, at=NOW, actor="reviewer", reason="read")
    move(database, 1, Stage.PRODUCTION)
    with pytest.raises(PolicyRefused, match=r"auc = 0.78, required >= 0.79 \(Production's, with the margin\)"):
        move(database, 2, Stage.PRODUCTION)


def test_the_evidence_of_a_registered_run_is_frozen_and_cannot_be_deleted(database):
    new_run(database, "good", "FINISHED")
    strictly(database, register_version, NewVersion(model="m", source="s", run_id="good"))
    for attempt in (
        lambda tx: runs.log_metrics(tx, "good", [Metric("auc", 0.99, 1, 2)]),
        lambda tx: runs.change(tx, "good", lifecycle_stage="deleted"),
    ):
        with database.write() as tx, pytest.raises(Protected, match="registered as m@1"):
            attempt(tx)
    with database.write() as tx:
        assert write_all(tx, [Batch("good", [Metric("auc", 0.99, 1, 3)])])[0] is not None
        assert write_all(tx, [Batch("good", tags={"note": "still open"})]) == [None]
        runs.change(tx, "good", status="RUNNING")
        with pytest.raises(Protected):
            runs.log_metrics(tx, "good", [Metric("auc", 0.99, 1, 2)])
        delete_version(tx, "m", 1, at=NOW, actor="someone")
        runs.change(tx, "good", lifecycle_stage="deleted")
        assert runs.get(tx, "good").metrics["auc"].value == 0.8


def test_a_run_that_still_runs_takes_metrics_until_it_ends(database):
    new_run(database, "running", "RUNNING")
    strictly(database, register_version, NewVersion(model="m", source="s", run_id="running"))
    with database.write() as tx:
        runs.log_metrics(tx, "running", [Metric("late", 1.0, 1, 1)])
        runs.finish(tx, "running", "FINISHED", at=NOW)
        with pytest.raises(Protected, match="frozen"):
            runs.log_metrics(tx, "running", [Metric("late", 2.0, 1, 2)])


def test_rolling_back_returns_to_the_last_healthy_version_and_says_so(database):
    for _ in range(4):
        register(database, model="free")
    with database.write() as tx:
        with pytest.raises(Conflict, match="no earlier version"):
            roll_back(tx, "free", at=NOW, actor="someone", reason="broken")
        for version in (1, 2, 3):
            transition(tx, "free", version, Stage.PRODUCTION, policies=Policies(), at=NOW, actor="someone")
        assert roll_back(tx, "free", at=NOW, actor="someone", reason="broken").version == 2
        transition(tx, "free", 4, Stage.PRODUCTION, policies=Policies(), at=NOW, actor="someone")
        assert roll_back(tx, "free", at=NOW, actor="someone", reason="worse").version == 2
        assert roll_back(tx, "free", at=NOW, actor="someone", reason="again").version == 1
        assert history(tx, "free")[-1].reason == "rolled back from version 2: again"
        audit.verify(tx)


@pytest.mark.parametrize("text", ["Staging > Production", "Nowhere -> Staging", ""])
def test_what_is_no_move_is_told_when_it_is_read(text):
    with pytest.raises(InvalidConfig, match="is not a move"):
        policies({"m": {"transitions": [text]}})

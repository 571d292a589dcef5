"""What a move is held against is how things stand at that moment: the run's newest metrics, its failures, approvals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from noria import audit
from noria.config import PolicySettings, StoreSettings, load_server_settings
from noria.errors import InvalidConfig, PolicyRefused
from noria.registry import NewVersion, Policies, Stage, approve, get_version, list_versions, register_version
from noria.registry.approvals import approvals
from noria.registry.registration import Saved, register_source
from noria.registry.stages import history, roll_back, transition
from noria.store.workspace import Workspace
from noria.tracking import experiments, runs
from noria.tracking.entities import Metric
from support import noria

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def tx(empty_database):
    with empty_database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=NOW)
        yield tx


def policies(accounts=False, **policy):
    return Policies.from_settings({"*": PolicySettings.model_validate(policy)}, accounts=accounts)


def gate(*conditions, **more):
    return policies(stages={"Production": {"required_metrics": list(conditions), **more}})


def new_run(tx, status="FINISHED", **metrics):
    run = runs.start(tx, "0", name="", user="u", at=NOW).run_id
    measure(tx, run, **metrics)
    runs.finish(tx, run, status, at=NOW) if status != "RUNNING" else None
    return run


def measure(tx, run, step=0, **metrics):
    runs.log_metrics(tx, run, [Metric(key, float(value), 1 + step, step) for key, value in metrics.items()])


def version_of(tx, run, policy=None):
    source = f"{runs.get(tx, run).artifact_uri}/m"
    return register_source(tx, "m", Saved(source), policies=policy or Policies(), at=NOW, actor="author").version


def move(tx, version, policy=None, stage=Stage.PRODUCTION, at=NOW, **more):
    return transition(tx, "m", version, stage, policies=policy or Policies(), at=at, actor="someone", **more)


def refusal(tx, version, policy, stage=Stage.PRODUCTION):
    with pytest.raises(PolicyRefused) as refused:
        move(tx, version, policy, stage)
    return list(refused.value.details)


def test_a_metric_counts_as_it_is_when_the_version_moves(tx):
    run = new_run(tx, "RUNNING", auc=0.99)
    version = version_of(tx, run)
    measure(tx, run, step=1, auc=0.1)
    assert refusal(tx, version, gate("auc >= 0.9")) == [
        "its run is still RUNNING: its metrics are not the last",
        "metric auc = 0.1, required >= 0.9",
    ]
    measure(tx, run, step=2, auc=0.95)
    runs.finish(tx, run, "FINISHED", at=NOW)
    assert get_version(tx, "m", version).metrics == {"auc": 0.95} == list_versions(tx, "m")[0].metrics
    assert move(tx, version, gate("auc >= 0.9")).metrics == {"auc": 0.95}


def test_a_metric_recorded_with_the_version_counts_where_its_run_has_none(tx):
    run = new_run(tx, auc=0.5)
    new = NewVersion(model="m", source="mlflow-artifacts:/x", run_id=run, metrics={"auc": 0.9, "slow": 1.0})
    made = register_version(tx, new, policies=Policies(), at=NOW, actor="author")
    assert made.metrics == {"auc": 0.5, "slow": 1.0}


def test_a_run_may_go_on_where_no_metric_is_required(tx):
    version = version_of(tx, new_run(tx, "RUNNING"))
    assert move(tx, version, policies(stages={"Production": {}})).stage is Stage.PRODUCTION


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_finite_number_meets_no_condition(tx, value):
    version = version_of(tx, new_run(tx, auc=value, loss=value))
    found = refusal(tx, version, gate("auc >= 0.9", "loss"))
    assert found == [
        f"metric {name} = {value}, which meets no condition: it is no finite number" for name in ("auc", "loss")
    ]


def test_an_infinite_champion_is_not_compared_with_and_the_trail_says_so(tx):
    move(tx, version_of(tx, new_run(tx, auc=float("inf"))))
    move(tx, version_of(tx, new_run(tx, auc=0.4)), gate("auc >= production - 0.01"))
    entry = audit.entries(tx)[0]
    assert entry.detail["passed_over"] == ["auc was not compared with Production, which has inf, no finite number"]
    assert refusal(tx, version_of(tx, new_run(tx, auc=0.3)), gate("auc >= production - 0.01"))


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_that_ever_failed_counts_as_failed(tx, status):
    early = version_of(tx, running := new_run(tx, "RUNNING"))
    for run in (new_run(tx, status), running):
        runs.finish(tx, run, status, at=NOW)
        runs.change(tx, run, status="RUNNING")
        runs.finish(tx, run, "FINISHED", at=NOW)
        with pytest.raises(PolicyRefused, match=f"its run ended as {status}, though it is FINISHED now"):
            version_of(tx, run)
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        assert refusal(tx, early, policies(), stage) == [f"its run ended as {status}, though it is FINISHED now"]
    assert move(tx, early, stage=Stage.ARCHIVED).stage is Stage.ARCHIVED
    assert move(tx, early, policies(failed_runs=True)).stage is Stage.PRODUCTION


def test_an_approval_counts_for_one_entry(tx):
    version, other = (version_of(tx, new_run(tx)) for _ in range(2))
    approved = policies(stages={"Production": {"approvals": 1}})
    for at in (NOW, NOW + timedelta(days=1)):
        for _ in range(2):
            approve(tx, "m", version, Stage.PRODUCTION, at=at, actor="reviewer", reason=f"read at {at:%d}")
        move(tx, version, approved, at=at)
        move(tx, version, stage=Stage.ARCHIVED)
        assert refusal(tx, version, approved) == ["0 of 1 approvals for Production given"]
    assert [(a.reason, a.spent_at) for a in approvals(tx, "m", version)] == [("read at 02", NOW + timedelta(days=1))]
    approve(tx, "m", other, Stage.PRODUCTION, at=NOW, actor="reviewer", reason="")
    assert move(tx, other, approved).stage is Stage.PRODUCTION
    audit.verify(tx)


def test_authors_approve_themselves_only_while_nobody_has_to_prove_who_they_are(tx):
    version = version_of(tx, new_run(tx))
    approve(tx, "m", version, Stage.PRODUCTION, at=NOW, actor="author", reason="mine")
    rule = {"stages": {"Production": {"approvals": 1}}}
    found = "0 of 1 approvals for Production given; its author's does not count"
    assert refusal(tx, version, policies(accounts=True, **rule)) == [found]
    assert refusal(tx, version, policies(own_approval=False, **rule)) == [found]
    assert move(tx, version, policies(accounts=True, own_approval=True, **rule)).stage is Stage.PRODUCTION


def test_a_passed_canary_counts_whoever_trained_the_version(tx):
    version = version_of(tx, new_run(tx))
    approve(tx, "m", version, Stage.PRODUCTION, at=NOW, actor="author", reason="passed", roles=["canary"])
    assert move(tx, version, policies(accounts=True, stages={"Production": {"approvals": 1}}))


@pytest.mark.parametrize(("room", "there"), [(1, [3]), (2, [1, 3]), (0, [1, 2, 3])])
def test_as_many_versions_are_in_production_as_the_policy_has_room_for(tx, room, there):
    for number in (2, 1, 3):
        while len(list_versions(tx, "m")) < 3:
            version_of(tx, new_run(tx))
        move(tx, number, policies(production_versions=room))
    assert [v.version for v in list_versions(tx, "m") if v.stage is Stage.PRODUCTION] == there
    move(tx, version_of(tx, new_run(tx)), policies(production_versions=room), archive_existing=True)
    assert [v.version for v in list_versions(tx, "m") if v.stage is Stage.PRODUCTION] == [4]
    assert roll_back(tx, "m", at=NOW, actor="someone", reason="bad").version == 3
    assert history(tx, "m")[-1].to_stage is Stage.PRODUCTION


def test_a_condition_that_is_none_is_named_with_its_policy():
    with pytest.raises(InvalidConfig, match=r'not a metric condition, in policies."\*"'):
        gate("auc !!")


def test_the_comparison_shows_what_a_gate_would_look_at(tmp_path):
    settings = load_server_settings(tmp_path, environment={})
    assert isinstance(settings.store, StoreSettings)
    (tmp_path / "noria.toml").write_text('[project]\nname = "g"\n[model]\nname = "m"\ntask = "regression"\n')
    workspace = Workspace(tmp_path, settings)
    with workspace.database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=NOW)
        run = new_run(tx, "RUNNING", auc=0.5)
        version_of(tx, run)
        measure(tx, run, step=1, auc=0.75)
        version_of(tx, new_run(tx, auc=0.5))
    workspace.database.close()
    rows = json.loads(noria("models", "compare", "m", "1", "2", "--json", cwd=tmp_path).stdout)
    assert next(row for row in rows if row["what"] == "auc") == {
        "what": "auc",
        "1": 0.75,
        "2": 0.5,
        "difference": -0.25,
    }

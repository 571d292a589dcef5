"""Rollouts through a real data plane and its log: what each strategy does with good and bad challengers."""

from __future__ import annotations

import math
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from lifecycle.rollout_world import MODEL, START, RolloutWorld, forest
from noria import audit
from noria.clock import to_millis
from noria.config import PolicySettings, StageRuleSettings
from noria.errors import Conflict, InvalidInput, PolicyRefused
from noria.lifecycle.deploying import deploy, parse_address
from noria.lifecycle.evidence import Evidence
from noria.lifecycle.outcomes import bring_in
from noria.monitoring.log import FailureRecord, LabelRecord, PredictionLog, read_predictions
from noria.registry import Policies, Stage, approve, get_version, version_in_stage
from noria.registry.models import set_alias
from noria.rollout import Strategy, current_routes, read_routes
from noria.rollout.moves import record_shares, start_rollout
from noria.rollout.records import (
    PROMOTED,
    ROLLED_BACK,
    RUNNING,
    get_rollout,
    latest_look,
    latest_shares,
    list_decisions,
    share_history,
)
from noria.serving import Prediction


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    return world


def shares(world) -> dict[str, float]:
    with world.workspace.database.read() as tx:
        return {v.name: v.percent for v in current_routes(tx, MODEL).variants}


def stage(world, version) -> Stage:
    with world.workspace.database.read() as tx:
        return get_version(tx, MODEL, version).stage


def looked(world, rollout) -> dict[str, object]:
    with world.workspace.database.read() as tx:
        return dict(latest_look(tx, rollout.rollout_id)[0])


def chain_holds(world) -> None:
    with world.workspace.database.read() as tx:
        audit.verify(tx)


def test_an_equal_canary_climbs_its_ladder_and_ends_in_production(world):
    world.send(300)
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(20, 50, 100))
    for expected in ({"champion": 80, "canary": 20}, {"champion": 50, "canary": 50}, {"champion": 0, "canary": 100}):
        assert shares(world) == expected
        world.send(8000)
        world.pass_minutes(2)
        rollout = world.rollouts.look(rollout.rollout_id)
    assert (rollout.status, shares(world)) == (PROMOTED, {"champion": 100})
    assert (stage(world, 1), stage(world, 2)) == (Stage.ARCHIVED, Stage.PRODUCTION)
    chain_holds(world)


def test_a_canary_that_takes_other_columns_than_clients_send_is_taken_back(world):
    world.send(300)
    wide = world.add_version(inputs=("a", "b", "c", "missing"))
    rollout = world.start(Strategy.CANARY, wide, steps=(20, 100))
    answers = world.send(2000)
    assert Counter(type(answer).__name__ for answer in answers)["InvalidInput"] > 200
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
    assert shares(world) == {"champion": 100}
    with world.workspace.database.read() as tx:
        (decision,) = list_decisions(tx, rollout.rollout_id)
    assert "split of the traffic" in decision.evidence["reason"]  # its share of the requests got no answer


def took(world: RolloutWorld, answers: int) -> NDArray[np.float64]:
    """Seconds that answers took: some 10 ms, with the long tail that servers have."""
    return 0.01 * world.random.lognormal(sigma=0.3, size=answers)


def test_a_slow_canary_is_taken_back_for_its_latency(tmp_path):
    world = RolloutWorld(tmp_path, guards=["latency"], required=["latency"])
    world.deploy(world.add_version())
    world.log_answers({"champion": took(world, 5000)})
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    world.log_answers({"champion": took(world, 750), "canary": 1.5 * took(world, 750)})
    rollout = world.rollouts.look(rollout.rollout_id)
    assert (rollout.status, stage(world, 2)) == (ROLLED_BACK, Stage.ARCHIVED)
    with world.workspace.database.read() as tx:
        (decision,) = list_decisions(tx, rollout.rollout_id)
    assert "share of slow answers" in decision.evidence["reason"]
    chain_holds(world)


def test_a_canary_that_predicts_worse_is_taken_back_once_labels_are_in(tmp_path):
    world = RolloutWorld(tmp_path, guards=["quality"], required=["quality"])
    world.deploy(world.add_version())
    random = LogisticRegression()
    world.random = np.random.default_rng(1)
    fit = random.fit
    random.fit = lambda rows, labels: fit(rows, world.random.permutation(labels))  # it learns from shuffled labels
    rollout = world.start(Strategy.CANARY, world.add_version(random), steps=(30, 100))
    log, now = PredictionLog(world.workspace.prediction_log), to_millis(datetime.now(UTC))
    log.labels([LabelRecord(f"not-{n}", now, now, 1.0) for n in range(3)])
    log.labels([LabelRecord("before", now, to_millis(START) - 300_000, 1.0)])
    log.close()
    world.send(2000, label=True)
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
    with world.workspace.database.read() as tx:
        told = list_decisions(tx, rollout.rollout_id)[-1].evidence["labels"]
    assert told == {"came_in": 2003, "counted": 2000, "earlier": 1}


def test_a_paused_rollout_is_left_alone_and_goes_on_when_resumed(world):
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    world.rollouts.pause(rollout.rollout_id, actor="ann", reason="incident")
    world.send(2000)
    world.pass_minutes(5)
    world.rollouts.step()
    assert shares(world) == {"champion": 50, "canary": 50}
    with pytest.raises(Conflict, match="is paused"):
        world.rollouts.pause(rollout.rollout_id, actor="ann", reason="again")
    world.rollouts.resume(rollout.rollout_id, actor="ann", reason="over")
    world.rollouts.abort(rollout.rollout_id, actor="ann", reason="enough")
    assert shares(world) == {"champion": 100}
    with pytest.raises(Conflict, match=r"(?s)has ended: rolled back.*champion was left serving"):
        world.rollouts.promote(rollout.rollout_id, actor="ann", reason="too late")


def test_a_controller_that_starts_anew_comes_to_the_same(world):
    world.send(300)
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    world.send(3000)
    world.rollouts.look(rollout.rollout_id)
    before = looked(world, rollout)
    fresh = RolloutWorld(world.workspace.folder.parent)
    fresh.clock = world.clock
    fresh.rollouts.look(rollout.rollout_id)
    assert looked(world, rollout)["guards"] == before["guards"]


def test_a_gate_keeps_a_challenger_from_any_traffic(tmp_path):
    rule = PolicySettings(stages={"Staging": StageRuleSettings(required_tags=["reviewed"])})
    world = RolloutWorld(tmp_path, Policies.from_settings({"*": rule}))
    world.deploy(world.add_version())
    with pytest.raises(PolicyRefused):
        world.start(Strategy.CANARY, world.add_version())
    assert shares(world) == {"champion": 100}


def test_a_canary_waits_at_the_end_for_the_approval_its_policy_asks_of_a_person(tmp_path):
    rule = StageRuleSettings(approvals=1, approver_roles=["approver"])
    world = RolloutWorld(tmp_path, Policies.from_settings({"churn": PolicySettings(stages={"Production": rule})}))
    first = world.add_version()
    with world.workspace.database.write() as tx:
        approve(tx, MODEL, first, Stage.PRODUCTION, at=START, actor="bob", reason="ok", roles=["approver"])
    world.deploy(first)
    world.send(300)
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    for _ in range(3):
        world.send(4000)
        world.pass_minutes(2)
        rollout = world.rollouts.look(rollout.rollout_id)
    assert (rollout.status, rollout.percent) == (RUNNING, 100)
    assert any("approv" in line for line in looked(world, rollout)["waits_for"])
    with world.workspace.database.write() as tx:
        approve(tx, MODEL, 2, Stage.PRODUCTION, at=START, actor="bob", reason="looked", roles=["approver"])
    assert world.rollouts.look(rollout.rollout_id).status == PROMOTED


def test_blue_green_is_tested_with_logged_requests_then_switched_at_once(world):
    rollout = world.start(Strategy.BLUE_GREEN, world.add_version(forest(5)))
    assert shares(world) == {"champion": 100, "green": 0}
    rollout = world.rollouts.look(rollout.rollout_id)
    assert "no logged requests" in looked(world, rollout)["reason"]
    world.send(300)
    rollout = world.rollouts.look(rollout.rollout_id)
    assert (rollout.status, shares(world)) == (PROMOTED, {"champion": 100})
    with world.workspace.database.read() as tx:
        (decision,) = list_decisions(tx, rollout.rollout_id)
        assert version_in_stage(tx, MODEL, Stage.PRODUCTION).version == 2
    assert decision.evidence["requests"] == 200
    assert decision.evidence["agreement"] > 0.8


def test_a_shadow_sees_every_request_and_answers_none(world):
    rollout = world.start(Strategy.SHADOW, world.add_version(forest(5)))
    answers = world.send(500, label=True)
    assert {answer.model_version for answer in answers} == {"1"}
    world.pass_minutes(2)
    world.rollouts.look(rollout.rollout_id)
    look = looked(world, rollout)
    assert look["requests"] == look["labels"] == 500
    assert 0.8 < look["agreement"] <= 1
    assert look["auc"]["champion"] > 0.95
    assert "ready to be promoted" in look["reason"]
    assert world.rollouts.promote(rollout.rollout_id, actor="ann", reason="agrees").status == PROMOTED
    assert shares(world) == {"champion": 100}


def test_a_shadow_that_fails_or_is_behind_says_how_often(world):
    rollout = world.start(Strategy.SHADOW, world.add_version())
    lost = partial(FailureRecord, round(time.time() * 1000), MODEL, 2, "shadow", MODEL, 2)
    log = PredictionLog(world.workspace.prediction_log)
    log.failures([lost("failed", 3), lost("failed", 4), lost("dropped", 5)])
    log.close()
    world.rollouts.look(rollout.rollout_id)
    look = looked(world, rollout)
    assert (look["requests"], look["failed"], look["dropped"]) == (0, 7, 5)
    assert look["reason"] == "0 of 300 requests compared, 7 failed, 5 dropped"


def test_an_experiment_assigns_units_for_good_and_promotes_the_arm_that_earns_more(world):
    rollout = world.start(Strategy.AB, world.add_version(), effect=0.1, window_minutes=0)

    def reward(answer: Prediction, _row: object) -> float:
        return float(world.random.random() < (0.2 if answer.model_version == "1" else 0.5))

    answers = world.send(3000, units=lambda n: f"user-{n // 2}", reward=reward)
    by_unit = {}
    for n, answer in enumerate(answers):
        by_unit.setdefault(n // 2, set()).add(answer.variant)
    assert all(len(variants) == 1 for variants in by_unit.values())
    world.pass_minutes(5)
    rollout = world.rollouts.look(rollout.rollout_id)
    assert (rollout.status, stage(world, 2)) == (PROMOTED, Stage.PRODUCTION)
    chain_holds(world)


def test_a_slow_arm_of_an_experiment_is_taken_back(tmp_path):
    world = RolloutWorld(tmp_path, guards=["errors", "latency"])
    world.deploy(world.add_version())
    world.log_answers({"champion": took(world, 5000)})
    rollout = world.start(Strategy.AB, world.add_version(), effect=0.1)
    world.log_answers({"champion": took(world, 750), "v2": 1.5 * took(world, 750)})
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
    with world.workspace.database.read() as tx:
        (decision,) = list_decisions(tx, rollout.rollout_id)
    assert decision.evidence["reason"].startswith("share of slow answers")


def test_rewards_come_in_by_file_for_units_too(world, tmp_path):
    rollout = world.start(Strategy.AB, world.add_version(), effect=0.2, window_minutes=0)
    answers = world.send(2000, units=lambda n: f"user-{n}")
    values = [0.0 if answer.model_version == "1" else 1.0 for answer in answers]
    rows = pl.DataFrame({"unit_id": [f"user-{n}" for n in range(2000)], "value": values})
    assert bring_in(world.workspace, rows, kind="rewards", metric="reward", at=datetime.now(UTC)).rows == 2000
    world.pass_minutes(5)
    assert world.rollouts.look(rollout.rollout_id).status == PROMOTED


def test_a_bandit_moves_the_traffic_to_the_arm_that_earns_and_keeps_a_floor_for_the_other(world):
    rollout = world.start(Strategy.BANDIT, world.add_version(), floor=0.1, window_minutes=0)

    def reward(answer: Prediction, _row: object) -> float:
        return float(world.random.random() < (0.1 if answer.model_version == "1" else 0.6))

    for _ in range(3):
        world.send(400, reward=reward)
        world.rollouts.look(rollout.rollout_id)
    with world.workspace.database.read() as tx:
        now, _ = latest_shares(tx, rollout.rollout_id)
    assert now["v2"] > 0.85 and now["champion"] >= 0.1 - 1e-9
    answers = world.send(1000)
    assert Counter(answer.variant for answer in answers)["v2"] > 800
    chain_holds(world)


@pytest.mark.parametrize("algorithm", ["thompson", "epsilon-greedy", "linucb"])
def test_a_bandit_that_learns_nothing_new_records_nothing_new(world, algorithm):
    def recorded() -> tuple[int, int]:
        with world.workspace.database.read() as tx:
            entries = [one for one in audit.entries(tx) if one.action == "rollout.share"]
            return len(share_history(tx, rollout.rollout_id)), len(entries)

    rollout = world.start(Strategy.BANDIT, world.add_version(), algorithm=algorithm, window_minutes=0)
    world.send(200, reward=lambda answer, _row: float(answer.model_version == "2"))
    for _ in range(5):
        world.pass_minutes(10)
        world.rollouts.look(rollout.rollout_id)
    assert recorded() == (1, 1)
    world.send(4000, reward=lambda answer, _row: float(answer.model_version == "1"))
    world.rollouts.look(rollout.rollout_id)
    assert recorded() == (2, 2)


def test_a_bandit_whose_rewards_are_amounts_publishes_shares(world):
    """Said to be 0 or 1, they are up to 20 or below 0: a reward that is sent twice is enough for that."""
    rollout = world.start(Strategy.BANDIT, world.add_version(), floor=0.1, window_minutes=0)
    world.send(600, reward=lambda answer, _row: 20 * world.random.random() if answer.model_version == "2" else -1.0)
    world.rollouts.look(rollout.rollout_id)
    with world.workspace.database.read() as tx:
        now, _ = latest_shares(tx, rollout.rollout_id)
    assert now == pytest.approx({"champion": 0.1, "v2": 0.9}, abs=0.01)
    percents = [variant.percent for variant in read_routes(world.workspace.route_file(MODEL)).variants]
    assert percents == pytest.approx([10, 90], abs=1)


@pytest.mark.parametrize("shares", [{"champion": math.nan, "v2": math.nan}, {"champion": 1.5, "v2": -0.5}, {}])
def test_what_are_no_shares_is_never_recorded(world, shares):
    rollout = world.start(Strategy.BANDIT, world.add_version())
    with world.workspace.database.write() as tx, pytest.raises(InvalidInput, match="no shares of the traffic"):
        record_shares(tx, rollout, shares, "", {}, at=START, actor="bob")


def test_a_contextual_bandit_learns_which_arm_suits_which_request(world):
    rollout = world.start(Strategy.BANDIT, world.add_version(), algorithm="linucb", floor=0.05, window_minutes=0)

    def reward(answer: Prediction, row: list[float]) -> float:
        right = "2" if row[0] > 0 else "1"
        return 1.0 if answer.model_version == right else 0.0

    for _ in range(3):
        world.send(600, reward=reward)
        world.rollouts.look(rollout.rollout_id)
    rows = [[1.5 if n % 2 else -1.5, 0.0, 0.0] for n in range(600)]
    start = world.sent
    answers = world.send(600, features=lambda n: rows[n - start])
    right = sum(a.model_version == ("2" if row[0] > 0 else "1") for a, row in zip(answers, rows, strict=True))
    assert right > 540
    logged = {record.prediction_id: record.variant for record in read_predictions(world.workspace.prediction_log)}
    assert all(logged[answer.prediction_id] == answer.variant for answer in answers)


def test_a_second_rollout_of_a_deployment_is_refused_while_one_is_under_way(world):
    world.start(Strategy.CANARY, world.add_version())
    with pytest.raises(Conflict, match="under way"):
        world.start(Strategy.CANARY, world.add_version())


def point_at(world, version) -> None:
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "preview", version, at=START, actor="ann")


def test_a_deployment_that_follows_an_alias_serves_what_that_points_at(world):
    second = world.add_version()
    address = parse_address(f"models:/{MODEL}@preview")
    point_at(world, 1)
    as_preview = {"actor": "ann", "reason": "", "deployment": "churn-preview"}
    deploy(world.workspace, world.policies, world.clock, address, **as_preview)
    point_at(world, second)
    world.follow()
    with world.workspace.database.read() as tx:
        assert current_routes(tx, "churn-preview").variants[0].version == second
        assert current_routes(tx, MODEL).variants[0].version == 1


def test_no_two_processes_start_a_rollout_at_once(world):
    second, third = world.add_version(), world.add_version()
    plan = world.start(Strategy.CANARY, second).plan
    with world.workspace.database.write() as tx, pytest.raises(Conflict):
        start_rollout(tx, MODEL, MODEL, champion=1, challengers=[third], plan=plan, at=START, actor="bob")


def test_a_rollout_is_found_by_the_beginning_of_its_id(world):
    rollout = world.start(Strategy.CANARY, world.add_version())
    with world.workspace.database.read() as tx:
        assert get_rollout(tx, rollout.rollout_id[:8]) == get_rollout(tx, rollout.rollout_id)


def test_a_request_that_is_sent_again_counts_once(world):
    world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    world.send(300, label=True)
    world.sent -= 120
    world.send(120, label=True)
    with world.workspace.database.read() as tx:
        revision = current_routes(tx, MODEL).revision
    evidence = Evidence(world.workspace.prediction_log, MODEL, datetime(2020, 1, 1, tzinfo=UTC))
    evidence.refresh({revision: 1})
    arms = [evidence.arm(1, name, 50, None, 0) for name in ("champion", "canary")]
    assert sum(arm.exposed for arm in arms) == 300
    assert sum(len(arm.labelled[0]) for arm in arms) == 300

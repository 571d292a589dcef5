"""Challengers that fail their requests: experiments and bandits count them, and are ended by the guards."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld
from noria.clock import to_millis
from noria.monitoring.log import FailureRecord, PredictionLog
from noria.rollout import Rollout, Strategy, current_routes
from noria.rollout.records import ROLLED_BACK, RUNNING, latest_look, latest_shares, list_decisions
from noria.serving import Prediction

ALGORITHMS = ("thompson", "epsilon-greedy", "linucb")


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    return world


def fail(world: RolloutWorld, arm: str, count: int, unit: str = "", minutes: int = 0) -> None:
    """Log requests that the version of ``arm`` did not answer."""
    with world.workspace.database.read() as tx:
        routes = current_routes(tx, MODEL)
    version = next(variant.version for variant in routes.variants if variant.name == arm)
    now, log = to_millis(datetime.now(UTC)) + minutes * 60_000, PredictionLog(world.workspace.prediction_log)
    units = [unit and f"{unit}{n}" for n in range(count)]
    log.failures(
        [FailureRecord(now, MODEL, routes.revision, arm, MODEL, version, "unavailable", unit=one) for one in units]
    )
    log.close()


def answered_by_champion(world: RolloutWorld, count: int, reward: float = 0.2) -> None:
    """Let the champion answer, whatever the shares; each answer earns as much on the average."""
    every = round(1 / reward)

    def earned(answer: Prediction, _row: object) -> float:
        return float(int(answer.prediction_id[1:]) % every == 0)

    world.send(count, reward=earned)


def look(world: RolloutWorld, rollout: Rollout) -> tuple[Rollout, dict[str, object]]:
    after = world.rollouts.look(rollout.rollout_id)
    with world.workspace.database.read() as tx:
        found = latest_look(tx, rollout.rollout_id)
    return after, {} if found is None else dict(found[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_bandit_counts_a_failed_request_as_one_that_earned_nothing(tmp_path, algorithm):
    world = RolloutWorld(tmp_path, guards=["quality"], required=[])
    world.deploy(world.add_version())
    rollout = world.start(Strategy.BANDIT, world.add_version(), algorithm=algorithm, window_minutes=0, steps=[1.0])
    answered_by_champion(world, 400)
    fail(world, "v2", 400)
    rollout, seen = look(world, rollout)
    assert rollout.status == RUNNING and seen["reason"] == "champion leads"
    assert seen["arms"]["v2"]["rewards"] > 380 and seen["arms"]["v2"]["mean"] < 0.02
    if algorithm != "linucb":
        with world.workspace.database.read() as tx:
            assert latest_shares(tx, rollout.rollout_id)[0]["v2"] < 0.2
        return
    answers = [one for one in world.send(200) if isinstance(one, Prediction)]
    assert sum(one.model_version == "2" for one in answers) < 50


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_bandit_whose_only_challenger_fails_is_rolled_back(world, algorithm):
    rollout = world.start(Strategy.BANDIT, world.add_version(), algorithm=algorithm, steps=[50.0])
    answered_by_champion(world, 200)
    fail(world, "v2", 100)
    assert look(world, rollout)[0].status == ROLLED_BACK
    with world.workspace.database.read() as tx:
        assert [variant.name for variant in current_routes(tx, MODEL).variants] == ["champion"]


def test_of_several_challengers_the_one_that_fails_gets_no_more_traffic(world):
    rollout = world.start(Strategy.BANDIT, world.add_version(), world.add_version(), window_minutes=0)
    for _ in range(4):  # in turns: of a hundred that all failed, nobody can tell whose turn it was
        answered_by_champion(world, 75)
        fail(world, "v2", 25)
    rollout, seen = look(world, rollout)
    assert rollout.status == RUNNING and "error rate" in seen["harmed"]["v2"]
    with world.workspace.database.read() as tx:
        now, _ = latest_shares(tx, rollout.rollout_id)
    assert now["v2"] == 0 and min(now["champion"], now["v3"]) > 0


def test_a_bad_time_for_both_arms_is_not_held_against_the_one_with_more_traffic(world):
    """All is well while shares are even; then nobody is answered, when the challenger has nine tenths."""
    rollout = world.start(Strategy.BANDIT, world.add_version(), window_minutes=0)
    world.send(400)
    fail(world, "champion", 20, minutes=5)
    fail(world, "v2", 180, minutes=5)
    assert look(world, rollout)[0].status == RUNNING
    for _ in range(9):
        world.send(20)
        fail(world, "v2", 10)
    assert look(world, rollout)[0].status == ROLLED_BACK


def test_a_bandit_without_rewards_promotes_nobody(world):
    rollout = world.start(Strategy.BANDIT, world.add_version(), max_days=1, window_minutes=1, steps=[90.0])
    world.send(300)
    world.pass_minutes(10)
    assert look(world, rollout)[1]["reason"] == "no reward 'reward' that counts came in yet"
    world.pass_minutes(2 * 24 * 60)
    rollout, _ = look(world, rollout)
    assert rollout.status == ROLLED_BACK


def test_an_experiment_counts_the_units_that_a_challenger_fails_as_exposed(tmp_path):
    world = RolloutWorld(tmp_path, guards=["quality"], required=[])
    world.deploy(world.add_version())
    rollout = world.start(Strategy.AB, world.add_version(), effect=0.1, window_minutes=0)
    with world.workspace.database.read() as tx:
        routes = current_routes(tx, MODEL)
    units = [f"user-{n}" for n in range(1200)]
    usual = [unit for unit in units if routes.choose(unit).name == "champion"]
    world.send(len(usual), units=lambda n: usual[n], reward=lambda answer, _row: float(hash(answer.prediction_id) % 2))
    fail(world, "v2", len(units) - len(usual), "other-")
    assert look(world, rollout)[0].status == ROLLED_BACK
    with world.workspace.database.read() as tx:
        reason = str(list_decisions(tx, rollout.rollout_id)[-1].evidence["reason"])
    assert "fall on the arms" not in reason and "champion earns" in reason

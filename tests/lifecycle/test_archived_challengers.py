"""A version that somebody archived is out of use: it passes the gate anew, and no rollout puts it forward."""

from __future__ import annotations

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld, look_interrupted, ready, world_of_one
from noria.config import PolicySettings
from noria.errors import PolicyRefused
from noria.lifecycle.deploying import deploy, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rollouts import Rollouts
from noria.registry import Policies, Stage, get_version
from noria.registry.stages import request_transition
from noria.registry.versions import delete_version
from noria.rollout import Strategy, current_routes
from noria.rollout.records import PROMOTED, ROLLED_BACK


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    return world_of_one(tmp_path)


def archive(world: RolloutWorld, version: int) -> None:
    request_transition(
        world.workspace.database,
        MODEL,
        version,
        Stage.ARCHIVED,
        policies=Policies(),
        at=world.clock.now(),
        actor="ann",
        reason="out of use",
    )


def stage(world: RolloutWorld, version: int) -> Stage:
    with world.workspace.database.read() as tx:
        return get_version(tx, MODEL, version).stage


def serves(world: RolloutWorld) -> dict[int, float]:
    with world.workspace.database.read() as tx:
        return {variant.version: variant.percent for variant in current_routes(tx, MODEL).variants}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_challenger_that_is_archived_meanwhile_loses_its_traffic_at_the_next_look(world, strategy):
    rollout = ready(world, strategy)
    archive(world, 2)
    after = world.rollouts.look(rollout.rollout_id)
    assert (after.status, serves(world), stage(world, 2)) == (ROLLED_BACK, {1: 100}, Stage.ARCHIVED)


def test_so_does_one_that_was_deleted(world):
    rollout = ready(world, Strategy.CANARY)
    with world.workspace.database.write() as tx:
        delete_version(tx, MODEL, 2, at=world.clock.now(), actor="ann", reason="by mistake")
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
    assert serves(world) == {1: 100}


def test_one_that_is_archived_during_the_look_is_not_promoted(world):
    rollout = ready(world, Strategy.BLUE_GREEN)
    look_interrupted(world, rollout, lambda: archive(world, 2))
    assert (serves(world), stage(world, 2)) == ({1: 100, 2: 0}, Stage.ARCHIVED)
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK


def test_a_challenger_of_which_nothing_was_shown_in_time_keeps_its_stage_and_is_tried_again(tmp_path):
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    world.add_version()
    for strategy in (Strategy.CANARY, Strategy.SHADOW, Strategy.BLUE_GREEN, Strategy.AB):
        rollout = world.start(strategy, 2, max_days=0.01, effect=0.1 if strategy is Strategy.AB else None)
        world.pass_minutes(20)
        assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
        assert (serves(world), stage(world, 2)) == ({1: 100}, Stage.STAGING)


def test_an_archived_version_enters_a_rollout_through_the_gate(world):
    world.add_version()
    archive(world, 2)
    rollout = world.start(Strategy.CANARY, 2)
    assert stage(world, 2) is Stage.STAGING
    assert world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good").status == PROMOTED


def test_an_archived_version_that_the_gate_does_not_let_through_gets_no_traffic(tmp_path):
    world = RolloutWorld(tmp_path)
    world.deploy(world.add_version())
    world.add_version()
    archive(world, 2)
    gate = PolicySettings.model_validate({"stages": {"Staging": {"required_metrics": ["auc"]}}})
    rollouts = Rollouts(world.workspace, Policies.from_settings({"*": gate}), world.clock)
    with pytest.raises(PolicyRefused):
        rollouts.start(MODEL, [2], planned(world.settings, Strategy.CANARY), actor="ann", reason="try")
    assert serves(world) == {1: 100}


def test_what_a_deployment_beside_takes_back_goes_on_in_the_models_own(world):
    world.add_version()
    own, plan = world.start(Strategy.CANARY, 2), planned(world.settings, Strategy.CANARY, max_days=0.001)
    address = parse_address(f"models:/{MODEL}/1")
    deploy(world.workspace, world.policies, world.clock, address, actor="ann", reason="", deployment="eu")
    beside = world.rollouts.start("eu", [2], plan, actor="ann", reason="try")
    world.pass_minutes(5)
    assert world.rollouts.look(beside.rollout_id).status == ROLLED_BACK
    assert stage(world, 2) is Stage.STAGING
    assert world.rollouts.look(own.rollout_id).is_open

"""A look takes its time: what somebody did to the rollout meanwhile stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.rollout_world import MODEL, InterruptedClock, RolloutWorld, look_interrupted, ready, world_of_one
from noria.errors import Conflict
from noria.lifecycle.deploying import deploy, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rollouts import Rollouts
from noria.registry import Stage, get_version
from noria.rollout import Decision, RouteTable, Strategy, current_routes, deployments, read_routes
from noria.rollout.deployments import write_routes
from noria.rollout.moves import Overtaken, fix_step, record_decision, record_look, record_shares
from noria.rollout.records import PAUSED, PROMOTED, ROLLED_BACK, list_decisions
from noria.rollout.routes import publish


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    return world_of_one(tmp_path)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize(("asked", "status"), [("abort", ROLLED_BACK), ("pause", PAUSED)])
def test_what_a_person_did_during_a_look_stands(world, strategy, asked, status):
    rollout = ready(world, strategy)
    do = getattr(world.rollouts, asked)
    after = look_interrupted(world, rollout, lambda: do(rollout.rollout_id, actor="ann", reason="stop it"))
    assert after.status == status
    with world.workspace.database.read() as tx:
        (decision,) = list_decisions(tx, rollout.rollout_id)
        assert decision.evidence == {"reason": "stop it"}
        assert get_version(tx, MODEL, 2).stage is Stage.STAGING
        routes = current_routes(tx, MODEL)
    assert routes.variants[0].version == 1
    if status == ROLLED_BACK:
        assert [variant.percent for variant in routes.variants] == [100]


def test_without_anybody_the_same_look_promotes(world):
    assert look_interrupted(world, ready(world, Strategy.BLUE_GREEN), lambda: None).status == PROMOTED


def test_harm_that_was_seen_before_a_promotion_by_hand_does_not_undo_it(world):
    rollout = world.start(Strategy.CANARY, world.add_version(inputs=("a", "b", "c", "missing")), steps=(50, 100))
    world.send(2000)
    after = look_interrupted(
        world, rollout, lambda: world.rollouts.promote(rollout.rollout_id, actor="ann", reason="all is well")
    )
    with world.workspace.database.read() as tx:
        assert (after.status, get_version(tx, MODEL, 2).stage) == (PROMOTED, Stage.PRODUCTION)


def test_no_step_is_passed_over_by_two_controllers(world):
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(40, 50, 100))
    world.send(9000)
    world.pass_minutes(2)
    after = look_interrupted(world, rollout, lambda: world.rollouts.look(rollout.rollout_id))
    assert after.percent == 50


@pytest.mark.parametrize(
    "write",
    [
        lambda tx, seen, at: record_decision(tx, seen, Decision.PROMOTE, {}, at=at, actor="bob"),
        lambda tx, seen, at: record_look(tx, seen, {}, at=at),
        lambda tx, seen, at: fix_step(tx, seen, {}, at=at, actor="bob"),
        lambda tx, seen, at: record_shares(tx, seen, {"champion": 1.0}, "", {}, at=at, actor="bob"),
    ],
)
def test_nothing_is_written_about_a_state_that_is_gone(world, write):
    seen = world.start(Strategy.CANARY, world.add_version())
    world.rollouts.abort(seen.rollout_id, actor="ann", reason="enough")
    with world.workspace.database.write() as tx, pytest.raises(Overtaken, match="meanwhile is rolled_back"):
        write(tx, seen, world.clock.now())


def test_no_rollout_starts_against_a_version_that_serves_no_longer(world):
    second, third = world.add_version(), world.add_version()
    clock = InterruptedClock(world.clock, lambda: world.deploy(third), nth=2)
    plan = planned(world.settings, Strategy.CANARY)
    with pytest.raises(Conflict, match="serves another version by now"):
        Rollouts(world.workspace, world.policies, clock).start(MODEL, [second], plan, actor="ann", reason="try")


def test_no_deployment_runs_over_a_rollout_that_starts_meanwhile(world):
    second = world.add_version()
    as_eu = {"actor": "ann", "reason": "", "deployment": "eu"}
    deploy(world.workspace, world.policies, world.clock, parse_address(f"models:/{MODEL}/1"), **as_eu)
    plan = planned(world.settings, Strategy.CANARY)
    clock = InterruptedClock(world.clock, lambda: world.rollouts.start("eu", [second], plan, actor="bob", reason="try"))
    with pytest.raises(Conflict, match="rollout under way"):
        deploy(world.workspace, world.policies, clock, parse_address(f"models:/{MODEL}/1"), **as_eu)
    with world.workspace.database.read() as tx:
        assert [variant.percent for variant in current_routes(tx, "eu").variants] == [95, 5]


def test_who_is_overtaken_while_writing_the_route_file_leaves_the_newer_routes_there(world, monkeypatch):
    rollout = world.start(Strategy.CANARY, world.add_version())
    path, left = world.workspace.route_file(MODEL), [1]

    def overtaken(table: RouteTable, path: Path) -> None:
        if left:  # the first writer has read the canary's routes, and is held up here
            left.pop()
            world.rollouts.abort(rollout.rollout_id, actor="ann", reason="it is broken")
        publish(table, path)

    monkeypatch.setattr(deployments, "publish", overtaken)
    write_routes(world.workspace, MODEL)
    assert [variant.percent for variant in read_routes(path).variants] == [100]

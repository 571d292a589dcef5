"""A start that is refused leaves everything as it was; one on a deployment that follows something lasts."""

from __future__ import annotations

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld, world_of_three
from noria import audit
from noria.config import PolicySettings
from noria.errors import Conflict, InvalidInput, PolicyRefused
from noria.lifecycle.deploying import deploy, follow, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rolling_back import roll_back
from noria.lifecycle.rollouts import Rollouts
from noria.registry import Policies, Stage, get_version
from noria.registry.models import aliases, set_alias
from noria.registry.stages import request_transition
from noria.rollout import Strategy, current_routes
from noria.rollout.records import PROMOTED, list_rollouts


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    return world_of_three(tmp_path)


def stages(world: RolloutWorld) -> list[Stage]:
    with world.workspace.database.read() as tx:
        return [get_version(tx, MODEL, number).stage for number in (1, 2, 3)]


def serves(world: RolloutWorld, name: str) -> int:
    """The champion, once everything that follows something has followed."""
    follow(world.workspace, world.policies, world.clock, actor="noria/lifecycle")
    with world.workspace.database.read() as tx:
        (variant,) = current_routes(tx, name).variants
    return variant.version


def deploy_as(world: RolloutWorld, name: str, address: str) -> None:
    where = {"actor": "ann", "reason": "", "deployment": name}
    deploy(world.workspace, world.policies, world.clock, parse_address(address), **where)


@pytest.mark.parametrize(
    ("strategy", "challengers", "options", "error"),
    [
        (Strategy.CANARY, [2], {"steps": (50, 20)}, InvalidInput),
        (Strategy.BANDIT, [2, 3], {"floor": 0.4}, InvalidInput),
        (Strategy.BANDIT, [2, 1], {}, Conflict),
        (Strategy.BANDIT, [2, 2], {}, Conflict),
    ],
)
def test_a_refused_start_moves_no_version(world, strategy, challengers, options, error):
    with pytest.raises(error):
        world.start(strategy, *challengers, **options)
    assert stages(world) == [Stage.PRODUCTION, Stage.NONE, Stage.NONE]
    with world.workspace.database.read() as tx:
        assert list_rollouts(tx) == []


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.SHADOW, Strategy.BLUE_GREEN])
def test_the_alias_that_a_deployment_follows_moves_with_a_promotion_and_back_with_a_rollback(world, strategy):
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "live", 1, at=world.clock.now(), actor="ann")
    deploy_as(world, "eu", f"models:/{MODEL}@live")
    plan = planned(world.settings, strategy)
    rollout = world.rollouts.start("eu", [3], plan, actor="ann", reason="try")
    assert world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good").status == PROMOTED
    assert serves(world, "eu") == 3
    with world.workspace.database.read() as tx:
        assert aliases(tx, MODEL) == {"live": 3}
        audit.verify(tx)
    roll_back(world.workspace, world.policies, world.clock, "eu", actor="ann", reason="worse")
    assert serves(world, "eu") == 1


def test_a_deployment_of_another_name_that_follows_production_keeps_what_it_was_promoted_to_and_goes_back(world):
    deploy_as(world, "eu", f"models:/{MODEL}/Production")
    rollout = world.rollouts.start("eu", [2], planned(world.settings, Strategy.SHADOW), actor="ann", reason="try")
    world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good")
    assert serves(world, "eu") == 2
    roll_back(world.workspace, world.policies, world.clock, "eu", actor="ann", reason="worse")
    assert serves(world, "eu") == 1
    assert stages(world)[:2] == [Stage.PRODUCTION, Stage.ARCHIVED]


@pytest.mark.parametrize("what", ["/1", "@live"])
def test_a_deployment_beside_the_models_own_leaves_production_and_what_serves_it_alone(world, what):
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "live", 1, at=world.clock.now(), actor="ann")
    deploy_as(world, "main", f"models:/{MODEL}/Production")
    deploy_as(world, "eu", f"models:/{MODEL}{what}")
    rollout = world.rollouts.start("eu", [3], planned(world.settings, Strategy.SHADOW), actor="ann", reason="try")
    world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good for eu")
    assert stages(world) == [Stage.PRODUCTION, Stage.NONE, Stage.STAGING]
    assert [serves(world, name) for name in ("eu", "main", MODEL)] == [3, 1, 1]


def test_where_only_production_may_serve_nothing_else_is_tried_beside_it(world):
    strict = Policies.from_settings({"*": PolicySettings(previews=False)})
    deploy_as(world, "eu", f"models:/{MODEL}/1")
    plan = planned(world.settings, Strategy.CANARY)
    with pytest.raises(PolicyRefused, match="refuses to serve churn@3"):
        Rollouts(world.workspace, strict, world.clock).start("eu", [3], plan, actor="ann", reason="try")
    assert stages(world)[2] is Stage.NONE


def test_nothing_is_rolled_out_to_what_follows_staging(world):
    move = {"policies": world.policies, "at": world.clock.now(), "actor": "ann", "reason": "try"}
    request_transition(world.workspace.database, MODEL, 2, Stage.STAGING, **move)
    deploy_as(world, "next", f"models:/{MODEL}/Staging")
    with pytest.raises(Conflict, match="serves what is in Staging"):
        world.rollouts.start("next", [3], planned(world.settings, Strategy.CANARY), actor="ann", reason="try")
    assert stages(world)[2] is Stage.NONE


def test_only_a_challenger_of_the_rollout_is_promoted(world):
    rollout = world.start(Strategy.CANARY, 2)
    for other in (1, 3, 99):
        with pytest.raises(InvalidInput, match="is no challenger"):
            world.rollouts.promote(rollout.rollout_id, actor="ann", reason="", version=other)
    assert stages(world) == [Stage.PRODUCTION, Stage.STAGING, Stage.NONE]
    assert world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good", version=2).status == PROMOTED

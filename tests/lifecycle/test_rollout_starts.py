"""A start that is refused leaves everything as it was; one on a deployment that follows something lasts."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from lifecycle.rollout_world import MODEL, InterruptedClock, RolloutWorld, world_of_three
from noria import audit
from noria.config import PolicySettings
from noria.errors import Conflict, InvalidInput, PolicyRefused
from noria.lifecycle.deploying import deploy, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rolling_back import roll_back
from noria.lifecycle.rollouts import Rollouts
from noria.registry import Policies, Stage, get_version
from noria.registry.models import aliases, delete_alias, set_alias
from noria.registry.stages import request_transition
from noria.registry.versions import update_version
from noria.rollout import Strategy, current_routes, read_routes
from noria.rollout.following import RouteFollower
from noria.rollout.records import PROMOTED, list_rollouts
from noria.store.database import Transaction
from noria.store.tables import audit_entries


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    return world_of_three(tmp_path)


def stages(world: RolloutWorld) -> list[Stage]:
    with world.workspace.database.read() as tx:
        return [get_version(tx, MODEL, number).stage for number in (1, 2, 3)]


def refusals(tx: Transaction) -> list[str]:
    query = select(audit_entries.c.subject).where(audit_entries.c.action == "version.refuse")
    return list(tx.execute(query).scalars())


def serves(world: RolloutWorld, name: str) -> int:
    """The champion, once everything that follows something has followed."""
    world.follow()
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


def test_where_the_gate_stops_one_challenger_the_others_stay_too(world):
    with world.workspace.database.write() as tx:
        update_version(tx, MODEL, 2, tags={"reviewed": "yes"}, at=world.clock.now(), actor="ann")
    gate = PolicySettings.model_validate({"stages": {"Staging": {"required_tags": ["reviewed"]}}})
    rollouts = Rollouts(world.workspace, Policies.from_settings({"*": gate}), world.clock)
    with pytest.raises(PolicyRefused, match="refuses churn@3"):
        rollouts.start(MODEL, [2, 3], planned(world.settings, Strategy.BANDIT), actor="ann", reason="try")
    assert stages(world) == [Stage.PRODUCTION, Stage.NONE, Stage.NONE]
    with world.workspace.database.read() as tx:
        assert (refusals(tx), list_rollouts(tx)) == (["version:churn@3"], [])
        audit.verify(tx)


def test_of_two_deployed_at_once_the_second_is_refused_and_neither_enters_production_unserved(world):
    clock = InterruptedClock(world.clock, lambda: world.deploy(3), nth=2)
    with pytest.raises(Conflict, match="version 3 was deployed as 'churn' meanwhile"):
        where = {"actor": "ann", "reason": ""}
        deploy(world.workspace, world.policies, clock, parse_address(f"models:/{MODEL}/2"), **where)
    assert (stages(world), serves(world, MODEL)) == ([Stage.ARCHIVED, Stage.NONE, Stage.PRODUCTION], 3)


def test_a_promotion_by_hand_that_the_policy_refuses_is_audited(world):
    rollout = world.start(Strategy.CANARY, 2)
    strict = PolicySettings.model_validate({"stages": {"Production": {"required_metrics": ["auc"]}}})
    rollouts = Rollouts(world.workspace, Policies.from_settings({"*": strict}), world.clock)
    with pytest.raises(PolicyRefused):
        rollouts.promote(rollout.rollout_id, actor="ann", reason="good")
    with world.workspace.database.read() as tx:
        assert refusals(tx) == ["version:churn@2"]


def test_a_change_stands_when_its_route_file_cannot_be_written_and_gateways_get_it_later(world):
    rollout, file = world.start(Strategy.CANARY, 2), world.workspace.route_file(MODEL)
    file.unlink()
    file.mkdir()  # in place of a full disk
    assert world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good").status == PROMOTED
    assert (stages(world)[1], serves(world, MODEL)) == (Stage.PRODUCTION, 2)
    follower = RouteFollower(world.workspace)
    follower.look()
    file.rmdir()
    follower.look()
    assert [one.version for one in read_routes(file).variants] == [2]


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


def test_an_alias_that_is_deleted_meanwhile_stays_so_whatever_becomes_of_the_rollout(world):
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "live", 1, at=world.clock.now(), actor="ann")
    deploy_as(world, "eu", f"models:/{MODEL}@live")
    plan = planned(world.settings, Strategy.CANARY)
    first = world.rollouts.start("eu", [3], plan, actor="ann", reason="try")
    with world.workspace.database.write() as tx:
        delete_alias(tx, MODEL, "live", at=world.clock.now(), actor="ann")
    world.rollouts.abort(first.rollout_id, actor="ann", reason="wait")
    world.pass_minutes(1)
    second = world.rollouts.start("eu", [3], plan, actor="ann", reason="try")
    world.rollouts.promote(second.rollout_id, actor="ann", reason="good")
    assert serves(world, "eu") == 3
    roll_back(world.workspace, world.policies, world.clock, "eu", actor="ann", reason="worse")
    with world.workspace.database.read() as tx:
        assert (serves(world, "eu"), aliases(tx, MODEL)) == (1, {})


def test_a_deployment_of_another_name_that_follows_production_keeps_what_it_was_promoted_to_and_goes_back(world):
    deploy_as(world, "eu", f"models:/{MODEL}/Production")
    rollout = world.rollouts.start("eu", [2], planned(world.settings, Strategy.SHADOW), actor="ann", reason="try")
    world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good")
    assert serves(world, "eu") == 2
    roll_back(world.workspace, world.policies, world.clock, "eu", actor="ann", reason="worse")
    assert serves(world, "eu") == 1
    assert stages(world)[:2] == [Stage.PRODUCTION, Stage.ARCHIVED]


def test_one_rollout_at_a_time_decides_what_is_in_production(world):
    deploy_as(world, "eu", f"models:/{MODEL}/Production")
    shadow = planned(world.settings, Strategy.SHADOW)
    first = world.rollouts.start("eu", [2], shadow, actor="ann", reason="try")
    with pytest.raises(Conflict, match=r"of 'eu' is under way.*\n.*`noria rollout abort eu`"):
        world.rollouts.start(MODEL, [3], shadow, actor="ann", reason="try")
    deploy_as(world, "us", f"models:/{MODEL}/1")  # which leaves Production alone
    world.rollouts.start("us", [3], shadow, actor="ann", reason="try")
    world.rollouts.promote(first.rollout_id, actor="ann", reason="good")
    assert stages(world) == [Stage.ARCHIVED, Stage.PRODUCTION, Stage.STAGING]


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

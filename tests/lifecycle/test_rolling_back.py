"""One word takes the traffic back, whatever state a deployment is in."""

from __future__ import annotations

from datetime import datetime

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld, world_of_three
from noria.errors import Conflict, InvalidInput, NotFound
from noria.lifecycle.deploying import deploy, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rolling_back import RolledBack, roll_back
from noria.registry import Stage, get_version
from noria.registry.models import aliases, set_alias
from noria.rollout import Strategy, current_routes
from noria.rollout.deployments import all_deployments, save_deployment, withdraw


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    return world_of_three(tmp_path)


def back(world: RolloutWorld, name: str = MODEL, asked_at: datetime | None = None) -> RolledBack:
    asked = {"actor": "ann", "reason": "worse", "asked_at": asked_at}
    return roll_back(world.workspace, world.policies, world.clock, name, **asked)


def deploy_as(world: RolloutWorld, name: str, what: int | str) -> None:
    address = parse_address(f"models:/{MODEL}{what}" if str(what).startswith("@") else f"models:/{MODEL}/{what}")
    deploy(world.workspace, world.policies, world.clock, address, actor="ann", reason="", deployment=name)


def serves(world: RolloutWorld, name: str = MODEL) -> dict[int, float]:
    """Percent by version."""
    with world.workspace.database.read() as tx:
        return {variant.version: variant.percent for variant in current_routes(tx, name).variants}


def stage(world: RolloutWorld, version: int) -> Stage:
    with world.workspace.database.read() as tx:
        return get_version(tx, MODEL, version).stage


def test_a_rollout_under_way_is_ended(world):
    rollout = world.start(Strategy.CANARY, 2)
    assert serves(world) == {1: 95, 2: 5}
    assert back(world).how == f"rollout {rollout.rollout_id[:8]} aborted"
    assert serves(world) == {1: 100}
    assert world.rollouts.look(rollout.rollout_id).status == "rolled_back"


def test_so_is_a_paused_one(world):
    rollout = world.start(Strategy.CANARY, 2)
    world.rollouts.pause(rollout.rollout_id, actor="ann", reason="lunch")
    back(world)
    assert serves(world) == {1: 100}


def test_after_a_promotion_the_version_before_serves_and_is_in_production_again(world):
    rollout = world.start(Strategy.CANARY, 2)
    world.rollouts.promote(rollout.rollout_id, actor="ann", reason="good")
    assert (serves(world), stage(world, 2)) == ({2: 100}, Stage.PRODUCTION)
    world.deploy(3)
    assert back(world).version.version == 2
    assert (serves(world), stage(world, 2), stage(world, 3)) == ({2: 100}, Stage.PRODUCTION, Stage.ARCHIVED)
    assert back(world).version.version == 1
    with pytest.raises(Conflict, match="no earlier version"):
        back(world)
    assert serves(world) == {1: 100}


@pytest.mark.parametrize("name", ["x" * 201, "two\nlines", "a/b", " ", ""])
def test_a_name_that_no_file_can_have_leaves_nothing_behind(world, name):
    with world.workspace.database.write() as tx, pytest.raises(InvalidInput, match="name"):
        save_deployment(tx, name, MODEL, follows="", unit="", at=world.clock.now(), actor="ann")
    with world.workspace.database.read() as tx:
        assert [one.deployment for one in all_deployments(tx)] == [MODEL]


def test_a_deployment_of_another_name_goes_back_by_itself(world):
    for number in (1, 2):
        deploy_as(world, "beside", number)
    assert back(world, "beside").version.version == 1
    assert (serves(world, "beside"), serves(world)) == ({1: 100}, {1: 100})
    assert stage(world, 1) is Stage.PRODUCTION
    with pytest.raises(Conflict, match="no earlier version"):
        back(world, "beside")


def test_the_alias_that_a_deployment_follows_moves_back_with_it(world):
    def point(number: int) -> None:
        with world.workspace.database.write() as tx:
            set_alias(tx, MODEL, "live", number, at=world.clock.now(), actor="ann")

    point(1)
    deploy_as(world, "live", "@live")
    point(2)
    world.follow()
    assert serves(world, "live") == {2: 100}
    back(world, "live")
    world.follow()
    with world.workspace.database.read() as tx:
        assert aliases(tx, MODEL) == {"live": 1}
    assert serves(world, "live") == {1: 100}


def test_what_does_not_exist_is_told(world):
    with pytest.raises(NotFound, match="no deployment 'nothing-such'") as refused:
        back(world, "nothing-such")
    assert "noria deploy list" in (refused.value.remedy or "")


def test_an_older_version_that_was_put_forward_again_goes_back_to_the_one_it_replaced(world):
    for version in (2, 3, 1):
        world.deploy(version)
    assert back(world).version.version == 3
    assert (serves(world), stage(world, 3), stage(world, 1)) == ({3: 100}, Stage.PRODUCTION, Stage.ARCHIVED)
    assert back(world).version.version == 2
    assert back(world).version.version == 1
    with pytest.raises(Conflict, match="no earlier version"):
        back(world)


def test_so_it_is_under_another_name(world):
    for version in (1, 2, 1):
        deploy_as(world, "eu", version)
    assert back(world, "eu").version.version == 2
    assert back(world, "eu").version.version == 1


def test_an_alias_that_moved_during_a_rollout_moves_back_with_the_traffic(world):
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "live", 1, at=world.clock.now(), actor="ann")
    deploy_as(world, "eu", "@live")
    plan = planned(world.settings, Strategy.CANARY)
    world.rollouts.start("eu", [3], plan, actor="ann", reason="try")
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "live", 3, at=world.clock.now(), actor="bob")
    assert back(world, "eu").version.version == 1
    world.follow()
    assert serves(world, "eu") == {1: 100}
    with world.workspace.database.read() as tx:
        assert aliases(tx, MODEL) == {"live": 1}


def test_what_was_withdrawn_is_neither_rolled_back_nor_rolled_out_to(world):
    world.deploy(2)
    with world.workspace.database.write() as tx:
        withdraw(tx, MODEL, at=world.clock.now(), actor="ann", reason="no longer")
    with pytest.raises(Conflict, match="was withdrawn"):
        back(world)
    with pytest.raises(Conflict, match="was withdrawn"):
        world.start(Strategy.CANARY, 3)
    assert (stage(world, 2), stage(world, 3)) == (Stage.PRODUCTION, Stage.NONE)


def test_a_deployment_whose_rollout_is_under_way_is_not_withdrawn_nor_one_twice(world):
    def end() -> None:
        with world.workspace.database.write() as tx:
            withdraw(tx, MODEL, at=world.clock.now(), actor="ann", reason="no longer")

    rollout = world.start(Strategy.CANARY, 2)
    with pytest.raises(Conflict, match=rf"'{MODEL}' has a rollout under way: {rollout.rollout_id[:8]}"):
        end()
    assert serves(world) == {1: 95, 2: 5}
    world.rollouts.abort(rollout.rollout_id, actor="ann", reason="first this")
    end()
    with pytest.raises(Conflict, match="was withdrawn"):
        end()


def test_of_two_who_take_back_at_once_the_second_is_refused(world):
    for version in (2, 3):
        world.pass_minutes(1)
        world.deploy(version)
    asked_at = world.clock.now()
    world.pass_minutes(0.1)
    assert back(world, asked_at=asked_at).version.version == 2
    with pytest.raises(Conflict, match="'churn' has changed meanwhile: version 2 serves now"):
        back(world, asked_at=asked_at)
    rollout, asked_at = world.start(Strategy.CANARY, 3), world.clock.now()
    world.pass_minutes(0.1)
    assert back(world, asked_at=asked_at).how == f"rollout {rollout.rollout_id[:8]} aborted"
    with pytest.raises(Conflict, match="has changed meanwhile"):
        back(world, asked_at=asked_at)
    world.pass_minutes(0.1)
    assert back(world, asked_at=world.clock.now()).version.version == 1

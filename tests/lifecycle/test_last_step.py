"""All the traffic is the hardest step: what breaks there, or is not asked there, is not promoted."""

from __future__ import annotations

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld, world_of_one
from noria.clock import to_millis
from noria.monitoring.log import FailureRecord, PredictionLog
from noria.registry import Stage, get_version
from noria.rollout import Rollout, Strategy, current_routes
from noria.rollout.records import PROMOTED, ROLLED_BACK, RUNNING, latest_look, list_decisions


@pytest.fixture
def world(tmp_path) -> RolloutWorld:
    return world_of_one(tmp_path, 1000)


def fail(world: RolloutWorld, requests: int) -> None:
    """What gateways log when the version in the lead answers nothing."""
    with world.workspace.database.read() as tx:
        table = current_routes(tx, MODEL)
    lead = table.answering[-1]
    log, now = PredictionLog(world.workspace.prediction_log), to_millis(world.clock.now())
    record = FailureRecord(now, MODEL, table.revision, lead.name, MODEL, lead.version, "unavailable", 1)
    log.failures([record] * requests)
    log.close()


def reason(world: RolloutWorld, rollout: Rollout) -> str:
    with world.workspace.database.read() as tx:
        return str(list_decisions(tx, rollout.rollout_id)[-1].evidence["reason"])


def at_the_last_step(world: RolloutWorld) -> Rollout:
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    world.send(9000)
    world.pass_minutes(2)
    rollout = world.rollouts.look(rollout.rollout_id)
    assert (rollout.status, rollout.percent) == (RUNNING, 100)
    return rollout


def test_a_canary_that_fails_every_request_of_its_only_step_is_taken_back(world):
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(100,))
    fail(world, 300)
    world.pass_minutes(2)
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
    assert "error rate +100 points against the champion's before" in reason(world, rollout)
    with world.workspace.database.read() as tx:
        assert get_version(tx, MODEL, 2).stage is Stage.ARCHIVED
        assert [(v.version, v.percent) for v in current_routes(tx, MODEL).variants] == [(1, 100)]


def test_one_that_breaks_at_the_last_step_alone_is_too(world):
    rollout = at_the_last_step(world)
    world.send(500)
    fail(world, 50)
    world.pass_minutes(2)
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK
    assert "error rate +9" in reason(world, rollout)


def test_what_the_champion_failed_at_before_the_rollout_is_no_fault_of_its_challenger(world):
    fail(world, 100)
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(100,))
    world.send(1000)
    fail(world, 100)
    world.pass_minutes(2)
    assert world.rollouts.look(rollout.rollout_id).status == PROMOTED


def test_without_a_request_with_all_the_traffic_the_step_waits_and_the_champion_stays_in_the_end(world):
    rollout = at_the_last_step(world)
    world.pass_minutes(60)
    assert world.rollouts.look(rollout.rollout_id).status == RUNNING
    with world.workspace.database.read() as tx:
        look, _ = latest_look(tx, rollout.rollout_id)
    assert look["reason"] == "error rate: nothing to compare in this step yet"
    world.pass_minutes(14 * 24 * 60)
    assert world.rollouts.look(rollout.rollout_id).status == ROLLED_BACK


def test_users_who_come_back_count_anew_with_all_the_traffic(world):
    """None of them is new at the last step: only by their requests there can it be told how many fail."""
    rollout = world.start(Strategy.CANARY, world.add_version(), steps=(50, 100))
    for _ in range(2):
        start = world.sent
        world.send(8000, units=lambda n, start=start: f"user-{n - start}")
        fail(world, 2)
        world.pass_minutes(2)
        rollout = world.rollouts.look(rollout.rollout_id)
    assert rollout.status == PROMOTED, reason(world, rollout)

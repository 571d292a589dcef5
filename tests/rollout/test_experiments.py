"""An experiment names a winner when there is one, and says why it stopped when there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from noria.errors import InvalidInput
from noria.rollout.estimates import Moments
from noria.rollout.experiments import ArmOutcome, ExperimentSettings, ExperimentState, judge_experiment

SETTINGS = ExperimentSettings(effect=0.02, guardrails={"errors": 0.01})


def arm(name, share, units, reward, errors=0.01, exposed=None):
    """An arm with that rate of binary rewards and of errors, to the unit."""
    rewards, failures = units * reward, units * errors
    return ArmOutcome(
        name,
        share,
        exposed or units,
        Moments.from_sums(units, rewards, rewards),
        {"errors": Moments.from_sums(units, failures, failures)},
    )


def judge(*arms, settings=SETTINGS, days=0.0):
    return judge_experiment(settings, [arms], days)


def test_the_better_arm_wins():
    verdict = judge(arm("a", 0.5, 10_000, 0.10), arm("b", 0.5, 10_000, 0.12))
    assert (verdict.state, verdict.winner) == (ExperimentState.WINNER, "b")
    assert "b earns +0.02 a unit against a" in verdict.reason


def test_the_control_can_win_too():
    assert judge(arm("a", 0.5, 10_000, 0.12), arm("b", 0.5, 10_000, 0.10)).winner == "a"


def test_a_winner_must_beat_every_other_arm():
    close = [arm("a", 0.4, 8000, 0.10), arm("b", 0.3, 6000, 0.14), arm("c", 0.3, 6000, 0.138)]
    assert judge(*close).state is ExperimentState.RUNNING
    assert judge(*close[:2], arm("c", 0.3, 6000, 0.10)).winner == "b"


def test_more_arms_widen_every_interval():
    two = judge(arm("a", 0.5, 5000, 0.1), arm("b", 0.5, 5000, 0.11)).comparisons[0]
    three = judge(arm("a", 0.3, 5000, 0.1), arm("b", 0.3, 5000, 0.11), arm("c", 0.3, 5000, 0.1)).comparisons[0]
    assert three.upper - three.lower > two.upper - two.lower


def test_with_a_tolerance_an_arm_wins_by_being_no_worse():
    arms = arm("a", 0.5, 20_000, 0.10), arm("b", 0.5, 20_000, 0.10)
    assert judge(*arms).winner is None
    assert judge(*arms, settings=replace(SETTINGS, tolerance=0.02)).winner == "b"
    assert judge(arms[0], arm("b", 0.5, 20_000, 0.07), settings=replace(SETTINGS, tolerance=0.02)).winner == "a"


def test_a_mismatched_split_goes_before_any_winner():
    verdict = judge(arm("a", 0.5, 10_000, 0.10), arm("b", 0.5, 8500, 0.15))
    assert (verdict.state, verdict.winner) == (ExperimentState.MISMATCH, None)
    assert "a 10000, b 8500" in verdict.reason


def test_an_arm_that_breaks_a_guardrail_is_named_though_it_earns_more():
    verdict = judge(arm("a", 0.5, 10_000, 0.10), arm("b", 0.5, 10_000, 0.15, errors=0.03))
    assert (verdict.state, verdict.harmed) == (ExperimentState.HARMED, ["b"])
    assert "errors +0.02 a unit, more than the 0.01 allowed" in verdict.reason


def test_an_effect_that_can_no_longer_be_there_ends_the_experiment():
    verdict = judge(arm("a", 0.5, 12_000, 0.10), arm("b", 0.5, 12_000, 0.1))
    assert verdict.state is ExperimentState.FUTILE and "no arm is better than a by 0.02" in verdict.reason


@pytest.mark.parametrize(("limits", "days"), [({"max_units": 4000}, 0), ({"max_days": 14}, 14)])
def test_an_experiment_ends_in_time_without_a_winner(limits, days):
    arms = arm("a", 0.5, 2000, 0.10), arm("b", 0.5, 2000, 0.105)
    assert judge(*arms).state is ExperimentState.RUNNING
    assert judge(*arms, settings=replace(SETTINGS, **limits), days=days).state is ExperimentState.EXPIRED


def test_too_few_units_are_not_compared():
    verdict = judge(arm("a", 0.5, 90, 0.0), arm("b", 0.5, 90, 1.0))
    assert (verdict.state, verdict.comparisons) == (ExperimentState.RUNNING, [])


def test_phases_are_compared_each_within_itself():
    """Rewards fell while b's share grew: over all b earns less, in each phase as much."""
    phases = [
        [arm("a", 0.9, 18_000, 0.20), arm("b", 0.1, 2000, 0.20)],
        [arm("a", 0.5, 9000, 0.05), arm("b", 0.5, 9000, 0.05)],
    ]
    verdict = judge_experiment(replace(SETTINGS, effect=0.001), phases)
    assert verdict.winner is None and verdict.comparisons[0].estimate == pytest.approx(0)


def test_an_arm_taken_off_leaves_the_others_to_go_on():
    first = [arm("a", 0.4, 4000, 0.1), arm("b", 0.3, 3000, 0.12), arm("c", 0.3, 3000, 0.118)]
    then = [arm("a", 0.5, 9000, 0.1), arm("b", 0.5, 9000, 0.13)]
    assert judge_experiment(SETTINGS, [first]).state is ExperimentState.RUNNING
    assert judge_experiment(SETTINGS, [first, then]).winner == "b"


@pytest.mark.parametrize("arms", [2, 4])
def test_equal_arms_looked_at_always_hardly_ever_have_a_winner(arms):
    generator, won = np.random.default_rng(arms), 0
    settings = ExperimentSettings(effect=0.05)
    for _ in range(60):
        rewards = (generator.random((arms, 3000)) < 0.1).cumsum(1)
        looks = range(149, 3000, 150)
        verdicts = (judge(*drawn(rewards[:, look], look + 1), settings=settings) for look in looks)
        won += any(verdict.state is ExperimentState.WINNER for verdict in verdicts)
    assert won <= 3


def drawn(successes, count):
    moments = [Moments.from_sums(count, int(total), int(total)) for total in successes]
    return [ArmOutcome(str(i), 1 / len(moments), count, rewards) for i, rewards in enumerate(moments)]


def test_one_arm_or_no_effect_is_no_experiment():
    with pytest.raises(InvalidInput, match="make no experiment"):
        judge(arm("a", 1.0, 100, 0.1))
    with pytest.raises(InvalidInput, match="make no experiment"):
        judge_experiment(replace(SETTINGS, effect=0.0), [[arm("a", 0.5, 100, 0.1), arm("b", 0.5, 100, 0.1)]])


@pytest.mark.parametrize("variance", [0.09, float("nan")])
@pytest.mark.parametrize("reward", [float("inf"), float("nan")])
def test_a_reward_that_is_no_number_ends_no_experiment(reward, variance):
    arms = [
        ArmOutcome("champion", 0.5, 1000, Moments(1000, 0.1, 0.09)),
        ArmOutcome("v2", 0.5, 1000, Moments(1000, reward, variance)),
    ]
    assert judge_experiment(ExperimentSettings(0.05), [arms]).state is ExperimentState.RUNNING


def test_that_nobody_has_bought_anything_yet_says_nothing_about_who_buys():
    arms = [ArmOutcome(name, 0.5, 150, Moments(150, 0.0, 0.0)) for name in ("champion", "v2")]
    assert judge_experiment(ExperimentSettings(0.005), [arms]).state is ExperimentState.RUNNING

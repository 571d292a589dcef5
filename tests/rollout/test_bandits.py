"""Bandits without context: shares are shares, and follow what the arms have earned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidInput
from noria.rollout.bandits import ArmRewards, BanditSettings, allocation, thompson_shares
from noria.rollout.estimates import Moments


def binary(successes, count, pending=0):
    """An arm's binary rewards."""
    return Moments.from_sums(count, successes, successes), pending


def named(*rewards):
    return [ArmRewards(f"arm {i}", moments, pending) for i, (moments, pending) in enumerate(rewards)]


COUNTS = st.tuples(st.integers(0, 3000), st.floats(0, 1), st.integers(0, 100)).map(
    lambda drawn: binary(int(drawn[0] * drawn[1]), drawn[0], drawn[2])
)
REAL = st.tuples(st.lists(st.floats(-1e6, 1e6), max_size=20), st.integers(0, 100)).map(
    lambda drawn: (Moments.of(np.array(drawn[0])), drawn[1])
)
ALGORITHMS = st.sampled_from(["thompson", "epsilon-greedy"])


@settings(max_examples=50)
@given(st.lists(COUNTS, min_size=1, max_size=6), ALGORITHMS, st.floats(0, 1 / 6))
def test_shares_sum_to_one_and_respect_the_floor(rewards, algorithm, floor):
    shares = allocation(BanditSettings(algorithm, floor=floor), named(*rewards))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert min(shares.values()) >= floor - 1e-12


@settings(max_examples=50)
@given(st.lists(REAL, min_size=1, max_size=6), ALGORITHMS)
def test_real_rewards_of_any_size_divide_the_traffic_too(rewards, algorithm):
    shares = allocation(BanditSettings(algorithm, "real", floor=0.02), named(*rewards))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert min(shares.values()) >= 0.02 - 1e-12


def test_the_same_rewards_give_the_same_shares():
    arms = named(binary(30, 300), binary(40, 310))
    assert allocation(BanditSettings(), arms) == allocation(BanditSettings(), arms)


@settings(max_examples=30)
@given(st.lists(COUNTS, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_the_arms_does_not_matter(rewards, shuffler):
    arms = named(*rewards)
    shuffled = shuffler.sample(arms, len(arms))
    one, other = allocation(BanditSettings(), arms), allocation(BanditSettings(), shuffled)
    assert all(one[name] == pytest.approx(other[name]) for name in one)


def test_thompson_plays_an_arm_as_often_as_it_is_likely_to_be_best():
    counts = ((30, 300), (36, 310), (4, 20))
    draws = np.random.default_rng(0).beta(*zip(*((1 + s, 1 + n - s) for s, n in counts), strict=True), (200_000, 3))
    expected = np.bincount(draws.argmax(1), minlength=3) / len(draws)
    assert thompson_shares(named(*(binary(*pair) for pair in counts)), "binary") == pytest.approx(expected, abs=0.005)


def test_thompson_on_real_rewards_sees_which_is_larger_in_any_unit():
    generator = np.random.default_rng(1)
    rewards = [generator.lognormal(mean, 0.5, 400) for mean in (1.0, 1.2)]
    shares = [
        allocation(BanditSettings(rewards="real"), named(*((Moments.of(unit * r), 0) for r in rewards)))
        for unit in (1.0, 1e6)
    ]
    assert shares[0]["arm 1"] > 0.95 and shares[0]["arm 1"] == pytest.approx(shares[1]["arm 1"])


def test_arms_that_cannot_be_told_apart_share_alike():
    for arms in (named(binary(0, 0), binary(0, 0)), named(binary(5, 50), binary(5, 50))):
        for algorithm in ("thompson", "epsilon-greedy"):
            assert [*allocation(BanditSettings(algorithm), arms).values()] == pytest.approx([0.5, 0.5])


def test_epsilon_greedy_plays_the_best_arm_but_for_epsilon():
    shares = allocation(BanditSettings("epsilon-greedy", epsilon=0.2, floor=0), named(binary(9, 90), binary(8, 90)))
    assert [*shares.values()] == pytest.approx([0.9, 0.1])


def test_an_arm_whose_rewards_are_late_is_not_taken_for_untried():
    chosen = BanditSettings("epsilon-greedy", epsilon=0.2, floor=0)
    untried = allocation(chosen, named(binary(9, 90), binary(0, 0)))
    waiting = allocation(chosen, named(binary(9, 90), binary(0, 0, pending=50)))
    assert untried["arm 1"] == pytest.approx(0.9) and waiting["arm 1"] == pytest.approx(0.1)


def test_floors_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInput, match="cannot keep"):
        allocation(BanditSettings(floor=0.4), named(binary(0, 0), binary(0, 0), binary(0, 0)))
    with pytest.raises(InvalidInput, match="0 arms"):
        allocation(BanditSettings(), [])


@settings(max_examples=50)
@given(st.lists(REAL, min_size=1, max_size=6), ALGORITHMS)
def test_rewards_that_were_said_to_be_binary_and_are_not_give_shares_all_the_same(rewards, algorithm):
    shares = allocation(BanditSettings(algorithm, "binary", floor=0.02), named(*rewards))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert min(shares.values()) >= 0.02 - 1e-12


@pytest.mark.parametrize("better", [2.0, -1.0])
def test_rewards_outside_0_to_1_count_as_what_they_are(better):
    """Cut to 0..1 both arms would be the same."""
    few, many = (Moments.of(np.array([better] * times + [0.0] * (300 - times))) for times in (60, 240))
    arms = [ArmRewards("few", few), ArmRewards("many", many)]
    shares = thompson_shares(arms, "binary")
    assert (shares[1] > 0.99) == (better > 0) and (shares[0] > 0.99) == (better < 0)


def test_a_reward_that_was_sent_twice_changes_little():
    once, twice = np.array([1.0] * 40 + [0.0] * 160), np.array([2.0] + [1.0] * 39 + [0.0] * 160)
    other = ArmRewards("other", Moments.of(np.array([1.0] * 50 + [0.0] * 150)))
    before, after = (thompson_shares([ArmRewards("one", Moments.of(sent)), other], "binary") for sent in (once, twice))
    assert after == pytest.approx(before, abs=0.05)

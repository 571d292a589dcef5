"""The tests on counts keep their promise whatever the base rate does, and find what they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.rollout.shares import (
    EventCounts,
    ShareTest,
    Split,
    share_log_e_value,
    split_log_e_value,
    split_p_value,
)

COUNTS = st.builds(EventCounts, st.floats(0.01, 0.99), st.integers(0, 500), st.integers(0, 500))
STEPS = st.lists(COUNTS, min_size=1, max_size=4)


def of_binomial(total, share):
    """Probability of each number of challenger events under the null."""
    return [math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(total + 1)]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_e_value_is_one_in_the_mean_while_rates_are_equal(share):
    e_values = np.exp(share_log_e_value(np.arange(41.0), np.full(41, 40.0), share))
    assert e_values @ of_binomial(40, share) == pytest.approx(1)
    assert e_values @ of_binomial(40, share * 0.8) < 1


def test_e_values_of_steps_with_different_shares_are_one_in_the_mean_too():
    first, second = of_binomial(8, 0.05), of_binomial(9, 0.3)
    expected = sum(
        p * q * math.exp(ShareTest([EventCounts(0.05, k, 8 - k), EventCounts(0.3, j, 9 - j)]).log_e_value())
        for k, p in enumerate(first)
        for j, q in enumerate(second)
    )
    assert expected == pytest.approx(1)


def test_a_look_after_every_event_of_a_moving_base_rate_alarms_as_rarely_as_promised():
    generator = np.random.default_rng(0)
    rate = 0.02 + 0.018 * np.sin(np.arange(2000) / 100)  # the same on both arms
    on_challenger = generator.random((3000, 2000)) < 0.1
    event = generator.random((3000, 2000)) < rate
    k, m = (event & on_challenger).cumsum(1)[:, ::10], event.cumsum(1)[:, ::10]
    assert (share_log_e_value(k, m, 0.1) >= math.log(20)).any(1).mean() <= 0.05


def test_of_users_who_keep_failing_only_the_first_error_may_count():
    on_challenger = np.random.default_rng(4).random((2000, 40)) < 0.1
    every_error = np.repeat(on_challenger, 30, axis=1)
    first, every = (
        (share_log_e_value(arms.cumsum(1), np.arange(1.0, arms.shape[1] + 1), 0.1) >= math.log(20)).any(1).mean()
        for arms in (on_challenger, every_error)
    )
    assert first <= 0.05 < 0.5 < every


@given(COUNTS)
def test_many_tests_at_once_say_what_each_says_alone(counts):
    total = counts.challenger + counts.champion
    at_once = share_log_e_value(np.array([counts.challenger]), np.array([total]), counts.share)
    assert at_once[0] == pytest.approx(ShareTest([counts]).log_e_value())


@given(STEPS, st.floats(1e-4, 0.3))
def test_the_ratio_is_bounded_away_from_one_when_the_p_value_says_so(steps, alpha):
    test = ShareTest(steps)
    lower, upper = test.ratio_bounds(alpha)
    assert lower <= upper
    assert (lower > 1) == (test.p_value() < alpha) or test.p_value() == pytest.approx(alpha, rel=1e-3)


def test_the_true_ratio_stays_within_its_bounds():
    generator = np.random.default_rng(1)
    champion, challenger = generator.poisson(190, 300), generator.poisson(20, 300)  # share 0.05, so twice the rate
    bounds = [
        ShareTest([EventCounts(0.05, int(k), int(c))]).ratio_bounds(0.05)
        for k, c in zip(challenger, champion, strict=True)
    ]
    assert np.mean([lower <= 2 for lower, _ in bounds]) >= 0.95
    assert np.mean([upper >= 2 for _, upper in bounds]) >= 0.95


def test_no_events_say_nothing():
    assert ShareTest([EventCounts(0.05, 0, 0)]).ratio_bounds(0.05) == (0, math.inf)
    assert ShareTest([EventCounts(0.05, 0, 0)]).p_value() == 1


def test_traffic_that_is_all_on_one_arm_says_nothing():
    assert ShareTest([EventCounts(1.0, 40, 0)]).p_value() == 1


def test_the_split_test_is_one_in_the_mean_for_three_arms():
    shares = np.array([0.5, 0.3, 0.2])
    units = np.random.default_rng(2).multinomial(1000, shares, 40_000)
    assert np.exp(split_log_e_value(units, shares)).mean() == pytest.approx(1, abs=0.02)


def test_the_split_test_may_be_looked_at_always():
    arms = np.random.default_rng(3).random((2000, 3000)) < 0.25
    on_first = arms.cumsum(1)[:, 19::20]
    units = np.stack([on_first, np.arange(20, 3001, 20) - on_first], axis=-1)
    alarms = split_log_e_value(units, np.array([0.25, 0.75])) >= math.log(20)
    assert alarms.any(1).mean() <= 0.05


def test_a_lost_tenth_of_one_arms_units_is_a_mismatch():
    assert split_p_value([Split([10_000, 9_000], [50, 50])]) < 1e-6
    assert split_p_value([Split([10_000, 10_050], [50, 50])]) == 1


def test_a_unit_on_an_arm_without_a_share_is_a_mismatch():
    assert split_p_value([Split([100, 1], [100, 0])]) == 0
    assert split_p_value([Split([100, 0], [100, 0])]) == 1

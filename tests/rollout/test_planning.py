"""A step that is planned shows the harm it was planned for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidInput
from noria.rollout.planning import latency_bar, requests_fixed_horizon, requests_needed
from noria.rollout.shares import share_log_e_value

PLAN = {"base_rate": 0.005, "harmful_rate": 0.015, "share": 0.05, "alpha": 0.005, "allowed": 0.005}


def stopped(requests, base_rate, harmful_rate, share, alpha, allowed, seed=0):
    """How often simulated harm is seen after that many challenger requests."""
    generator, theirs = np.random.default_rng(seed), round(requests * (1 - share) / share)
    k, c = generator.binomial(requests, harmful_rate, 50_000), generator.binomial(theirs, base_rate, 50_000)
    harm = share_log_e_value(k, k + c, share) >= -math.log(alpha)
    return (harm & (k / requests - c / theirs > allowed)).mean()


@pytest.mark.parametrize(
    "changed", [{}, {"share": 0.5}, {"base_rate": 0.1, "harmful_rate": 0.164, "allowed": 0.031}, {"alpha": 1e-4}]
)
def test_the_plan_has_the_power_it_was_asked_for(changed):
    plan = PLAN | changed
    assert stopped(requests_needed(**plan), **plan) >= 0.945
    assert stopped(int(requests_needed(**plan) * 0.9), **plan) < 0.95


@settings(max_examples=20)
@given(st.floats(0.0, 0.2), st.floats(0.01, 0.2), st.floats(0.02, 0.8))
def test_more_harm_and_more_allowance_need_fewer_requests(base, increase, share):
    plan = {"base_rate": base, "harmful_rate": base + increase, "share": share, "alpha": 0.005}
    needed = requests_needed(**plan)
    assert requests_needed(**plan | {"harmful_rate": base + 1.3 * increase}) <= needed
    assert requests_needed(**plan | {"alpha": 0.02}) <= needed * 1.02


def test_looking_always_costs_less_than_twice_the_requests_of_looking_once():
    single = {name: value for name, value in PLAN.items() if name != "allowed"}
    assert requests_needed(**PLAN) < 2 * requests_fixed_horizon(**single)


@pytest.mark.parametrize("wrong", [{"share": 1.0}, {"share": 0.0}, {"harmful_rate": 0.01}, {"harmful_rate": 1.5}])
def test_harm_that_no_traffic_can_show_is_refused(wrong):
    with pytest.raises(InvalidInput, match="cannot be told"):
        requests_needed(**PLAN | wrong)


def test_the_latency_bar_says_what_a_slowdown_would_do():
    latencies = np.random.default_rng(0).lognormal(3, 0.4, 200_000)
    bar = latency_bar(latencies, 1.2)
    assert bar.slow == pytest.approx(0.1, abs=1e-3)
    assert (1.2 * latencies > bar.bar).mean() == pytest.approx(bar.slow_if_allowed, abs=1e-9)


def test_a_tenth_of_a_millisecond_more_is_not_slow_but_a_tenth_of_a_second_is():
    """A seldom-asked arm answers colder: at 0.1 ms that is a large factor, and matters to nobody."""
    warm = 1e-4 * np.random.default_rng(0).lognormal(0, 0.4, 50_000)
    relative, bar = latency_bar(warm, 1.1), latency_bar(warm, 1.1, 5e-4)
    cold, harmful = warm + 1e-4, warm + 1e-3
    assert (cold > relative.bar).mean() > relative.slow_if_allowed
    assert (cold > bar.bar).mean() < bar.slow_if_allowed < (harmful > bar.bar).mean()
    assert (warm + 5e-4 > bar.bar).mean() == pytest.approx(bar.slow_if_allowed, abs=1e-9)


@pytest.mark.parametrize("median", [0.006, 0.1])
def test_where_the_factor_is_more_the_tolerance_changes_nothing(median):
    latencies = median * np.random.default_rng(0).lognormal(0, 0.4, 50_000)
    assert latency_bar(latencies, 1.1, 5e-4) == latency_bar(latencies, 1.1)

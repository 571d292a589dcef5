"""Confidence sequences hold at every look, shrink, and agree with their p-values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import lambertw

from noria.rollout.estimates import Estimate
from noria.rollout.sequential import fixed_horizon_variance, mean_interval, mean_p_value, mean_radius

SIDES = st.sampled_from([1, 2])
VARIANCES = st.floats(1e-6, 1e3)
ALPHAS = st.floats(1e-4, 0.5)


def walks(runs, looks, seed):
    """Running means of standard normal rows and their variances."""
    counts = np.arange(1, looks + 1)
    return np.random.default_rng(seed).normal(size=(runs, looks)).cumsum(1) / counts, 1 / counts


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_the_truth_stays_inside_at_all_looks_together(tau):
    means, variances = walks(2000, 1500, seed=1)
    assert (abs(means) > mean_radius(variances, alpha=0.05, tau=tau)).any(1).mean() <= 0.05
    assert (means > mean_radius(variances, alpha=0.05, tau=tau, sides=1)).any(1).mean() <= 0.05


def test_the_e_value_behind_the_interval_is_one_in_the_mean():
    means, variances = walks(40_000, 30, seed=2)
    for sides in (1, 2):
        e_values = [1 / p_unbounded(mean, variances[-1], sides) for mean in means[:, -1]]
        assert np.mean(e_values) <= 1.02


def p_unbounded(mean, variance, sides, tau=0.2):
    """The formula of the docstring, not cut at 1."""
    half, growth = mean**2 * tau**2 / (2 * variance * (variance + tau**2)), (variance + tau**2) / variance
    if sides == 2:
        return math.sqrt(growth) / math.exp(half)
    return math.sqrt(growth) / (2 * math.expm1(half)) if mean > 0 else math.inf


@given(st.floats(-5, 5), VARIANCES, ALPHAS, st.floats(0.01, 10), SIDES)
def test_an_interval_excludes_zero_when_its_p_value_says_so(value, variance, alpha, tau, sides):
    estimate = Estimate(value, variance, 10)
    interval, p_value = (
        mean_interval(estimate, alpha=alpha, tau=tau, sides=sides),
        mean_p_value(estimate, tau=tau, sides=sides),
    )
    excluded = interval.lower > 0 or (sides == 2 and interval.upper < 0)
    assert excluded == (p_value < alpha) or p_value == pytest.approx(alpha)


@given(VARIANCES, ALPHAS, st.floats(0.01, 10), SIDES, st.floats(1.01, 100))
def test_intervals_shrink_as_evidence_grows_and_widen_with_confidence(variance, alpha, tau, sides, times):
    radius = mean_radius(variance, alpha=alpha, tau=tau, sides=sides)
    assert mean_radius(variance / times, alpha=alpha, tau=tau, sides=sides) < radius
    assert mean_radius(variance, alpha=alpha / times, tau=tau, sides=sides) > radius


def test_the_interval_is_tightest_where_the_docstring_says():
    best = -lambertw(-(0.05**2) / math.e, -1).real - 1  # Waudby-Smith et al. 2021: tau² / V at the optimum
    tuned = mean_radius(1 / best, alpha=0.05, tau=1.0)
    assert 7.9 < best < 8.5
    assert all(mean_radius(1 / best, alpha=0.05, tau=tau) >= tuned for tau in np.geomspace(0.05, 20, 101))
    assert fixed_horizon_variance(1.0, alpha=0.05, power=0.8) == pytest.approx(1 / best, rel=0.06)


def test_a_sample_without_variance_is_a_point():
    interval = mean_interval(Estimate(0.0, 0.0, 5), alpha=0.05, tau=0.1)
    assert interval.upper < 1e-6 and mean_p_value(Estimate(0.0, 0.0, 5), tau=0.1) == 1

"""Estimates and their variances are those of the textbooks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.rollout.estimates import Estimate, Moments, auc, compare_quality, difference_of_means, pool, score_shift

NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40).map(np.array)


@given(NUMBERS)
def test_moments_from_sums_are_those_of_the_rows(values):
    of_rows, of_sums = Moments.of(values), Moments.from_sums(len(values), values.sum(), (values**2).sum())
    assert of_sums.count == of_rows.count
    assert of_sums.mean == pytest.approx(of_rows.mean)
    assert of_sums.variance == pytest.approx(of_rows.variance, rel=1e-6, abs=1e-6)


def test_no_rows_have_moments_too():
    assert Moments.of(np.array([])) == Moments.from_sums(0, 0.0, 0.0) == Moments(0, 0.0, 0.0)


def test_auc_counts_pairs_and_its_variance_is_that_of_delong():
    generator = np.random.default_rng(0)
    labels = generator.random(60) < 0.4
    scores = np.round(labels + generator.normal(size=60), 1)  # with ties
    over = (scores[labels][:, None] > scores[~labels]) + 0.5 * (scores[labels][:, None] == scores[~labels])
    found = auc(scores, labels.astype(float))
    variance = over.mean(1).var(ddof=1) / labels.sum() + over.mean(0).var(ddof=1) / (~labels).sum()
    assert (found.value, found.variance, found.rows) == (pytest.approx(over.mean()), pytest.approx(variance), 60)


def test_delong_says_how_far_auc_scatters():
    generator = np.random.default_rng(1)
    found = [score_shift(generator.normal(size=80), generator.normal(0.5, 1, 120)) for _ in range(1000)]
    assert np.var([one.value for one in found]) == pytest.approx(np.mean([one.variance for one in found]), rel=0.1)


def test_samples_that_do_not_overlap_are_no_certainty():
    assert auc(np.arange(40.0), (np.arange(40) >= 20).astype(float)).variance > 0


def test_too_few_rows_are_not_measured():
    few, labels = np.arange(9.0), np.arange(9.0) % 2
    assert auc(few, labels) is None and score_shift(few, np.arange(50.0)) is None
    for task in ("classification", "regression"):
        assert compare_quality(task, (few, labels), (few, labels)) is None


def test_errors_count_in_units_of_the_champions():
    labels = np.zeros(20)
    pair = compare_quality("regression", (labels + 2, labels), (labels - 3, labels))
    assert (pair.champion, pair.challenger, pair.difference.value) == (-1, -1.5, -0.5)


def test_a_small_arm_without_a_conversion_is_no_certainty():
    large, small = Moments.from_sums(9000, 90, 90), Moments.from_sums(100, 0, 0)
    difference = difference_of_means(small, large)
    assert difference.variance == pytest.approx(0.01 * 0.99 * (1 / 100 + 1 / 9000), rel=0.02)


@given(NUMBERS, NUMBERS)
def test_a_difference_of_means_counts_the_other_way_round_alike(one, other):
    first, second = Moments.of(one), Moments.of(other)
    assert difference_of_means(first, second) == difference_of_means(second, first).scaled(-1)


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.01, 10)), min_size=1, max_size=6))
def test_pooling_lies_between_the_strata_and_is_surer_than_each(strata):
    estimates = [Estimate(value, variance, 10) for value, variance in strata]
    pooled = pool(estimates)
    assert min(v for v, _ in strata) - 1e-9 <= pooled.value <= max(v for v, _ in strata) + 1e-9
    assert pooled.variance <= min(variance for _, variance in strata) + 1e-12
    assert pooled.rows == 10 * len(strata)

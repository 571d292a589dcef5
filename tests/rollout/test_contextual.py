"""LinUCB is the paper's, chooses by context, and keeps every arm alive."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import CorruptArtifact, InvalidInput
from noria.rollout.contextual import fit_linucb, read_linucb

ARMS = ("a", "b", "c")


def rows(count=200, features=4, seed=0):
    """Contexts, arms and rewards in which each arm is best somewhere."""
    generator = np.random.default_rng(seed)
    contexts = generator.normal(2, 3, (count, features))
    chosen = generator.integers(0, 3, count)
    return contexts, chosen, contexts[np.arange(count), chosen] / 3 + generator.normal(0, 0.1, count)


FITTED = fit_linucb(*rows(), arms=ARMS, floor=0.05)


def test_bounds_are_those_of_the_paper():
    contexts, chosen, rewards = rows()
    x = np.array([1.0, 4.0, -2.0, 0.5])
    z = [1.0, *((x - contexts.mean(0)) / contexts.std(0))]
    bounds = []
    for arm in range(3):
        a, b = np.eye(5), np.zeros(5)
        for row, reward in zip(contexts[chosen == arm], rewards[chosen == arm], strict=True):
            standard = [1.0, *((row - contexts.mean(0)) / contexts.std(0))]
            for i in range(5):
                b[i] += reward * standard[i]
                for j in range(5):
                    a[i, j] += standard[i] * standard[j]
        inverse = np.linalg.inv(a)
        theta = [sum(inverse[i, j] * b[j] for j in range(5)) for i in range(5)]
        width = math.sqrt(sum(z[i] * inverse[i, j] * z[j] for i in range(5) for j in range(5)))
        bounds.append(sum(t * v for t, v in zip(theta, z, strict=True)) + FITTED.alpha * width)
        assert FITTED.theta[arm] == pytest.approx(theta) and FITTED.a_inverse[arm] == pytest.approx(inverse)
    folded = FITTED._rows @ x + FITTED._offsets
    found = folded[:3] + np.sqrt((folded[3:].reshape(3, 5) ** 2).sum(1))
    assert found == pytest.approx(bounds)
    assert FITTED.best(x) == int(np.argmax(bounds))


def test_the_arm_that_suits_the_context_is_chosen():
    contexts, _, _ = rows(500, seed=1)
    chosen = [FITTED.best(x) for x in contexts]
    assert np.mean(np.array(chosen) == contexts[:, :3].argmax(1)) > 0.95


def test_propensities_are_the_frequencies_of_the_choices():
    x, steps = np.array([1.0, 4.0, -2.0, 0.5]), 20_000
    choices = [FITTED.choose(x, (step + 0.5) / steps) for step in range(steps)]
    for arm in range(3):
        (propensity,) = {p for chosen, p in choices if chosen == arm}
        assert sum(chosen == arm for chosen, _ in choices) / steps == pytest.approx(propensity, abs=2e-4)
        assert propensity >= 0.05


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=4), st.floats(0, 1, exclude_max=True))
def test_the_same_request_gets_the_same_arm_from_parameters_that_were_written_down(x, u):
    again = read_linucb(json.loads(json.dumps(FITTED.as_document())))
    assert again.choose(np.array(x), u) == FITTED.choose(np.array(x), u)


def test_an_unknown_feature_counts_as_its_mean():
    contexts, chosen, rewards = rows()
    x = np.array([1.0, np.nan, -2.0, 0.5])
    assert FITTED.best(x) == FITTED.best(np.where(np.isnan(x), contexts.mean(0), x))
    holes = contexts.copy()
    holes[::9, 1] = np.nan
    assert np.isfinite(fit_linucb(holes, chosen, rewards, arms=ARMS).theta).all()


def test_pending_rewards_narrow_the_width_and_leave_theta():
    contexts, chosen, rewards = rows()
    late = np.where(np.arange(len(rewards)) % 4 == 0, np.nan, rewards)
    waiting = fit_linucb(contexts, chosen, late, arms=ARMS)
    known = ~np.isnan(late)
    z = np.concatenate([np.ones((200, 1)), (contexts - contexts.mean(0)) / contexts.std(0)], 1)
    for arm in range(3):
        mine = z[(chosen == arm) & known]
        theta = np.linalg.solve(np.eye(5) + mine.T @ mine, mine.T @ rewards[(chosen == arm) & known])
        assert waiting.theta[arm] == pytest.approx(theta)
    assert waiting.a_inverse == pytest.approx(fit_linucb(contexts, chosen, rewards, arms=ARMS).a_inverse)


def test_before_the_first_reward_every_arm_is_alike():
    blank = fit_linucb(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0), arms=ARMS, floor=0.1)
    assert blank.theta == pytest.approx(0) and blank.choose(np.zeros(4), 0.99) == (0, pytest.approx(0.8))


def test_rows_that_do_not_fit_are_refused():
    contexts, chosen, rewards = rows()
    for wrong in ((contexts, chosen[:-1], rewards), (contexts, chosen + 1, rewards), (contexts[0], chosen, rewards)):
        with pytest.raises(InvalidInput, match="do not fit"):
            fit_linucb(*wrong, arms=ARMS)
    with pytest.raises(InvalidInput, match="cannot keep"):
        fit_linucb(contexts, chosen, rewards, arms=ARMS, floor=0.5)


def test_a_document_that_is_no_bandit_is_refused():
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        read_linucb({"arms": ["a"]})

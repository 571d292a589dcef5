"""A rate held against what is known of it: no false alarms at any look, and harm is found."""

from __future__ import annotations

import numpy as np
import pytest

from noria.rollout.evidence import ArmEvidence, GuardSettings, GuardState, StepEvidence
from noria.rollout.guards import judge_guards
from noria.rollout.planning import latency_bar
from noria.rollout.rates import EventRecord, RateTest, rate_at_most

COUNTING = GuardSettings(max_quality_loss=None)


def test_a_rate_at_its_limit_is_hardly_ever_called_higher_however_often_one_looks():
    random, looks, false = np.random.default_rng(0), np.arange(100, 10_001, 100), 0
    for _ in range(300):
        events = random.binomial(100, 0.02, len(looks)).cumsum()
        found = [RateTest(EventRecord(int(k), int(n))).p_value(0.02) for k, n in zip(events, looks, strict=True)]
        false += min(found) <= 0.05
    assert false <= 0.05 * 300


@pytest.mark.parametrize("record", [EventRecord(0, 500), EventRecord(7, 900), EventRecord(400, 400)])
def test_bounds_hold_the_rate_and_say_what_the_p_value_says(record):
    lower, upper = RateTest(record).bounds(0.01)
    assert 0 <= lower <= record.rate + 1e-9 and record.rate - 1e-9 <= upper <= 1
    if record.events:
        assert RateTest(record).p_value(0.98 * lower) < 0.01 < RateTest(record).p_value(1.02 * lower)
    assert rate_at_most(record, 0.01) <= max(upper, record.rate)


def stopped(random, rate, slower, requests=8000, before=4000) -> bool:
    """Whether a challenger alone is stopped at one of forty looks; its champion failed at one request in a hundred."""
    latencies = random.lognormal(0, 0.45, before)
    bar = latency_bar(latencies, 1.1)
    record = EventRecord(int(random.binomial(before, 0.01)), before)
    fails = (random.random(requests) < rate).cumsum()
    slow = (slower * random.lognormal(0, 0.45, requests) > bar.bar).cumsum()
    for asked in range(requests // 40, requests + 1, requests // 40):
        arm = ArmEvidence(1.0, asked, int(fails[asked - 1]), int(slow[asked - 1]))
        found = judge_guards(COUNTING, [StepEvidence(ArmEvidence(0.0, 0, 0), arm, bar, before=record)])
        if GuardState.HARMED in [finding.state for finding in found]:
            return True
    return False


def test_a_challenger_alone_that_is_like_the_champion_was_is_not_stopped():
    random = np.random.default_rng(1)
    assert sum(stopped(random, 0.01, 1.0) for _ in range(100)) <= 1


@pytest.mark.parametrize(("rate", "slower"), [(0.04, 1.0), (0.01, 1.4)])
def test_one_that_is_clearly_worse_is(rate, slower):
    random = np.random.default_rng(2)
    assert sum(stopped(random, rate, slower) for _ in range(20)) == 20

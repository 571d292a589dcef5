"""What strategies make of their evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from noria.rollout import Decision, Plan, Strategy
from noria.rollout.estimates import Moments
from noria.rollout.evidence import ArmEvidence, GuardSettings, StepEvidence
from noria.rollout.experiments import ArmOutcome, ExperimentSettings
from noria.rollout.planning import LatencyBar
from noria.rollout.rates import EventRecord
from noria.rollout.strategies import judge_ab, judge_canary, judge_checks

QUALITY = GuardSettings(alpha=0.01, max_error_increase=None, max_latency_factor=None, max_quality_loss=0.05)
LABELLED = Plan(Strategy.CANARY, (5, 25, 100), QUALITY, required=("quality",), min_minutes=0, max_days=14)
COUNTED = Plan(Strategy.CANARY, (5, 100), GuardSettings(max_quality_loss=None), min_minutes=10, max_days=1)
BAR = LatencyBar(0.01, 0.1, 0.15)
UNASKED = StepEvidence(ArmEvidence(0.5, 0, 0), ArmEvidence(0.5, 0, 0))


def scores(generator, rows, skill):
    labels = (generator.random(rows) < 0.25).astype(float)
    return np.clip(0.25 + skill * (labels - 0.25) + generator.normal(0, 0.3, rows), 0, 1), labels


def labelled(generator, skill, rows=300, champion=4000):
    sides = scores(generator, champion, 0.3), scores(generator, rows, skill)
    return StepEvidence(
        ArmEvidence(0.95, champion, 0, labelled=sides[0]), ArmEvidence(0.05, rows, 0, labelled=sides[1])
    )


def counted(requests=10_000, errors=0, slow=1000, needed=5000):
    champion = ArmEvidence(0.95, requests * 19, 0, requests * 19 // 10, exposed=requests * 19)
    return StepEvidence(champion, ArmEvidence(0.05, requests, errors, slow, exposed=requests), BAR, needed)


def test_a_useless_canary_is_rolled_back():
    generator = np.random.default_rng(0)
    decisions = [judge_canary(LABELLED, [labelled(generator, 0.0)], minutes=60).decision for _ in range(50)]
    assert decisions.count(Decision.ROLL_BACK) == 50


def test_only_harm_and_a_lost_experiment_say_that_a_challenger_is_worse():
    nothing = [StepEvidence(ArmEvidence(0.95, 100, 0), ArmEvidence(0.05, 5, 0))]
    assert judge_canary(LABELLED, nothing, minutes=14 * 24 * 60).worse == ()
    assert judge_canary(LABELLED, [labelled(np.random.default_rng(0), 0.0)], minutes=60).worse == [""]
    lopsided = replace(counted(errors=400).challenger, exposed=4000)
    split = judge_canary(COUNTED, [replace(counted(), challenger=lopsided)], minutes=1)
    assert split.decision is Decision.ROLL_BACK and split.reason.startswith("split") and split.worse == []
    plan = Plan(
        Strategy.AB, (50,), GuardSettings(max_quality_loss=None), experiment=ExperimentSettings(0.01, max_days=30)
    )
    lost = judge_ab(plan, outcomes(0.07, 0.05), [UNASKED], days=1)
    futile = judge_ab(plan, outcomes(0.05, 0.05, units=200_000), [UNASKED], days=1)
    expired = judge_ab(plan, outcomes(0.05, 0.05, units=500), [UNASKED], days=60)
    assert [one.decision for one in (lost, futile, expired)] == [Decision.ROLL_BACK] * 3
    assert [one.worse for one in (lost, futile, expired)] == [["v2"], (), ()]


def test_an_equally_good_canary_is_hardly_ever_rolled_back():
    generator = np.random.default_rng(0)
    decisions = [judge_canary(LABELLED, [labelled(generator, 0.3)], minutes=60).decision for _ in range(200)]
    assert decisions.count(Decision.ROLL_BACK) <= 1
    assert decisions.count(Decision.ADVANCE) > 150


def test_without_labels_a_canary_that_needs_them_waits_until_its_days_are_over():
    nothing = [StepEvidence(ArmEvidence(0.95, 100, 0), ArmEvidence(0.05, 5, 0))]
    assert judge_canary(LABELLED, nothing, minutes=13 * 24 * 60).decision is Decision.WAIT
    late = judge_canary(LABELLED, nothing, minutes=14 * 24 * 60)
    assert (late.decision, late.reason) == (Decision.ROLL_BACK, "no decision after 14 days: the champion stays")


def test_a_step_ends_when_it_is_old_enough_and_harm_would_have_been_seen():
    assert judge_canary(COUNTED, [counted()], minutes=9).decision is Decision.WAIT
    assert judge_canary(COUNTED, [counted()], minutes=10).decision is Decision.ADVANCE
    assert judge_canary(COUNTED, [counted(requests=100, slow=10)], minutes=60).decision is Decision.WAIT


def test_errors_and_slow_answers_end_a_rollout_at_once_and_name_themselves():
    failing = judge_canary(COUNTED, [counted(errors=200)], minutes=1)
    assert failing.decision is Decision.ROLL_BACK and failing.reason.startswith("error rate")
    slow = judge_canary(COUNTED, [counted(slow=2500)], minutes=1)
    assert slow.decision is Decision.ROLL_BACK and slow.reason.startswith("share of slow answers")


def test_harm_of_an_earlier_step_still_ends_the_rollout():
    assert judge_canary(COUNTED, [counted(errors=200), alone()], minutes=60).decision is Decision.ROLL_BACK


def alone(requests=6000, errors=0, slow=600):
    """All the traffic, after a champion that failed at 2 of 10,000 requests."""
    challenger = ArmEvidence(1.0, requests, errors, slow)
    return StepEvidence(ArmEvidence(0.0, 0, 0), challenger, BAR, before=EventRecord(2, 10_000))


def test_a_sound_canary_that_has_all_the_traffic_waits_for_time_and_requests_alone():
    assert judge_canary(COUNTED, [counted(), alone()], minutes=5).decision is Decision.WAIT
    assert judge_canary(COUNTED, [counted(), alone()], minutes=10).decision is Decision.ADVANCE
    assert judge_canary(COUNTED, [counted(), alone(300, 0, 30)], minutes=60).decision is Decision.WAIT


def test_a_canary_that_nobody_asked_at_the_last_step_is_not_promoted():
    unasked = judge_canary(COUNTED, [counted(), alone(0, 0, 0)], minutes=60)
    assert (unasked.decision, unasked.reason) == (
        Decision.WAIT,
        "error rate: nothing to compare in this step yet",
    )


def test_a_canary_that_breaks_only_with_all_the_traffic_is_taken_back():
    failing = judge_canary(COUNTED, [counted(), alone(300, 40, 30)], minutes=1)
    assert failing.decision is Decision.ROLL_BACK and "against the champion's before" in failing.reason
    slow = judge_canary(COUNTED, [counted(), alone(6000, 0, 3000)], minutes=1)
    assert slow.decision is Decision.ROLL_BACK and slow.reason.startswith("share of slow answers")


def test_all_the_traffic_at_once_needs_no_champion_to_show_that_every_request_fails():
    first = StepEvidence(ArmEvidence(0.0, 0, 0), ArmEvidence(1.0, 300, 300))
    plan = Plan(Strategy.CANARY, (100,), GuardSettings(max_quality_loss=None), min_minutes=0)
    judged = judge_canary(plan, [first], minutes=60)
    assert judged.decision is Decision.ROLL_BACK and judged.reason.startswith("error rate +100 points")


def test_a_canary_that_a_person_is_to_promote_waits_at_its_last_step():
    by_hand = replace(COUNTED, promotes=False)
    assert judge_canary(by_hand, [counted()], minutes=10).decision is Decision.ADVANCE
    passed = judge_canary(by_hand, [counted(), alone()], minutes=10)
    assert passed.decision is Decision.WAIT and passed.reason.endswith(": ready to be promoted")
    assert judge_canary(by_hand, [counted(), alone(300, 40, 30)], minutes=60).decision is Decision.ROLL_BACK


def outcomes(champion, challenger, units=20_000):
    sides = [Moments(units, mean, mean * (1 - mean)) for mean in (champion, challenger)]
    return [ArmOutcome(name, 0.5, units, side) for name, side in zip(("champion", "v2"), sides, strict=True)]


def test_an_experiment_promotes_the_arm_that_earns_more_and_keeps_the_champion_otherwise():
    plan = Plan(Strategy.AB, (50,), GuardSettings(), experiment=ExperimentSettings(0.01))
    won = judge_ab(plan, outcomes(0.05, 0.07), [UNASKED], days=1)
    assert (won.decision, won.winner) == (Decision.PROMOTE, "v2")
    waits = judge_ab(replace(plan, promotes=False), outcomes(0.05, 0.07), [UNASKED], days=1)
    assert waits.decision is Decision.WAIT and waits.reason.endswith(": ready to be promoted")
    assert judge_ab(plan, outcomes(0.07, 0.05), [UNASKED], days=1).decision is Decision.ROLL_BACK
    assert judge_ab(plan, outcomes(0.05, 0.0501, units=500), [UNASKED], days=1).decision is Decision.WAIT


def test_a_mismatched_split_ends_an_experiment_whatever_it_earned():
    plan = Plan(Strategy.AB, (50,), GuardSettings(), experiment=ExperimentSettings(0.01))
    champion, challenger = outcomes(0.05, 0.07)
    lopsided = [champion, ArmOutcome("v2", 0.5, 15_000, challenger.rewards)]
    judged = judge_ab(plan, lopsided, [UNASKED], days=1)
    assert judged.decision is Decision.ROLL_BACK and "did not fall on the arms as assigned" in judged.reason


def test_slow_answers_end_an_experiment_and_what_its_guards_saw_is_told_meanwhile():
    plan = Plan(Strategy.AB, (50,), GuardSettings(max_quality_loss=None), experiment=ExperimentSettings(0.01))
    champion = ArmEvidence(0.5, 5000, 25, 500)
    sound, slow = (StepEvidence(champion, ArmEvidence(0.5, 5000, 25, slow), BAR) for slow in (500, 1500))
    even = outcomes(0.05, 0.05, units=500)
    running = judge_ab(plan, even, [sound], days=1)
    assert running.decision is Decision.WAIT
    assert {one.guard for one in running.findings} == {"errors", "latency"}
    judged = judge_ab(plan, even, [slow], days=1)
    assert judged.decision is Decision.ROLL_BACK and judged.reason.startswith("share of slow answers")
    several = [*even, ArmOutcome("v3", 0.25, 500, even[0].rewards)]
    several = [replace(one, share=share) for one, share in zip(several, (0.5, 0.25, 0.25), strict=True)]
    judged = judge_ab(plan, several, [sound, slow], days=1)
    assert judged.reason.startswith("v3: share of slow answers") and judged.worse == ["v3"]
    assert {one.arm for one in judged.findings} == {"v2", "v3"}


def test_the_challengers_of_an_experiment_share_what_its_guards_may_spend():
    plan = Plan(Strategy.AB, (50,), GuardSettings(max_quality_loss=None), experiment=ExperimentSettings(0.01))
    sound = StepEvidence(ArmEvidence(0.5, 5000, 25, 500), ArmEvidence(0.5, 5000, 25, 500), BAR)
    alone = judge_ab(plan, outcomes(0.05, 0.05, units=500), [sound], days=1).findings[0].allowance
    arms = [ArmOutcome(name, 0.25, 500, Moments(500, 0.05, 0.0475)) for name in ("champion", "v2", "v3", "v4")]
    shared = judge_ab(plan, arms, [sound] * 3, days=1).findings[0].allowance
    assert shared == alone / 3


def test_a_blue_green_switch_without_a_request_to_test_it_with_ends_when_its_days_are_over():
    plan = Plan(Strategy.BLUE_GREEN, (100,), max_days=2)
    assert judge_checks(plan, {"requests": 0, "faults": []}, days=1.9).decision is Decision.WAIT
    late = judge_checks(plan, {"requests": 0, "faults": []}, days=2)
    assert (late.decision, late.reason) == (
        Decision.ROLL_BACK,
        "no request to test it with in 2 days: the champion stays",
    )


def test_a_blue_green_switch_waits_for_its_tests():
    plan = Plan(Strategy.BLUE_GREEN, (100,))
    assert judge_checks(plan, {"requests": 0, "faults": []}).decision is Decision.WAIT
    assert judge_checks(plan, {"requests": 200, "faults": []}).decision is Decision.PROMOTE
    assert judge_checks(plan, {"requests": 200, "faults": ["it fails"]}).decision is Decision.ROLL_BACK
    by_hand = Plan(Strategy.BLUE_GREEN, (100,), promotes=False)
    assert judge_checks(by_hand, {"requests": 200, "faults": []}).decision is Decision.WAIT

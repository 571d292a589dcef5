"""Guards stop harm, pass what is harmless, and say why."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from noria.rollout.estimates import Moments
from noria.rollout.evidence import ArmEvidence, GuardSettings, GuardState, StepEvidence
from noria.rollout.guards import judge_guards
from noria.rollout.planning import LatencyBar, requests_needed

ALL_ON = GuardSettings(max_score_shift=0.1, max_reward_loss=0.05)
BAR = LatencyBar(0.12, 0.1, 0.13)


def arm(generator, share, requests, *, error=0.005, slow=0.1, shift=0.0, skill=1.0, reward=0.2):
    """What a simulated arm did."""
    units = generator.binomial(requests, share)
    labels = (generator.random(units // 4) < 0.3).astype(float)
    return ArmEvidence(
        share,
        units,
        generator.binomial(units, error),
        generator.binomial(units, slow),
        scores=generator.normal(shift, 1, units // 4),
        labelled=(skill * labels + generator.normal(size=units // 4), labels),
        rewards=Moments.of((generator.random(units) < reward).astype(float)),
        exposed=units,
    )


def step(generator, share=0.25, requests=20_000, *, needed=2000, **worse):
    challenger = arm(generator, share, requests, **worse)
    champion = replace(arm(generator, 1 - share, requests), exposed=requests - challenger.requests)
    return StepEvidence(champion, challenger, BAR, needed)


def states(settings, steps):
    return {finding.guard: finding.state for finding in judge_guards(settings, steps)}


def test_a_harmless_challenger_passes_every_guard():
    findings = judge_guards(ALL_ON, [step(np.random.default_rng(0))])
    assert {finding.guard: str(finding.state) for finding in findings} == dict.fromkeys(ALL_ON.guards, "ok")


@pytest.mark.parametrize(
    ("guard", "worse", "words"),
    [
        ("errors", {"error": 0.02}, r"error rate \+1\.\d+ points against the champion's .* by more than 0.5 points"),
        ("latency", {"slow": 0.2}, "share of slow answers .* worse beyond chance and by more than 3 points"),
        ("scores", {"shift": 0.8}, r"shift of the scores \+0\.2"),
        ("quality", {"skill": 0.3}, r"auc -0\.1\d+ against the champion's \(-0\.\d+ to -0\.\d+\)"),
        ("reward", {"reward": 0.15}, r"mean reward -2\d.*%"),
    ],
)
def test_each_guard_stops_its_own_kind_of_harm_and_no_other(guard, worse, words):
    findings = {f.guard: f for f in judge_guards(ALL_ON, [step(np.random.default_rng(1), **worse)])}
    assert [name for name, finding in findings.items() if finding.state is GuardState.HARMED] == [guard]
    found = findings[guard]
    assert re.search(words, found.reason), found.reason
    assert found.p_value <= found.allowance and found.since_step == 1


def test_traffic_that_missed_its_shares_is_not_trusted():
    evidence = step(np.random.default_rng(2))
    lost = replace(evidence, challenger=replace(evidence.challenger, exposed=int(evidence.challenger.exposed * 0.85)))
    assert states(ALL_ON, [lost])["split"] is GuardState.HARMED


def test_harm_that_begins_at_a_later_step_is_found_there():
    generator = np.random.default_rng(3)
    before = [step(generator, share) for share in (0.05, 0.1, 0.25)]
    found = judge_guards(ALL_ON, [*before, step(generator, 0.5, error=0.02)])[0]
    assert (found.guard, found.state, found.since_step) == ("errors", GuardState.HARMED, 4)
    assert states(ALL_ON, before)["errors"] is GuardState.OK


def test_small_harm_adds_up_over_steps():
    generator = np.random.default_rng(4)
    steps = [step(generator, 0.3, 1700, error=0.018, needed=0) for _ in range(5)]
    alone = [states(ALL_ON, [one])["errors"] for one in steps]
    assert GuardState.HARMED not in alone
    assert states(ALL_ON, steps)["errors"] is GuardState.HARMED


def test_a_base_rate_that_moves_with_the_shares_is_no_harm():
    """Simpson's paradox: pooled over steps the challenger has far more errors, in each step as many as the champion."""
    generator = np.random.default_rng(5)
    steps = [
        StepEvidence(
            arm(generator, 1 - share, 20_000, error=error), arm(generator, share, 20_000, error=error), BAR, 500
        )
        for share, error in ((0.05, 0.001), (0.8, 0.05))
    ]
    assert states(ALL_ON, steps)["errors"] is not GuardState.HARMED


def test_no_events_at_all_pass_once_there_were_enough_requests():
    def quiet(requests):
        arms = [ArmEvidence(share, int(requests * share), 0) for share in (0.9, 0.1)]
        return states(GuardSettings(), [StepEvidence(*arms, requests_needed=10**9)])["errors"]

    assert [quiet(100), quiet(20_000)] == [GuardState.UNDECIDED, GuardState.OK]


def paid(rows, reward=1.0):
    """An arm of which every unit was worth the same."""
    return Moments.of(np.full(rows, reward))


@pytest.mark.parametrize(("rows", "expected"), [(50, "undecided"), (400, "ok")])
def test_rewards_that_never_vary_prove_nothing_on_few_rows(rows, expected):
    arms = ArmEvidence(0.9, 9 * rows, 0, rewards=paid(9 * rows)), ArmEvidence(0.1, rows, 0, rewards=paid(rows))
    limits = dict.fromkeys(("max_error_increase", "max_latency_factor", "max_quality_loss"))
    only_rewards = GuardSettings(**limits, max_reward_loss=0.05)
    for settings in (GuardSettings(max_reward_loss=0.05), only_rewards):
        assert states(settings, [StepEvidence(*arms)])["reward"] == expected


def test_rewards_that_never_vary_but_are_gone_are_harm():
    arms = ArmEvidence(0.9, 900, 0, rewards=paid(900)), ArmEvidence(0.1, 100, 0, rewards=paid(100, 0.0))
    assert states(GuardSettings(max_reward_loss=0.05), [StepEvidence(*arms)])["reward"] is GuardState.HARMED


def test_what_is_not_there_is_not_measured():
    unasked = StepEvidence(ArmEvidence(0.0, 0, 0), ArmEvidence(1.0, 0, 0))
    assert set(states(ALL_ON, [unasked]).values()) == {GuardState.NOT_MEASURED}


def test_guards_that_are_off_are_silent_and_leave_their_allowance_to_the_others():
    only_errors = GuardSettings(max_latency_factor=None, max_quality_loss=None)
    assert only_errors.guards == ["errors", "split"]
    assert only_errors.allowance(1) == pytest.approx(0.05 / 2 / 2)


def test_allowances_of_all_guards_and_steps_stay_within_alpha():
    spent = sum(len(ALL_ON.guards) * ALL_ON.allowance(step) for step in range(1, 10_000))
    assert 0.049 < spent <= ALL_ON.alpha


def test_planned_harm_is_stopped_within_its_step():
    generator, settings = np.random.default_rng(6), GuardSettings(max_latency_factor=None, max_quality_loss=None)
    needed = requests_needed(
        base_rate=0.005, harmful_rate=0.015, share=0.05, alpha=settings.allowance(1), allowed=0.005
    )
    theirs = ArmEvidence(0.95, needed * 19, 0)
    found = []
    for ours, errors in zip(
        generator.binomial(needed, 0.015, 400), generator.binomial(needed * 19, 0.005, 400), strict=True
    ):
        evidence = StepEvidence(replace(theirs, errors=int(errors)), ArmEvidence(0.05, needed, int(ours)))
        found.append(states(settings, [evidence])["errors"])
    assert found.count(GuardState.HARMED) >= 0.93 * len(found)


def test_looking_after_every_few_requests_stops_no_equal_challenger():
    generator, stopped = np.random.default_rng(7), 0
    for _ in range(60):
        whole = step(generator, 0.3, 4000)
        looks = [[part(whole, share)] for share in np.linspace(0.1, 1, 10)]
        stopped += any(GuardState.HARMED in states(ALL_ON, look).values() for look in looks)
    assert stopped <= 3


def part(evidence, share):
    """The first part of a step's evidence: counts thinned, arrays cut."""
    return replace(
        evidence, champion=beginning(evidence.champion, share), challenger=beginning(evidence.challenger, share)
    )


def beginning(whole, share):
    rows = int(len(whole.scores) * share)
    return replace(
        whole,
        requests=int(whole.requests * share),
        errors=int(whole.errors * share),
        slow=int(whole.slow * share),
        scores=whole.scores[:rows],
        labelled=(whole.labelled[0][:rows], whole.labelled[1][:rows]),
        exposed=int(whole.exposed * share),
    )


@pytest.mark.parametrize(
    ("guard", "worse"),
    [
        ("errors", {"error": 0.02}),
        ("latency", {"slow": 0.2}),
        ("scores", {"shift": 0.8}),
        ("quality", {"skill": 0.3}),
        ("reward", {"reward": 0.15}),
    ],
)
def test_the_numbers_of_a_finding_have_the_sign_of_its_words(guard, worse):
    findings = judge_guards(ALL_ON, [step(np.random.default_rng(1), **worse)])
    found = next(one for one in findings if one.guard == guard)
    told = [float(number) for number in re.findall(r"[+-]\d[\d.e-]*", found.reason)[:3]]
    scale = 1 if guard in ("scores", "quality") else 100
    assert told == pytest.approx([scale * value for value in (found.estimate, found.lower, found.upper)], rel=0.01)
    assert found.lower <= found.estimate <= found.upper


def test_what_is_undecided_says_how_much_more_it_takes():
    few = step(np.random.default_rng(7), requests=400, needed=1500)
    said = {finding.guard: finding.reason for finding in judge_guards(ALL_ON, [few])}
    seen = few.challenger.requests
    for guard in ("errors", "latency"):
        assert said[guard].endswith(f"either way, after {seen} of 1,500 requests (a unit counts once)")
    own = {one.guard: one.reason for one in judge_guards(ALL_ON, [replace(few, slow_requests_needed=20_000)])}
    assert "of 1,500 requests" in own["errors"] and "of 20,000 requests" in own["latency"]
    unknown = judge_guards(ALL_ON, [replace(few, requests_needed=0)])
    assert next(one.reason for one in unknown if one.guard == "errors").endswith("it may yet turn out either way")

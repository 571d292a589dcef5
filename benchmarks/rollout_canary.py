"""Canaries: false stops of equal versions, and how soon harm is stopped, on the ladder 5, 10, 25, 50, 100%."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log, nan
from statistics import NormalDist
from typing import Any

import numpy as np
from rollout_rows import row

from noria.rollout.estimates import Moments
from noria.rollout.evidence import ArmEvidence, GuardSettings, GuardState, StepEvidence
from noria.rollout.guards import judge_guards
from noria.rollout.planning import LatencyBar, latency_bar, requests_fixed_horizon, requests_needed

LADDER = (0.05, 0.1, 0.25, 0.5)  # at the last step, 100%, nobody is left to compare with
LOOKS_A_STEP = 12
MEANS = ("max_score_shift", "max_quality_loss", "max_reward_loss")
SOUND_RATE, SOUND_SIGMA = 0.005, 0.45


@dataclass(frozen=True)
class World:
    """What the champion is like and what is wrong with the challenger; latencies are lognormal."""

    errors: float = SOUND_RATE
    sigma: float = SOUND_SIGMA
    more_errors: float = 0.0
    slower: float = 1.0

    def slow(self, bar: float, factor: float = 1.0) -> float:
        """Share of answers above the bar, when all take that much longer."""
        return 1 - NormalDist().cdf(log(bar / factor) / self.sigma)


@dataclass(frozen=True)
class Plan:
    """A ladder with as many challenger requests a step as the harm to be seen needs."""

    settings: GuardSettings
    needed: Sequence[int]
    bar: LatencyBar


def plan_errors(settings: GuardSettings, world: World, bar: LatencyBar) -> Plan:
    """To see one percentage point more errors."""
    rates = {
        "base_rate": world.errors,
        "harmful_rate": world.errors + 0.01,
        "allowed": settings.max_error_increase or 0,
    }
    return Plan(settings, _steps(settings, rates), bar)


def plan_latency(settings: GuardSettings, world: World, bar: LatencyBar) -> Plan:
    """To see latencies a fifth longer."""
    allowed = bar.slow_if_allowed - bar.slow
    rates = {"base_rate": bar.slow, "harmful_rate": world.slow(bar.bar, 1.2), "allowed": allowed}
    return Plan(settings, _steps(settings, rates), bar)


def _steps(settings: GuardSettings, rates: dict[str, float]) -> Sequence[int]:
    steps = enumerate(LADDER, 1)
    return [requests_needed(**rates, share=share, alpha=settings.allowance(step)) for step, share in steps]


def bar_of(generator: np.random.Generator, world: World, settings: GuardSettings) -> LatencyBar:
    """From 20,000 answers of the champion before the rollout."""
    return latency_bar(generator.lognormal(0, world.sigma, 20_000), settings.max_latency_factor or 1.1)


def climb(generator: np.random.Generator, world: World, plan: Plan, *, rich: bool = False) -> tuple[float, int, str]:
    """(share at which the canary ended, challenger requests until then, the guard that stopped it or "")."""
    done: list[StepEvidence] = []
    asked = 0
    for share, needed in zip(LADDER, plan.needed, strict=True):
        step = StepEvidence(ArmEvidence(1 - share, 0, 0, 0), ArmEvidence(share, 0, 0, 0), plan.bar, needed)
        for _ in range(4 * LOOKS_A_STEP):
            step = go_on(generator, world, step, round(needed / share / LOOKS_A_STEP), rich)
            findings = judge_guards(plan.settings, [*done, step])
            harmed = [finding.guard for finding in findings if finding.state is GuardState.HARMED]
            if harmed:
                return share, asked + step.challenger.requests, harmed[0]
            late = step.challenger.requests >= needed
            if late and not any(finding.state is GuardState.UNDECIDED for finding in findings):
                break
        done.append(step)
        asked += step.challenger.requests
    return 1.0, asked, ""


def go_on(generator: np.random.Generator, world: World, step: StepEvidence, requests: int, rich: bool) -> StepEvidence:
    """The step after that many more requests to both arms."""
    ours = int(generator.binomial(requests, step.challenger.share))
    sound = replace(world, more_errors=0.0, slower=1.0)
    champion = grown(generator, sound, step.champion, requests - ours, step, rich)
    return replace(step, champion=champion, challenger=grown(generator, world, step.challenger, ours, step, rich))


def grown(
    generator: np.random.Generator, world: World, arm: ArmEvidence, requests: int, step: StepEvidence, rich: bool
) -> ArmEvidence:
    bar = step.bar.bar if step.bar else 1.0
    errors = generator.binomial(requests, world.errors + world.more_errors)
    slow = generator.binomial(requests, world.slow(bar, world.slower))
    total = arm.requests + requests
    counted = replace(
        arm, requests=total, errors=arm.errors + int(errors), slow=(arm.slow or 0) + int(slow), exposed=total
    )
    return labelled(generator, counted, requests) if rich else counted


def labelled(generator: np.random.Generator, arm: ArmEvidence, requests: int) -> ArmEvidence:
    """The same with scores and labels of a sample of the answers, and with a skewed reward of every unit."""
    rows = min(requests // 4, 60)
    labels = (generator.random(rows) < 0.25).astype(np.float64)
    scores = labels + generator.normal(size=rows)
    before = (np.empty(0), np.empty(0)) if arm.labelled is None else arm.labelled
    known = np.concatenate([before[0], scores]), np.concatenate([before[1], labels])
    buyers = generator.binomial(requests, 0.1)
    amounts = generator.lognormal(0, 1, buyers)
    old = arm.rewards or Moments(0, 0.0, 0.0)
    total = old.count * old.mean + amounts.sum()
    squares = old.variance * max(old.count - 1, 0) + old.count * old.mean**2 + (amounts**2).sum()
    rewards = Moments.from_sums(arm.requests, float(total), float(squares))
    return replace(arm, scores=known[0], labelled=known, rewards=rewards)


def false_stops(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """Equal versions through the whole ladder; also with nothing tolerated, where only the test stands between.

    The peer is a one-sided z-test of 5% on errors and another on slow answers at every look.
    """
    counting = GuardSettings(max_quality_loss=None)
    usual = GuardSettings(max_score_shift=0.1, max_reward_loss=0.05)
    zero = {"max_error_increase": 0.0, "max_latency_factor": 1.0}
    world = World()
    bar = bar_of(generator, world, usual)
    needed = plan_errors(counting, world, bar).needed
    naive = 100 * naive_stops(generator, world, needed, 4 * runs)
    for name, settings, count in (
        ("errors, latency, split", counting, 4 * runs),
        ("the same, nothing tolerated", replace(counting, **zero), 4 * runs),
        ("all six guards", usual, runs),
        ("the same, nothing tolerated", replace(usual, **zero, **dict.fromkeys(MEANS, 0.0)), runs),
    ):
        plan = Plan(settings, needed, replace(bar, slow_if_allowed=bar.slow) if "nothing" in name else bar)
        rich = settings.max_reward_loss is not None
        ends = [climb(generator, world, plan, rich=rich) for _ in range(count)]
        stopped = 100 * float(np.mean([guard != "" for _, _, guard in ends]))
        yield row(f"canary A/A, {name}: false stops %, {count} runs", stopped, nan if rich else naive, 5, less=True)


def cold_arms(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """Equal versions that answer in 0.1 ms (the unit here), the seldom-asked one colder by half of that.

    The tolerance is the usual 0.5 ms; the peer is the same guard with the factor alone.
    """
    settings, world = GuardSettings(max_quality_loss=None), World()
    latencies = generator.lognormal(0, world.sigma, 20_000)
    factor = settings.max_latency_factor or 1.1
    stopped = []
    for tolerance in (settings.latency_tolerance_seconds / 1e-4, 0.0):
        bar = latency_bar(latencies, factor, tolerance)
        plan = Plan(settings, plan_errors(settings, world, bar).needed, bar)
        ends = [climb(generator, replace(world, slower=1.5), plan) for _ in range(runs)]
        stopped.append(100 * float(np.mean([guard != "" for _, _, guard in ends])))
    yield row(f"canary A/A, 0.1 ms, one arm 50 us colder: false stops %, {runs} runs", *stopped, 5, less=True)


def naive_stops(generator: np.random.Generator, world: World, needed: Sequence[int], runs: int) -> float:
    """How often a z-test at 5% per look stops an equal version by its errors or its slow answers."""
    stopped = np.zeros(runs, dtype=bool)
    for share, requests in zip(LADDER, needed, strict=True):
        for rate in (world.errors, 0.1):
            ours, theirs = (
                generator.binomial(round(n / LOOKS_A_STEP), rate, (runs, LOOKS_A_STEP)).cumsum(1) / n * LOOKS_A_STEP
                for n in (requests, requests * (1 - share) / share)
            )
            looks = np.arange(1, LOOKS_A_STEP + 1)
            variance = rate * (1 - rate) / looks * LOOKS_A_STEP / requests / (1 - share)
            stopped |= ((ours - theirs) / looks > 1.645 * np.sqrt(variance)).any(1)
    return float(stopped.mean())


def harm_is_stopped(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """The peer is a z-test with a single look after as many requests as it needs for the same power and allowance."""
    settings = GuardSettings()
    worlds = [
        *((f"+1 point of errors on {100 * rate:g}%", World(rate, more_errors=0.01)) for rate in (0.005, 0.01)),
        *((f"+20% latency, sigma {sigma:g}", World(sigma=sigma, slower=1.2)) for sigma in (0.3, 0.4, 0.5, 0.6)),
    ]
    for name, world in worlds:
        ends, sizes = [], []
        for _ in range(runs // 20):
            bar = bar_of(generator, world, settings)
            plan = (plan_errors if world.more_errors else plan_latency)(settings, world, bar)
            ends += [climb(generator, world, plan) for _ in range(20)]
            sizes.append(single_look(settings, world, bar))
        before = 100 * float(np.mean([guard != "" and share < 0.1 for share, _, guard in ends]))
        asked = float(np.mean([requests for _, requests, guard in ends if guard]))
        yield row(f"canary, {name}: stopped before 10% of the traffic, % of runs", before, 95, 95, less=False)
        yield row(f"canary, {name}: challenger requests until the stop", asked, float(np.mean(sizes)), nan, less=True)


def single_look(settings: GuardSettings, world: World, bar: LatencyBar) -> int:
    if world.more_errors:
        rates = {"base_rate": world.errors, "harmful_rate": world.errors + world.more_errors}
    else:
        rates = {"base_rate": bar.slow, "harmful_rate": world.slow(bar.bar, world.slower)}
    return requests_fixed_horizon(**rates, share=LADDER[0], alpha=settings.allowance(1))


def rows(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    yield from harm_is_stopped(generator, 1000)
    yield from false_stops(generator, 100)
    yield from cold_arms(generator, 100)

"""A look at a rollout: from the log's evidence to a judgement, by its strategy."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from noria.errors import InvalidInput
from noria.lifecycle.bandit_harm import harmed_arms
from noria.lifecycle.evidence import Evidence, Floats
from noria.registry import ModelVersion, Stage, list_versions
from noria.rollout.bandits import ArmRewards, allocation
from noria.rollout.contextual import fit_linucb
from noria.rollout.estimates import compare_quality, score_shift
from noria.rollout.evidence import ERRORS, LATENCY, QUALITY, ArmEvidence, StepEvidence
from noria.rollout.plan import Plan, RewardPlan, Strategy
from noria.rollout.planning import LatencyBar, latency_bar, requests_needed, slow_at_factor
from noria.rollout.rates import EventRecord
from noria.rollout.records import Decision, Rollout, RolloutStep
from noria.rollout.strategies import Judgement, judge_ab, judge_canary
from noria.store.database import Transaction, to_json

CHAMPION, CANARY, SHADOW = "champion", "canary", "shadow"
_BAR_ROWS = 200
"""Answers of the champion with which its latencies are known well enough to say what is slow."""
_MOST_NEEDED = 1_000_000
_BEFORE = -1
"""In place of a step's number: the routes before the rollout."""
_RECORD = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Shares:
    """How a bandit divides the traffic from now on; ``parameters`` are those of a contextual one, as JSON."""

    shares: Mapping[str, float]
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look came to, what it fixed of the step under way for later ones, and a bandit's new shares."""

    judgement: Judgement
    fixed: Mapping[str, object] | None = None
    shares: Shares | None = None


def evidence_of(log: Path, rollout: Rollout) -> Evidence:
    """An empty gathering of a rollout's evidence."""
    plan, since = rollout.plan, rollout.started_at
    if _is_alone_at_once(plan):
        since -= _RECORD
    return Evidence(log, rollout.deployment, since, metric=plan.rewards.metric, keep_rows=plan.contextual)


def look_at(
    evidence: Evidence, rollout: Rollout, steps: Sequence[RolloutStep], variants: Mapping[str, float], at: datetime
) -> Look:
    """Judge a running rollout at ``at``; ``variants`` are those of its routes that answer, with their percents."""
    revisions = {step.revision: step.step for step in steps}
    if _is_alone_at_once(rollout.plan):
        revisions[steps[0].revision - 1] = _BEFORE
    evidence.refresh(revisions)
    minutes = (at - rollout.step_started_at).total_seconds() / 60
    strategy = rollout.plan.strategy
    if strategy is Strategy.CANARY:
        return _canary(evidence, rollout, steps, minutes)
    if strategy is Strategy.SHADOW:
        return Look(_shadow(evidence, rollout, minutes))
    if strategy is Strategy.AB:
        return _ab(evidence, rollout, steps[-1], variants, at)
    return _bandit(evidence, rollout, steps[-1], variants, at)


def out_of_use(tx: Transaction, rollout: Rollout) -> Sequence[str]:
    """The challengers that somebody archived or deleted while they were tried: nothing may put them into Production."""
    fit = {version.version for version in challengers_left(tx, rollout) if version.stage is not Stage.ARCHIVED}
    return [f"{rollout.model}@{number}" for number in rollout.challengers if number not in fit]


def worse_ones(tx: Transaction, rollout: Rollout, judgement: Judgement) -> Sequence[ModelVersion]:
    """The challengers that the judgement shows to be worse than the champion, but one that is in Production."""
    left = [version for version in challengers_left(tx, rollout) if version.stage is not Stage.PRODUCTION]
    return [version for version in left if {"", f"v{version.version}"} & set(judgement.worse)]


def challengers_left(tx: Transaction, rollout: Rollout) -> Sequence[ModelVersion]:
    """Those that there still are."""
    return [version for version in list_versions(tx, rollout.model) if version.version in rollout.challengers]


def _is_alone_at_once(plan: Plan) -> bool:
    """Whether the first step leaves nobody to compare with, so that only what was before the rollout is left."""
    return plan.strategy is Strategy.CANARY and plan.steps[0] >= 100


def fixed_at_start(plan: Plan, latencies: Floats) -> Mapping[str, object]:
    """What is fixed before a step's evidence comes in: when an answer is slow, and what the harm to be seen would do.

    ``latencies`` are the champion's so far, in seconds; with too few of them the first look at the step fixes it.
    """
    if len(latencies) < _BAR_ROWS:
        return {}
    bar = latency_bar(latencies, plan.guards.max_latency_factor or 1.0, plan.guards.latency_tolerance_seconds)
    return {"bar": asdict(bar), "slower": slow_at_factor(latencies, plan.latency_to_see), "since": 0}


def _needed(plan: Plan, step: int, bar: LatencyBar, slower: float, error_rate: float) -> tuple[int, int]:
    """Challenger requests with which the harm that the plan wants to see would be seen at this step.

    Of errors, and of latency: each guard waits for its own. One that could see none waits as long as the other does.
    """
    share, allowance = min(plan.steps[step], 99.0) / 100, plan.guards.allowance(step + 1)
    errors = slow = 0
    if ERRORS in plan.guards.guards:
        allowed = plan.guards.max_error_increase or 0.0
        errors = _requests(error_rate, min(1.0, error_rate + plan.errors_to_see), share, allowance, allowed)
    if LATENCY in plan.guards.guards:
        slow = _requests(bar.slow, slower, share, allowance, bar.slow_if_allowed - bar.slow)
    return errors or slow, slow or errors


@functools.lru_cache(maxsize=256)
def _requests(base: float, harmful: float, share: float, allowance: float, allowed: float) -> int:
    try:
        found = requests_needed(base_rate=base, harmful_rate=harmful, share=share, alpha=allowance, allowed=allowed)
    except InvalidInput:  # nothing to be seen: many answers take the same time, or the harm is within the limit
        return 0
    return min(found, _MOST_NEEDED)


def _canary(evidence: Evidence, rollout: Rollout, steps: Sequence[RolloutStep], minutes: float) -> Look:
    found, fixed = [], None
    for step in steps:
        known = step.fixed
        if not known and step.step == rollout.step:
            known = _fix_late(evidence, rollout.plan)
            fixed = known or None
        found.append(_step_evidence(evidence, rollout, step.step, known))
    judged = judge_canary(rollout.plan, found, minutes=minutes)
    return Look(replace(judged, measures=_labels_told(evidence, rollout.plan)), fixed)


def _labels_told(evidence: Evidence, plan: Plan) -> Mapping[str, object]:
    """Ids that no prediction had are told by nothing else: a gateway takes a label without a look at the log."""
    told = evidence.labels_told() if QUALITY in plan.guards.guards else {}
    return {"labels": told} if any(told.values()) else {}


def _fix_late(evidence: Evidence, plan: Plan) -> Mapping[str, object]:
    """Without traffic before the rollout, the step's own first answers say what is slow; they are no evidence then."""
    fixed = dict(fixed_at_start(plan, evidence.champion_latencies()))
    if fixed:
        fixed["since"] = int(str(evidence.rows()["at"].max())) + 1
    return fixed


def _step_evidence(evidence: Evidence, rollout: Rollout, step: int, fixed: Mapping[str, object]) -> StepEvidence:
    share = rollout.steps[step] / 100
    bar = msgspec.convert(fixed["bar"], LatencyBar) if "bar" in fixed else None
    since = int(str(fixed.get("since", 0)))
    if share >= 1:
        return _alone(evidence, step, bar, since, float(str(fixed.get("slower", 0.0))))
    challenger = evidence.arm(step, CANARY, share, bar, since)
    champion = evidence.arm(step, CHAMPION, 1 - share, bar, since)
    errors_needed = slow_needed = 0
    if bar is not None and champion.requests:
        rate = float(f"{champion.errors / champion.requests:.1g}")  # rounded, so that what was computed serves again
        errors_needed, slow_needed = _needed(rollout.plan, step, bar, float(str(fixed["slower"])), rate)
    return StepEvidence(champion, challenger, bar, errors_needed, slow_requests_needed=slow_needed)


def _alone(evidence: Evidence, step: int, bar: LatencyBar | None, since: int, slower: float) -> StepEvidence:
    """The step with all the traffic: held against what the champion did before, in the steps or before all of them.

    Latencies of another hour differ for many reasons: here not what is allowed is the limit, but what must be seen.
    """
    if bar is not None:
        bar = replace(bar, slow_if_allowed=max(bar.slow_if_allowed, slower))
    now = evidence.first_requests([step], CANARY, bar, since)
    record = evidence.first_requests(range(_BEFORE, step), CHAMPION)
    challenger = replace(
        evidence.arm(step, CANARY, 1.0, bar, since),
        requests=now.requests,
        errors=now.errors,
        slow=None if bar is None else now.slow,
    )
    champion = ArmEvidence(0.0, 0, 0, labelled=evidence.labelled(CHAMPION), rewards=evidence.rewards_of(CHAMPION))
    return StepEvidence(champion, challenger, bar, before=EventRecord(record.errors, record.requests))


def _shadow(evidence: Evidence, rollout: Rollout, minutes: float) -> Judgement:
    """A comparison; a person decides what to make of it."""
    measures = shadow_measures(evidence, rollout.plan)
    if minutes >= rollout.plan.max_days * 24 * 60:
        return Judgement(Decision.ROLL_BACK, f"its {rollout.plan.max_days:g} days are over", measures=measures)
    rows, enough = int(str(measures["requests"])), rollout.plan.guards.min_rows
    lost = "".join(f", {measures[what]} {what}" for what in ("failed", "dropped") if measures[what])
    if rows < enough:
        return Judgement(Decision.WAIT, f"{rows} of {enough} requests compared{lost}", measures=measures)
    if minutes < (least := rollout.plan.min_minutes):
        reason = f"{rows} requests compared{lost}, {minutes:.1f} of {least:g} minutes over"
        return Judgement(Decision.WAIT, reason, measures=measures)
    return Judgement(
        Decision.WAIT, f"{rows} requests compared{lost}: ready to be promoted or aborted", measures=measures
    )


def shadow_measures(evidence: Evidence, plan: Plan) -> dict[str, object]:
    """What champion and shadow answered to the same requests: agreement, distribution, latency, quality."""
    pairs = evidence.shadow_pairs()
    failed, dropped = evidence.not_shadowed(SHADOW)
    if pairs.is_empty():
        return {"requests": 0, "failed": failed, "dropped": dropped}
    scores, shadow = pairs["score"].to_numpy(), pairs["shadow"].to_numpy()
    shift = score_shift(scores, shadow)
    measures: dict[str, object] = {
        "requests": pairs.height,
        "failed": failed,
        "dropped": dropped,
        "agreement": float((pairs["prediction"] == pairs["shadow_prediction"]).mean()),  # type: ignore[arg-type]
        "mean_difference": float(np.mean(shadow - scores)),
        "largest_difference": float(np.max(np.abs(shadow - scores))),
        "score_shift": None if shift is None else shift.value,
        "seconds": {"champion": _percentiles(pairs["latency"]), "shadow": _percentiles(pairs["shadow_latency"])},
    }
    if (known := evidence.shadow_labelled()) is not None:
        measures["labels"] = len(known[0])
        measures |= _shadow_quality(plan.guards.task, *known)
    return measures


def _shadow_quality(task: str, labels: Floats, champion: Floats, shadow: Floats) -> Mapping[str, object]:
    """AUC, or the mean absolute error in the label's own unit; nothing with too few labels."""
    quality = compare_quality(task, (champion, labels), (shadow, labels))
    if quality is None:
        return {}
    if task == "classification":
        return {"auc": {"champion": quality.champion, "shadow": quality.challenger}}
    errors = {"champion": champion - labels, "shadow": shadow - labels}
    return {"mean_absolute_error": {name: float(np.abs(each).mean()) for name, each in errors.items()}}


def _percentiles(column: object) -> dict[str, float]:
    values = np.asarray(column, dtype=np.float64)
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 95, 99)}


def _ab(evidence: Evidence, rollout: Rollout, step: RolloutStep, variants: Mapping[str, float], at: datetime) -> Look:
    plan = rollout.plan
    known = step.fixed or _fix_late(evidence, plan)
    bar = msgspec.convert(known["bar"], LatencyBar) if "bar" in known else None
    since = int(str(known.get("since", 0)))
    arms = [evidence.outcome(plan.rewards, at, name, percent / 100) for name, percent in variants.items()]
    champion = evidence.arm(0, CHAMPION, variants[CHAMPION] / 100, bar, since)
    guards = [
        StepEvidence(champion, evidence.arm(0, name, percent / 100, bar, since), bar)
        for name, percent in variants.items()
        if name != CHAMPION
    ]
    days = (at - rollout.started_at).total_seconds() / 86_400
    judged = judge_ab(plan, arms, guards, days=days)
    outcomes = {"rewards": evidence.rewards_told(plan.rewards, at), **_labels_told(evidence, plan)}
    told = replace(judged, measures={**judged.measures, **outcomes})
    return Look(told, None if step.fixed else known or None)


def _bandit(
    evidence: Evidence, rollout: Rollout, step: RolloutStep, variants: Mapping[str, float], at: datetime
) -> Look:
    """A bandit goes on with the arms that do no harm, until its days are over; then its best arm stays."""
    plan, names = rollout.plan, list(variants)
    known = step.fixed or _fix_late(evidence, plan)
    fixed = None if step.fixed else known or None
    challengers = [name for name in names if name != CHAMPION]
    harmed = harmed_arms(evidence, plan.guards, CHAMPION, challengers, known)
    arms = [evidence.arm_rewards(plan.rewards, at, name) for name in names]
    measures: dict[str, object] = {
        "arms": {
            arm.name: {"rewards": arm.rewards.count, "mean": arm.rewards.mean, "pending": arm.pending} for arm in arms
        },
        "rewards": evidence.rewards_told(plan.rewards, at),
    }
    if harmed:
        measures["harmed"] = {name: finding.reason for name, finding in harmed.items()}
    if harmed.keys() == set(challengers):
        first = next(iter(harmed.values()))
        return Look(Judgement(Decision.ROLL_BACK, first.reason, list(harmed.values()), measures, worse=list(harmed)))
    arms = [arm for arm in arms if arm.name not in harmed]
    shares = _contextual(evidence, plan, arms, at) if plan.contextual else Shares(allocation(plan.bandit, arms))
    if shares is None:
        return Look(Judgement(Decision.WAIT, "no answers yet", measures=measures), fixed)
    shares = replace(shares, shares={name: shares.shares.get(name, 0.0) for name in names})
    measures["shares"] = dict(shares.shares)
    earning = [arm for arm in arms if arm.rewards.count and evidence.rewards_of(arm.name) is not None]
    return Look(_bandit_judgement(rollout, _best(shares, earning), measures, at), fixed, shares)


def _without_rewards(wanted: RewardPlan, told: object) -> str:
    """Why no arm leads: nothing came that counts, or what came is not final."""
    if not isinstance(told, Mapping) or not told["counted"]:
        return f"no reward {wanted.metric!r} that counts came in yet"
    return f"no reward is final yet: each is {wanted.window_minutes:g} minutes after its unit was first asked"


def _contextual(evidence: Evidence, plan: Plan, arms: Sequence[ArmRewards], at: datetime) -> Shares | None:
    """LinUCB by what is known now, and the shares that its arms had lately, as each request decides anew."""
    names = [arm.name for arm in arms]
    contexts, chosen, rewards = evidence.contexts(plan.rewards, at, names)
    if not len(contexts):
        return None
    fitted = fit_linucb(contexts, chosen, rewards, arms=names, floor=plan.bandit.floor)
    return Shares(evidence.shares_lately(names), to_json(fitted.as_document()))


def _best(shares: Shares, arms: Sequence[ArmRewards]) -> str:
    """The arm with the most traffic; of a contextual bandit the one with the highest mean reward. None without any."""
    if not arms:
        return ""
    if not shares.parameters:
        return max(arms, key=lambda arm: shares.shares[arm.name]).name
    return max(arms, key=lambda arm: arm.rewards.mean).name


def _bandit_judgement(rollout: Rollout, best: str, measures: Mapping[str, object], at: datetime) -> Judgement:
    """``best`` is the leading one of the arms that have rewards; what has none is never promoted."""
    plan, days = rollout.plan, (at - rollout.started_at).total_seconds() / 86_400
    leads = f"{best} leads" if best else _without_rewards(plan.rewards, measures["rewards"])
    if days < plan.max_days:
        return Judgement(Decision.WAIT, leads, measures=measures, winner=best)
    reason = f"{leads} after {plan.max_days:g} days"
    if best in (CHAMPION, ""):
        return Judgement(Decision.ROLL_BACK, reason, measures=measures)
    return Judgement(Decision.PROMOTE if plan.promotes else Decision.WAIT, reason, measures=measures, winner=best)

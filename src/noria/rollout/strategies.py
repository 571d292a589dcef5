"""What each strategy makes of its evidence: wait, go on, promote, or go back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from noria.rollout.evidence import LATENCY, SCORES, SPLIT, GuardFinding, GuardState, StepEvidence
from noria.rollout.experiments import ArmOutcome, ExperimentState, judge_experiment
from noria.rollout.guards import judge_guards
from noria.rollout.plan import Plan
from noria.rollout.records import Decision

_NEED_TWO_ARMS = (SCORES, SPLIT)
"""Guards that have nothing to compare with once the challenger has all the traffic."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision, why in words, and what it rests on.

    ``winner`` is the arm to promote, where there are several; ``worse`` are those that did harm or lost, "" the only
    challenger. One that ends without any of these has shown nothing.
    """

    decision: Decision
    reason: str
    findings: Sequence[GuardFinding] = ()
    measures: Mapping[str, object] = field(default_factory=dict)
    winner: str = ""
    worse: Sequence[str] = ()

    def as_document(self) -> dict[str, object]:
        """The JSON kept as evidence."""
        document: dict[str, object] = {"reason": self.reason, **self.measures}
        if self.findings:
            document["guards"] = [finding.as_document() for finding in self.findings]
        return document


def judge_canary(plan: Plan, steps: Sequence[StepEvidence], *, minutes: float) -> Judgement:
    """Judge the step under way, ``minutes`` after it began.

    Harm ends the rollout at once; a split that is not as assigned does, too, but says nothing about the versions. A
    step passes after its least time, when every guard it needs says that all is well; without that in ``max_days`` the
    champion stays. The last one waits for a person where the plan does not promote.
    """
    findings = judge_guards(plan.guards, steps)
    if harmed := [finding for finding in findings if finding.state is GuardState.HARMED]:
        mismatch = [finding for finding in harmed if finding.guard == SPLIT]
        worse = [] if mismatch else [finding.arm for finding in harmed]
        return Judgement(Decision.ROLL_BACK, (mismatch or harmed)[0].reason, findings, worse=worse)
    missing = [finding for finding in findings if _holds_up(plan, finding, steps[-1])]
    if not missing and minutes >= plan.min_minutes:
        if len(steps) == len(plan.steps) and not plan.promotes:
            return Judgement(Decision.WAIT, f"{_all_well(findings)}: ready to be promoted", findings)
        return Judgement(Decision.ADVANCE, _all_well(findings), findings)
    if minutes >= plan.max_days * 24 * 60:
        reason = f"no decision after {plan.max_days:g} days: the champion stays"
        return Judgement(Decision.ROLL_BACK, reason, findings)
    reason = missing[0].reason if missing else f"{minutes:.1f} of {plan.min_minutes:g} minutes of this step"
    return Judgement(Decision.WAIT, reason, findings)


def _holds_up(plan: Plan, finding: GuardFinding, now: StepEvidence) -> bool:
    if finding.state is GuardState.UNDECIDED:
        return True
    if finding.state is not GuardState.NOT_MEASURED or finding.guard not in plan.required:
        return False
    unknown = finding.guard in _NEED_TWO_ARMS or (finding.guard == LATENCY and now.bar is None)
    return not (now.is_alone and unknown)


def _all_well(findings: Sequence[GuardFinding]) -> str:
    passed = [finding.reason for finding in findings if finding.state is GuardState.OK and finding.guard != SPLIT]
    return "; ".join(passed) or "nothing was measured against it"


def judge_ab(plan: Plan, arms: Sequence[ArmOutcome], guards: Sequence[StepEvidence], *, days: float) -> Judgement:
    """Judge an experiment: guards of each challenger first, then rewards. The first arm is the champion.

    ``guards`` has the evidence of the challengers, in their order. Harm of one ends it for all, so they share alpha.
    """
    assert plan.experiment is not None
    findings = _guards_of_all(plan, [arm.name for arm in arms[1:]], guards)
    if harmed := [one for one in findings if one.state is GuardState.HARMED]:
        return Judgement(Decision.ROLL_BACK, harmed[0].reason, findings, worse=[one.arm for one in harmed])
    verdict = judge_experiment(plan.experiment, [arms], days)
    measures = {"experiment": verdict.as_document()}
    if verdict.state is ExperimentState.RUNNING:
        return Judgement(Decision.WAIT, verdict.reason, findings, measures)
    if verdict.state is ExperimentState.WINNER and verdict.winner != arms[0].name:
        decision = Decision.PROMOTE if plan.promotes else Decision.WAIT
        reason = verdict.reason if plan.promotes else f"{verdict.reason}: ready to be promoted"
        return Judgement(decision, reason, findings, measures, winner=verdict.winner or "")
    lost = [arm.name for arm in arms[1:]] if verdict.state is ExperimentState.WINNER else verdict.harmed
    return Judgement(Decision.ROLL_BACK, verdict.reason, findings, measures, worse=lost)


def _guards_of_all(plan: Plan, names: Sequence[str], evidence: Sequence[StepEvidence]) -> Sequence[GuardFinding]:
    """What the guards find of each challenger; the split is the experiment's own to judge."""
    settings = replace(plan.guards, alpha=plan.guards.alpha / len(names))
    several = len(names) > 1
    return [
        replace(one, arm=name, reason=f"{name}: {one.reason}") if several else one
        for name, step in zip(names, evidence, strict=True)
        for one in judge_guards(settings, [step])
        if one.guard != SPLIT
    ]


def judge_checks(plan: Plan, checks: Mapping[str, object], *, days: float = 0.0) -> Judgement:
    """Judge what testing a blue-green challenger beforehand found: ``faults`` in words, and measures.

    How often it agrees with the champion is told, not judged: a version that is worth a switch differs. Without a
    request to test it with in ``max_days`` the champion stays.
    """
    faults = checks.get("faults")
    if isinstance(faults, list) and faults:
        reason = f"the tests before the switch failed: {faults[0]}"
        return Judgement(Decision.ROLL_BACK, reason, measures=checks, worse=[""])
    if not checks.get("requests"):
        if days >= plan.max_days:
            reason = f"no request to test it with in {plan.max_days:g} days: the champion stays"
            return Judgement(Decision.ROLL_BACK, reason, measures=checks)
        return Judgement(Decision.WAIT, "no logged requests to test it with yet", measures=checks)
    reason = f"{_tested(checks)}: ready to switch"
    return Judgement(Decision.PROMOTE if plan.promotes else Decision.WAIT, reason, measures=checks)


def _tested(checks: Mapping[str, object]) -> str:
    if note := checks.get("note"):
        return str(note)
    agreement, factor = checks.get("agreement"), checks.get("latency_factor")
    told = [f"agrees on {agreement:.0%}"] if isinstance(agreement, float) else []
    told += [f"{factor:.2g} times the latency"] if isinstance(factor, float) else []
    details = f" ({', '.join(told)})" if told else ""
    return f"tested with {checks['requests']} logged requests{details}"

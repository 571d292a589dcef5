"""The guards of a canary: errors, latency, scores, quality, reward, and the split of the traffic itself.

Harm may begin at any step: at half of the traffic a cache overflows that was large enough at a twentieth. So each guard
looks at the evidence since the beginning of every step, and spends a part of its allowance on each such stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from noria.rollout.estimates import Estimate, compare_quality, difference_of_means, score_shift
from noria.rollout.evidence import (
    ERRORS,
    LATENCY,
    QUALITY,
    REWARD,
    SCORES,
    SPLIT,
    ArmEvidence,
    GuardFinding,
    GuardSettings,
    GuardState,
    StepEvidence,
)
from noria.rollout.rates import EventRecord
from noria.rollout.sequential import Sides
from noria.rollout.shares import EventCounts, Split, split_p_value
from noria.rollout.stretches import Stretch, alone_stretch, event_stretch, mean_stretch


def judge_guards(settings: GuardSettings, steps: Sequence[StepEvidence]) -> Sequence[GuardFinding]:
    """What every guard that is on finds in the steps so far, the last of which is under way.

    A state is about the step under way: "ok" lets it end; "harmed" stops the rollout, also for what earlier steps
    showed. Looking again with more evidence costs nothing.
    """
    judges: dict[str, Callable[[GuardSettings, Sequence[StepEvidence]], GuardFinding]] = {
        ERRORS: _judge_errors,
        LATENCY: _judge_latency,
        SCORES: _judge_scores,
        QUALITY: _judge_quality,
        REWARD: _judge_reward,
        SPLIT: _judge_split,
    }
    return [judges[guard](settings, steps) for guard in settings.guards]


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a guard measures and how it is written; ``sign`` is -1 where less of it is harm."""

    guard: str
    name: str
    limit: float
    scale: float = 1.0
    unit: str = ""
    sign: int = 1

    def write(self, difference: float) -> str:
        return f"{self.scale * difference + 0.0:+.3g}{self.unit}"

    def write_limit(self) -> str:
        return f"{self.scale * self.limit:.3g}{self.unit}"


# events


def _judge_errors(settings: GuardSettings, steps: Sequence[StepEvidence]) -> GuardFinding:
    measure = _Measure(ERRORS, "error rate", settings.max_error_increase or 0.0, 100, " points")
    counts = [_counts(step, step.challenger.errors, step.champion.errors) for step in steps]
    alone = _alone(settings, measure, steps, steps[-1].challenger.errors, steps[-1].before or EventRecord(0, 0))
    return _judge_events(settings, measure, counts, steps, alone)


def _judge_latency(settings: GuardSettings, steps: Sequence[StepEvidence]) -> GuardFinding:
    """Slow answers as events; what the allowed factor adds to them was read off the champion before the step."""
    bars = [step.bar for step in steps if step.bar is not None]
    limit = bars[-1].slow_if_allowed - bars[-1].slow if bars else 0.0
    measure = _Measure(LATENCY, "share of slow answers", limit, 100, " points")
    counts = [_counts(step, step.challenger.slow, step.champion.slow) for step in steps]
    bar = steps[-1].bar
    before = None if bar is None else EventRecord(round(bar.slow * bar.rows), bar.rows)
    return _judge_events(
        settings, measure, counts, steps, _alone(settings, measure, steps, steps[-1].challenger.slow, before)
    )


def _counts(step: StepEvidence, challenger: int | None, champion: int | None) -> EventCounts | None:
    """The events of a step; None where they were not counted or an arm has no traffic to compare with."""
    ours, theirs = step.challenger, step.champion
    if challenger is None or champion is None or min(ours.requests, theirs.requests, ours.share, theirs.share) <= 0:
        return None
    share = ours.share / (ours.share + theirs.share)
    return EventCounts(share, challenger, champion, ours.requests, theirs.requests)


def _alone(
    settings: GuardSettings,
    measure: _Measure,
    steps: Sequence[StepEvidence],
    events: int | None,
    before: EventRecord | None,
) -> Stretch | None:
    """A challenger with all the traffic, held against what the champion did before."""
    if not steps[-1].is_alone or events is None or before is None:
        return None
    now, since = EventRecord(events, steps[-1].challenger.requests), len(steps)
    return alone_stretch(now, before, since=since, allowance=settings.allowance(since), limit=measure.limit)


def _judge_events(
    settings: GuardSettings,
    measure: _Measure,
    counts: Sequence[EventCounts | None],
    steps: Sequence[StepEvidence],
    alone: Stretch | None,
) -> GuardFinding:
    def stretch(since: int) -> Stretch | None:
        known = [count for count in counts[since - 1 :] if count is not None]
        allowance, earlier = settings.allowance(since), since < len(counts)
        return event_stretch(known, since=since, allowance=allowance, limit=measure.limit, only_harm=earlier)

    stretches = [stretch(since + 1) for since in range(len(counts))]
    if not steps[-1].is_alone:
        return _finding(measure, stretches, steps[-1].needed_by(measure.guard) or inf, "requests")
    known = (step.needed_by(measure.guard) for step in reversed(steps))
    needed = next((requests for requests in known if requests), settings.min_rows)
    return _finding(measure, [*stretches[:-1], alone], needed, "requests")


# means


def _judge_scores(settings: GuardSettings, steps: Sequence[StepEvidence]) -> GuardFinding:
    measure = _Measure(SCORES, "shift of the scores", settings.max_score_shift or 0.0)
    return _judge_means(settings, measure, [_shift(step) for step in steps], sides=2)


def _shift(step: StepEvidence) -> Estimate | None:
    old, new = step.champion.scores, step.challenger.scores
    return None if old is None or new is None else score_shift(old, new)


def _judge_quality(settings: GuardSettings, steps: Sequence[StepEvidence]) -> GuardFinding:
    name = "auc" if settings.task == "classification" else "mean absolute error (relative, negated)"
    measure = _Measure(QUALITY, name, settings.max_quality_loss or 0.0, sign=-1)
    return _judge_means(settings, measure, [_quality_loss(settings.task, step) for step in steps])


def _quality_loss(task: str, step: StepEvidence) -> Estimate | None:
    if step.champion.labelled is None or step.challenger.labelled is None:
        return None
    pair = compare_quality(task, step.champion.labelled, step.challenger.labelled)
    return None if pair is None else pair.difference.scaled(-1)


def _judge_reward(settings: GuardSettings, steps: Sequence[StepEvidence]) -> GuardFinding:
    measure = _Measure(REWARD, "mean reward", settings.max_reward_loss or 0.0, 100, "%", sign=-1)
    return _judge_means(settings, measure, [_reward_loss(step.champion, step.challenger) for step in steps])


def _reward_loss(champion: ArmEvidence, challenger: ArmEvidence) -> Estimate | None:
    """The loss of mean reward in units of the champion's mean."""
    old, new = champion.rewards, challenger.rewards
    if old is None or new is None or old.mean == 0:
        return None
    return difference_of_means(old, new).scaled(1 / abs(old.mean))


def _judge_means(
    settings: GuardSettings, measure: _Measure, harms: Sequence[Estimate | None], *, sides: Sides = 1
) -> GuardFinding:
    def stretch(since: int) -> Stretch | None:
        known = [harm for harm in harms[since - 1 :] if harm is not None]
        allowance = settings.allowance(since)
        return mean_stretch(known, since=since, allowance=allowance, limit=measure.limit, sides=sides)

    return _finding(measure, [stretch(since + 1) for since in range(len(harms))], settings.min_rows, "rows")


# from stretches to a finding


def _finding(measure: _Measure, stretches: Sequence[Stretch | None], enough: float, rows: str) -> GuardFinding:
    """Harm on any stretch; else what the step under way says, alone."""
    harmed = [s for s in stretches if s is not None and s.p_value <= s.allowance and s.size > measure.limit]
    if harmed:
        worst = min(harmed, key=lambda s: s.p_value / s.allowance)
        return _written(
            measure, worst, GuardState.HARMED, "worse beyond chance and by more than " + measure.write_limit()
        )
    now = stretches[-1]
    if now is None:
        return GuardFinding(
            measure.guard, GuardState.NOT_MEASURED, f"{measure.name}: nothing to compare in this step yet"
        )
    if now.largest <= measure.limit:
        return _written(measure, now, GuardState.OK, f"within the {measure.write_limit()} allowed, beyond chance")
    if now.rows >= enough and now.size <= measure.limit:
        return _written(measure, now, GuardState.OK, f"no sign of harm on {now.rows} {rows}")
    seen = f", after {now.rows:,} of {enough:,.0f} {rows}" if now.rows < enough < inf else ""
    once = " (a unit counts once)" if seen and rows == "requests" else ""
    return _written(measure, now, GuardState.UNDECIDED, f"it may yet turn out either way{seen}{once}")


def _written(measure: _Measure, stretch: Stretch, state: GuardState, verdict: str) -> GuardFinding:
    estimate = measure.sign * stretch.harm
    low, high = sorted((measure.sign * stretch.lower, measure.sign * stretch.upper))
    reason = (
        f"{measure.name} {measure.write(estimate)} against the champion's {'before ' if stretch.is_alone else ''}"
        f"({measure.write(low)} to {measure.write(high)}): {verdict}"
    )
    return GuardFinding(
        measure.guard,
        state,
        reason,
        estimate=estimate,
        lower=low,
        upper=high,
        p_value=stretch.p_value,
        allowance=stretch.allowance,
        since_step=stretch.since,
    )


# the split


def _judge_split(settings: GuardSettings, steps: Sequence[StepEvidence]) -> GuardFinding:
    """Whether units fell on the arms as assigned. If not, no comparison between the arms can be trusted."""
    splits = [_split(step) for step in steps]
    tested = [(since + 1, [s for s in splits[since:] if s is not None]) for since in range(len(splits))]
    found = [(split_p_value(known), settings.allowance(since), since) for since, known in tested if known]
    if not found:
        return GuardFinding(SPLIT, GuardState.NOT_MEASURED, "split of the traffic: first exposures were not counted")
    p_value, allowance, since = min(found, key=lambda look: look[0] / look[1])
    if p_value <= allowance:
        state, verdict = GuardState.HARMED, "not as assigned, beyond chance: do not trust any comparison"
    else:
        state, verdict = GuardState.OK, "as assigned, as far as chance allows to tell"
    reason = f"split of the traffic since step {since}: {verdict}"
    return GuardFinding(SPLIT, state, reason, p_value=p_value, allowance=allowance, since_step=since)


def _split(step: StepEvidence) -> Split | None:
    ours, theirs = step.challenger, step.champion
    if ours.exposed is None or theirs.exposed is None:
        return None
    return Split((theirs.exposed, ours.exposed), (theirs.share, ours.share))

"""A/B/n experiments: which arm earns more per unit, judged at every look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import combinations
from math import comb, inf

from noria.errors import InvalidInput
from noria.rollout.estimates import Estimate, Moments, difference_of_means, pool
from noria.rollout.sequential import mean_interval, mean_p_value
from noria.rollout.shares import Split, split_p_value

Differences = Mapping[tuple[str, str], Estimate]


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """What one arm has to show in one phase, a stretch of time in which the shares stayed the same.

    ``exposed`` counts the units first seen in this phase, all of them; ``rewards`` has one final number per unit, of
    the units whose reward can no longer change. ``guardrails`` has the moments of other numbers per unit of which more
    is worse (errors, seconds, refunds).
    """

    name: str
    share: float
    exposed: int
    rewards: Moments
    guardrails: Mapping[str, Moments] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """What an experiment is to find and may risk.

    ``alpha`` is the chance that a winner is named among equal arms, over all looks; ``futility_alpha`` that an arm is
    given up which is better by ``effect``; ``guardrail_alpha`` that any arm is called harmful while it is not;
    ``mismatch_alpha`` that a right split is called wrong.
    """

    effect: float
    """The difference in mean reward per unit (absolute) that is worth finding."""
    alpha: float = 0.05
    futility_alpha: float = 0.1
    tolerance: float = 0.0
    """Non-inferiority: a challenger also wins when it is at most this much worse than every other arm."""
    guardrails: Mapping[str, float] = field(default_factory=dict)
    """Measure → by how much its mean per unit (absolute) may exceed the control's."""
    guardrail_alpha: float = 0.05
    mismatch_alpha: float = 0.01
    min_units: int = 100
    """Units an arm needs before its variance is believed."""
    max_units: float = inf
    """Units of all arms together after which the experiment ends undecided."""
    max_days: float = inf


class ExperimentState(StrEnum):
    """How an experiment stands; all but RUNNING end it, HARMED only for the arms it names."""

    RUNNING = "running"
    WINNER = "winner"
    HARMED = "harmed"
    MISMATCH = "mismatch"
    FUTILE = "futile"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean reward of ``arm`` minus that of ``other``; the bounds hold at every look and for all pairs together."""

    arm: str
    other: str
    estimate: float
    lower: float
    upper: float
    p_value: float

    def turned(self) -> Comparison:
        """The same comparison seen from the other arm."""
        return Comparison(self.other, self.arm, -self.estimate, -self.upper, -self.lower, self.p_value)


@dataclass(frozen=True, slots=True)
class ExperimentVerdict:
    """The state, who won or harms, why in plain words, and the comparisons it rests on."""

    state: ExperimentState
    reason: str
    winner: str | None = None
    harmed: Sequence[str] = ()
    comparisons: Sequence[Comparison] = ()

    def as_document(self) -> dict[str, object]:
        """The JSON kept as evidence."""
        return asdict(self)


def judge_experiment(
    settings: ExperimentSettings, phases: Sequence[Sequence[ArmOutcome]], days: float = 0.0
) -> ExperimentVerdict:
    """The verdict on the evidence so far; the first arm is the control.

    Arms that are not in the last phase were taken off: they take no further part, except that alpha stays divided.
    An arm wins when the lower bound of its difference to every other arm is above 0 (for a challenger: above minus the
    tolerance). The bounds are mSPRT intervals (``mean_interval``) at alpha divided by the number of pairs, so that all
    hold together. Several phases are compared each within itself and pooled.

    A mismatched split goes before everything: then no comparison is worth anything. Then harm, then a winner, then
    futility: no challenger can be better than the control by the effect worth finding.

    Raises:
        InvalidInput: With fewer than two arms, or an effect that is not positive.
    """
    arms = [arm.name for arm in phases[-1]] if phases else []
    if len(arms) < 2 or not settings.effect > 0:
        raise InvalidInput(
            f"{len(arms)} arms and an effect of {settings.effect:g} make no experiment",
            remedy="Give at least two arms and the smallest positive difference worth finding.",
        )
    differences = _differences(settings, arms, phases)
    pairs = comb(len({arm.name for phase in phases for arm in phase}), 2)
    comparisons = _comparisons(settings, differences, settings.alpha / pairs)
    found = (
        _mismatch(settings, phases)
        or _harm(settings, arms, phases)
        or _winner(settings, arms, comparisons)
        or _futility(settings, arms, differences)
        or _expiry(settings, phases, days)
        or ExperimentVerdict(ExperimentState.RUNNING, "no arm is ahead beyond chance yet")
    )
    return ExperimentVerdict(found.state, found.reason, found.winner, found.harmed, comparisons)


def _differences(
    settings: ExperimentSettings, arms: Sequence[str], phases: Sequence[Sequence[ArmOutcome]]
) -> Differences:
    """Mean reward of the later arm minus that of the earlier one, for the pairs that have enough units."""
    found = {}
    for other, arm in combinations(arms, 2):
        rewards = [(one.rewards, two.rewards) for one, two in filter(None, (_pair(p, arm, other) for p in phases))]
        if (difference := _difference(settings, rewards)) is not None:
            found[arm, other] = difference
    return found


def _comparisons(settings: ExperimentSettings, differences: Differences, alpha: float) -> Sequence[Comparison]:
    """All ordered pairs."""
    found = []
    for (arm, other), difference in differences.items():
        interval = mean_interval(difference, alpha=alpha, tau=settings.effect)
        p_value = mean_p_value(difference, tau=settings.effect)
        found.append(Comparison(arm, other, interval.value, interval.lower, interval.upper, p_value))
    return [*found, *(comparison.turned() for comparison in found)]


def _pair(phase: Sequence[ArmOutcome], arm: str, other: str) -> tuple[ArmOutcome, ArmOutcome] | None:
    named = {outcome.name: outcome for outcome in phase}
    return (named[arm], named[other]) if arm in named and other in named else None


def _difference(settings: ExperimentSettings, sides: Sequence[tuple[Moments, Moments]]) -> Estimate | None:
    """The pooled difference over the phases in which both sides have enough units, and a variance above 0."""
    enough = [(one, two) for one, two in sides if min(one.count, two.count) >= settings.min_units]
    known = [one for one in (difference_of_means(*pair) for pair in enough) if 0 < one.variance < inf]
    return pool(known) if known else None


def _mismatch(settings: ExperimentSettings, phases: Sequence[Sequence[ArmOutcome]]) -> ExperimentVerdict | None:
    splits = [Split([arm.exposed for arm in phase], [arm.share for arm in phase]) for phase in phases]
    p_value = split_p_value(splits)
    if p_value > settings.mismatch_alpha:
        return None
    counts = ", ".join(f"{arm.name} {arm.exposed}" for arm in phases[-1])
    return ExperimentVerdict(
        ExperimentState.MISMATCH,
        f"units did not fall on the arms as assigned (p {p_value:.2g}; last: {counts}): no comparison can be trusted",
    )


def _harm(
    settings: ExperimentSettings, arms: Sequence[str], phases: Sequence[Sequence[ArmOutcome]]
) -> ExperimentVerdict | None:
    """Challengers whose mean of a guardrail exceeds the control's beyond chance and by more than allowed."""
    tests = max(1, len(settings.guardrails) * (len(arms) - 1))
    found = {
        arm: f"{arm}: {name} {increase.value:+.3g} a unit, more than the {limit:g} allowed"
        for name, limit in settings.guardrails.items()
        for arm in arms[1:]
        if (increase := _increase(settings, name, arms[0], arm, phases)) is not None
        and increase.value > limit
        and mean_p_value(increase, tau=2 * limit or settings.effect, sides=1) <= settings.guardrail_alpha / tests
    }
    if not found:
        return None
    return ExperimentVerdict(
        ExperimentState.HARMED, "worse beyond chance: " + "; ".join(found.values()), None, [*found]
    )


def _increase(
    settings: ExperimentSettings, name: str, control: str, arm: str, phases: Sequence[Sequence[ArmOutcome]]
) -> Estimate | None:
    pairs = filter(None, (_pair(phase, arm, control) for phase in phases))
    known = [(one.guardrails[name], two.guardrails[name]) for one, two in pairs if name in one.guardrails]
    return _difference(settings, known)


def _winner(
    settings: ExperimentSettings, arms: Sequence[str], comparisons: Sequence[Comparison]
) -> ExperimentVerdict | None:
    """Only one arm can be above 0 to all others; with a tolerance several may qualify: then the best of them."""

    def margin(arm: str) -> float:
        return 0.0 if arm == arms[0] else -settings.tolerance

    ahead = {arm: [c for c in comparisons if c.arm == arm and c.lower > margin(arm)] for arm in arms}
    winning = [arm for arm in arms if len(ahead[arm]) == len(arms) - 1]
    if not winning:
        return None
    winner = max(winning, key=lambda arm: min(c.estimate for c in ahead[arm]))
    closest = min(ahead[winner], key=lambda c: c.lower)
    reason = (
        f"{winner} earns {closest.estimate:+.3g} a unit against {closest.other}, the nearest other arm: at least "
        f"{closest.lower:+.3g}"
    )
    return ExperimentVerdict(ExperimentState.WINNER, reason, winner)


def _futility(settings: ExperimentSettings, arms: Sequence[str], differences: Differences) -> ExperimentVerdict | None:
    """No challenger can still be worth it: the upper bounds of their differences to the control are too low."""
    wanted = -settings.tolerance if settings.tolerance else settings.effect
    uppers = [
        mean_interval(difference, alpha=settings.futility_alpha, tau=settings.effect, sides=1).upper
        for (_, other), difference in differences.items()
        if other == arms[0]
    ]
    if len(uppers) < len(arms) - 1 or not all(upper < wanted for upper in uppers):  # nor for one that is NaN
        return None
    reason = f"no arm is better than {arms[0]} by {wanted:g} a unit: at most {max(uppers):+.3g}"
    return ExperimentVerdict(ExperimentState.FUTILE, reason)


def _expiry(
    settings: ExperimentSettings, phases: Sequence[Sequence[ArmOutcome]], days: float
) -> ExperimentVerdict | None:
    units = sum(arm.exposed for phase in phases for arm in phase)
    if units < settings.max_units and days < settings.max_days:
        return None
    return ExperimentVerdict(ExperimentState.EXPIRED, f"no decision after {units} units and {days:g} days: no arm won")

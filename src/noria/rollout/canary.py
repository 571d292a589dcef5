"""The canary's trial: is the new version worse than the champion on live, labelled traffic?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from noria.rollout.estimates import compare_quality
from noria.rollout.sequential import effect_to_see, mean_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Decision(StrEnum):
    """What to do with a canary after a look at its evidence."""

    WAIT = "wait"
    ADVANCE = "advance"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """How a canary is judged.

    ``tolerance`` is the loss of quality that may be shown: of AUC (absolute) for classification, of mean absolute
    error (relative) for regression. ``false_alarm`` is the chance, over all looks at all steps, that a version no
    worse than the champion is rolled back.
    """

    steps: Sequence[float]
    min_labels: int
    max_days: int
    tolerance: float
    false_alarm: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The champion's and the canary's quality on the same days, higher is better, and what the test made of it."""

    measure: str
    champion: float
    canary: float
    difference: float
    lower: float
    upper: float
    champion_labels: int
    canary_labels: int

    def as_document(self) -> dict[str, object]:
        """The JSON kept as evidence."""
        return asdict(self)


def judge_step(policy: CanaryPolicy, quality: Quality | None, days_in_step: int) -> tuple[Decision, str]:
    """The decision and why. ``quality`` is None while one side has no two classes or too few labels to measure.

    Worse with confidence: roll back at once. Enough labels without that: advance, unless the point estimate itself
    lies beyond the tolerance and may yet turn out either way: then wait. Too long without a decision: roll back.
    """
    if quality is not None and quality.upper < 0 and quality.difference < -policy.tolerance:
        return Decision.ROLL_BACK, (
            f"{quality.measure} {quality.canary:.3f} against {quality.champion:.3f}: worse beyond chance "
            f"(at most {quality.upper:+.3f}) and by more than {policy.tolerance:g}"
        )
    if quality is not None and quality.canary_labels >= policy.min_labels and quality.difference >= -policy.tolerance:
        return Decision.ADVANCE, (
            f"{quality.measure} {quality.canary:.3f} against {quality.champion:.3f} "
            f"on {quality.canary_labels} labelled predictions: no sign of harm"
        )
    if days_in_step >= policy.max_days:
        return Decision.ROLL_BACK, f"no decision after {days_in_step} days: the champion stays"
    return Decision.WAIT, "not enough labelled predictions for a decision"


def compare(
    task: str, policy: CanaryPolicy, champion: tuple[Floats, Floats], canary: tuple[Floats, Floats]
) -> Quality | None:
    """Quality of both on (scores, labels), with an interval that holds over every look of the rollout.

    The interval is always valid, so the number of looks at a step does not matter; the allowance for false alarms is
    shared evenly by the steps. ``mean_interval`` has formula and source.
    """
    pair = compare_quality(task, champion, canary)
    if pair is None:
        return None
    allowance = policy.false_alarm / len(policy.steps)
    interval = mean_interval(pair.difference, alpha=allowance, tau=effect_to_see(policy.tolerance), sides=1)
    return Quality(
        measure="auc" if task == "classification" else "mean absolute error (relative, negated)",
        champion=pair.champion,
        canary=pair.challenger,
        difference=interval.value,
        lower=interval.lower,
        upper=interval.upper,
        champion_labels=len(champion[0]),
        canary_labels=len(canary[0]),
    )

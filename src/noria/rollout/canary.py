"""The canary's trial: is the new version worse than the champion on live, labelled traffic?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_LOOKS_A_STEP = 14


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

    The allowance for false alarms is shared evenly by all looks (Bonferroni), which needs no independence.
    """
    looks = len(policy.steps) * _LOOKS_A_STEP
    width = NormalDist().inv_cdf(1 - policy.false_alarm / looks)
    measure = _auc if task == "classification" else _negative_relative_error
    scale = 1.0 if task == "classification" else float(abs(champion[0] - champion[1]).mean()) or 1.0
    sides = [measure(*champion, scale), measure(*canary, scale)]
    if any(side is None for side in sides):
        return None
    (old, old_variance), (new, new_variance) = [side for side in sides if side is not None]
    margin = width * sqrt(old_variance + new_variance)
    return Quality(
        measure="auc" if task == "classification" else "mean absolute error (relative, negated)",
        champion=old,
        canary=new,
        difference=new - old,
        lower=new - old - margin,
        upper=new - old + margin,
        champion_labels=len(champion[0]),
        canary_labels=len(canary[0]),
    )


def _auc(scores: Floats, labels: Floats, _scale: float) -> tuple[float, float] | None:
    """AUC and its variance by DeLong, DeLong & Clarke-Pearson (1988); None without ten rows of each class."""
    positive, negative = scores[labels > 0.5], scores[labels <= 0.5]
    if len(positive) < 10 or len(negative) < 10:
        return None
    over = _placements(positive, negative)
    under = 1 - _placements(negative, positive)
    variance = float(over.var(ddof=1) / len(positive) + under.var(ddof=1) / len(negative))
    return float(over.mean()), variance


def _placements(values: Floats, others: Floats) -> Floats:
    """For each of ``values`` the share of ``others`` below it, ties counting half."""
    others = others[others.argsort()]
    below, upto = others.searchsorted(values, side="left"), others.searchsorted(values, side="right")
    result: Floats = (below + upto) / (2 * len(others))
    return result


def _negative_relative_error(scores: Floats, labels: Floats, scale: float) -> tuple[float, float] | None:
    """Minus the mean absolute error in units of the champion's, and its variance; None below ten rows."""
    if len(scores) < 10:
        return None
    errors = abs(scores - labels) / scale
    return -float(errors.mean()), float(errors.var(ddof=1) / len(errors))

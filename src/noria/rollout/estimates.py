"""What is measured on each arm, with the variance of its error: AUC, mean loss, mean reward, shift between scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_ENOUGH = 10  # below ten rows a side no variance estimate is worth its name


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of one quantity and the variance of its error; ``rows`` observations stand behind it."""

    value: float
    variance: float
    rows: int

    def scaled(self, factor: float) -> Estimate:
        """The same quantity in another unit, or with a negative factor counted the other way round."""
        return Estimate(self.value * factor, self.variance * factor**2, self.rows)


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and variance of one number per unit: all that a test of means needs of the rows."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """The moments of an array; the variance has denominator n - 1 and is 0 below two values.

        >>> import numpy as np
        >>> Moments.of(np.array([1.0, 2.0, 3.0]))
        Moments(count=3, mean=2.0, variance=1.0)
        """
        count = len(values)
        return cls(count, float(values.mean()) if count else 0.0, float(values.var(ddof=1)) if count > 1 else 0.0)

    @classmethod
    def from_sums(cls, count: int, total: float, total_of_squares: float) -> Moments:
        """The moments of values known by their sums, as SQL gives them.

        >>> Moments.from_sums(3, 6.0, 14.0)
        Moments(count=3, mean=2.0, variance=1.0)
        """
        mean = total / count if count else 0.0
        spread = max(total_of_squares - total * mean, 0.0)
        return cls(count, mean, spread / (count - 1) if count > 1 else 0.0)


def difference_of_means(one: Moments, other: Moments) -> Estimate:
    """The mean of ``one`` minus that of ``other``; ``rows`` are the smaller side's.

    Its variance is the larger one of Welch's s1²/n1 + s2²/n2 and the pooled s²(1/n1 + 1/n2). Where rewards are skewed,
    a small arm that so far has a low mean has a low variance too (no conversions: none at all), and Welch's would take
    that for certainty; where the arms' variances differ, the pooled one would be wrong.

    No finite sample proves that a number never varies. The variance is at least that of two rows of the smaller side
    being off by the larger mean, 2 (mean/n)²: where none of n rewards of 1 is missing, the bounds then are about the
    exact ones. It is 0 only where all numbers so far are 0: then nothing is known of their size, and nothing follows.
    """
    n1, n2 = max(one.count, 1), max(other.count, 1)
    welch = one.variance / n1 + other.variance / n2
    spread = (n1 - 1) * one.variance + (n2 - 1) * other.variance
    pooled = spread / max(n1 + n2 - 2, 1) * (1 / n1 + 1 / n2)
    least = 2 * (max(abs(one.mean), abs(other.mean)) / min(n1, n2)) ** 2
    return Estimate(one.mean - other.mean, max(welch, pooled, least), min(one.count, other.count))


def pool(estimates: Sequence[Estimate]) -> Estimate:
    """One estimate of a quantity from independent strata, such as the steps of a rollout.

    Weights are the inverse variances: sum(d_i / V_i) / sum(1 / V_i), variance 1 / sum(1 / V_i) (the fixed-effect
    estimate, Cochran 1954). Rows of different strata are never mixed, so a rate that moves while the shares do cannot
    pass for a difference between the arms (Simpson's paradox). In time, sum(d_i / V_i) stays a Brownian motion whose
    clock is sum(1 / V_i): confidence sequences hold for the pooled estimate too.
    """
    weights = [1 / max(estimate.variance, 1e-300) for estimate in estimates]
    total = sum(weights)
    value = sum(weight * estimate.value for weight, estimate in zip(weights, estimates, strict=True)) / total
    return Estimate(value, 1 / total, sum(estimate.rows for estimate in estimates))


def auc(scores: Floats, labels: Floats) -> Estimate | None:
    """The area under the ROC curve; None without ten rows of each class. Labels above 0.5 are positive.

    The variance is that of DeLong, DeLong & Clarke-Pearson (1988): S10/m + S01/n, the variances of the placements.
    ``rows`` are all labelled rows.
    """
    area = _stochastic_order(scores[labels > 0.5], scores[labels <= 0.5])
    return None if area is None else Estimate(area.value, area.variance, len(scores))


def score_shift(champion: Floats, challenger: Floats) -> Estimate | None:
    """P(challenger's score > champion's) - 1/2, ties counting half, in [-1/2, 1/2]; None below ten scores a side.

    It is the AUC of telling the arms apart by their scores (Mann & Whitney 1947), so its variance is DeLong's.
    """
    area = _stochastic_order(challenger, champion)
    return None if area is None else Estimate(area.value - 0.5, area.variance, area.rows)


@dataclass(frozen=True, slots=True)
class QualityPair:
    """Both arms' quality, higher is better, and the challenger's minus the champion's."""

    champion: float
    challenger: float
    difference: Estimate


def compare_quality(
    task: str, champion: tuple[Floats, Floats], challenger: tuple[Floats, Floats]
) -> QualityPair | None:
    """AUC for classification; for regression minus the mean absolute error, in units of the champion's.

    Each side is (scores, labels); None while one has fewer than ten rows (of each class).
    """
    return _compare_auc(champion, challenger) if task == "classification" else _compare_errors(champion, challenger)


def _compare_auc(champion: tuple[Floats, Floats], challenger: tuple[Floats, Floats]) -> QualityPair | None:
    old, new = auc(*champion), auc(*challenger)
    if old is None or new is None:
        return None
    difference = Estimate(new.value - old.value, new.variance + old.variance, min(new.rows, old.rows))
    return QualityPair(old.value, new.value, difference)


def _compare_errors(champion: tuple[Floats, Floats], challenger: tuple[Floats, Floats]) -> QualityPair | None:
    old, new = (Moments.of(abs(scores - labels)) for scores, labels in (champion, challenger))
    if min(old.count, new.count) < _ENOUGH:
        return None
    scale = -1 / (old.mean or 1.0)
    return QualityPair(old.mean * scale, new.mean * scale, difference_of_means(new, old).scaled(scale))


def _stochastic_order(values: Floats, others: Floats) -> Estimate | None:
    """P(value > other), ties counting half.

    DeLong's variance is 0 when the samples do not overlap, which no finite sample can prove: it counts as at least
    that of one half of a row (a quarter of 1/n²).
    """
    rows = min(len(values), len(others))
    if rows < _ENOUGH:
        return None
    values, others = values[values.argsort()], others[others.argsort()]
    over, under = _placements(values, others), _placements(others, values)
    variance = float(over.var(ddof=1) / len(values) + under.var(ddof=1) / len(others))
    return Estimate(float(over.mean()), max(variance, 0.25 / rows**2), rows)


def _placements(values: Floats, others: Floats) -> Floats:
    """For each of ``values`` the share of ``others`` below it, ties counting half; both sorted."""
    below, upto = others.searchsorted(values, side="left"), others.searchsorted(values, side="right")
    result: Floats = (below + upto) / (2 * len(others))
    return result

"""Always-valid inference on means: intervals and p-values that hold at every look at once.

A fixed-horizon interval is right at one moment chosen beforehand; looked at again and again it will some time exclude
the truth. A confidence sequence contains the truth at all moments together with probability 1 - alpha, so one may look
after every request and stop when one likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, inf, sqrt
from typing import TYPE_CHECKING, Literal

from noria.rollout.estimates import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Sides = Literal[1, 2]

_NO_VARIANCE = 1e-18


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds that hold at every look."""

    value: float
    lower: float
    upper: float


def mean_interval(estimate: Estimate, *, alpha: float, tau: float, sides: Sides = 2) -> Interval:
    """A confidence sequence for a mean, a difference of means, or any asymptotically linear estimate (AUC, shift).

    Two-sided, the normal mixture of Robbins (1970), which is the mixture sequential probability ratio test (mSPRT) of
    Johari, Koomen, Pekelis & Walsh (2022) turned into an interval. With V the variance of the estimate:

        radius² = V (V + tau²) / tau² * (log((V + tau²) / V) + 2 log(1 / alpha))

    With ``sides=1`` each bound alone holds with 1 - alpha (the half-normal mixture in the closed form of Howard,
    Ramdas, McAuliffe & Sekhon 2021):

        radius² = 2 V (V + tau²) / tau² * log(1 + sqrt((V + tau²) / V) / (2 alpha))

    Both are exact for normal rows with known variance. With an estimated one they are asymptotic confidence sequences
    (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2021): begin to look when the variance is known to some percent.
    V = s1²/n1 + s2²/n2 for two arms, in whatever proportion they grow: the covariance of the difference at two moments
    is the later variance, so difference / V is a Brownian motion run by the clock 1 / V.

    Args:
        estimate: The difference and its variance. A variance of 0 is a degenerate sample: the interval is the point.
        alpha: The chance that the truth is ever outside.
        tau: The size of the effect one wants to see, in the estimate's unit (standard deviation of the mixture). The
            interval is tightest where V is about tau²/8, which for alpha = 0.05 is where a fixed-horizon test with
            power 0.8 for an effect of tau ends. There, a tau half or twice as large costs 3 to 8% in width, four times
            too small 45%, four times too large 9%; never validity, unless tau is chosen from the data that are tested.
        sides: 2 for both bounds at once, 1 for one of them.
    """
    margin = float(mean_radius(estimate.variance, alpha=alpha, tau=tau, sides=sides))
    return Interval(estimate.value, estimate.value - margin, estimate.value + margin)


def mean_radius(variance: Floats | float, *, alpha: float, tau: float, sides: Sides = 2) -> Floats:
    """Half the width of ``mean_interval`` for each variance."""
    import numpy as np

    v = np.maximum(variance, _NO_VARIANCE)
    growth = (v + tau**2) / v
    two_sided = sides == 2
    evidence = np.log(growth) / 2 - np.log(alpha) if two_sided else np.log1p(np.sqrt(growth) / (2 * alpha))
    radius: Floats = np.sqrt(2 * v * (v + tau**2) / tau**2 * evidence)
    return radius


def mean_p_value(estimate: Estimate, *, tau: float, sides: Sides = 2, null: float = 0.0) -> float:
    """The always-valid p-value of ``null`` at this look: the smallest alpha whose interval excludes it.

    With x² = d² tau² / (V (V + tau²)) and R = (V + tau²) / V, two-sided min(1, sqrt(R) exp(-x²/2)), one-sided (that the
    quantity is larger than ``null``) min(1, sqrt(R) / (2 (exp(x²/2) - 1))); sources as in ``mean_interval``. The
    smallest value seen so far is an always-valid p-value too.
    """
    d, v = estimate.value - null, max(estimate.variance, _NO_VARIANCE)
    if d == 0 or (sides == 1 and d < 0):
        return 1.0
    growth = (v + tau**2) / v
    half = min((d * tau) ** 2 / (2 * v * (v + tau**2)), 700.0)
    e_value = (expm1(half) + 1) / sqrt(growth) if sides == 2 else 2 * expm1(half) / sqrt(growth)
    return min(1.0, 1 / e_value) if e_value > 0 else 1.0


def effect_to_see(tolerance: float) -> float:
    """``tau`` for a test with a tolerance: harm of twice what is tolerated must be seen soon; of none, a hundredth."""
    return 2 * tolerance or 0.01


def fixed_horizon_variance(effect: float, *, alpha: float, power: float, sides: Sides = 2) -> float:
    """The variance at which a test with one look detects ``effect`` with ``power``: (effect / (z_alpha + z_power))².

    For planning and for comparison: units per arm are (s1² + s2²) / variance.
    """
    from statistics import NormalDist

    quantile = NormalDist().inv_cdf
    reach = quantile(1 - alpha / sides) + quantile(power)
    return (effect / reach) ** 2 if effect else inf

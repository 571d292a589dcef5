"""An exact test of one rate that needs no second arm: for a challenger that has all the traffic.

What it is held against is a record: what the champion did before. Unlike the tests of ``shares`` it takes for granted
that the champion would go on as it did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LOG_RATIOS: Floats = np.geomspace(0.05, 3.0, 10)
"""As in ``shares``: rates 1.05 to 20 times as high, or as low."""
_LEAST = 1e-9
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class EventRecord:
    """How many of so many units had the event."""

    events: int
    units: int

    @property
    def rate(self) -> float:
        """Events a unit; 0 of none."""
        return self.events / self.units if self.units else 0.0


@dataclass(frozen=True, slots=True)
class RateTest:
    """Is the rate of an event higher than a fixed one? An e-process over units that are independent draws.

    With k events in n units, the likelihood ratio of the rate q against p is

        L(q) = (q / p)^k * ((1 - q) / (1 - p))^(n - k)

    and the e-value its mean over q = p e^x for x from 0.05 to 3, or halfway from p to 1 where that is less (a mixture
    of likelihood ratios: Wald 1945, Robbins 1970). While the true rate is p or less its expectation is at most 1 at
    every look, so by Ville (1939) it ever reaches 1 / alpha with probability alpha at most.
    """

    record: EventRecord

    def p_value(self, rate: float) -> float:
        """Always-valid p-value of "the rate is at most ``rate``"."""
        return exp(min(0.0, -self._log_e_value(rate, fewer=False)))

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper bound of the rate, each of which holds at every look with 1 - ``alpha``."""
        wanted = -log(alpha)
        lower = _crossing(lambda rate: self._log_e_value(rate, fewer=False) < wanted)
        return lower, _crossing(lambda rate: self._log_e_value(rate, fewer=True) >= wanted)

    def _log_e_value(self, rate: float, *, fewer: bool) -> float:
        p, k, n = min(max(rate, _LEAST), 1 - _LEAST), self.record.events, self.record.units
        q = p * np.exp(-_LOG_RATIOS) if fewer else np.minimum(p * np.exp(_LOG_RATIOS), (1 + p) / 2)
        logs = k * np.log(q / p) + (n - k) * (np.log1p(-q) - np.log1p(-p))
        return float(np.logaddexp.reduce(logs) - log(len(logs)))


def rate_at_most(record: EventRecord, alpha: float) -> float:
    """The upper bound of a rate that was looked at once, with 1 - ``alpha``: exact (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    left = record.units - record.events
    return float(betaincinv(record.events + 1, left, 1 - alpha)) if left > 0 else 1.0


def _crossing(is_above: Callable[[float], bool]) -> float:
    """The rate from which on ``is_above`` holds; 1 where it holds nowhere."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return high

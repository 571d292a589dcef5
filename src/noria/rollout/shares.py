"""Exact tests that need only counts: whose are the events, and did the traffic split as it was told to?

Both condition on the events that happened, so nothing is assumed about how often they do: base rates may move through
the day, by season, or because a dependency is down for both arms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LOG_RATIOS: Floats = np.geomspace(0.05, 3.0, 10)
"""Logarithms of the ratios that are looked for: 1.05 to 20 times as many events."""
_WIDEST = 12.0
SPLIT_CONCENTRATION = 1000.0
"""Prior weight, in units, of the assigned shares in the test of the split."""


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Events of one step: ``challenger`` of them on the challenger, whose assigned share was ``share`` (0 to 1).

    An event is an error, a slow answer, a first exposure. Each must fall on an arm independently of the others, so
    where assignment sticks to a unit (a user), only the first event of a unit within the rollout counts; where each
    request is routed by itself, every request is a unit. ``challenger_units`` and ``champion_units`` (how many units
    were asked at all) play no part in the test, only in the rates.
    """

    share: float
    challenger: int
    champion: int
    challenger_units: int = 0
    champion_units: int = 0


@dataclass(frozen=True, slots=True)
class ShareTest:
    """Has the challenger more events than its share? An e-process over one or more steps of different shares.

    If both arms have the same event rate, an event belongs to the challenger with probability s, its share of the
    requests, whatever that rate is; if the challenger's rate is r times the champion's, with s r / (1 - s + s r). So
    with k events of m on the challenger in each step, the likelihood ratio of r against r0 is

        L(r) = product over steps of (r / r0)^k * ((1 - s + s r0) / (1 - s + s r))^m

    and the e-value their mean over r = r0 e^x for x from 0.05 to 3 (a mixture of likelihood ratios: Wald 1945, Robbins
    1970; conditioning as in the exact test of two Poisson rates, Przyborowski & Wilenski 1940). While the true ratio is
    r0 or less its expectation is at most 1 at every look, so by Ville (1939) it ever reaches 1 / alpha with probability
    alpha at most. The mixture is over ratios and not, as a Beta prior would be, over shares, because one ratio means
    the same at every share: the steps' evidence for it multiplies.

    It uses the assigned share. That it holds is what ``split_p_value`` checks. An arm that fails and is asked again
    has more requests than its share: count units.
    """

    steps: Sequence[EventCounts]

    def p_value(self, ratio: float = 1.0) -> float:
        """Always-valid p-value of "the challenger's event rate is at most ``ratio`` times the champion's"."""
        return exp(min(0.0, -self.log_e_value(ratio)))

    def log_e_value(self, ratio: float = 1.0, *, fewer: bool = False) -> float:
        """Log of the e-value against ``ratio`` or less; ``fewer`` turns it round: against ``ratio`` or more."""
        return float(self._log_e_values(np.array([ratio]), fewer)[0])

    def ratio_bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper bound of the ratio of rates, each of which holds at every look with 1 - ``alpha``."""
        upper = _crossing(lambda x: self._log_e_values(np.exp(-x), True) + log(alpha))
        return self.least_ratio(alpha), exp(-upper)

    def least_ratio(self, alpha: float) -> float:
        """The lower one of ``ratio_bounds``."""
        return exp(_crossing(lambda x: self._log_e_values(np.exp(x), False) + log(alpha)))

    def _log_e_values(self, ratios: Floats, fewer: bool) -> Floats:
        """One for each of ``ratios``."""
        columns = [(step.challenger, step.challenger + step.champion, step.share) for step in self.steps]
        k, m, s = np.array(columns, dtype=np.float64).reshape(-1, 3).T[:, :, None, None]  # [step, ratio, alternative]
        return _mean(_log_likelihoods(k, m, s, ratios[:, None], fewer).sum(axis=0))


def share_log_e_value(challenger: Floats, total: Floats, share: float) -> Floats:
    """``ShareTest.log_e_value`` of many one-step tests at once, against equal rates; arrays of one shape."""
    columns = np.asarray(challenger, np.float64)[..., None], np.asarray(total, np.float64)[..., None]
    return _mean(_log_likelihoods(*columns, share, 1.0, False))


def _log_likelihoods(k: Floats, m: Floats, s: Floats | float, null: Floats | float, fewer: bool) -> Floats:
    """Log likelihood ratio of every alternative (last axis) against the null ratio."""
    steps = -_LOG_RATIOS if fewer else _LOG_RATIOS
    result: Floats = k * steps - m * np.log1p(s * null * np.expm1(steps) / (1 - s + s * null))
    return result


def _mean(logs: Floats) -> Floats:
    result: Floats = np.logaddexp.reduce(logs, axis=-1) - log(logs.shape[-1])
    return result


def _crossing(excess: Callable[[Floats], Floats]) -> float:
    """Where a decreasing function of the log ratio crosses 0; minus or plus infinity beyond the widest ratio."""
    low, high = -_WIDEST, _WIDEST
    for _ in range(4):  # a 32nd each time
        grid = np.linspace(low, high, 33)
        above = int((excess(grid) > 0).sum())
        if above in (0, len(grid)):
            return inf if above else -inf
        low, high = float(grid[above - 1]), float(grid[above])
    return low


# the split of the traffic


@dataclass(frozen=True, slots=True)
class Split:
    """How many units each arm first saw in one step, and the shares assigned (any positive weights)."""

    units: Sequence[int]
    shares: Sequence[float]


def split_p_value(steps: Sequence[Split], concentration: float = SPLIT_CONCENTRATION) -> float:
    """Always-valid p-value of "every unit fell on its arm with the assigned share": the sample-ratio-mismatch test.

    The e-process of Lindon & Malek (2022), a Dirichlet mixture against the multinomial of the assigned shares s:

        E = Gamma(c) / Gamma(c + n) * product over arms of Gamma(c s_j + n_j) / Gamma(c s_j) / s_j^n_j

    with n units in all and c the ``concentration``: 1000 looks for shares about 1.6 points off at 50/50. The e-values
    of steps multiply, if a unit is counted only in the step it first appears in. A unit on an arm without a share is a
    certain mismatch.
    """
    strays = any(n > 0 and s <= 0 for step in steps for n, s in zip(step.units, step.shares, strict=True))
    logs = [_split_log_e_value(step, concentration) for step in steps]
    return 0.0 if strays else exp(min(0.0, -sum(logs)))


def _split_log_e_value(step: Split, concentration: float) -> float:
    taking = [(n, s) for n, s in zip(step.units, step.shares, strict=True) if s > 0]
    units, shares = np.array(taking, dtype=np.float64).reshape(-1, 2).T
    return float(split_log_e_value(units, shares / shares.sum(), concentration)) if len(taking) > 1 else 0.0


def split_log_e_value(units: Floats, shares: Floats, concentration: float = SPLIT_CONCENTRATION) -> Floats:
    """Log e-value of many splits at once: ``units`` has the arms on its last axis, ``shares`` sum to 1."""
    from scipy.special import gammaln

    prior, total = concentration * shares, units.sum(axis=-1)
    ratio = gammaln(prior + units) - gammaln(prior) - units * np.log(shares)
    result: Floats = gammaln(concentration) - gammaln(concentration + total) + ratio.sum(axis=-1)
    return result

"""How much traffic a canary's step needs, so that harm is seen before the next step begins."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.rollout.shares import share_log_e_value
from noria.structs import read_by_threads

Floats = NDArray[np.float64]

_MOST_REQUESTS = 1 << 40
_SLICES = 61


@read_by_threads
@dataclass(frozen=True, slots=True)
class LatencyBar:
    """What counts as a slow answer, fixed before a step from the champion's latencies.

    ``slow`` is the share of the champion's answers above ``bar`` (about 0.1, less where the tolerance lifts the bar),
    ``slow_if_allowed`` the share that would be above it if every answer took as much longer as is allowed; both were
    read off ``rows`` answers.
    """

    bar: float
    slow: float
    slow_if_allowed: float
    rows: int = 200


def latency_bar(latencies: Floats, factor: float, tolerance: float = 0.0) -> LatencyBar:
    """The bar at the 90th percentile q of the champion's latencies, or above it where q is small (in any unit).

    What is tested is the share of answers above the bar, an event like any other; bar and allowed share are fixed
    before the test begins, so it holds whatever they are. Allowed is that every answer takes ``factor`` times as long
    or ``tolerance`` longer, whichever is more: x becomes a(x) = max(factor x, x + tolerance). The bar is a(q / factor),
    which is q unless the tolerance exceeds q - q / factor; and a(x) is above it just if x is above q / factor.
    """
    q = float(np.quantile(latencies, 0.9))
    bar = max(q, q / factor + tolerance)
    slow, slow_if_allowed = float((latencies > bar).mean()), slow_at_factor(latencies, factor)
    return LatencyBar(bar, slow, slow_if_allowed, len(latencies))


def slow_at_factor(latencies: Floats, factor: float) -> float:
    """The share of answers above the champion's 90th percentile, if every answer took ``factor`` times as long.

    Where a tolerance lifts the bar, the harm to be seen is told by the same share: of answers above the bar.
    """
    return float((latencies > np.quantile(latencies, 0.9) / factor).mean())


def requests_needed(
    *, base_rate: float, harmful_rate: float, share: float, alpha: float, allowed: float = 0.0, power: float = 0.95
) -> int:
    """Requests the challenger needs so that ``ShareTest`` stops a rate of ``harmful_rate`` with ``power``.

    For errors the rates are the champion's error rate and that plus the increase to be seen; for latency the share of
    slow answers and what it becomes at the factor to be seen (``latency_bar`` with that factor). The power is that of
    one look at the end, so of looks all along it is at least that. It is computed exactly over the challenger's events
    (binomial) and in slices of equal probability over the champion's, normal approximation.

    Args:
        base_rate: Events per request on the champion.
        harmful_rate: Events per request on a challenger that must be stopped.
        share: The challenger's share of the requests, above 0 and below 1.
        alpha: What the guard may spend at this step (``GuardSettings.allowance``).
        allowed: The increase that the guard tolerates: the observed one must be larger too.
        power: The wanted probability of a stop.

    Raises:
        InvalidInput: When no number of requests can show it: the harmful rate is not above the tolerated one, or the
            share leaves one arm without traffic.
    """
    if not (0 < share < 1 and base_rate >= 0 and base_rate + allowed < harmful_rate <= 1):
        raise InvalidInput(
            f"a rate of {harmful_rate:g} cannot be told from {base_rate:g} + {allowed:g} at a share of {share:g}",
            remedy="Give a harmful rate above the tolerated one, and a share between 0 and 1.",
        )
    high = 64
    while high < _MOST_REQUESTS and _power(high, base_rate, harmful_rate, share, alpha, allowed) < power:
        high *= 2
    low = high // 2
    while high - low > max(1, high // 256):
        middle = (low + high) // 2
        enough = _power(middle, base_rate, harmful_rate, share, alpha, allowed) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def requests_fixed_horizon(
    *, base_rate: float, harmful_rate: float, share: float, alpha: float, power: float = 0.95
) -> int:
    """Challenger requests of a one-sided z-test with a single look (Fleiss, Levin & Paik 2003): for comparison."""
    from statistics import NormalDist

    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)
    odds = share / (1 - share)  # champion requests are 1 / odds times the challenger's
    mixed = (1 - share) * base_rate + share * harmful_rate
    null = sqrt(mixed * (1 - mixed) * (1 + odds))
    other = sqrt(harmful_rate * (1 - harmful_rate) + odds * base_rate * (1 - base_rate))
    return ceil(((z_alpha * null + z_power * other) / (harmful_rate - base_rate)) ** 2)


def _power(requests: int, base: float, harmful: float, share: float, alpha: float, allowed: float) -> float:
    """Probability that the guard stops the challenger at a single look after ``requests`` of its requests."""
    from scipy.special import bdtrc

    champion = _champion_events(requests * (1 - share) / share, base)
    tolerated = requests * (champion / (requests * (1 - share) / share) + allowed)
    critical = np.maximum(_critical_events(champion, requests, share, alpha), np.floor(tolerated) + 1)
    return float(np.where(critical <= requests, bdtrc(critical - 1, requests, harmful), 0.0).mean())


def _champion_events(requests: float, rate: float) -> Floats:
    """The champion's event count in slices of equal probability."""
    from scipy.special import ndtri

    slices = ndtri((np.arange(_SLICES) + 0.5) / _SLICES)
    counts: Floats = np.rint(requests * rate + slices * sqrt(requests * rate * (1 - rate))).clip(0)
    return counts


def _critical_events(champion: Floats, requests: int, share: float, alpha: float) -> Floats:
    """The fewest challenger events that the test calls harm, for each count of the champion's."""
    low, high = np.full_like(champion, -1.0), np.full_like(champion, requests + 1.0)
    while (high - low).max() > 1:
        middle = np.floor((low + high) / 2)
        harm = share_log_e_value(middle, middle + champion, share) >= -log(alpha)
        low, high = np.where(harm, low, middle), np.where(harm, middle, high)
    return high

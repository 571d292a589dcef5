"""Harm on a stretch of a rollout: the evidence since the beginning of one of its steps, tested with its own allowance.

Steps are never mixed: each is compared within itself, and the comparisons are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from noria.rollout.estimates import Estimate, pool
from noria.rollout.rates import EventRecord, RateTest, rate_at_most
from noria.rollout.sequential import Sides, effect_to_see, mean_interval, mean_p_value
from noria.rollout.shares import EventCounts, ShareTest

_FIRST_LOOK = 50
"""Rows a side before an interval with an estimated variance is looked at."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Harm since the beginning of step ``since`` (from 1), its bounds and the always-valid p-value of "none".

    ``size`` is what is held against the limit, ``largest`` the largest size that is not excluded; they differ from
    ``harm`` and ``upper`` where harm has two sides. ``rows`` are the smaller arm's, or the challenger's requests.
    ``is_alone`` says that it was held against what the champion did before; the p-value then is that of "within the
    limit".
    """

    since: int
    harm: float
    lower: float
    upper: float
    size: float
    largest: float
    p_value: float
    allowance: float
    rows: int
    is_alone: bool = False


def event_stretch(
    counts: Sequence[EventCounts], *, since: int, allowance: float, limit: float, only_harm: bool
) -> Stretch | None:
    """Harm as an increase of an event's rate; None without events to count, or with ``only_harm`` without harm.

    What stops a challenger is exact: the p-value of ``ShareTest``, and as lower bound that of the ratio of rates times
    the champion's rate. The upper bound, which only helps a step to pass, is the asymptotic one of the difference.
    """
    test = ShareTest(counts)
    p_value = test.p_value() if counts else 1.0
    if not counts or (only_harm and p_value > allowance):
        return None
    increase = rate_increase(counts)
    base = sum(count.champion for count in counts) / sum(count.champion_units for count in counts)
    lower = base * (test.least_ratio(allowance) - 1)
    upper = mean_interval(increase, alpha=allowance, tau=effect_to_see(limit), sides=1).upper
    value = increase.value
    return Stretch(since, value, lower, upper, value, upper, p_value, allowance, increase.rows)


def alone_stretch(
    challenger: EventRecord, champion: EventRecord, *, since: int, allowance: float, limit: float
) -> Stretch | None:
    """An event's rate with all the traffic, held against the champion's before; None without a request.

    Half of the allowance goes to how well the champion's rate is known (its exact upper bound, from a record that grows
    no more), half to an always-valid test that the challenger's exceeds that by more than the limit. As the champion's
    rate of today is not known, the limit is what it may have changed by; without a record it counts as 0.
    """
    if not challenger.units:
        return None
    half, test = allowance / 2, RateTest(challenger)
    most = rate_at_most(champion, half) if champion.units else 0.0
    lower, upper = test.bounds(half)
    harm = challenger.rate - champion.rate
    p_value = min(1.0, 2 * test.p_value(most + limit))
    bounds = lower - most, upper - champion.rate
    return Stretch(since, harm, *bounds, harm, bounds[1], p_value, allowance, challenger.units, is_alone=True)


def rate_increase(counts: Sequence[EventCounts]) -> Estimate:
    """The challenger's event rate minus the champion's.

    The Mantel-Haenszel risk difference (Greenland & Robins 1985): weights n1 n0 / (n1 + n0), the variances of Poisson
    counts plus one (as Agresti & Caffo 2000 add to proportions), so that seeing no event is not taken for certainty.
    """
    weight = value = variance = 0.0
    for count in counts:
        units = count.challenger_units + count.champion_units
        ours, theirs = count.champion_units / units, count.challenger_units / units
        weight += count.challenger_units * ours
        value += ours * count.challenger - theirs * count.champion
        variance += ours**2 * (count.challenger + 1) + theirs**2 * (count.champion + 1)
    return Estimate(value / weight, variance / weight**2, sum(count.challenger_units for count in counts))


def mean_stretch(
    harms: Sequence[Estimate], *, since: int, allowance: float, limit: float, sides: Sides
) -> Stretch | None:
    """Harm as a difference of means or of AUC; None while no step has enough rows for a variance, and one above 0."""
    known = [harm for harm in harms if harm.rows >= _FIRST_LOOK and 0 < harm.variance < inf]
    if not known:
        return None
    harm, tau = pool(known), effect_to_see(limit)
    interval = mean_interval(harm, alpha=allowance, tau=tau, sides=sides)
    size = harm.value if sides == 1 else abs(harm.value)
    largest = interval.upper if sides == 1 else max(abs(interval.lower), abs(interval.upper))
    p_value = mean_p_value(harm, tau=tau, sides=sides)
    return Stretch(since, harm.value, interval.lower, interval.upper, size, largest, p_value, allowance, harm.rows)

"""Bandits without context: shares of the traffic that follow what each arm has earned so far.

State is rebuilt from the rewards that are in, so rewards may be late, and may be told again. An allocation is a
deterministic function of that state: it can be recomputed from the audit trail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidInput
from noria.rollout.estimates import Moments

Floats = NDArray[np.float64]
Algorithm = Literal["epsilon-greedy", "thompson"]
RewardKind = Literal["binary", "real"]

_SLICES = 256
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True, slots=True)
class ArmRewards:
    """An arm's rewards that are in, and how many of its answers still wait for theirs (``pending``)."""

    name: str
    rewards: Moments
    pending: int = 0

    @property
    def pulls(self) -> int:
        """How often the arm was played, rewarded yet or not."""
        return self.rewards.count + self.pending


@dataclass(frozen=True, slots=True)
class BanditSettings:
    """Which bandit divides the traffic."""

    algorithm: Algorithm = "thompson"
    rewards: RewardKind = "binary"
    """"binary": each reward is 0 or 1, and where they turn out otherwise they are taken as "real": any number, in any
    unit."""
    epsilon: float = 0.1
    """Share of the traffic that epsilon-greedy explores with."""
    floor: float = 0.01
    """Share that every arm keeps, so that its estimate stays alive and its rewards can be compared afterwards."""
    first_pulls: int = 10
    """Pulls, pending ones included, before epsilon-greedy takes an arm for tried."""


def allocation(settings: BanditSettings, arms: Sequence[ArmRewards]) -> Mapping[str, float]:
    """Each arm's share of the traffic until the next rewards are in: they sum to 1 and none is below the floor.

    Raises:
        InvalidInput: When there are no arms, or the floors of all arms together exceed 1.
    """
    if not arms or settings.floor * len(arms) > 1 or settings.floor < 0:
        raise InvalidInput(
            f"{len(arms)} arms cannot keep {settings.floor:g} of the traffic each",
            remedy="Give at least one arm, and a floor of at most 1 / number of arms.",
        )
    if settings.algorithm == "thompson":
        shares = thompson_shares(arms, settings.rewards)
    else:
        shares = epsilon_greedy_shares(arms, settings.epsilon, settings.first_pulls)
    kept = settings.floor + (1 - settings.floor * len(arms)) * shares
    return {arm.name: float(share) for arm, share in zip(arms, kept, strict=True)}


def epsilon_greedy_shares(arms: Sequence[ArmRewards], epsilon: float, first_pulls: int = 1) -> Floats:
    """1 - epsilon for the arm with the highest mean reward, epsilon spread over all (Sutton & Barto 2018, ch. 2).

    Arms not yet tried stand in for the best one. Pending pulls count as trials: an arm whose rewards are slow is not
    flooded meanwhile. Equal means share.
    """
    untried = np.array([arm.pulls < first_pulls for arm in arms])
    means = np.array([arm.rewards.mean if arm.rewards.count else -np.inf for arm in arms])
    best = untried if untried.any() else means == means.max()
    shares: Floats = epsilon / len(arms) + (1 - epsilon) * best / best.sum()
    return shares


def thompson_shares(arms: Sequence[ArmRewards], rewards: RewardKind) -> Floats:
    """Each arm's probability of being the best: what Thompson sampling (1933) would play it with.

    P(best = i) = integral over u from 0 to 1 of product over j != i of F_j(Q_i(u)), with F the posterior distribution
    functions of the means and Q their inverses, by the midpoint rule. Posteriors: Beta(1 + successes, 1 + failures) for
    binary rewards (Chapelle & Li 2011); Student's t for real ones, of a normal with unknown variance.

    A Beta posterior takes for granted that rewards with mean m vary by m (1 - m) at most, as all do that lie in 0..1.
    Where those of an arm vary more (amounts; a unit's rewards that sum to 2, or below 0), it would be too sure or not
    exist: then Student's t stands in for every arm. Cutting such rewards to 0..1 would compare something else than what
    was earned.

    Pending pulls do not enter: a posterior may only know what came in, and sampling from it spreads the pulls that
    are made meanwhile, which is what makes it robust to delay (Chapelle & Li 2011, section 3.2).
    """
    slices = (np.arange(_SLICES) + 0.5) / _SLICES
    binary = rewards == "binary" and all(_fits_beta(arm.rewards) for arm in arms)
    below = _binary_below(arms, slices) if binary else _real_below(arms, slices)
    own = np.eye(len(arms), dtype=bool)[:, :, None]
    chances = np.where(own, 1.0, below).prod(axis=1).mean(axis=1)
    shares: Floats = chances / chances.sum()
    return shares


def _fits_beta(rewards: Moments) -> bool:
    spread = max(rewards.count - 1, 0) * rewards.variance
    most = rewards.count * rewards.mean * (1 - rewards.mean)
    return 0 <= rewards.mean <= 1 and spread <= most * (1 + 1e-9) + 1e-9


def _binary_below(arms: Sequence[ArmRewards], slices: Floats) -> Floats:
    """F_j(Q_i(u)) for [i, j, u] with Beta posteriors."""
    from scipy.special import betainc, betaincinv

    successes = np.array([arm.rewards.count * arm.rewards.mean for arm in arms])
    a, b = 1 + successes, 1 + np.array([arm.rewards.count for arm in arms]) - successes
    at = betaincinv(a[:, None], b[:, None], slices)
    below: Floats = betainc(a[:, None], b[:, None], at[:, None, :])
    return below


def _real_below(arms: Sequence[ArmRewards], slices: Floats) -> Floats:
    """F_j(Q_i(u)) for [i, j, u] with Student's t posteriors."""
    from scipy.special import stdtr, stdtrit

    freedom, center, scale = _student_posteriors(arms)
    at = center[:, None] + scale[:, None] * stdtrit(freedom[:, None], slices)
    below: Floats = stdtr(freedom[:, None], (at[:, None, :] - center[:, None]) / scale[:, None])
    return below


def _student_posteriors(arms: Sequence[ArmRewards]) -> tuple[Floats, Floats, Floats]:
    """Degrees of freedom, centre and scale of each arm's mean: normal rows, normal-inverse-gamma prior (Murphy 2007).

    The prior is worth one row with the mean and variance of all rewards that are in, so no unit has to be known.
    """
    count = np.array([arm.rewards.count for arm in arms], dtype=np.float64)
    mean, variance = np.array([(arm.rewards.mean, arm.rewards.variance) for arm in arms]).T
    total = max(count.sum(), 1.0)
    prior_mean = (count * mean).sum() / total
    within = (np.maximum(count - 1, 0) * variance).sum()
    prior_variance = (within + (count * (mean - prior_mean) ** 2).sum()) / total
    shape = 1 + count / 2
    spread = np.maximum(count - 1, 0) * variance + count / (1 + count) * (mean - prior_mean) ** 2
    scale = np.sqrt((prior_variance + spread / 2) / (shape * (1 + count)))
    return 2 * shape, (prior_mean + count * mean) / (1 + count), np.maximum(scale, _SMALLEST_SCALE)

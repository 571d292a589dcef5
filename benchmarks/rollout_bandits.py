"""Bandits with late rewards: regret against an even split, and what is lost against always playing the best arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rollout_rows import row

from noria.rollout.bandits import Algorithm, ArmRewards, BanditSettings, RewardKind, allocation
from noria.rollout.contextual import fit_linucb
from noria.rollout.estimates import Moments

Floats = NDArray[np.float64]
BATCHES, BATCH, DELAY = 150, 200, 10


@dataclass(frozen=True)
class Arms:
    """Mean rewards and how to draw the sum and the sum of squares of some rewards of an arm."""

    name: str
    means: Floats
    kind: RewardKind
    draw: Callable[[np.random.Generator, int, float], tuple[float, float]]


def conversions(generator: np.random.Generator, count: int, mean: float) -> tuple[float, float]:
    won = float(generator.binomial(count, mean))
    return won, won


def amounts(generator: np.random.Generator, count: int, mean: float) -> tuple[float, float]:
    """Lognormal, sigma 1."""
    values = mean * generator.lognormal(-0.5, 1, count)
    return float(values.sum()), float((values**2).sum())


WORLDS = (
    Arms("conversions of 4 to 8%", np.array([0.04, 0.05, 0.05, 0.06, 0.08]), "binary", conversions),
    Arms("amounts of 10 to 13", np.array([10.0, 10.5, 11.0, 11.5, 13.0]), "real", amounts),
)


def played(generator: np.random.Generator, arms: Arms, settings: BanditSettings) -> float:
    """Regret of one run: shares are set anew for each batch, from the rewards of batches at least DELAY old."""
    pulls = np.zeros((BATCHES, len(arms.means)), dtype=int)
    sums = np.zeros((BATCHES, len(arms.means), 2))
    for batch in range(BATCHES):
        known = max(0, batch - DELAY)
        shares = allocation(settings, state(pulls[:batch], sums[:batch], known))
        pulls[batch] = generator.multinomial(BATCH, [*shares.values()])
        sums[batch] = [arms.draw(generator, n, mean) for n, mean in zip(pulls[batch], arms.means, strict=True)]
    return float(pulls.sum(0) @ (arms.means.max() - arms.means))


def state(pulls: NDArray[np.int64], sums: Floats, known: int) -> Sequence[ArmRewards]:
    counts, totals, pending = pulls[:known].sum(0), sums[:known].sum(0), pulls[known:].sum(0)
    return [
        ArmRewards(str(arm), Moments.from_sums(int(counts[arm]), *totals[arm]), int(pending[arm]))
        for arm in range(pulls.shape[1])
    ]


def without_context(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """The peer splits evenly."""
    for arms in WORLDS:
        even = BATCHES * BATCH * float((arms.means.max() - arms.means).mean())
        best = BATCHES * BATCH * float(arms.means.max())
        algorithms: tuple[Algorithm, ...] = ("thompson", "epsilon-greedy")
        for algorithm in algorithms:
            settings = BanditSettings(algorithm, arms.kind)
            regret = float(np.mean([played(generator, arms, settings) for _ in range(runs)]))
            name = f"bandit, {arms.name}, {algorithm}"
            yield row(f"{name}: regret in {BATCHES * BATCH} pulls", regret, even, even / 2, less=True)
            earned, evenly = 100 * (1 - regret / best), 100 * (1 - even / best)
            yield row(f"{name}: earned, % of the best arm's", earned, evenly, np.nan, less=False)


def contextual(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """Five arms, ten features, linear rewards with noise."""
    ours, single, even = np.mean([personal(generator) for _ in range(runs)], axis=0)
    yield row("LinUCB: regret in 10000 pulls, the peer an even split", ours, even, even / 4, less=True)
    yield row("LinUCB: regret in 10000 pulls, the peer the best single arm", ours, single, single / 2, less=True)
    yield row("LinUCB: µs a choice, 5 arms and 30 features", choice_microseconds(generator), np.nan, 15, less=True)


def personal(generator: np.random.Generator) -> tuple[float, float, float]:
    """Regrets of LinUCB, of the best single arm, and of an even split, in one run with rewards five batches late."""
    weights = generator.normal(0, 0.3, (5, 11))
    contexts = generator.normal(size=(10_000, 10))
    values = weights[:, 0] + contexts @ weights[:, 1:].T
    rewards = values + generator.normal(0, 1, values.shape)
    chosen = np.zeros(10_000, dtype=np.int64)
    for begin in range(0, 10_000, BATCH):
        due = max(0, begin - 5 * BATCH)
        told = np.where(np.arange(begin) < due, rewards[np.arange(begin), chosen[:begin]], np.nan)
        policy = fit_linucb(contexts[:begin], chosen[:begin], told, arms="abcde", alpha=0.5)
        for request in range(begin, begin + BATCH):
            chosen[request], _ = policy.choose(contexts[request], generator.random())
    best = values.max(axis=1)
    alone, even = (best[:, None] - values).sum(axis=0).min(), (best - values.mean(axis=1)).sum()
    return float((best - values[np.arange(10_000), chosen]).sum()), float(alone), float(even)


def choice_microseconds(generator: np.random.Generator) -> float:
    """The median over repeats of a thousand choices."""
    contexts = generator.normal(size=(1000, 30))
    policy = fit_linucb(contexts, generator.integers(0, 5, 1000), generator.random(1000), arms="abcde")
    taken = []
    for _ in range(9):
        began = perf_counter()
        for x in contexts:
            policy.choose(x, 0.5)
        taken.append((perf_counter() - began) * 1000)
    return float(np.median(taken))


def rows(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    yield from without_context(generator, 40)
    yield from contextual(generator, 10)

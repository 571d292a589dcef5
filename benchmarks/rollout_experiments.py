"""A/B experiments: false promotions with continuous looking, power and time to decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import comb, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rollout_rows import row

from noria.rollout.estimates import Moments
from noria.rollout.experiments import ArmOutcome, ExperimentSettings, ExperimentState, judge_experiment
from noria.rollout.sequential import fixed_horizon_variance, mean_radius

Floats = NDArray[np.float64]
ALPHA = 0.05


@dataclass(frozen=True)
class Paths:
    """Running counts, means and variances of rewards, [run, arm, look]; counts are [arm, look]."""

    count: Floats
    mean: Floats
    variance: Floats

    def difference(self, arm: int, other: int, *, welch: bool = False) -> tuple[Floats, Floats]:
        """Difference of means and its variance as ``difference_of_means`` has them, or Welch's; [run, look]."""
        n1, n2, s1, s2 = self.count[arm], self.count[other], self.variance[:, arm], self.variance[:, other]
        pooled = ((n1 - 1) * s1 + (n2 - 1) * s2) / (n1 + n2 - 2) * (1 / n1 + 1 / n2)
        own = s1 / n1 + s2 / n2
        return self.mean[:, arm] - self.mean[:, other], own if welch else np.maximum(own, pooled)


def paths(total: Floats, squares: Floats, batches: Floats) -> Paths:
    """From sums per batch; ``batches`` are the units per arm and batch."""
    count = np.arange(1, total.shape[-1] + 1) * batches[:, None]
    mean = total.cumsum(-1) / count
    return Paths(count, mean, (squares.cumsum(-1) - count * mean**2) / (count - 1))


def binary(generator: np.random.Generator, runs: int, rates: Floats, batches: Floats, looks: int) -> Paths:
    """Conversions: 0 or 1 a unit."""
    shape = (runs, len(rates), looks)
    won = generator.binomial(batches[:, None].astype(int), rates[:, None], shape).astype(np.float64)
    return paths(won, won, batches)


def revenue(generator: np.random.Generator, runs: int, rates: Floats, batches: Floats, looks: int) -> Paths:
    """Nothing from most units, a lognormal amount (sigma 1) from the others: skewed, as money is."""
    shape = (runs, len(rates), looks)
    buyers = generator.binomial(batches[:, None].astype(int), rates[:, None], shape).ravel()
    amounts = generator.lognormal(0, 1, buyers.sum())
    ends = np.concatenate([[0], buyers.cumsum()])

    def sums(values: Floats) -> Floats:
        running = np.concatenate([[0.0], values.cumsum()])
        return (running[ends[1:]] - running[ends[:-1]]).reshape(shape)

    return paths(sums(amounts), sums(amounts**2), batches)


def winners(found: Paths, settings: ExperimentSettings, *, naive: bool = False) -> NDArray[np.bool_]:
    """[run, arm, look]: the arm's lower bounds to all others are above 0, as ``judge_experiment`` asks.

    ``naive``: by Welch's t-test of every pair at every look, Bonferroni over pairs alone.
    """
    arms = found.mean.shape[1]
    alpha = settings.alpha / comb(arms, 2)
    ahead = np.ones(found.mean.shape, dtype=bool)
    for arm in range(arms):
        for other in range(arms):
            if arm != other:
                value, variance = found.difference(arm, other, welch=naive)
                ahead[:, arm] &= value > radius(variance, alpha, settings.effect, naive)
    return ahead & (found.count >= settings.min_units).all(0)


def radius(variance: Floats, alpha: float, tau: float, naive: bool) -> Floats:
    from statistics import NormalDist

    return (
        NormalDist().inv_cdf(1 - alpha / 2) * np.sqrt(variance)
        if naive
        else mean_radius(variance, alpha=alpha, tau=tau)
    )


def check_against_product(found: Paths, settings: ExperimentSettings, runs: int) -> None:
    """The rule simulated here is the product's: same winner at every look."""
    won = winners(found, settings)
    for run in range(runs):
        for look in range(0, found.mean.shape[-1], 7):
            arms = [
                ArmOutcome(str(arm), 1, 1000, Moments(int(found.count[arm, look]), *moments))
                for arm, moments in enumerate(zip(found.mean[run, :, look], found.variance[run, :, look], strict=True))
            ]
            verdict = judge_experiment(settings, [arms])
            expected = [str(arm) for arm in np.flatnonzero(won[run, :, look])]
            assert ([verdict.winner] if verdict.state is ExperimentState.WINNER else []) == expected


Draw = Callable[[np.random.Generator, int, Floats, Floats, int], Paths]


def false_promotions(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """Equal arms, a look after every batch, thousands of runs."""
    even = np.array([20.0, 20.0])
    worlds: list[tuple[str, Draw, float, Floats, float]] = [
        ("conversions of 5%, 2 arms", binary, 0.05, even, 0.005),
        ("conversions of 1%, 2 arms at 90:10", binary, 0.01, np.array([180.0, 20.0]), 0.002),
        ("conversions of 5%, 4 arms", binary, 0.05, np.full(4, 20.0), 0.005),
        ("skewed revenue, 2 arms", revenue, 0.05, even, 0.02),
        ("skewed revenue, large effect sought", revenue, 0.05, even, 0.2),
    ]
    for name, draw, rate, batches, effect in worlds:
        settings = ExperimentSettings(effect=effect, alpha=ALPHA)
        found = [draw(generator, runs // 4, np.full(len(batches), rate), batches, 1000) for _ in range(4)]
        check_against_product(found[0], settings, 5)
        ours, peer = (
            100 * np.mean([winners(one, settings, naive=naive).any((1, 2)).mean() for one in found])
            for naive in (False, True)
        )
        yield row(f"A/A, {name}: false promotions %, 1000 looks", ours, peer, 5, less=True)


def power_and_time(generator: np.random.Generator, runs: int) -> Iterator[dict[str, Any]]:
    """Conversions of 10%, an effect of one point sought; the peer is the test with one look planned for it (80%)."""
    effect, base, batch = 0.01, 0.1, 100.0
    settings = ExperimentSettings(effect=effect, alpha=ALPHA)
    fixed = (base * (1 - base) + (base + effect) * (1 - base - effect)) / fixed_horizon_variance(
        effect, alpha=ALPHA, power=0.8
    )
    looks = int(2 * fixed / batch)  # twice the fixed size at most
    wanted = {0.0: (nan, 1.0), 0.5: (nan, nan), 1.0: (80.0, 1.0), 1.5: (95.0, 0.75), 2.0: (95.0, 0.5)}
    for lift, (power, most) in wanted.items():
        found = binary(generator, runs, np.array([base, base + lift * effect]), np.full(2, batch), looks)
        promoted, units = outcomes(found, settings)
        at_once = 100 * fixed_power(found, int(fixed / batch), settings)
        if lift:
            yield row(f"A/B: power % at {lift:g}x the lift sought", promoted, at_once, power, less=False)
        yield row(f"A/B: units an arm until the end at {lift:g}x the lift", units, fixed, most * fixed, less=True)


def outcomes(found: Paths, settings: ExperimentSettings) -> tuple[float, float]:
    """(percent of runs in which the second arm is promoted, mean units an arm until a winner, futility or the end)."""
    won = winners(found, settings)[:, 1]
    value, variance = found.difference(1, 0)
    upper = value + mean_radius(variance, alpha=settings.futility_alpha, tau=settings.effect, sides=1)
    futile = (upper < settings.effect) & (found.count >= settings.min_units).all(0)
    promoted = won.any(1) & (first(won) <= first(futile))
    return 100 * float(promoted.mean()), float(found.count[0, 0] * first(won | futile).mean())


def first(happened: NDArray[np.bool_]) -> Floats:
    """The look (from 1) at which it first happened; the last look where it never did."""
    return np.where(happened.any(1), happened.argmax(1) + 1, happened.shape[1]).astype(np.float64)


def fixed_power(found: Paths, look: int, settings: ExperimentSettings) -> float:
    one = replace(found, count=found.count[:, look : look + 1], mean=found.mean[..., look : look + 1])
    one = replace(one, variance=found.variance[..., look : look + 1])
    return float(winners(one, settings, naive=True)[:, 1].any(1).mean())


def rows(generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    yield from false_promotions(generator, 4000)
    yield from power_and_time(generator, 2000)

"""LinUCB: a bandit that chooses for each request by its features, fast enough to do so in the gateway.

Fitting is a function of the rows that are known; the parameters it gives are frozen, can be written as JSON, and choose
without any further state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from noria.errors import CorruptArtifact, InvalidInput

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LinUcb:
    """The parameters of LinUCB with disjoint linear models (Li, Chu, Langford & Schapire 2010, algorithm 1).

    With z = (1, (x - means) / scales), an arm's upper confidence bound is theta z + alpha sqrt(z A_inverse z), and the
    arm with the largest one is best. ``floor`` is the share of every arm that does not depend on x.
    """

    arms: Sequence[str]
    theta: Floats
    """[arm, 1 + feature]"""
    a_inverse: Floats
    """[arm, 1 + feature, 1 + feature]"""
    alpha: float
    floor: float
    means: Floats
    """[feature]"""
    scales: Floats
    """[feature]"""
    _rows: Floats = field(init=False, repr=False)
    _offsets: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fold standardisation, theta and the roots of A_inverse into one matrix: one product a choice."""
        roots = np.linalg.cholesky(self.a_inverse).transpose(0, 2, 1)  # |root z|² = z A_inverse z
        standard = np.concatenate([self.theta, self.alpha * roots.reshape(-1, roots.shape[-1])])
        rows = standard[:, 1:] / self.scales
        object.__setattr__(self, "_rows", np.ascontiguousarray(rows))
        object.__setattr__(self, "_offsets", standard[:, 0] - rows @ self.means)

    def choose(self, x: Floats, u: float) -> tuple[int, float]:
        """The arm for features ``x`` and the probability with which it was chosen.

        Args:
            x: Shape (features,), float64, in the order of the fit; NaN counts as the feature's mean.
            u: Uniform in [0, 1), a hash of the request: where it is below arms * floor it picks the arm. The same
                request so gets the same arm.
        """
        count, best = len(self.arms), self.best(x)
        explored = self.floor * count
        arm = best if u >= explored else min(int(u / self.floor), count - 1)
        return arm, self.floor + (1 - explored if arm == best else 0.0)

    def best(self, x: Floats) -> int:
        """The arm with the largest upper confidence bound."""
        count = len(self.arms)
        folded = self._rows @ x + self._offsets
        if folded[0] != folded[0]:  # NaN: some feature is unknown
            folded = self._rows @ np.where(np.isnan(x), self.means, x) + self._offsets
        widths = folded[count:].reshape(count, -1)
        return int((folded[:count] + np.sqrt((widths * widths).sum(axis=1))).argmax())

    def as_document(self) -> dict[str, object]:
        """The JSON that ``read_linucb`` reads."""
        return {
            "arms": list(self.arms),
            "theta": self.theta.tolist(),
            "a_inverse": self.a_inverse.tolist(),
            "alpha": self.alpha,
            "floor": self.floor,
            "means": self.means.tolist(),
            "scales": self.scales.tolist(),
        }


def read_linucb(document: Mapping[str, object]) -> LinUcb:
    """The parameters that ``as_document`` wrote. Raises CorruptArtifact when the document is none."""
    try:
        arrays = {name: np.array(document[name], np.float64) for name in ("theta", "a_inverse", "means", "scales")}
        arms = tuple(cast("list[str]", document["arms"]))
        return LinUcb(arms, alpha=float(str(document["alpha"])), floor=float(str(document["floor"])), **arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptArtifact(
            f"the parameters of LinUCB cannot be read: {error}", remedy="Fit the bandit again from its rewards."
        ) from error


def fit_linucb(
    contexts: Floats,
    chosen: NDArray[np.int64],
    rewards: Floats,
    *,
    arms: Sequence[str],
    alpha: float = 1.0,
    floor: float = 0.01,
) -> LinUcb:
    """Fit each arm's ridge regression: A = I + sum z z', b = sum r z, theta = A^-1 b over the arm's rows.

    Rows without a reward yet narrow the width but do not move theta, so a context that is being tried is not tried
    again only because its reward is late (hallucinated feedback: Desautels, Krause & Burdick 2014).

    Args:
        contexts: Shape (rows, features); NaN counts as the feature's mean. Features are standardised here.
        chosen: Shape (rows,), the index of the arm that answered.
        rewards: Shape (rows,); NaN while pending.
        arms: Names, in the order of the indices.
        alpha: Width of the confidence bound; 1 + sqrt(log(2 / delta) / 2) in the paper, smaller ones explore less.
        floor: Share each arm keeps whatever the context.

    Raises:
        InvalidInput: When shapes do not match, an index is no arm, or the floors of all arms together exceed 1.
    """
    _check(contexts, chosen, rewards, len(arms), floor)
    means, scales = _standards(contexts)
    standard = np.nan_to_num((contexts - means) / scales)
    z = np.concatenate([np.ones((len(contexts), 1)), standard], axis=1)
    fits = [_fit_arm(z[chosen == arm], rewards[chosen == arm]) for arm in range(len(arms))]
    theta, a_inverse = (np.array(parts) for parts in zip(*fits, strict=True))
    return LinUcb(tuple(arms), theta, a_inverse, alpha, floor, means, scales)


def _fit_arm(z: Floats, rewards: Floats) -> tuple[Floats, Floats]:
    """theta from the rows with a reward, A_inverse from all."""
    known, identity = ~np.isnan(rewards), np.eye(z.shape[1])
    theta = np.linalg.solve(identity + z[known].T @ z[known], z[known].T @ rewards[known])
    inverse = np.linalg.inv(identity + z.T @ z)
    return np.asarray(theta, np.float64), (inverse + inverse.T) / 2


def _standards(contexts: Floats) -> tuple[Floats, Floats]:
    """Means and standard deviations of the known values; 0 and 1 for a feature that is never known or never varies."""
    known = ~np.isnan(contexts)
    counts = np.maximum(known.sum(axis=0), 1)
    means = np.where(known, contexts, 0.0).sum(axis=0) / counts
    deviations = np.sqrt((np.where(known, contexts - means, 0.0) ** 2).sum(axis=0) / counts)
    return means, np.where(deviations > 1e-12 * (1 + abs(means)), deviations, 1.0)


def _check(contexts: Floats, chosen: NDArray[np.int64], rewards: Floats, arms: int, floor: float) -> None:
    rows = len(contexts)
    known = rows == 0 or (chosen.min() >= 0 and chosen.max() < arms)
    if contexts.ndim != 2 or chosen.shape != (rows,) or rewards.shape != (rows,) or not known:
        raise InvalidInput(
            f"contexts {contexts.shape}, arms {chosen.shape} and rewards {rewards.shape} do not fit {arms} arms",
            remedy="Give one row of features, one arm index and one reward (NaN while pending) per answer.",
        )
    if arms < 1 or floor < 0 or floor * arms > 1:
        raise InvalidInput(
            f"{arms} arms cannot keep {floor:g} of the traffic each",
            remedy="Give at least one arm, and a floor of at most 1 / number of arms.",
        )

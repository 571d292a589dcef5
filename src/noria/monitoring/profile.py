"""The reference profile: what inputs, scores and losses looked like when the model was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.errors import CorruptArtifact
from noria.structs import read_by_threads

PROFILE_FILE = "profile.json"
_BINS = 128
_LEAST_WINDOWS = 5

Floats = NDArray[np.float64]


class Baseline(msgspec.Struct, frozen=True):
    """A window measure on the reference: mean, standard deviation between windows, how many windows."""

    mean: float
    deviation: float
    windows: int

    def standardize(self, value: float) -> float:
        """``value`` in deviations from the mean, clipped to ±4 so that one wild day cannot decide alone."""
        return float(np.clip((value - self.mean) / self.deviation, -4.0, 4.0))


class ColumnProfile(msgspec.Struct, frozen=True):
    """Reference quantiles of one column, and how the daily mean of its ranks varies."""

    quantiles: list[float]
    baseline: Baseline

    def mean_rank(self, values: Floats) -> float:
        """The mean position of ``values`` among the reference quantiles, 0 to 1; nulls count as the middle."""
        return mean_rank(np.asarray(self.quantiles), values)


@read_by_threads
class Profile(msgspec.Struct, frozen=True):
    """What the detectors compare traffic with. ``columns`` are the model's inputs in order."""

    columns: dict[str, ColumnProfile]
    score: ColumnProfile
    loss: Baseline


@dataclass(frozen=True, slots=True)
class Reference:
    """The rows a profile is made of. ``days`` and ``held_out_days`` number each row's UTC day.

    Inputs come from the whole training window; scores and losses only from rows the model has not seen.
    """

    inputs: Mapping[str, Floats]
    days: NDArray[np.int64]
    scores: Floats
    losses: Floats
    held_out_days: NDArray[np.int64]


def build_profile(reference: Reference) -> Profile:
    """Profile the reference rows."""
    columns = {name: _column(values, reference.days) for name, values in reference.inputs.items()}
    return Profile(
        columns=columns,
        score=_column(reference.scores, reference.held_out_days),
        loss=baseline(daily_means(reference.losses, reference.held_out_days)),
    )


def daily_means(values: Floats, days: NDArray[np.int64]) -> Floats:
    """The mean of ``values`` for every day, in order of days."""
    _, index = np.unique(days, return_inverse=True)
    return np.bincount(index, weights=values) / np.bincount(index)


def baseline(measures: Floats) -> Baseline:
    """Mean and spread of a measure over windows, the spread widened for what a short, correlated series hides.

    The lag-1 autocorrelation r widens it by sqrt((1 + r) / (1 - r)) (variance of the mean of an AR(1) series), the
    estimation from n windows by sqrt(1 + 1/n) and the t-like factor sqrt((n - 1) / (n - 3)).
    """
    n = len(measures)
    if n < _LEAST_WINDOWS:
        spread = float(np.std(measures)) if n else 0.0
        return Baseline(float(np.mean(measures)) if n else 0.0, max(2 * spread, 1e-3), n)
    centred = measures - measures.mean()
    variance = float(np.mean(centred**2))
    lag_one = float(np.mean(centred[1:] * centred[:-1])) / variance if variance > 0 else 0.0
    correlation = float(np.clip(lag_one, 0.0, 0.9))
    widening = (1 + correlation) / (1 - correlation) * (1 + 1 / n) * (n - 1) / max(n - 3, 1)
    return Baseline(float(measures.mean()), max(float(np.sqrt(variance * n / (n - 1) * widening)), 1e-3), n)


def mean_rank(quantiles: Floats, values: Floats) -> float:
    """Mean mid-rank of ``values`` among ``quantiles``, 0 to 1; NaN counts as 0.5. Ties share their ranks."""
    return float(np.mean(ranks(quantiles, values)))


def ranks(quantiles: Floats, values: Floats) -> Floats:
    """Mid-ranks of ``values`` among ``quantiles``, 0 to 1; NaN counts as 0.5."""
    if not len(quantiles):
        return np.full(len(values), 0.5)
    below = np.searchsorted(quantiles, values, side="left")
    upto = np.searchsorted(quantiles, values, side="right")
    result: Floats = (below + upto) / (2 * len(quantiles))
    return np.where(np.isnan(values), 0.5, result)


def write_profile(folder: Path, profile: Profile) -> None:
    """Put ``profile.json`` into a model's folder."""
    (folder / PROFILE_FILE).write_bytes(msgspec.json.encode(profile))


def read_profile(folder: Path) -> Profile:
    """The profile of a model's folder. Raises CorruptArtifact."""
    try:
        return msgspec.json.decode((folder / PROFILE_FILE).read_bytes(), type=Profile)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptArtifact(
            f"model folder {folder.name!r} has no readable {PROFILE_FILE}: {error}",
            remedy="Register the model again with `noria run`.",
        ) from error


def _column(values: Floats, days: NDArray[np.int64]) -> ColumnProfile:
    known = values[~np.isnan(values)]
    quantiles = np.quantile(known, np.linspace(0, 1, _BINS)) if len(known) else np.empty(0)
    return ColumnProfile(quantiles.tolist(), baseline(daily_means(ranks(quantiles, values), days)))


def losses(task: str, scores: Floats, labels: Floats) -> Floats:
    """Squared error of the probability (Brier) for classification, absolute error for regression; shape (rows,)."""
    difference = scores - labels
    return difference**2 if task == "classification" else np.abs(difference)


def names_of(columns: Sequence[str], matrix: Floats) -> dict[str, Floats]:
    """Column name → values of a matrix of shape (rows, columns)."""
    return {name: matrix[:, index] for index, name in enumerate(columns)}

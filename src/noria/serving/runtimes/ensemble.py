"""Several models that are asked the same rows, and give one answer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.optimize.bundle import Bundle, read_bundle
from noria.serving.runtimes import load
from noria.serving.runtimes.base import Floats, Labelled, Rows, Tensors

MEAN, MEDIAN, VOTE = "mean", "median", "vote"
HOW = (MEAN, MEDIAN, VOTE)


class EnsembleRuntime:
    """The weighted mean or the median of its members' scores, or the share of the members that say each class."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self._members = [_Member(folder / name, bundle) for name in bundle.options["members"]]
        weights: Floats = np.array(bundle.options["weights"], dtype=np.float64)
        self._weights = weights / weights.sum()
        self._how = bundle.options["combine"]
        self.inline = all(member.runtime.inline for member in self._members)
        self.concurrency = min(member.runtime.concurrency for member in self._members)

    def score(self, rows: Rows) -> Floats:
        """See Runtime."""
        found = [member.votes(rows) if self._how == VOTE else member.scores(rows) for member in self._members]
        stacked = np.stack(found)
        if self._how == MEDIAN:
            median: Floats = np.median(stacked, axis=0)
            return median
        mean: Floats = np.tensordot(self._weights, stacked, axes=1)
        return mean

    def infer(self, tensors: Tensors, params: Mapping[str, Any] | None = None) -> Tensors:
        """See Runtime: ensembles take columns."""
        raise NotImplementedError

    def unload(self) -> None:
        """See Runtime."""
        for member in self._members:
            member.runtime.unload()


class _Member:
    """One of the models, and which of the ensemble's inputs it takes."""

    def __init__(self, folder: Path, whole: Bundle) -> None:
        self.bundle = read_bundle(folder)
        self.runtime = load(folder, self.bundle)
        self._numbers = _places(_names(whole, texts=False), _names(self.bundle, texts=False))
        self._strings = _places(_names(whole, texts=True), _names(self.bundle, texts=True))

    def scores(self, rows: Rows) -> Floats:
        found = self._asked(rows)
        if not isinstance(found, Labelled):
            return np.asarray(found, dtype=np.float64)
        every = found.probabilities
        return every[:, 1] if every.shape[1] == 2 else every

    def votes(self, rows: Rows) -> Floats:
        found = self._asked(rows)
        if isinstance(found, Labelled):
            places = found.places
            if len(self.bundle.classes) == 2:
                return places.astype(np.float64)
        else:
            found = np.asarray(found, dtype=np.float64)
            if found.ndim == 1:
                return (found > self.bundle.decision_threshold).astype(np.float64)
            places = found.argmax(axis=1)
        votes = np.zeros((len(rows), len(self.bundle.classes)))
        votes[np.arange(len(rows)), places] = 1.0
        return votes

    def _asked(self, rows: Rows) -> Floats | Labelled | Sequence[Any]:
        strings = None if rows.strings is None or not len(self._strings) else rows.strings[:, self._strings]
        return self.runtime.score(Rows(rows.numbers[:, self._numbers], strings))


def _names(bundle: Bundle, *, texts: bool) -> Sequence[str]:
    places = set(bundle.string_places)
    return [name for place, name in enumerate(bundle.inputs) if (place in places) == texts]


def _places(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.intp]:
    return np.array([names.index(name) for name in wanted], dtype=np.intp)

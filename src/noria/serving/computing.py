"""On-demand features of one version, computed for all rows of a tick by one call of each of its functions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noria.errors import CorruptArtifact, NoriaError
from noria.features.function_code import load
from noria.features.transformation import Transformation
from noria.optimize.bundle import Bundle
from noria.serving.bare import bare

_INLINE_SECONDS = 0.0015
"""Rows that are expected to take less are computed in the event loop: a thread would cost more than it saves."""
_SMOOTHING = 0.1


class Computing:
    """What turns the values of a request and what was looked up for it into the rest of the model's inputs."""

    def __init__(self, bundle: Bundle, transformations: Sequence[Transformation]) -> None:
        self._bundle = bundle
        self._transformations = transformations
        self._looked_up = tuple(name for view in bundle.looked_up for name in view.feature_names)
        self._taken = sum(len(view.fields) for view in bundle.views)
        self._call_seconds: float | None = None

    @classmethod
    def of(cls, folder: Path, bundle: Bundle) -> Computing:
        """The code that lies beside the model, ready to run. Raises InvalidData, CorruptArtifact."""
        transformations = []
        for spec in bundle.computed:
            try:
                transformation = load((folder / spec.file).read_bytes())
            except OSError as error:
                raise CorruptArtifact(
                    f"the code of on-demand features {spec.name!r} is missing: {error}",
                    remedy="Register the model again with `noria run`.",
                ) from error
            transformation.warm_up()
            transformations.append(transformation)
        return cls(bundle, transformations)

    @property
    def is_slow(self) -> bool:
        """Whether a call is expected to hold the event loop up: until the first one nobody knows."""
        return self._call_seconds is None or self._call_seconds > _INLINE_SECONDS

    def completed(
        self, sent: Sequence[Mapping[str, Any]], found: Sequence[Sequence[Any] | NoriaError]
    ) -> list[tuple[Sequence[Any], Sequence[Any]] | NoriaError]:
        """For each row what the model takes besides the columns sent, and what it was made of that it does not take.

        ``found`` are the values looked up, or why there are none: that stands in the row's place then, as does what
        fails in a function.
        """
        good = [row for row, values in enumerate(found) if not isinstance(values, NoriaError)]
        done: list[Any] = list(found)
        for row, result in zip(
            good, self._rows([sent[row] for row in good], [found[row] for row in good]), strict=True
        ):
            done[row] = result
        return done

    def _rows(self, sent: Sequence[Mapping[str, Any]], found: Sequence[Any]) -> list[Any]:
        if not sent:
            return []
        try:
            computed = self._timed(sent, found)
        except NoriaError as error:
            if len(sent) == 1:
                return [bare(error)]
            return [one for row in range(len(sent)) for one in self._rows(sent[row : row + 1], found[row : row + 1])]
        rows = zip(*computed, strict=True) if computed else ((),) * len(sent)
        beside = self._bundle.sent_beside
        return [
            ([*values[: self._taken], *outputs], [*(row[name] for name in beside), *values[self._taken :]])
            for row, values, outputs in zip(sent, found, rows, strict=True)
        ]

    def _timed(self, sent: Sequence[Mapping[str, Any]], found: Sequence[Any]) -> list[Sequence[Any]]:
        started = time.perf_counter()
        computed = self._compute(sent, found)
        seconds, known = time.perf_counter() - started, self._call_seconds
        # the first call also imports what the functions need
        self._call_seconds = (
            0.0 if known is None else known + (seconds - known) * (_SMOOTHING if seconds < known else 0.5)
        )
        return computed

    def _compute(self, sent: Sequence[Mapping[str, Any]], found: Sequence[Any]) -> list[Sequence[Any]]:
        columns: dict[str, Sequence[Any]] = {name: [row[name] for row in sent] for name in self._bundle.sent}
        columns |= dict(zip(self._looked_up, zip(*found, strict=True), strict=True)) if self._looked_up else {}
        outputs: list[Sequence[Any]] = []
        for spec, transformation in zip(self._bundle.computed, self._transformations, strict=True):
            given = transformation.transform_rows(columns)
            outputs += [given[name] for name in spec.fields]
        return outputs

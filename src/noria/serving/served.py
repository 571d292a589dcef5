"""A version that is loaded: its bundle, its runtime, and what a row of it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from noria.errors import CorruptArtifact, NotFound
from noria.optimize.bundle import Bundle, read_bundle
from noria.rollout.routes import Variant
from noria.serving.computing import Computing
from noria.serving.runtimes import Floats, Rows, Runtime, Tensors, load
from noria.store.blobs import BlobStore, folder_digest

_SMOOTHING = 0.1


class Served:
    """One loaded version. ``row_seconds`` is what a row has cost lately, a call's own cost included.

    ``is_complete`` says that it takes nothing besides the columns sent; ``computing`` gives its on-demand features.
    """

    def __init__(self, variant: Variant, bundle: Bundle, runtime: Runtime, computing: Computing | None = None) -> None:
        self.model, self.version, self.digest = variant.model, variant.version, variant.digest
        self.bundle, self.runtime, self.computing = bundle, runtime, computing
        self.is_complete = not bundle.looked_up and computing is None
        self.label = f"{variant.model}@{variant.version}"
        self.texts = bundle.string_places
        self.row_seconds = 0.0

    def score(self, rows: Rows) -> Floats | Sequence[Any] | Tensors:
        """The runtime's scores or outputs of ``rows``; what they cost is remembered."""
        started = time.perf_counter()
        found = self.runtime.score(rows) if rows.tensors is None else self.runtime.infer(rows.tensors)
        self._remember((time.perf_counter() - started) / len(rows))
        return found

    def warm_up(self) -> None:
        """Score a row of zeros: a graph that does not fit its bundle fails here, before it is given a request."""
        if self.bundle.tensors:
            return
        texts = len(self.texts)
        zeros = np.zeros((1, len(self.bundle.inputs) - texts))
        strings = np.full((1, texts), "", dtype=object) if texts else None
        for _ in range(2):
            self.score(Rows(zeros, strings))

    def _remember(self, seconds: float) -> None:
        """The dearer is believed at once, the cheaper bit by bit: a call that was held up is no reason to hope."""
        self.row_seconds += (seconds - self.row_seconds) * (_SMOOTHING if seconds < self.row_seconds else 0.5)


def load_served(artifacts: BlobStore, variant: Variant) -> Served:
    """Load the version a variant names. Raises CorruptArtifact when its files are not those registered."""
    try:
        folder = artifacts.fetch(variant.source)
        found = folder_digest(folder)
    except NotFound:
        found = "nothing"
    if found != variant.digest:
        raise CorruptArtifact(
            f"the files of {variant.model}@{variant.version} are not those registered: "
            f"hash {found[:12]}, recorded {variant.digest[:12]}",
            remedy="Restore the model's folder from a backup, or roll back to another version.",
        )
    bundle = read_bundle(folder)
    try:
        computing = Computing.of(folder, bundle) if bundle.computed else None
        served = Served(variant, bundle, load(folder, bundle), computing)
        served.warm_up()
    except (ImportError, CorruptArtifact):
        raise
    except Exception as error:
        raise CorruptArtifact(
            f"{variant.model}@{variant.version} cannot be loaded: {error}",
            remedy="Register the model again, or roll back to another version.",
        ) from error
    return served

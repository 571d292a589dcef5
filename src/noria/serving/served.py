"""A version that is loaded: its bundle, its runtime, and what a row of it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from noria.errors import CorruptArtifact, NotFound
from noria.optimize.bundle import Bundle, read_bundle
from noria.rollout.routes import Variant
from noria.serving.computing import Computing
from noria.serving.runtimes import Floats, Labelled, Rows, Runtime, Tensors, load
from noria.store.blobs import BlobStore, folder_digest

_SMOOTHING = 0.1
_TAKE_NUMBERS = ("onnx", "lightgbm", "xgboost")


class Served:
    """One loaded version. ``row_seconds`` is what a row has cost lately, a call's own cost included.

    Of a model that computes in the caller's thread that is processor time: that a busy machine held the thread up says
    nothing about the model.

    ``is_complete`` says that it takes nothing besides the columns sent; ``computing`` gives its on-demand features.
    """

    def __init__(self, variant: Variant, bundle: Bundle, runtime: Runtime, computing: Computing | None = None) -> None:
        self.model, self.version, self.digest = variant.model, variant.version, variant.digest
        self.bundle, self.runtime, self.computing = bundle, runtime, computing
        self.is_complete = not bundle.looked_up and computing is None
        self.label = f"{variant.model}@{variant.version}"
        self.texts = bundle.string_places
        self.row_seconds = self._call_seconds = self._call_rows = 0.0
        self._takes_params = bool(bundle.tensors) and len(signature(runtime.infer).parameters) > 1
        self._clock = time.thread_time if runtime.inline else time.perf_counter

    def score(self, rows: Rows) -> Floats | Labelled | Sequence[Any] | Tensors:
        """The runtime's scores or outputs of ``rows``; what they cost is remembered."""
        count = len(rows)
        if not count and rows.tensors is None:  # many a graph takes none
            return self._nothing()
        started = self._clock()
        found = self.runtime.score(rows) if rows.tensors is None else self._infer(rows.tensors, rows.params)
        if count:
            self._remember(self._clock() - started, count)
        return found

    def _infer(self, tensors: Tensors, params: Mapping[str, Any] | None) -> Tensors:
        """The outputs; of a third party's runtime that takes tensors alone, without the params, as rows of a graph."""
        if params and self._takes_params:
            return self.runtime.infer(tensors, params)
        return self.runtime.infer(tensors)

    def warm_up(self) -> None:
        """Score the bundle's example, or zeros: a graph that does not fit its bundle fails here, before it serves.

        Without an example only what takes any numbers is tried: who knows what code or texts would make of zeros?
        """
        bundle = self.bundle
        takes_zeros = bundle.runtime in _TAKE_NUMBERS and not self.texts
        if bundle.tensors or not (bundle.example or takes_zeros):
            return
        row = bundle.example or (0.0,) * len(bundle.inputs)
        numbers = [value for place, value in enumerate(row) if place not in self.texts]
        strings = np.array([[row[place] for place in self.texts]], dtype=object) if self.texts else None
        for _ in range(2):
            self.score(Rows(np.array([numbers], dtype=np.float64), strings))

    def no_number(self, rows: Rows, row: int) -> str:
        """Why the model gives no number for one of ``rows``, in words."""
        missing = [
            name for name, value in zip(self.bundle.number_names, rows.numbers[row], strict=True) if np.isnan(value)
        ]
        cause = f"without {', '.join(missing)}" if missing else "for these values"
        return f"{self.label} gives no number {cause}"

    def _nothing(self) -> Floats | Sequence[Any]:
        """What the runtime would say of no rows."""
        if self.bundle.task == "generic":
            return []
        classes = len(self.bundle.classes) if self.bundle.task == "classification" else 0
        return np.empty((0, classes) if classes > 2 else 0)

    def _remember(self, seconds: float, rows: int) -> None:
        """A call counts by its rows, or what a call of one row costs would be expected of each of many.

        What is dearer is believed at once, unless it is so for having few rows, what is cheaper bit by bit.
        """
        dearer = rows >= self._call_rows and seconds > self.row_seconds * rows
        weight = 0.5 if dearer else _SMOOTHING
        self._call_seconds += (seconds - self._call_seconds) * weight
        self._call_rows += (rows - self._call_rows) * weight
        self.row_seconds = self._call_seconds / self._call_rows


def fetch_model(artifacts: BlobStore, variant: Variant) -> Path:
    """The folder of the version a variant names. Raises CorruptArtifact when its files are not those registered."""
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
    return folder


def load_served(artifacts: BlobStore, variant: Variant) -> Served:
    """Load the version a variant names. Raises CorruptArtifact when its files are not those registered."""
    folder = fetch_model(artifacts, variant)
    bundle = read_bundle(folder)
    try:
        computing = Computing.of(folder, bundle) if bundle.computed else None
        return _warm(Served(variant, bundle, load(folder, bundle), computing))
    except (ImportError, CorruptArtifact):
        raise
    except (Exception, SystemExit) as error:  # a runtime's own code may end the program: not this one
        reason = repr(error) if isinstance(error, SystemExit) else error
        raise CorruptArtifact(
            f"{variant.model}@{variant.version} cannot be loaded: {reason}",
            remedy="Register the model again, or roll back to another version.",
        ) from error


def _warm(served: Served) -> Served:
    try:
        served.warm_up()
    except BaseException:
        served.runtime.unload()
        raise
    return served

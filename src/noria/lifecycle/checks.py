"""Testing a blue-green challenger before the switch: logged requests, scored again by both versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.errors import NoriaError
from noria.monitoring.log import PREDICTIONS, BatchColumns, PredictionBatch, read_batches
from noria.monitoring.segments import segments
from noria.optimize.bundle import DTYPES, Bundle, TensorSpec
from noria.rollout import Plan, RouteTable
from noria.rollout.estimates import score_shift
from noria.rollout.evidence import GuardSettings
from noria.serving.items import outcome_of
from noria.serving.runtimes import Rows, Tensors
from noria.serving.served import Served, load_served
from noria.store.workspace import Workspace

Floats = NDArray[np.float64]

_TIMED = 20
"""Requests that are scored one by one, as most come, to see how long that takes."""
_MARGIN = 2.0
"""Times the allowed latency factor that a switch is stopped at: a test on another machine is no measurement."""


@dataclass(frozen=True, slots=True)
class _Logged:
    """Requests that the champion answered, and how many seconds each answer took."""

    rows: Rows
    seconds: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a version made of requests: scores, NaN where it gave none; predictions; why it failed, if it did."""

    scores: Floats
    predictions: Sequence[Any]
    answered: NDArray[np.bool_]
    failure: str


def check_with_log(workspace: Workspace, routes: RouteTable, plan: Plan) -> Mapping[str, object]:
    """What both versions make of the newest logged requests; ``faults`` says in words what speaks against a switch."""
    champion, challenger = routes.answering[0], routes.answering[-1]
    try:
        old, new = (load_served(workspace.artifacts, variant) for variant in (champion, challenger))
    except NoriaError as error:
        return {"requests": 0, "faults": [error.message]}
    try:
        if new.bundle.tensors:
            return _tried_with_zeros(old, new)
        if (old.bundle.inputs, old.bundle.string_places) != (new.bundle.inputs, new.bundle.string_places):
            note = "the versions take different inputs: only that the new one loads was tested"
            return {"requests": 1, "faults": [], "note": note}
        logged = _newest(workspace.prediction_log, routes.deployment, champion.version, plan.checks)
        return {"requests": 0, "faults": []} if logged is None else _compared(old, new, logged, plan.guards)
    finally:
        for served in (old, new):
            served.runtime.unload()


# requests from the log


def newest_rows(log: Path, deployment: str, version: int, count: int) -> Rows | None:
    """The inputs of the newest logged answers of a version, at most ``count``, oldest first; None without any."""
    found = _newest(log, deployment, version, count)
    return None if found is None else found.rows


def _newest(log: Path, deployment: str, version: int, count: int) -> _Logged | None:
    taken: list[BatchColumns] = []
    for batch in _newest_batches(log, deployment, version):
        taken.insert(0, BatchColumns.of(batch))
        if sum(len(columns.numbers) for columns in taken) >= count:
            break
    if not taken:
        return None
    numbers = np.concatenate([columns.numbers for columns in taken])[-count:]
    strings = [texts for columns in taken for texts in columns.batch.strings][-count:]
    seconds = np.concatenate([columns.latencies for columns in taken])[-count:]
    return _Logged(Rows(numbers, np.array(strings, dtype=object) if strings else None), seconds)


def _newest_batches(log: Path, deployment: str, version: int) -> Sequence[PredictionBatch]:
    """The batches of the newest day that has some of this version, newest first."""
    days = sorted({segment.parent.name for segment in segments(log / PREDICTIONS)}, reverse=True)
    for day in days:
        found = [
            batch
            for batch in read_batches(log, date.fromisoformat(day))
            if batch.deployment == deployment and batch.version == version
        ]
        if found:
            return found[::-1]
    return []


# what the versions make of them


def _compared(old: Served, new: Served, logged: _Logged, guards: GuardSettings) -> Mapping[str, object]:
    """Both versions on the same requests; one that the champion does not answer any more says nothing of the other."""
    before, after = _answers(old, logged.rows), _answers(new, logged.rows)
    count, both = len(logged.rows), before.answered & after.answered
    agreement = [np.array_equal(one, other) for one, other in zip(before.predictions, after.predictions, strict=True)]
    shift = score_shift(before.scores[both], after.scores[both])
    found: dict[str, object] = {
        "requests": count,
        "failed": {"champion": int(count - before.answered.sum()), "green": int(count - after.answered.sum())},
        "agreement": float(np.mean(np.array(agreement, bool)[both])) if both.any() else None,
        "largest_difference": float(np.abs(after.scores[both] - before.scores[both]).max(initial=0.0)),
        "score_shift": None if shift is None else shift.value,
    }
    faults = [_failing(new, before, after)]
    if both.any():
        usual = float(np.median(logged.seconds))
        seconds = _seconds(old, logged.rows), _seconds(new, logged.rows)
        factor = (usual + seconds[1] - seconds[0]) / usual if usual > 0 else 1.0
        found |= {"microseconds_a_request": {"champion": seconds[0] * 1e6, "green": seconds[1] * 1e6}}
        found |= {"latency_factor": factor}
        faults += [_slow(new, factor, guards), _shifted(new, found["score_shift"], guards)]
    return found | {"faults": [fault for fault in faults if fault]}


def _failing(new: Served, before: _Answers, after: _Answers) -> str:
    lost = int((before.answered & ~after.answered).sum())
    reason = f": {after.failure}" if after.failure else ""
    return f"{new.label} does not answer {lost} of {int(before.answered.sum())} logged requests{reason}" if lost else ""


def _slow(new: Served, factor: float, guards: GuardSettings) -> str:
    limit = _MARGIN * (guards.max_latency_factor or np.inf)
    return f"{new.label} would take {factor:.1f} times as long, more than {limit:g}" if factor > limit else ""


def _shifted(new: Served, shift: object, guards: GuardSettings) -> str:
    limit = guards.max_score_shift
    if limit is None or not isinstance(shift, float) or abs(shift) <= limit:
        return ""
    return f"{new.label} shifts the scores by {shift:+.2g}, more than the {limit:g} allowed"


def _answers(served: Served, rows: Rows) -> _Answers:
    """All rows at once; where that fails, one by one, so that a request that fails does not stand for all."""
    try:
        return _outcome(served, rows)
    except Exception as error:  # whatever a model raises
        if len(rows) == 1:
            failure = str(error) or type(error).__name__
            return _Answers(np.array([np.nan]), [None], np.array([False]), failure)
    parts = [_answers(served, rows.part(np.array([place]))) for place in range(len(rows))]
    return _Answers(
        np.concatenate([part.scores for part in parts]),
        [part.predictions[0] for part in parts],
        np.concatenate([part.answered for part in parts]),
        next((part.failure for part in parts if part.failure), ""),
    )


def _outcome(served: Served, rows: Rows) -> _Answers:
    outcome = outcome_of(served.bundle, served.score(rows))
    scores = np.asarray(outcome.scores, np.float64)
    known = np.isfinite(scores)
    return _Answers(scores, outcome.predictions, known, "" if known.all() else "it gives no number")


def _seconds(served: Served, rows: Rows) -> float:
    """What a request takes by itself: the median of some, those that fail too."""
    return float(np.median([_timed(served, rows.part(np.array([place]))) for place in range(len(rows))[:_TIMED]]))


def _timed(served: Served, row: Rows) -> float:
    started = time.perf_counter()
    _answers(served, row)
    return time.perf_counter() - started


# models of tensors


def _tried_with_zeros(old: Served, new: Served) -> Mapping[str, object]:
    """Tensors are not logged: zeros stand in, and only where the champion answers those they tell anything."""
    note = "tensors are not logged: only that the new version loads, and answers zeros if the champion does, was tested"
    failure = _failure(lambda: new.runtime.infer(_zeros(new.bundle)))
    if failure and not _failure(lambda: old.runtime.infer(_zeros(old.bundle))):
        return {"requests": 1, "faults": [f"{new.label} fails at zeros: {failure}"], "note": note}
    return {"requests": 1, "faults": [], "note": note}


def _zeros(bundle: Bundle) -> Tensors:
    return {spec.name: _zero(spec) for spec in bundle.tensors}


def _zero(spec: TensorSpec) -> NDArray[Any]:
    shape, kind = [max(size, 1) for size in spec.shape], DTYPES[spec.datatype]
    return np.full(shape, "", object) if kind is np.object_ else np.zeros(shape, kind)


def _failure(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:  # whatever a model raises
        return str(error) or type(error).__name__
    return ""

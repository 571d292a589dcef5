"""Testing a blue-green challenger before the switch: logged requests, scored again by both versions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.errors import NoriaError
from noria.monitoring.log import PREDICTIONS, BatchColumns, PredictionBatch, read_batches
from noria.monitoring.segments import segments
from noria.rollout import Plan, RouteTable
from noria.serving.items import outcome_of
from noria.serving.runtimes import Rows
from noria.serving.served import Served, load_served
from noria.store.workspace import Workspace


def check_with_log(workspace: Workspace, routes: RouteTable, plan: Plan) -> Mapping[str, object]:
    """What both versions make of the newest logged requests; ``faults`` says in words what speaks against a switch."""
    champion, challenger = routes.answering[0], routes.answering[-1]
    try:
        old, new = (load_served(workspace.artifacts, variant) for variant in (champion, challenger))
    except NoriaError as error:
        return {"requests": 0, "faults": [error.message]}
    try:
        if old.bundle.inputs != new.bundle.inputs:
            note = "the versions take different inputs: only that the new one loads and scores was tested"
            return {"requests": 1, "faults": [], "note": note}
        rows = newest_rows(workspace.prediction_log, routes.deployment, champion.version, plan.checks)
        return {"requests": 0, "faults": []} if rows is None else _compared(old, new, rows)
    finally:
        for served in (old, new):
            served.runtime.unload()


def newest_rows(log: Path, deployment: str, version: int, count: int) -> Rows | None:
    """The inputs of the newest logged answers of a version, at most ``count``; None without any."""
    numbers: list[NDArray[np.float64]] = []
    strings: list[Sequence[str | None]] = []
    for batch in _newest_batches(log, deployment, version):
        numbers.append(BatchColumns.of(batch).numbers)
        strings = [*batch.strings, *strings]
        if sum(map(len, numbers)) >= count:
            break
    if not numbers:
        return None
    matrix = np.concatenate(numbers)[:count]
    return Rows(matrix, np.array(strings[: len(matrix)], dtype=object) if strings else None)


def _newest_batches(log: Path, deployment: str, version: int) -> Sequence[PredictionBatch]:
    """The batches of the newest day that has some of this version."""
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


def _compared(old: Served, new: Served, rows: Rows) -> Mapping[str, object]:
    scores, seconds, labels = [], [], []
    for served in (old, new):
        started = time.perf_counter()
        try:
            outcome = outcome_of(served.bundle, served.score(rows))
        except Exception as error:  # whatever a model raises
            return {"requests": len(rows), "faults": [f"{served.label} fails at logged requests: {error}"]}
        seconds.append((time.perf_counter() - started) / len(rows))
        scores.append(outcome.scores)
        labels.append(outcome.predictions)
    missing = int(np.sum(~np.isfinite(scores[1]) & np.isfinite(scores[0])))
    faults = [f"{new.label} gives no number for {missing} of {len(rows)} logged requests"] if missing else []
    agreement = float(np.mean([one == other for one, other in zip(*labels, strict=True)]))
    return {
        "requests": len(rows),
        "faults": faults,
        "agreement": agreement,
        "largest_difference": float(np.nanmax(np.abs(scores[1] - scores[0]), initial=0.0)),
        "microseconds_a_row": {"champion": seconds[0] * 1e6, "green": seconds[1] * 1e6},
    }

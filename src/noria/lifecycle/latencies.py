"""How long a champion's answers took lately: what says, before a canary's step, which answers are slow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.monitoring.log import PREDICTIONS, batches_of
from noria.monitoring.segments import segments

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

_SPAN = 10 * 60_000
"""Milliseconds: a moment in which the machine was busy with something else must not say what is slow."""
_ENOUGH = 5000
_MOST_BYTES = 2**30


def spread(at: Times, seconds: Floats) -> Floats:
    """An even sample of the newest ten minutes, or of the newest 5000 answers where those go back further.

    Args:
        at: When each answer's request came in, UTC milliseconds, shape (answers,), oldest about first.
        seconds: What it took, shape (answers,).

    Returns:
        Seconds, shape (at most 5000,).
    """
    if not len(at):
        return seconds
    recent = seconds[at >= at.max() - _SPAN]
    newest = recent if len(recent) > _ENOUGH else seconds[-_ENOUGH:]
    return newest[:: ceil(len(newest) / _ENOUGH)]


def latencies_lately(log: Path, deployment: str, revision: int, variant: str, since: datetime) -> Floats:
    """Seconds that ``variant`` took under the routes of ``revision``, as ``spread``, from what the log got ``since``.

    The log is read from its end, and no further than it takes: it may hold hundreds of millions of answers.
    """
    at, seconds = np.empty(0, np.int64), np.empty(0)
    read = 0
    for segment, size in _newest(log, since):
        rows = [
            (batch.received_at, np.frombuffer(batch.latencies, np.float32))
            for batch in batches_of(segment)
            if (batch.deployment, batch.revision, batch.variant) == (deployment, revision, variant)
        ]
        came = [np.full(len(took), received_at) for received_at, took in rows]
        at, seconds = np.concatenate([*came, at]), np.concatenate([*(took for _, took in rows), seconds])
        read += size
        if read > _MOST_BYTES or (len(at) >= _ENOUGH and at.max() - at.min() >= _SPAN):
            break
    return spread(at, seconds)


def _newest(log: Path, since: datetime) -> Iterator[tuple[Path, int]]:
    """Segments that were written to since then, and their bytes; the one written to last comes first."""
    found = [(segment.stat(), segment) for segment in segments(log / PREDICTIONS)]
    for stat, segment in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
        if stat.st_mtime >= since.timestamp():
            yield segment, stat.st_size

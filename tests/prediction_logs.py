"""Writing prediction logs by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from noria.monitoring.log import PredictionBatch
from noria.monitoring.segments import MILLIS_A_DAY


def batch_of(
    ids: Sequence[str],
    at: Sequence[int],
    features: Sequence[Sequence[float | None]],
    scores: Sequence[float],
    *,
    entities: Sequence[Mapping[str, str | int]] = (),
    arm: tuple[str, str, int] = ("champion", "m", 1),
    deployment: str = "d",
    revision: int = 1,
    units: Sequence[str] = (),
    latencies: Sequence[float] | None = None,
    received_at: int | None = None,
) -> tuple[PredictionBatch, list[int]]:
    """A batch as a gateway logs it (times in UTC milliseconds), and the days it belongs to."""
    seconds = np.full(len(ids), 0.001) if latencies is None else np.array(latencies)
    batch = PredictionBatch(
        at[-1] if received_at is None else received_at,
        deployment,
        revision,
        *arm,
        list(ids),
        np.array(at, np.int64).tobytes(),
        np.array(features, np.float64).tobytes(),
        np.array(scores, np.float64).tobytes(),
        (np.array(scores) >= 0.5).astype(np.float64).tobytes(),
        seconds.astype(np.float32).tobytes(),
        entities=entities,
        units=units,
    )
    return batch, sorted({time // MILLIS_A_DAY for time in at})

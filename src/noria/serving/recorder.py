"""What the data plane leaves behind: every scored row in the prediction log and in the metrics."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog

from noria.errors import NoriaError, Unavailable
from noria.monitoring.log import (
    PREDICTIONS,
    SHADOWS,
    FailureRecord,
    LabelRecord,
    PredictionBatch,
    PredictionLog,
    RewardRecord,
)
from noria.monitoring.segments import MILLIS_A_DAY
from noria.serving.items import Item, Outcome
from noria.serving.metrics import ServingMetrics
from noria.serving.runtimes import Rows

if TYPE_CHECKING:
    from noria.serving.live import Arm

_log = structlog.get_logger()
_Value = TypeVar("_Value")
_CLIENTS_OWN = ("invalid_input", "not_found", "invalid_data", "overloaded")
"""Errors that say nothing about a version."""


class Recorder:
    """Writes what one gateway process saw; ``fault`` is why its last batch was not logged. Threads may share it."""

    def __init__(self, log: PredictionLog, metrics: ServingMetrics) -> None:
        self._log, self._metrics = log, metrics
        self.fault: NoriaError | None = None

    def scored(self, items: Sequence[Item], rows: Rows, outcome: Outcome, others: float = 0.0) -> None:
        """Log one scored batch; when that fails, the answers go out all the same, and the loss is counted.

        The log has latencies without the ``others`` seconds that went to other variants, so that variants can be
        compared; the metrics have them with. The deployment's shadows get copies.
        """
        if not len(rows):
            return
        now = time.monotonic()
        own = [now - others - item.received for item in items]
        logged = self._logged(items, rows, outcome, _of_rows(own, items, len(rows)))
        self._metrics.observe(items[0].arm, outcome, _of_rows([one + others for one in own], items, len(rows)))
        if logged is not None:
            for shadow in items[0].live.shadows:
                shadow.offer(items, rows, logged)

    def shadowed(
        self, answered: Sequence[PredictionBatch], arm: Arm, rows: Rows, outcome: Outcome, seconds: float
    ) -> None:
        """Log what ``arm`` would have said to rows that others answered in one revision, had it taken ``seconds``.

        All of several batches must have an id for each of their rows.
        """
        batch = msgspec.structs.replace(
            answered[0],
            variant=arm.variant.name,
            model=arm.variant.model,
            version=arm.variant.version,
            latencies=array("f", [seconds] * len(rows)).tobytes(),
            **(_asked(answered) if len(answered) > 1 else {}),
            **_said(arm, rows, outcome),
        )
        days = sorted({time // MILLIS_A_DAY for time in array("q", batch.event_times)})
        self._write(batch, days, len(rows), SHADOWS)

    def failed(self, item: Item, error: NoriaError) -> None:
        """Log that a version did not answer; what the client did wrong is not told of the version."""
        if error.code in _CLIENTS_OWN:
            return
        variant = item.arm.variant
        table, now = item.live.table, round(time.time() * 1000)
        arm = (variant.name, variant.model, variant.version)
        record = FailureRecord(now, table.deployment, table.revision, *arm, error.code, 1, item.unit)
        try:
            self._log.failures([record])
        except OSError as fault:
            self._lost("failures", fault, item.count)

    def not_shadowed(self, deployment: str, revision: int, arm: Arm, code: str, rows: int) -> None:
        """Log that a shadow has nothing to say to rows that others answered."""
        variant, now = arm.variant, round(time.time() * 1000)
        record = FailureRecord(
            now, deployment, revision, variant.name, variant.model, variant.version, code, requests=rows
        )
        try:
            self._log.failures([record])
        except OSError as fault:
            self._lost("failures", fault, rows)

    def labels(self, records: Sequence[LabelRecord]) -> None:
        """Append outcomes. Raises Unavailable when they could not be written."""
        try:
            self._log.labels(records)
        except OSError as error:
            raise _not_logged("labels", error) from error

    def rewards(self, records: Sequence[RewardRecord]) -> None:
        """Append rewards. Raises Unavailable when they could not be written."""
        try:
            self._log.rewards(records)
        except OSError as error:
            raise _not_logged("rewards", error) from error

    def close(self) -> None:
        """Close the log's segments."""
        self._log.close()

    def _logged(
        self, items: Sequence[Item], rows: Rows, outcome: Outcome, latencies: Sequence[float]
    ) -> PredictionBatch | None:
        try:
            batch, days = _batch(items, rows, outcome, latencies)
        except Exception as error:
            self._lost("predictions", error, len(rows))
            return None
        self._write(batch, days, len(rows), PREDICTIONS)
        return batch

    def _write(self, batch: PredictionBatch, days: Sequence[int], rows: int, kind: str) -> None:
        try:
            self._log.predictions(batch, days, kind)
            self.fault = None
        except Exception as error:
            self._lost("predictions", error, rows)

    def _lost(self, kind: str, error: Exception, rows: int) -> None:
        if self.fault is None:
            _log.error(f"{kind}_not_logged", rows=rows, reason=str(error))
        self.fault = _not_logged(kind, error)
        self._metrics.count_lost(rows)


def _batch(
    items: Sequence[Item], rows: Rows, outcome: Outcome, latencies: Sequence[float]
) -> tuple[PredictionBatch, Sequence[int]]:
    first = items[0]
    arm, table = first.arm, first.live.table
    variant = arm.variant
    # Python's own lists and arrays throughout: NumPy's take ten times as long for the few rows of most batches.
    times = [item.event_time for item in items]
    days = sorted({one // MILLIS_A_DAY for one in times})
    entities, units = [item.entities for item in items], [item.unit for item in items]
    batch = PredictionBatch(
        received_at=round(time.time() * 1000),
        deployment=table.deployment,
        revision=table.revision,
        variant=variant.name,
        model=variant.model,
        version=variant.version,
        prediction_ids=_ids(items, len(rows)),
        event_times=array("q", _of_rows(times, items, len(rows))).tobytes(),
        latencies=array("f", latencies).tobytes(),
        **_said(arm, rows, outcome),
        entities=_of_rows(entities, items, len(rows)) if any(entities) else (),
        units=_of_rows(units, items, len(rows)) if any(units) else (),
        beside=_of_rows([item.beside for item in items], items, len(rows)) if first.beside else (),
    )
    return batch, days


def _asked(batches: Sequence[PredictionBatch]) -> dict[str, Any]:
    """The fields that say what was asked, of several batches together."""

    def of(name: str, nothing: object) -> Sequence[Any]:
        columns = [getattr(batch, name) for batch in batches]
        if not any(columns):
            return ()
        rows = [len(batch.prediction_ids) for batch in batches]
        return [one for column, count in zip(columns, rows, strict=True) for one in column or [nothing] * count]

    return {
        "prediction_ids": of("prediction_ids", ""),
        "event_times": b"".join([batch.event_times for batch in batches]),
        "entities": of("entities", {}),
        "units": of("units", ""),
        "beside": of("beside", ()),
    }


def _said(arm: Arm, rows: Rows, outcome: Outcome) -> dict[str, Any]:
    """The fields of a batch that say what a version was given, and what it made of that."""
    return {
        "numbers": rows.numbers.tobytes(),
        "scores": outcome.scores.tobytes(),
        "predictions": _packed(outcome.predictions),
        "strings": () if rows.strings is None else rows.strings.tolist(),
        "string_places": arm.served.texts,
    }


def _ids(items: Sequence[Item], rows: int) -> list[str]:
    """The id of every row; that of the request alone, where one request has them all."""
    if len(items) in (1, rows):
        return [item.prediction_id for item in items]
    return [one for item in items for one in item.prediction_ids]


def _packed(predictions: Sequence[Any]) -> bytes | Sequence[str]:
    if predictions[0] is None:
        return array("d", [math.nan]).tobytes() * len(predictions)
    if isinstance(predictions[0], int | float):
        return array("d", predictions).tobytes()
    return [one if isinstance(one, str) else repr(one) for one in predictions]


def _of_rows(of_items: list[_Value], items: Sequence[Item], rows: int) -> list[_Value]:
    """One value an item as one a row."""
    if len(items) == rows:
        return of_items
    return [one for one, item in zip(of_items, items, strict=True) for _ in range(item.count)]


def _not_logged(kind: str, error: Exception) -> Unavailable:
    return Unavailable(f"{kind} could not be logged: {error}", remedy="Check the disk of the prediction log.")

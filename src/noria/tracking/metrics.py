"""Metrics of runs: the whole history, and the newest value of each key kept beside it for searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select, tuple_

from noria.clock import from_millis, to_millis
from noria.store.database import Transaction, conflict_insert
from noria.store.tables import latest_metrics, run_metrics
from noria.tracking.entities import Metric

LARGEST = 1.7976931348623157e308
"""What an infinity is kept as, like MLflow does it: SQL has none."""


def append(tx: Transaction, run_id: str, metrics: Sequence[Metric]) -> None:
    """Append values to the history of a run; a value that is there already, to the step and time, is kept once."""
    rows = [_row(run_id, metric) for metric in metrics]
    if not rows:
        return
    tx.execute(conflict_insert(tx, run_metrics).on_conflict_do_nothing(), rows)
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = str(row["key"])
        if key not in newest or _age(newest[key]) <= _age(row):
            newest[key] = row
    statement = conflict_insert(tx, latest_metrics)
    values, known = statement.excluded, latest_metrics.c
    is_newer = tuple_(values.step, values.timestamp, values.value) >= tuple_(known.step, known.timestamp, known.value)
    changed = {name: values[name] for name in ("value", "is_nan", "timestamp", "step")}
    tx.execute(
        statement.on_conflict_do_update(index_elements=["run_id", "key"], set_=changed, where=is_newer),
        list(newest.values()),
    )


def latest(tx: Transaction, run_ids: Sequence[str]) -> dict[str, dict[str, Metric]]:
    """Run → key → the value with the highest step, then time."""
    found: dict[str, dict[str, Metric]] = {}
    for row in tx.execute(select(latest_metrics).where(latest_metrics.c.run_id.in_(run_ids))):
        found.setdefault(row.run_id, {})[row.key] = _metric(row)
    return found


def history(tx: Transaction, run_id: str, key: str, *, limit: int, offset: int = 0) -> list[Metric]:
    """The values of one metric by step, time and value, at most ``limit`` from ``offset``."""
    table = run_metrics
    query = select(table).where(table.c.run_id == run_id, table.c.key == key)
    ordered = query.order_by(table.c.step, table.c.timestamp, table.c.value)
    return [_metric(row) for row in tx.execute(ordered.limit(limit).offset(offset))]


def _row(run_id: str, metric: Metric) -> dict[str, Any]:
    is_nan = math.isnan(metric.value)
    return {
        "run_id": run_id,
        "key": metric.key,
        "value": 0.0 if is_nan else max(min(metric.value, LARGEST), -LARGEST),
        "is_nan": int(is_nan),
        "timestamp": to_millis(metric.timestamp),
        "step": metric.step,
    }


def _age(row: Mapping[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def _metric(row: Row[Any]) -> Metric:
    return Metric(row.key, math.nan if row.is_nan else row.value, from_millis(row.timestamp), row.step)

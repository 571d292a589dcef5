"""Metrics of runs: the whole history, and the newest value of each key kept beside it for searches."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Row, Select, bindparam, case, func, select, tuple_
from sqlalchemy import column as sql_column

from noria.store.database import Transaction, conflict_insert, fetch, fetch_among
from noria.store.tables import latest_metrics, logged_model_metrics, run_metrics
from noria.tracking.entities import Metric, ModelMetric

LARGEST = 1.7976931348623157e308
"""What an infinity is kept as, like MLflow does it: SQL has none."""
_VALUE = case((run_metrics.c.is_nan == 0, run_metrics.c.value))  # NULL for NaN


def append(tx: Transaction, values: Sequence[tuple[str, Metric]]) -> None:
    """Append (run id, metric) to the histories; a value that is there already, to the step and time, is kept once."""
    rows = [_row(run_id, metric) for run_id, metric in values]
    if not rows:
        return
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        name = row["run_id"], row["key"]
        if name not in newest or _age(newest[name]) <= _age(row):
            newest[name] = row
    for statement, given in zip(_statements(tx.dialect.name), (rows, newest.values()), strict=True):
        ordered = sorted(given, key=_place)  # in one order, so that writers never deadlock
        tx.execute(statement, ordered if tx.dialect.name == "sqlite" else _columns(ordered))


def append_of_models(tx: Transaction, values: Sequence[ModelMetric]) -> None:
    """Append what runs measured of logged models; the same again, to step, time and run, is kept once."""
    if not values:
        return
    rows = [
        {
            **_row(value.run_id, value.metric),
            "model_id": value.model_id,
            "dataset_name": value.dataset_name,
            "dataset_digest": value.dataset_digest,
        }
        for value in values
    ]
    tx.execute(conflict_insert(tx.dialect.name, logged_model_metrics).on_conflict_do_nothing(), rows)


def of_models(tx: Transaction, model_ids: Sequence[str]) -> dict[str, list[ModelMetric]]:
    """Logged model → everything that was measured of it, oldest first."""
    table = logged_model_metrics
    found: dict[str, list[ModelMetric]] = {}
    query = select(table).where(table.c.model_id.in_(model_ids))
    for row in tx.execute(query.order_by(table.c.timestamp, table.c.step, table.c.run_id.desc(), table.c.key)):
        measured = ModelMetric(row.model_id, row.run_id, _metric(row), row.dataset_name, row.dataset_digest)
        found.setdefault(row.model_id, []).append(measured)
    return found


@functools.cache
def _statements(dialect: str) -> tuple[Any, Any]:
    """Insert into the history what is new; into the latest what is newer than the value there."""
    statement = conflict_insert(dialect, latest_metrics)
    into_history = conflict_insert(dialect, run_metrics)
    if dialect != "sqlite":  # all rows as one array a column: what PostgreSQL takes fastest
        statement, into_history = statement.from_select(*_unnested()), into_history.from_select(*_unnested())
    values, known = statement.excluded, latest_metrics.c
    is_newer = tuple_(values.step, values.timestamp, values.value) >= tuple_(known.step, known.timestamp, known.value)
    changed = {name: values[name] for name in ("value", "is_nan", "timestamp", "step")}
    return (
        into_history.on_conflict_do_nothing(),
        statement.on_conflict_do_update(index_elements=["run_id", "key"], set_=changed, where=is_newer),
    )


def _unnested() -> tuple[list[str], Select[Any]]:
    """The names of the columns, and a query that makes rows of one array parameter a column."""
    columns = run_metrics.c
    arrays = [bindparam(column.name, type_=ARRAY(column.type)) for column in columns]
    rows = (
        func.unnest(*arrays)
        .table_valued(*(sql_column(column.name, column.type) for column in columns))
        .render_derived()
    )
    names = [column.name for column in columns]
    return names, select(*(rows.c[name] for name in names))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {column.name: [row[column.name] for row in rows] for column in run_metrics.c}


def latest(tx: Transaction, run_ids: Sequence[str]) -> dict[str, dict[str, Metric]]:
    """Run → key → the value with the highest step, then time."""
    found: dict[str, dict[str, Metric]] = {}
    for run_id, key, step, timestamp, value, is_nan in fetch_among(tx, latest_metrics.c.run_id, run_ids):
        found.setdefault(run_id, {})[key] = Metric(key, math.nan if is_nan else value, timestamp, step)
    return found


def newest_numbers(tx: Transaction, run_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Run → key → its newest value, where infinities and NaN are what they were logged as."""
    return {
        run_id: {key: _unbounded(metric.value) for key, metric in found.items()}
        for run_id, found in latest(tx, run_ids).items()
    }


def history(tx: Transaction, run_id: str, key: str, *, limit: int, after: Metric | None = None) -> list[Metric]:
    """The values of one metric by step, time and value, NaN after zero: at most ``limit``, from the next ``after``."""
    table = run_metrics.c
    place = table.step, table.timestamp, table.value, table.is_nan
    query = select(_VALUE, table.timestamp, table.step).where(table.run_id == run_id, table.key == key)
    if after is not None:  # not an offset: pages would take longer the further they are
        last = _row(run_id, after)
        query = query.where(tuple_(*place) > tuple_(*(last[column.name] for column in place)))
    return [
        Metric(key, math.nan if value is None else value, timestamp, step)
        for value, timestamp, step in fetch(tx, query.order_by(*place).limit(limit))
    ]


def steps(tx: Transaction, run_ids: Sequence[str], key: str, bounds: Sequence[int] = ()) -> list[list[int]]:
    """The steps at which each run has that metric, ascending; ``bounds`` are the first and last of interest."""
    table = run_metrics.c
    found = []
    for run_id in run_ids:
        query = select(table.step).distinct().where(table.run_id == run_id, table.key == key).order_by(table.step)
        if bounds:
            query = query.where(table.step.between(bounds[0], bounds[1]))
        found.append(list(tx.execute(query).scalars()))
    return found


def thinned(steps: Sequence[Sequence[int]], most: int) -> set[int]:
    """About ``most`` of the steps of several runs, evenly apart; the first and last of every run are among them."""
    together = sorted({step for of_run in steps for step in of_run})
    if len(together) <= most:
        return set(together)
    every = len(together) / most
    ends = {step for of_run in steps for step in (of_run[0], of_run[-1]) if of_run}
    return {together[int(place * every)] for place in range(most)} | ends


def at_steps(tx: Transaction, run_id: str, key: str, chosen: Collection[int]) -> list[Metric]:
    """The values of one metric of one run at those steps, in order."""
    table = run_metrics.c
    query = select(_VALUE, table.timestamp, table.step).where(
        table.run_id == run_id, table.key == key, table.step.in_(chosen)
    )
    rows = tx.execute(query.order_by(table.step, table.timestamp, table.value))
    return [Metric(key, math.nan if value is None else value, timestamp, step) for value, timestamp, step in rows]


def _row(run_id: str, metric: Metric) -> dict[str, Any]:
    is_nan = math.isnan(metric.value)
    return {
        "run_id": run_id,
        "key": metric.key,
        "value": 0.0 if is_nan else max(min(metric.value, LARGEST), -LARGEST),
        "is_nan": int(is_nan),
        "timestamp": metric.timestamp_millis,
        "step": metric.step,
    }


def _unbounded(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


def _place(row: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return row["run_id"], row["key"], row["step"], row["timestamp"]


def _age(row: Mapping[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def _metric(row: Row[Any]) -> Metric:
    return Metric(row.key, math.nan if row.is_nan else row.value, row.timestamp, row.step)

"""Metrics of runs: the whole history, and the newest value of each key kept beside it for searches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, cast

from sqlalchemy import Row as SqlRow
from sqlalchemy import Table, case, func, literal_column, select, tuple_

from noria.audit import tallies
from noria.audit.pending import Note, note_all, notes_as_columns, noting
from noria.audit.tallies import Counted
from noria.store.database import Transaction, conflict_insert, fetch, fetch_among, unnested
from noria.store.tables import latest_metrics, logged_model_metrics, run_metrics
from noria.tracking.entities import Metric, ModelMetric

LARGEST = 1.7976931348623157e308
"""What an infinity is kept as, like MLflow does it: SQL has none."""
_NAMES = ("run_id", "key", "step", "timestamp", "value", "is_nan")
_LATEST = "latest_"
_COUNTED = {"preserve_rowcount": True}
_VALUE = case((run_metrics.c.is_nan == 0, run_metrics.c.value))  # NULL for NaN


Row = tuple[str, str, int, int, float, int]
"""Run id, key, step, timestamp, value, whether it is NaN: a value as the history keeps it."""


class Repeated(Exception):
    """Some of the values were in the history already; only an exact append tells which."""


def as_rows(run_id: str, values: Iterable[Metric]) -> list[Row]:
    """The values as rows of the history; SQL has no NaN and no infinities."""
    return [
        (run_id, metric.key, metric.step, metric.timestamp_millis, max(min(metric.value, LARGEST), -LARGEST), 0)
        if metric.value == metric.value
        else (run_id, metric.key, metric.step, metric.timestamp_millis, 0.0, 1)
        for metric in values
    ]


def append(tx: Transaction, rows: Sequence[Row]) -> list[Row]:
    """Append to the histories, and give what was new; a value that is there already, to step and time, is kept once."""
    ordered = sorted(set(rows))  # in one order, so that writers never deadlock
    if not ordered:
        return []
    statement = _into_history(tx.dialect.name).returning(*run_metrics.c)
    new = [cast(Row, tuple(row)) for row in tx.execute(statement, _parameters(tx, ordered))]
    tx.execute(_into_latest(tx.dialect.name), _parameters(tx, _newest(ordered)))
    return new


def append_new(tx: Transaction, rows: Sequence[Row], notes: Sequence[Note]) -> None:
    """Append what is most likely new, with its notes for the audit trail, faster than ``append``.

    Raises Repeated when some was not new: roll back, and use ``append``.
    """
    if not rows:
        note_all(tx, notes)
    elif _append_all(tx, sorted(rows), notes) < len(rows):
        raise Repeated


def tally(rows: Iterable[Row]) -> Counted:
    """What the audit trail counts of new rows of one run."""
    return tallies.of_metrics(row[1:] for row in rows)


def append_of_models(tx: Transaction, values: Sequence[ModelMetric]) -> None:
    """Append what runs measured of logged models; the same again, to step, time and run, is kept once."""
    if not values:
        return
    rows = [
        {
            **dict(zip(_NAMES, as_rows(value.run_id, [value.metric])[0], strict=True)),
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


def _newest(ordered: Sequence[Row]) -> list[Row]:
    """The last of each metric of each run, of rows in the order of step, time and value."""
    return list({row[:2]: row for row in ordered}.values())


def _append_all(tx: Transaction, ordered: Sequence[Row], notes: Sequence[Note]) -> int:
    """Append to the histories, keep the newest, leave the notes; how many of the first were not there.

    SQLite's driver takes rows as they are: to name every value takes as long again. PostgreSQL does all in one go: to
    wait for it three times takes longer than the work.
    """
    newest = _newest(ordered)
    if tx.dialect.name != "sqlite":
        parameters = _columns(ordered) | _columns(newest, _LATEST) | notes_as_columns(notes)
        return int(tx.execute(_into_all(), parameters).scalar_one())
    added = tx.exec_driver_sql(_sqlite_text(_into_history), list(ordered), execution_options=_COUNTED).rowcount
    tx.exec_driver_sql(_sqlite_text(_into_latest), newest)
    note_all(tx, notes)
    return added


@functools.cache
def _into_all() -> Any:
    """PostgreSQL's one statement; it answers how many values are new in the histories."""
    added = _into_history("postgresql").returning(literal_column("1")).cte("added")
    kept, noted = _into_latest("postgresql", _LATEST).cte("kept"), noting().cte("noted")
    return select(func.count()).select_from(added).add_cte(kept, noted)


@functools.cache
def _sqlite_text(statement: Callable[[str], Any]) -> str:
    from sqlalchemy.dialects import sqlite

    return str(statement("sqlite").compile(dialect=sqlite.dialect()))


@functools.cache
def _into_history(dialect: str) -> Any:
    """Insert into the history what is new."""
    return _inserting(dialect, run_metrics).on_conflict_do_nothing()


@functools.cache
def _into_latest(dialect: str, prefix: str = "") -> Any:
    """Insert into the latest what is newer than the value there."""
    statement = _inserting(dialect, latest_metrics, prefix)
    values, known = statement.excluded, latest_metrics.c
    is_newer = tuple_(values.step, values.timestamp, values.value) >= tuple_(known.step, known.timestamp, known.value)
    changed = {name: values[name] for name in ("value", "is_nan", "timestamp", "step")}
    return statement.on_conflict_do_update(index_elements=["run_id", "key"], set_=changed, where=is_newer)


def _inserting(dialect: str, table: Table, prefix: str = "") -> Any:
    """An INSERT of all columns; PostgreSQL takes all rows as one array a column, which is what it takes fastest."""
    statement = conflict_insert(dialect, table)
    if dialect == "sqlite":
        return statement.values(dict.fromkeys(_NAMES))
    return statement.from_select(list(_NAMES), unnested(list(run_metrics.c), prefix))


def _parameters(tx: Transaction, rows: Sequence[Row]) -> Any:
    return _columns(rows) if tx.dialect.name != "sqlite" else [dict(zip(_NAMES, row, strict=True)) for row in rows]


def _columns(rows: Sequence[Row], prefix: str = "") -> dict[str, list[Any]]:
    return {prefix + name: list(values) for name, values in zip(_NAMES, zip(*rows, strict=True), strict=True)}


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
        _, _, *last = as_rows(run_id, [after])[0]
        query = query.where(tuple_(*place) > tuple_(*last))
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


def _unbounded(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


def _metric(row: SqlRow[Any]) -> Metric:
    return Metric(row.key, math.nan if row.is_nan else row.value, row.timestamp, row.step)

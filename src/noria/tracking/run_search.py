"""Search of runs in MLflow's grammar, done by the database: only the page asked for is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, case, exists, or_, select

from noria.errors import InvalidInput
from noria.store.database import Transaction
from noria.store.tables import latest_metrics, run_inputs, run_params, run_tags, runs
from noria.tracking.entities import Run
from noria.tracking.runs import load
from noria.tracking.search import NULLS, Clause, parse_filter, parse_order
from noria.tracking.sql_search import by_code_point, compare

_ATTRIBUTES: Mapping[str, ColumnElement[Any]] = {
    "run_id": runs.c.run_id,
    "run_name": runs.c.name,
    "Run name": runs.c.name,
    "run name": runs.c.name,
    "user_id": runs.c.user_id,
    "status": runs.c.status,
    "artifact_uri": runs.c.artifact_uri,
    "start_time": runs.c.started_at,
    "created": runs.c.started_at,
    "Created": runs.c.started_at,
    "end_time": runs.c.ended_at,
}
_NUMBERS = ("start_time", "created", "Created", "end_time")
_DATASETS: Mapping[str, ColumnElement[Any]] = {
    "name": run_inputs.c.dataset_name,
    "digest": run_inputs.c.dataset_digest,
    "context": run_inputs.c.context,
}
_PAIRS: Mapping[str, Table] = {"params": run_params, "tags": run_tags}


def search_runs(
    tx: Transaction,
    experiment_ids: Sequence[str],
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    view: str = "ACTIVE_ONLY",
    limit: int = 1000,
    offset: int = 0,
) -> list[Run]:
    """At most ``limit`` runs of these experiments that meet the filter, newest first unless ordered otherwise.

    Missing values meet no clause and are ordered last. Raises InvalidInput for what is no filter or order.
    """
    query = select(runs.c.run_id).where(runs.c.experiment_id.in_(experiment_ids))
    if view != "ALL":
        query = query.where(runs.c.lifecycle_stage == ("deleted" if view == "DELETED_ONLY" else "active"))
    query = query.where(*(_condition(tx, clause) for clause in parse_filter(filter_text)))
    for kind, key, descending in (parse_order(text) for text in order_by):
        query = _ordered(tx, query, kind, key, descending)
    query = query.order_by(runs.c.started_at.desc(), runs.c.run_id).limit(limit).offset(offset)
    return load(tx, list(tx.execute(query).scalars()))


def _condition(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    if clause.kind == "attributes":
        return compare(tx, _named(_ATTRIBUTES, clause.key, "attribute"), clause, number=clause.key in _NUMBERS)
    if clause.kind == "datasets":
        found = compare(tx, _named(_DATASETS, clause.key, "dataset attribute"), clause, number=False)
        return exists().where(run_inputs.c.run_id == runs.c.run_id, found)
    if clause.kind == "metrics":
        table = latest_metrics
        compared = compare(tx, table.c.value, clause, number=True)
        holds = or_(table.c.is_nan == 1, compared) if clause.operator == "!=" else and_(table.c.is_nan == 0, compared)
    else:
        table = _PAIRS[clause.kind]
        if clause.operator in NULLS:
            has_it = exists().where(table.c.run_id == runs.c.run_id, table.c.key == clause.key)
            return has_it if clause.operator == "IS NOT NULL" else ~has_it
        holds = compare(tx, table.c.value, clause, number=False)
    return exists().where(table.c.run_id == runs.c.run_id, table.c.key == clause.key, holds)


def _ordered(tx: Transaction, query: Select[Any], kind: str, key: str, descending: bool) -> Select[Any]:
    if kind == "attributes":
        value = _named(_ATTRIBUTES, key, "attribute")
    elif kind == "datasets":
        raise InvalidInput("runs cannot be ordered by their datasets", remedy="Order by an attribute, metric or tag.")
    else:
        table = (latest_metrics if kind == "metrics" else _PAIRS[kind]).alias()
        query = query.outerjoin(table, and_(table.c.run_id == runs.c.run_id, table.c.key == key))
        value = case((table.c.is_nan == 0, table.c.value)) if kind == "metrics" else table.c.value
    value = by_code_point(tx, value)
    return query.order_by(value.is_(None), value.desc() if descending else value.asc())


def _named(columns: Mapping[str, ColumnElement[Any]], key: str, what: str) -> ColumnElement[Any]:
    column = columns.get(key)
    if column is None:
        raise InvalidInput(f"{key!r} is not a searchable {what} of runs", remedy=f"Use one of {', '.join(columns)}.")
    return column

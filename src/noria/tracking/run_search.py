"""Search of runs in MLflow's grammar, done by the database: only the page asked for is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, case, exists, or_, select

from noria.errors import InvalidInput
from noria.store.database import Transaction, fetch
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
_LOOKED_AT = 10  # values of an index for each run wanted: less work than to load the run


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
    orders = [parse_order(text) for text in order_by]
    if orders and orders[0][0] == "metrics":
        leading = _leading(tx, query, *orders[0][1:], limit + offset)
        found = [] if leading is None else _page(tx, leading, orders[1:], limit, offset)
        if len(found) == limit:
            return load(tx, found)
    return load(tx, _page(tx, query, orders, limit, offset))


def _page(
    tx: Transaction, query: Select[Any], orders: Sequence[tuple[str, str, bool]], limit: int, offset: int
) -> list[str]:
    for kind, key, descending in orders:
        query = _ordered(tx, query, kind, key, descending)
    query = query.order_by(runs.c.started_at.desc(), runs.c.run_id).limit(limit).offset(offset)
    return [run_id for (run_id,) in fetch(tx, query)]


def _leading(tx: Transaction, query: Select[Any], key: str, descending: bool, wanted: int) -> Select[Any] | None:
    """The query among only the first few runs of all that have the metric, in the order an index has them.

    A page it fills is the page of the whole query, which then need not look at every run. None where few have it.
    """
    table = latest_metrics.alias()
    in_order = table.c.value.desc() if descending else table.c.value.asc()
    values = select(table.c.value).where(table.c.key == key).order_by(in_order)
    edge = tx.execute(values.offset(_LOOKED_AT * wanted).limit(1)).scalar()
    if edge is None:
        return None
    before = table.c.value > edge if descending else table.c.value < edge  # those equal to it may be many
    return query.join(
        table, and_(table.c.run_id == runs.c.run_id, table.c.key == key, table.c.is_nan == 0, before)
    ).order_by(in_order)


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

"""Search of traces in MLflow's grammar, done by the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, Text, and_, cast, exists, func, or_, select
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSON

from noria.errors import InvalidInput
from noria.store.database import Transaction
from noria.store.tables import assessments, spans, trace_links, trace_metadata, trace_tags, traces
from noria.tracking.entities import Trace
from noria.tracking.search import NULLS, TRACE_KINDS, Clause, parse_filter, parse_order
from noria.tracking.sql_search import by_code_point, compare
from noria.tracking.traces import NAME_TAG, load

_END = traces.c.started_at + func.coalesce(traces.c.duration_ms, 0)
_NUMBERS: Mapping[str, ColumnElement[Any]] = {
    "timestamp": traces.c.started_at,
    "timestamp_ms": traces.c.started_at,
    "request_time": traces.c.started_at,
    "execution_time": traces.c.duration_ms,
    "execution_time_ms": traces.c.duration_ms,
    "execution_duration": traces.c.duration_ms,
    "end_time": _END,
    "end_time_ms": _END,
}
_TEXTS: Mapping[str, ColumnElement[Any]] = {
    "status": traces.c.state,
    "state": traces.c.state,
    "request_id": traces.c.trace_id,
    "trace_id": traces.c.trace_id,
    "client_request_id": traces.c.client_request_id,
    "experiment_id": traces.c.experiment_id,
}
_ATTRIBUTES = {**_NUMBERS, **_TEXTS}
_PAIRS: Mapping[str, Table] = {"tags": trace_tags, "metadata": trace_metadata}
_RENAMED = {"name": ("tags", NAME_TAG), "run_id": ("metadata", "mlflow.sourceRun"), "text": ("span", "content")}
_SPAN_FIELDS: Mapping[str, ColumnElement[Any]] = {
    "name": spans.c.name,
    "type": spans.c.type,
    "status": spans.c.status,
    "content": spans.c.document,
}
_SPAN_ATTRIBUTES = "attributes."
_VALUE_KINDS = ("string_value", "int_value", "double_value", "array_value", "kvlist_value", "bytes_value")


def search_traces(
    tx: Transaction,
    experiment_ids: Sequence[str],
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    limit: int = 100,
    offset: int = 0,
) -> list[Trace]:
    """At most ``limit`` traces of these experiments that meet the filter, newest first unless ordered otherwise.

    Clauses on spans hold for one span together. Raises InvalidInput for what is no filter or order.
    """
    clauses = [_renamed(clause) for clause in parse_filter(filter_text, TRACE_KINDS)]
    query = select(traces.c.trace_id).where(traces.c.experiment_id.in_(experiment_ids))
    query = query.where(*(_condition(tx, clause) for clause in clauses if clause.kind != "span"))
    if of_span := [_span(tx, clause) for clause in clauses if clause.kind == "span"]:
        query = query.where(exists().where(spans.c.trace_id == traces.c.trace_id, *of_span))
    for text in order_by:
        query = _ordered(tx, query, *parse_order(text, TRACE_KINDS))
    query = query.order_by(traces.c.started_at.desc(), traces.c.trace_id).limit(limit).offset(offset)
    return load(tx, list(tx.execute(query).scalars()))


def _renamed(clause: Clause) -> Clause:
    if clause.kind != "attributes" or clause.key not in _RENAMED:
        return clause
    kind, key = _RENAMED[clause.key]
    return Clause(kind, key, clause.operator, clause.value)


def _condition(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    if clause.kind == "attributes":
        return _prompt(clause) if clause.key == "prompt" else _attribute(tx, clause)
    if clause.kind == "issue":
        named = compare(tx, assessments.c.name, clause, number=False)
        return exists().where(assessments.c.trace_id == traces.c.trace_id, assessments.c.kind == "issue", named)
    if clause.kind in ("feedback", "expectation"):
        return _assessed(tx, clause)
    table = _PAIRS[clause.kind]
    of_it = (table.c.trace_id == traces.c.trace_id, table.c.key == clause.key)
    if clause.operator in NULLS:
        return exists().where(*of_it) if clause.operator == "IS NOT NULL" else ~exists().where(*of_it)
    found: ColumnElement[bool] = exists().where(*of_it, compare(tx, table.c.value, clause, number=False))
    if (clause.key, clause.operator) == ("mlflow.sourceRun", "="):
        found = or_(found, _linked("run", str(clause.value)))
    return found


def _attribute(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    column = _named(_ATTRIBUTES, clause.key, "attribute of traces")
    return compare(tx, column, clause, number=clause.key in _NUMBERS)


def _prompt(clause: Clause) -> ColumnElement[bool]:
    if clause.operator != "=" or not isinstance(clause.value, str) or clause.value.count("/") != 1:
        raise InvalidInput(f"Invalid prompts filter value {clause.value!r}", remedy="Write prompt = 'name/version'.")
    return _linked("prompt", clause.value)


def _linked(kind: str, target: str) -> ColumnElement[bool]:
    links = trace_links.c
    return exists().where(links.trace_id == traces.c.trace_id, links.kind == kind, links.target == target)


def _assessed(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    columns = assessments.c
    of_it = and_(
        columns.trace_id == traces.c.trace_id,
        columns.kind == clause.kind,
        columns.name == clause.key,
        columns.valid == 1,
    )
    if clause.operator in NULLS:
        return exists().where(of_it) if clause.operator == "IS NOT NULL" else ~exists().where(of_it)
    number = isinstance(clause.value, float)
    return exists().where(of_it, compare(tx, columns.number if number else columns.value, clause, number=number))


def _span(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    if clause.key.startswith(_SPAN_ATTRIBUTES):
        return _span_attribute(tx, clause)
    return compare(tx, _named(_SPAN_FIELDS, clause.key, "field of spans"), clause, number=False)


def _span_attribute(tx: Transaction, clause: Clause) -> ColumnElement[bool]:
    """A clause on an attribute's value as a text: true and false as such, lists and objects as their JSON."""
    sqlite = tx.dialect.name == "sqlite"
    name = clause.key.removeprefix(_SPAN_ATTRIBUTES).strip('`"')
    if not name:
        raise InvalidInput("a clause on an attribute of spans names none", remedy="Write span.attributes.NAME = '...'.")
    listed = func.json_each(spans.c.document, "$.attributes")
    if not sqlite:
        listed = func.json_array_elements(cast(spans.c.document, JSON)["attributes"])
    item = listed.table_valued(sql_column("value", JSON), name="item").c.value
    if sqlite:
        key: ColumnElement[Any] = func.json_extract(item, "$.key")
        values = [func.json_extract(item, f"$.value.{kind}") for kind in _VALUE_KINDS]
        values.insert(0, func.json_type(item, "$.value.bool_value"))
    else:
        key = item["key"].astext
        values = [item["value"][kind].astext for kind in ("bool_value", *_VALUE_KINDS)]
    text = cast(func.coalesce(*values), Text)
    return exists().where(key == name, compare(tx, text, clause, number=False))


def _ordered(tx: Transaction, query: Select[Any], kind: str, key: str, descending: bool) -> Select[Any]:
    if kind == "attributes" and key in ("name", "run_id"):
        kind, key = _RENAMED[key]
    if kind == "attributes":
        value = _named(_ATTRIBUTES, key, "attribute of traces")
    elif kind in _PAIRS:
        table = _PAIRS[kind].alias()
        query = query.outerjoin(table, and_(table.c.trace_id == traces.c.trace_id, table.c.key == key))
        value = table.c.value
    else:
        raise InvalidInput(f"traces cannot be ordered by their {kind}", remedy="Order by an attribute or a tag.")
    value = by_code_point(tx, value)
    return query.order_by(value.is_(None), value.desc() if descending else value.asc())


def _named(columns: Mapping[str, ColumnElement[Any]], key: str, what: str) -> ColumnElement[Any]:
    column = columns.get(key)
    if column is None:
        raise InvalidInput(f"{key!r} is not a searchable {what}", remedy=f"Use one of {', '.join(columns)}.")
    return column

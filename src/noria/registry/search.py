"""Search of models and versions in MLflow's grammar, done by the database: only the page asked for is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, cast, func, select
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import JSON

from noria.events import PROMPT_TAG
from noria.registry.entities import ModelVersion, RegisteredModel
from noria.registry.models import model_of
from noria.registry.versions import version_of
from noria.store.database import Transaction
from noria.store.tables import model_versions, registered_models
from noria.tracking.search import Clause, Searchable, parse_filter, parse_order
from noria.tracking.sql_search import by_code_point, compare

_MODELS = Searchable(texts=("name",), orders=("name", "timestamp", "last_updated_timestamp"), nulls=False)
_MODEL_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "name": registered_models.c.name,
    "timestamp": registered_models.c.updated_at,
    "last_updated_timestamp": registered_models.c.updated_at,
}
_VERSIONS = Searchable(
    texts=("name", "run_id", "source_path"),
    numbers=("version_number",),
    orders=("name", "version_number", "creation_timestamp", "last_updated_timestamp"),
    nulls=False,
)
_VERSION_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "name": model_versions.c.model,
    "version_number": model_versions.c.version,
    "run_id": model_versions.c.run_id,
    "source_path": func.coalesce(func.nullif(model_versions.c.named_source, ""), model_versions.c.source),
    "creation_timestamp": model_versions.c.created_at,
    "last_updated_timestamp": model_versions.c.updated_at,
}
_PROMPTS_ARE_MEANT = (("=", "true"), ("!=", "false"))


def search_models(
    tx: Transaction,
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    among: Collection[str] | None = None,
    limit: int,
    offset: int = 0,
) -> list[RegisteredModel]:
    """At most ``limit`` models that meet the filter, by name unless ordered otherwise; of those ``among`` when given.

    Prompts are found only when the filter asks for them. Raises InvalidInput for what is no filter or order.
    """
    query = _matching(tx, registered_models, _MODELS, _MODEL_COLUMNS, filter_text, order_by, among)
    query = query.order_by(by_code_point(tx, registered_models.c.name))
    return [model_of(row) for row in tx.execute(query.limit(limit).offset(offset))]


def search_versions(
    tx: Transaction,
    *,
    filter_text: str = "",
    order_by: Sequence[str] = (),
    among: Collection[str] | None = None,
    limit: int,
    offset: int = 0,
) -> list[ModelVersion]:
    """At most ``limit`` versions that meet the filter, newest first unless ordered otherwise; as ``search_models``."""
    query = _matching(tx, model_versions, _VERSIONS, _VERSION_COLUMNS, filter_text, order_by, among)
    newest = (by_code_point(tx, model_versions.c.model).desc(), model_versions.c.version.desc())
    return [version_of(row) for row in tx.execute(query.order_by(*newest).limit(limit).offset(offset))]


def _matching(
    tx: Transaction,
    table: Table,
    searchable: Searchable,
    columns: Mapping[str, ColumnElement[Any]],
    filter_text: str,
    order_by: Sequence[str],
    among: Collection[str] | None,
) -> Select[Any]:
    clauses = parse_filter(filter_text)
    query = select(table)
    if among is not None:
        query = query.where(columns["name"].in_(among))
    if not any(_asks_for_prompts(clause) for clause in clauses):
        query = query.where(func.lower(_tag(tx, table, PROMPT_TAG)) != "true")
    for clause in clauses:
        searchable.check(clause)
        found = _tag(tx, table, clause.key) if clause.kind == "tags" else columns[clause.key]
        number = clause.kind == "attributes" and clause.key in searchable.numbers
        query = query.where(compare(tx, found, clause, number=number))
    for kind, key, descending in (parse_order(text) for text in order_by):
        searchable.check_order(kind, key)
        value = by_code_point(tx, columns[key])
        query = query.order_by(value.desc() if descending else value.asc())
    return query


def _asks_for_prompts(clause: Clause) -> bool:
    """Whether it asks for prompts: they are registered models with a tag, shown to nobody else."""
    return (clause.kind, clause.key) == ("tags", PROMPT_TAG) and (clause.operator, clause.value) in _PROMPTS_ARE_MEANT


def _tag(tx: Transaction, table: Table, key: str) -> ColumnElement[Any]:
    """A tag's value; stock clients ask every search for what is no prompt, which models do not say of themselves."""
    if tx.dialect.name == "sqlite":
        pair = func.json_each(table.c.tags).table_valued(sql_column("key"), sql_column("value"), name="pair").c
        value: ColumnElement[Any] = select(pair.value).where(pair.key == key).scalar_subquery()
    else:
        value = cast(table.c.tags, JSON)[key].astext
    return func.coalesce(value, "false") if key == PROMPT_TAG else value

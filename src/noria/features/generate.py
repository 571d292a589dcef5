"""A first draft of definitions from a table: what looks like keys, times and features."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import InvalidConfig, InvalidData
from noria.features.file_source import FileSource
from noria.features.sources import Source
from noria.features.sql_source import SqlSource
from noria.features.types import FeatureType, ValueType, type_of

if TYPE_CHECKING:
    import polars as pl

_EVENT_NAMES = (
    *("event_timestamp", "event_time", "event_ts", "timestamp", "ts", "datetime", "occurred_at", "happened_at"),
    *("observed_at", "measured_at", "valid_from", "as_of", "time", "date", "day"),
)
_CREATED_NAMES = (
    *("created_timestamp", "created", "created_at", "created_on", "inserted_at", "ingested_at", "ingestion_time"),
    *("loaded_at", "recorded_at", "processed_at", "updated_at"),
)
_KEY = re.compile(r"^(id|key|uuid)$|(_id|_key|_uuid)$|[a-z](Id|Key)$")
_LARGEST_SHARE = 0.5
"""A key comes more than once over time: one of as many values as rows names rows, not entities."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a table seems to be, and what was left out for which reason."""

    name: str
    source: Source
    keys: Mapping[str, FeatureType]
    fields: Mapping[str, FeatureType]
    left_out: Mapping[str, str]


def open_table(table: str, folder: Path, *, url: str = "") -> Source:
    """The source of a Parquet path, or with ``url`` of a database's table."""
    if url:
        return SqlSource(url=url, table=table)
    is_delta = (folder / table / "_delta_log").is_dir()
    return FileSource(path=table, file_format="delta" if is_delta else "parquet")


def draft(source: Source, folder: Path, *, keys: Sequence[str] = (), event: str = "", created: str = "") -> Draft:
    """Look at the table's columns and values; what is given is taken as it is.

    Raises InvalidData when no column is a time or a key, or a given one is not there.
    """
    schema = source.columns(folder)
    for name in (*keys, event, created):
        if name and name not in schema:
            raise InvalidData(f"{source.name!r} has no column {name!r}", remedy=f"It has: {', '.join(schema)}.")
    created = created or _first(_CREATED_NAMES, _instants(schema, but=event))
    event = event or _first(_EVENT_NAMES, _instants(schema, but=created)) or _only(_instants(schema, but=created))
    if not event and created:  # one time only: it says when the value was true
        event, created = created, ""
    if not event:
        raise InvalidData(
            f"no column of {source.name!r} says when a row was true", remedy="Name it: --event-time COLUMN."
        )
    chosen = list(keys) or _keys(source.scan(folder), schema)
    if not chosen:
        raise InvalidData(
            f"no column of {source.name!r} looks like an entity's key: columns named ..._id that repeat",
            remedy="Name it: --key COLUMN.",
        )
    types, left_out = _types(schema, but=[*chosen, event, created])
    timed = _with_times(source, event, created)
    key_types = {name: type_of(schema[name]) for name in chosen}
    return Draft(_identifier(Path(source.name).stem), timed, key_types, types, left_out)


def render(found: Draft, *, ttl_days: int = 0) -> str:
    """The draft as Python, to be put into a project's folder."""
    entity = "_".join(re.sub(r"_?(id|key)$", "", name) or name for name in found.keys)
    entity = _identifier(entity if entity != found.name else f"{entity}_entity")
    value_type = _value_type(found)
    used = sorted({str(one).split("(")[0] for one in found.fields.values()} | _inner(found))
    names = ["Entity", "FeatureView", "Field", type(found.source).__name__] + (["ValueType"] if value_type else [])
    keys = "" if list(found.keys) == [entity] else f", join_keys={_list(list(found.keys))}"
    lines = [
        f'"""Features of {entity} from {_quoted_place(found.source)}: check keys, times and TTL before you apply."""',
        "",
        *(["from datetime import timedelta", ""] if ttl_days else []),
        f"from noria.features import {', '.join(sorted(names))}",
        f"from noria.features.types import {', '.join(used)}",
        "",
        f'{entity} = Entity(name="{entity}"{keys}{value_type})',
        "",
        f"{found.name}_source = {_source_call(found.source)}",
        "",
        f"{found.name} = FeatureView(",
        f'    name="{found.name}",',
        f"    entities=[{entity}],",
        "    schema=[",
        *(f"        Field(name={_literal(name)}, dtype={dtype})," for name, dtype in found.fields.items()),
        "    ],",
        f"    source={found.name}_source,",
        *([f"    ttl=timedelta(days={ttl_days}),"] if ttl_days else []),
        ")",
    ]
    return "\n".join(lines) + "\n"


def _instants(schema: Mapping[str, pl.DataType], *, but: str) -> list[str]:
    return [name for name, dtype in schema.items() if dtype.is_temporal() and name != but]


def _first(wanted: Sequence[str], names: Sequence[str]) -> str:
    by_name = {name.lower(): name for name in reversed(names)}
    return next((by_name[name] for name in wanted if name in by_name), "")


def _only(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ""


def _keys(frame: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> list[str]:
    """The columns named like keys whose values come back; all that are named so when none does."""
    import polars as pl

    named = [name for name, dtype in schema.items() if _KEY.search(name) and (dtype.is_integer() or dtype == pl.String)]
    if not named:
        return []
    counts = frame.select(pl.len().alias("rows"), *(pl.col(name).n_unique().alias(f"n_{name}") for name in named))
    found = counts.collect().row(0, named=True)
    repeated = [name for name in named if found[f"n_{name}"] <= max(found["rows"] * _LARGEST_SHARE, 1)]
    return repeated[:1] or named[:1]


def _types(schema: Mapping[str, pl.DataType], *, but: Sequence[str]) -> tuple[dict[str, FeatureType], dict[str, str]]:
    types, left_out = {}, {}
    for name, dtype in schema.items():
        if name in but:
            continue
        try:
            types[name] = type_of(dtype)
        except InvalidConfig as error:
            left_out[name] = error.message
    return types, left_out


def _with_times(source: Source, event: str, created: str) -> Source:
    return replace(source, timestamp_field=event, created_timestamp_column=created)


def _source_call(source: Source) -> str:
    given = source.document()
    shown = {
        name: value
        for name, value in given.items()
        if value and name != "kind" and (name, value) != ("file_format", "parquet")
    }
    if given["name"] in (given.get("path"), given.get("table")):
        del shown["name"]
    arguments = ",\n".join(f"    {name}={_literal(value)}" for name, value in shown.items())
    return f"{type(source).__name__}(\n{arguments},\n)"


def _value_type(found: Draft) -> str:
    """The entity's ``value_type`` where its only key has one: HTTP clients' keys are checked by it."""
    kinds = {one.feature_type: one.name for one in ValueType}
    (first, *rest) = found.keys.values()
    return f", value_type=ValueType.{kinds[first]}" if not rest and first in kinds else ""


def _inner(found: Draft) -> set[str]:
    return {str(one.inner) for one in found.fields.values() if one.inner is not None}


def _literal(value: object) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else repr(value)


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(map(_literal, names)) + "]"


def _quoted_place(source: Source) -> str:
    return source.name.replace('"', "'").replace("\\", "/")


def _identifier(text: str) -> str:
    name = re.sub(r"\W+", "_", text).strip("_").lower() or "table"
    name = name if not name[0].isdigit() else f"t_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name

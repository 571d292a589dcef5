"""Feature rows out of SQL tables and queries: PostgreSQL, SQLite, DuckDB, whatever SQLAlchemy has a dialect for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    create_engine,
    literal_column,
    select,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from noria.clock import as_utc
from noria.errors import InvalidConfig, InvalidData, MissingExtra
from noria.features.exact import exact
from noria.features.parquet_files import once
from noria.features.sources import Source, Wanted
from noria.features.types import FeatureType
from noria.store.foreign import driver_url, filled_in, verbatim

if TYPE_CHECKING:
    import polars as pl

_DUCKDB = "duckdb:///"
_TYPED_BY = 1000
"""Rows whose values tell the types of a database's columns."""

_BATCH_ROWS, _MOST_ROWS_HELD = 50_000, 50_000
_KEYS_A_QUERY, _MOST_KEYS = 20_000, 200_000
"""How many keys a query names, and with how many more of them it asks for all between the least and the greatest."""


@dataclass(frozen=True, kw_only=True)
class SqlSource(Source):
    """A table, or the result of a query, in the database at ``url``.

    ``url`` is SQLAlchemy's (``postgresql://``, ``sqlite:///``) or ``duckdb:///FILE``; ``${NAME}`` in it stands for the
    environment's value when the source is read, so that no password is kept. The database is asked only for the
    columns and, where it keeps times as times, the rows of the times and keys that are wanted; they are taken in some
    thousand at a time.
    """

    url: str
    table: str = ""
    query: str = ""

    def __post_init__(self) -> None:
        if bool(self.table) == bool(self.query):
            raise InvalidConfig(f"SQL source {self.name!r} needs a table or a query", remedy="Give one of the two.")
        object.__setattr__(self, "name", self.name or self.table or "query")

    def scan(self, folder: Path) -> pl.LazyFrame:
        return self._read(folder, self._select("*")).lazy()

    def columns(self, folder: Path) -> Mapping[str, pl.DataType]:
        return once(("columns", id(self), folder), lambda: self._columns(folder))

    def _columns(self, folder: Path) -> Mapping[str, pl.DataType]:
        import polars as pl

        schema = dict(self._read(folder, self._select("*").limit(_TYPED_BY)).schema)
        for name in [name for name, dtype in schema.items() if dtype == pl.Null]:
            known: ColumnElement[object] = sql_column(name)
            schema |= self._read(folder, self._select(name).where(known.is_not(None)).limit(1)).schema
        return {self.field_mapping.get(name, name): dtype for name, dtype in schema.items()}

    def fetch(self, folder: Path, wanted: Wanted) -> pl.LazyFrame:
        """A scan that asks the database when it is run, and takes in the answer row by row."""
        from polars.io.plugins import register_io_source

        columns = self.columns(folder)
        schema = {name: dtype for name, dtype in self.read_as(columns, wanted.types).items() if name in wanted.names}

        def batches(
            with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
        ) -> Iterator[pl.DataFrame]:
            del n_rows  # whoever wants only some stops asking
            for query in self._queries(wanted, columns[wanted.event]):
                for found in self._batches(folder, query, batch_size or _BATCH_ROWS):
                    typed = self._typed_as(found, schema, folder)
                    chosen = typed if predicate is None else typed.filter(predicate)
                    yield chosen if with_columns is None else chosen.select(with_columns)

        return register_io_source(batches, schema=schema)

    def read_as(
        self, columns: Mapping[str, pl.DataType], types: Mapping[str, FeatureType]
    ) -> Mapping[str, pl.DataType]:
        return {name: _expected(dtype, types.get(name)) for name, dtype in columns.items()}

    def _queries(self, wanted: Wanted, event: pl.DataType) -> Iterator[Select[Any]]:
        """What is asked of the database: rows of the times that matter; of few keys only theirs, some at a time."""
        theirs = {new: old for old, new in self.field_mapping.items()}
        query = self._select(*(theirs.get(name, name) for name in wanted.names))
        if event.is_temporal():  # where times are texts, their order is not theirs
            zoned = getattr(event, "time_zone", None) is not None
            time: ColumnElement[object] = sql_column(theirs.get(wanted.event, wanted.event))
            for bound, holds in ((wanted.since, time.__ge__), (wanted.until, time.__le__)):
                if bound is not None:
                    query = query.where(holds(as_utc(bound) if zoned else as_utc(bound).replace(tzinfo=None)))
        key, values = next(((key, one) for key, one in wanted.keys.items() if _is_listed(one)), ("", None))
        if values is None:
            yield query
            return
        column = self._key(theirs.get(key, key), values)
        if len(values) > _MOST_KEYS:
            yield query.where(column.between(values[0], values[-1])) if values.dtype.is_integer() else query
            return
        for start in range(0, len(values), _KEYS_A_QUERY):
            yield query.where(column.in_(values[start : start + _KEYS_A_QUERY].to_list()))

    def _key(self, name: str, values: pl.Series) -> ColumnElement[Any]:
        """A key as it compares with values of any size, and, where types are strict, with texts no enum has."""
        column: ColumnElement[Any] = sql_column(name, BigInteger if values.dtype.is_integer() else Text)
        is_cast = not values.dtype.is_integer() and not self.url.startswith("sqlite")
        return sql_cast(column, Text) if is_cast else column

    def _typed_as(self, found: pl.DataFrame, schema: Mapping[str, pl.DataType], folder: Path) -> pl.DataFrame:
        """A batch under the names and in the types of the schema, which was read off the first rows."""
        import polars as pl

        renamed = found.rename(dict(self.field_mapping), strict=False) if self.field_mapping else found
        with self.telling(folder):
            return pl.DataFrame([exact(_written(renamed[name], dtype), dtype) for name, dtype in schema.items()])

    def document(self) -> Mapping[str, object]:
        return {**super().document(), "url": self.url, "table": self.table, "query": self.query}

    def _select(self, *names: str) -> Select[Any]:
        relation: FromClause
        if self.query:
            asked = verbatim(self.query.strip().rstrip(";"))
            relation = asked.columns(*map(sql_column, _named(names))).subquery("wanted")
        else:
            *schema, name = self.table.split(".")
            relation = sql_table(name, *map(sql_column, _named(names)), schema=".".join(schema) or None)
        wanted: list[ColumnElement[Any]] = [literal_column("*") if name == "*" else sql_column(name) for name in names]
        return select(*wanted).select_from(relation)

    def _read(self, folder: Path, query: Select[Any]) -> pl.DataFrame:
        import polars as pl

        found = list(self._batches(folder, query, 2**62))
        return pl.concat(found, how="vertical_relaxed")

    def _batches(self, folder: Path, query: Select[Any], rows: int) -> Iterator[pl.DataFrame]:
        """The answer to a query, so many rows at a time; at least one batch, which tells its columns."""
        import polars as pl

        try:
            url = filled_in(self.url, f"source {self.name!r}")
            if url.startswith(_DUCKDB):
                yield from _duckdb_batches(folder / url.removeprefix(_DUCKDB), query, rows)
            else:
                yield from _sql_batches(driver_url(url, folder), query, rows)
        except (ImportError, NoSuchModuleError) as error:
            raise MissingExtra(
                f"source {self.name!r} needs a driver that is not installed: {error}",
                remedy="pip install 'noria[postgres]' or 'noria[duckdb]'",
            ) from None
        except ArgumentError:
            raise InvalidConfig(
                f"source {self.name!r} has no database URL",
                remedy="Write postgresql://USER@HOST/NAME or sqlite:///PATH.",
            ) from None
        except (SQLAlchemyError, OSError, pl.exceptions.PolarsError) as error:
            cause = getattr(error, "orig", None) or error
            raise InvalidData(
                f"source {self.name!r} cannot be read: {cause}", remedy="Check its url, table and query."
            ) from error


def _named(names: Sequence[str]) -> Sequence[str]:
    return () if names == ("*",) else names


def _sql_batches(url: URL, query: Select[Any], rows: int) -> Iterator[pl.DataFrame]:
    import polars as pl

    engine = create_engine(url)
    try:
        streamed = engine.connect().execution_options(stream_results=True)
        with streamed as connection, closing(connection.execute(query)) as found:
            names, first = list(found.keys()), True
            while (some := found.fetchmany(min(rows, _MOST_ROWS_HELD))) or first:
                first = False
                yield pl.DataFrame([tuple(row) for row in some], schema=names, orient="row", infer_schema_length=None)
    finally:
        engine.dispose()


def _duckdb_batches(path: Path, query: Select[Any], rows: int) -> Iterator[pl.DataFrame]:
    import duckdb
    import polars as pl
    from sqlalchemy.dialects.postgresql.base import PGDialect  # whose SQL DuckDB speaks

    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]  # pyformat would double each %
    dialect._backslash_escapes = False  # they are characters like any other in DuckDB's texts
    statement = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            reader = connection.sql(statement).to_arrow_reader(min(rows, _MOST_ROWS_HELD))
            yield pl.DataFrame(reader.schema.empty_table())
            for batch in reader:
                yield pl.DataFrame(batch)
    except duckdb.Error as error:
        raise OSError(str(error)) from error


def _expected(found: pl.DataType, field: FeatureType | None) -> pl.DataType:
    """The type to read a column in: its field's where that is of the kind found, as the first rows may not tell all.

    They may hold whole numbers alone, or dictionaries without the members of others, which are read as JSON.
    """
    import polars as pl

    wanted = None if field is None else field.polars()
    both = found.is_numeric() and wanted is not None and wanted.is_numeric()
    if wanted is not None and (found == pl.Null or both or (found == pl.Struct and wanted == pl.String)):
        return wanted
    return pl.String() if found == pl.Null else found


def _written(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Dictionaries as JSON, where texts are to be read."""
    import polars as pl

    if values.dtype != pl.Struct or dtype != pl.String:
        return values
    column = pl.col(values.name)
    return values.to_frame().select(pl.when(column.is_not_null()).then(column.struct.json_encode())).to_series()


def _is_listed(values: pl.Series) -> bool:
    """Whether keys can be named in a query: whole numbers, and texts that mean the same to every database."""
    import polars as pl

    if values.dtype != pl.String:
        return values.dtype.is_integer()
    return not values.str.contains(r"\x00| $").any()

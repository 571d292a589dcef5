"""Feature rows out of SQL tables and queries: PostgreSQL, SQLite, DuckDB, whatever SQLAlchemy has a dialect for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, FromClause, Select, create_engine, literal_column, select, text
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from noria.clock import as_utc
from noria.errors import InvalidConfig, InvalidData, MissingExtra
from noria.features.sources import Source
from noria.store.foreign import driver_url, filled_in

if TYPE_CHECKING:
    import polars as pl

_DUCKDB = "duckdb:///"
_TYPED_BY = 1000
"""Rows whose values tell the types of a database's columns."""


@dataclass(frozen=True, kw_only=True)
class SqlSource(Source):
    """A table, or the result of a query, in the database at ``url``.

    ``url`` is SQLAlchemy's (``postgresql://``, ``sqlite:///``) or ``duckdb:///FILE``; ``${NAME}`` in it stands for the
    environment's value when the source is read, so that no password is kept. The database is asked only for the
    columns and, where it keeps times as times, the rows that are wanted.
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
        schema = self._read(folder, self._select("*").limit(_TYPED_BY)).schema
        return {self.field_mapping.get(name, name): dtype for name, dtype in schema.items()}

    def fetch(
        self, folder: Path, names: Sequence[str], event: str, since: datetime | None, until: datetime | None
    ) -> pl.LazyFrame:
        theirs = {new: old for old, new in self.field_mapping.items()}
        query = self._select(*(theirs.get(name, name) for name in names))
        dtype = self.columns(folder)[event]
        if dtype.is_temporal():  # where times are texts, their order is not theirs
            zoned = getattr(dtype, "time_zone", None) is not None
            time: ColumnElement[object] = sql_column(theirs.get(event, event))
            for bound, holds in ((since, time.__ge__), (until, time.__le__)):
                if bound is not None:
                    query = query.where(holds(as_utc(bound) if zoned else as_utc(bound).replace(tzinfo=None)))
        return self._renamed(self._read(folder, query).lazy()).select(names)

    def document(self) -> Mapping[str, object]:
        return {**super().document(), "url": self.url, "table": self.table, "query": self.query}

    def _select(self, *names: str) -> Select[Any]:
        relation: FromClause
        if self.query:
            relation = text(self.query.strip().rstrip(";")).columns(*map(sql_column, _named(names))).subquery("wanted")
        else:
            *schema, name = self.table.split(".")
            relation = sql_table(name, *map(sql_column, _named(names)), schema=".".join(schema) or None)
        wanted: list[ColumnElement[Any]] = [literal_column("*") if name == "*" else sql_column(name) for name in names]
        return select(*wanted).select_from(relation)

    def _read(self, folder: Path, query: Select[Any]) -> pl.DataFrame:
        import polars as pl

        url = filled_in(self.url, f"source {self.name!r}")
        try:
            if url.startswith(_DUCKDB):
                return _read_duckdb(folder / url.removeprefix(_DUCKDB), query)
            engine = create_engine(driver_url(url, folder))
            with engine.connect() as connection:
                found = connection.execute(query)
                names, rows = list(found.keys()), [tuple(row) for row in found]
            engine.dispose()
            return pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
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


def _read_duckdb(path: Path, query: Select[Any]) -> pl.DataFrame:
    import duckdb
    import polars as pl
    from sqlalchemy.dialects.postgresql.base import PGDialect  # whose SQL DuckDB speaks

    dialect = PGDialect()  # type: ignore[no-untyped-call]
    statement = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            return pl.DataFrame(connection.sql(statement).to_arrow_table())
    except duckdb.Error as error:
        raise OSError(str(error)) from error

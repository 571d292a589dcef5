"""Rows out of SQL tables and queries, by ranges of a key."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, CursorResult, Engine, FromClause, create_engine, func, inspect, select, text
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from noria.errors import InvalidData, InvalidInput, MissingExtra, NoriaError, Unavailable
from noria.serving.batch.parts import Batch, Listed, Part
from noria.serving.batch.table_values import Digits, batch_of, plain, read_any_value, type_of
from noria.store.foreign import driver_url, filled_in, verbatim, without_password

if TYPE_CHECKING:
    import polars as pl

SCHEMES = ("sqlite", "postgresql", "postgres", "postgresql+psycopg")
_SAMPLED_ROWS = 1000
_BUSY_SECONDS = 60
_PRIMARY = 0xFF
"""The part of SQLite's codes that says what, not where."""
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)
_VALUES = re.compile(r"\n(?:DETAIL|CONTEXT):")
"""Where PostgreSQL begins to say what is in a row, which goes into no log."""
_END = re.compile(r";\s*(--[^'\"$\n]*(\n\s*|\Z)|/\*[^'\"$]*?\*/\s*|;\s*)*\Z")
"""The semicolons that end a statement, and comments behind them; a quote may mean that it is all within a text."""


@dataclass(frozen=True)
class TableRows:
    """Rows of a table, or of a query, in the database at ``url``.

    ``key`` orders and cuts them: a column, unique and not null; the table's primary key when it is one column. Without
    one all rows are one part.
    """

    url: str
    table: str = ""
    query: str = ""
    key: str = ""
    typed = True

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source. Types are those of each column's first values; null where there is none at all."""
        import polars as pl

        with connected(self.url) as connection:
            found = connection.execute(select(text("*")).select_from(self._relation).limit(_SAMPLED_ROWS))
            names, digits = list(found.keys()), _digits(found)
            rows = [plain(row) for row in found]
            columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
            types = {name: type_of(name, columns[name], digits[name]) for name in names}
            unknown = [name for name, kind in types.items() if kind == pl.Null]
            return types | {name: self._type(connection, name, digits[name]) for name in unknown if rows}

    def _type(self, connection: Connection, name: str, digits: Digits) -> pl.DataType:
        """The type of the first values of a column that are there, however late they come."""
        one: Any = sql_column(name)
        wanted = select(one).select_from(self._relation).where(one.is_not(None)).limit(_SAMPLED_ROWS)
        return type_of(name, [plain(row)[0] for row in connection.execute(wanted)], digits)

    def number_type(self, name: str) -> pl.DataType:
        """See Source. A database's decimals may have any number of places: an input of them is a float, as models take
        it."""
        import polars as pl

        kind = self.schema[name]
        return pl.Float64() if isinstance(kind, pl.Decimal) else kind

    def shown(self, name: str) -> str:
        """See Source."""
        return name

    def listing(self) -> Sequence[Listed]:
        """See Source. Only rows added or removed, and keys changed, are noticed: values are not read for this."""
        with connected(self.url) as connection:
            count = connection.execute(select(func.count()).select_from(self._relation)).scalar_one()
            bounds = [connection.execute(query).scalar() for query in self._bounds()]
        return (Listed(self.table or self.query, count, " ".join(map(str, bounds))),)

    def _bounds(self) -> Sequence[Any]:
        """What asks for the first and the last key; not every type that has an order has a ``min``."""
        if not self._key:
            return ()
        key: Any = sql_column(self._key)
        known = select(key).select_from(self._relation).where(key.is_not(None)).limit(1)
        return known.order_by(key), known.order_by(key.desc())

    def parts(self, rows: int) -> Sequence[Part]:
        """See Source. Raises InvalidData for rows without a key."""
        (listed,) = self.listing()
        if not listed.size:
            return []
        if not self._key:
            return [Part(0, listed.name, (None, None), listed.size, 0)]
        key: Any = sql_column(self._key)
        with connected(self.url) as connection:
            nulls = connection.execute(select(func.count()).select_from(self._relation).where(key.is_(None))).scalar()
            if nulls:
                raise InvalidData(f"{nulls} rows of {listed.name} have no {self._key}", remedy="Name another --key.")
            numbered = select(key, func.row_number().over(order_by=key).label("place")).select_from(self._relation)
            firsts = numbered.subquery("numbered")
            query = select(firsts.c[self._key]).where(firsts.c.place % rows == 1 % rows)
            starts = list(connection.execute(query.order_by(firsts.c.place)).scalars())
        ends = [*starts[1:], None]
        sizes = [rows] * (len(starts) - 1) + [listed.size - rows * (len(starts) - 1)]
        return [
            Part(number, listed.name, (None if not number else start, end), size, number * rows)
            for number, (start, end, size) in enumerate(zip(starts, ends, sizes, strict=True))
        ]

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source."""
        query: Any = select(*(sql_column(name) for name in columns)).select_from(self._relation)
        if self._key:
            key: Any = sql_column(self._key)
            first, last = part.span
            query = query.where(
                *([key >= first] if first is not None else []), *([key < last] if last is not None else [])
            )
            query = query.order_by(key)
        types = {name: self.schema[name] for name in columns}
        types |= {name: self.number_type(name) for name in numbers}
        with connected(self.url) as connection:
            found = connection.execution_options(stream_results=True).execute(query)
            while some := found.fetchmany(rows):
                yield batch_of([plain(row) for row in some], types)

    @cached_property
    def _key(self) -> str:
        """The column that cuts the rows; empty when there is none."""
        if self.key or not self.table:
            return self.key
        *schema, name = self.table.split(".")
        with connected(self.url) as connection:
            found = inspect(connection).get_pk_constraint(name, ".".join(schema) or None)["constrained_columns"]
        return found[0] if len(found) == 1 else ""

    @property
    def _relation(self) -> FromClause:
        if self.table:
            *schema, name = self.table.split(".")
            return sql_table(name, schema=".".join(schema) or None)
        query = _END.sub("", self.query.strip()) + "\n"  # which ends a comment
        return verbatim(query).columns().subquery("wanted")


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection in a transaction of its own, committed at the end. Raises InvalidData, Unavailable, MissingExtra."""
    try:
        engine = engine_of(url)
        try:
            with engine.begin() as connection:
                if engine.dialect.name == "postgresql":
                    read_any_value(connection.connection.driver_connection)
                yield connection
        except engine.dialect.loaded_dbapi.Error as error:  # of a COPY, of which SQLAlchemy does not know
            raise _fault(url, error) from error
        finally:
            engine.dispose()
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtra(
            f"{without_password(url)} needs a driver: {error}", remedy="pip install 'noria[postgres]'"
        ) from None
    except SQLAlchemyError as error:
        raise _fault(url, getattr(error, "orig", None) or error) from error


def _fault(url: str, cause: Exception) -> NoriaError:
    said = f"the database at {without_password(url)} says: {_VALUES.split(str(cause), maxsplit=1)[0].strip()}"
    if _may_pass(cause):
        return Unavailable(said, remedy="Check that it runs, takes these credentials, has room, and is locked by none.")
    remedy = "Check its URL, table and query; a --query can leave out a column whose values cannot be read."
    return InvalidData(said, remedy=remedy)


def _may_pass(cause: Exception) -> bool:
    """Whether the database, not what was asked of it, is at fault: locks, deadlocks, a full disk, no connection."""
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & _PRIMARY in _PASSING
    return any(kind.__name__ == "OperationalError" for kind in type(cause).__mro__)  # as PEP 249 calls it


def engine_of(url: str) -> Engine:
    """The database at ``url``; ``${NAME}`` in it stands for the environment's value. Raises InvalidInput."""
    shown = without_password(url)
    try:
        made = driver_url(filled_in(url, shown), Path())
        waits = {"timeout": _BUSY_SECONDS} if made.drivername == "sqlite" else {}
        return create_engine(made, connect_args=waits)
    except ArgumentError:
        raise InvalidInput(
            f"{shown} is no database", remedy="Write postgresql://USER@HOST/NAME or sqlite:///PATH."
        ) from None


def absolute(url: str) -> str:
    """The URL with the path of a SQLite file made absolute: processes that use it may start elsewhere."""
    prefix = "sqlite:///"
    return prefix + str(Path(url.removeprefix(prefix)).resolve()) if url.startswith(prefix) else url


def _digits(found: CursorResult[Any]) -> Mapping[str, Digits]:
    """Precision and scale of the columns of an answer, as far as the driver knows them."""
    described = found.cursor.description if found.cursor is not None else ()
    return {name: (one[4], one[5]) for name, one in zip(found.keys(), described, strict=True)}

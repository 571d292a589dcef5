"""Rows out of SQL tables and queries, by ranges of a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Engine, FromClause, create_engine, func, inspect, select, text
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from noria.errors import InvalidData, InvalidInput, MissingExtra, Unavailable
from noria.serving.batch.parts import Batch, Listed, Part
from noria.store.foreign import driver_url, filled_in, without_password

if TYPE_CHECKING:
    import polars as pl

SCHEMES = ("sqlite", "postgresql", "postgres", "postgresql+psycopg")
_SAMPLED_ROWS = 1000
_BUSY_SECONDS = 60
_INSTEAD: Mapping[type, Callable[[Any], Any]] = {
    Decimal: float,
    UUID: str,
    IPv4Address: str,
    IPv6Address: str,
}


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
            names, rows = list(found.keys()), [_plain(row) for row in found]
            types = dict(pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None).schema)
            unknown = [name for name, kind in types.items() if kind == pl.Null]
            return types | {name: self._type(connection, name) for name in unknown if rows}

    def _type(self, connection: Connection, name: str) -> pl.DataType:
        """The type of the first values of a column that are there, however late they come."""
        import polars as pl

        one: Any = sql_column(name)
        wanted = select(one).select_from(self._relation).where(one.is_not(None)).limit(_SAMPLED_ROWS)
        rows = [_plain(row) for row in connection.execute(wanted)]
        return pl.DataFrame(rows, schema=[name], orient="row", infer_schema_length=None).schema[name]

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
        import polars as pl

        del numbers  # a database has types
        query: Any = select(*(sql_column(name) for name in columns)).select_from(self._relation)
        if self._key:
            key: Any = sql_column(self._key)
            first, last = part.span
            query = query.where(
                *([key >= first] if first is not None else []), *([key < last] if last is not None else [])
            )
            query = query.order_by(key)
        schema = {name: self.schema[name] for name in columns}
        with connected(self.url) as connection:
            found = connection.execution_options(stream_results=True).execute(query)
            while some := found.fetchmany(rows):
                frame = pl.DataFrame(
                    [_plain(row) for row in some], list(columns), orient="row", infer_schema_length=None
                )
                yield Batch(_as(frame, schema, part.source))

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
        query = self.query.strip().rstrip(";") + "\n"  # which ends a comment
        return text(query).columns().subquery("wanted")


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection in a transaction of its own, committed at the end. Raises InvalidData, Unavailable, MissingExtra."""
    try:
        engine = engine_of(url)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtra(
            f"{without_password(url)} needs a driver: {error}", remedy="pip install 'noria[postgres]'"
        ) from None
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        kind = Unavailable if getattr(error, "connection_invalidated", False) or "connect" in cause else InvalidData
        raise kind(
            f"the database at {without_password(url)} says: {cause}", remedy="Check its URL, table and query."
        ) from error


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


def _plain(row: Any) -> tuple[Any, ...]:
    """A row's values; exact decimals as floats, which is what models take, and what frames know no type of as text."""
    return tuple(_INSTEAD[type(value)](value) if type(value) in _INSTEAD else value for value in row)


def _as(frame: pl.DataFrame, schema: Mapping[str, pl.DataType], name: str) -> pl.DataFrame:
    import polars as pl

    try:
        for one in (frame[name] for name, kind in schema.items() if kind.is_integer()):
            if one.dtype.is_float() and not (one.round() == one).all():  # a cast would cut them off
                raise pl.exceptions.InvalidOperationError(f"{one.name!r} has fractions")
        return frame.cast(dict(schema))  # type: ignore[arg-type]  # its keys may be names
    except pl.exceptions.PolarsError as error:
        raise InvalidData(
            f"{name} has values of other types than those of its first rows: {error}",
            remedy="Cast the column in a --query.",
        ) from None

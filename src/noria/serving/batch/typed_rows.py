"""Rows out of files whose columns have types, by groups of rows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData
from noria.serving.batch.column_files import ColumnFile, open_columns
from noria.serving.batch.files import Format, InputFiles
from noria.serving.batch.parts import Batch, Listed, Part

if TYPE_CHECKING:
    import polars as pl

_MOST_DIGITS = 38
_NAMES: Mapping[Format, str] = {"parquet": "Parquet", "arrow": "Arrow", "orc": "ORC", "avro": "Avro"}
_OFFSET = re.compile(r"[+-]\d\d:?\d\d")
"""A time zone that Arrow knows by its distance from UTC, and Polars does not."""


@dataclass(frozen=True)
class TypedRows:
    """Rows of files of a ``format`` that has types.

    They share the columns that are asked for; the first file says their types, and others may have wider ones of the
    same kind.
    """

    files: InputFiles
    format: Format = "parquet"
    typed = True

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        return {**self._footers.types, **self.files.hive_types}

    @cached_property
    def _footers(self) -> _Footers:
        found: _Footers | None = None
        for listed in self.files.files:
            with self._opened(listed.name) as file:
                fields = file.schema if found is None else _fields(file.schema, found.types)
                types = _types(fields)
                rows = file.group_rows
            found = _Footers(types, frozenset(), {}) if found is None else found.widened(types)
            found.group_rows[listed.name] = rows
        assert found is not None
        return found

    def number_type(self, name: str) -> pl.DataType:
        """See Source: a float where files differ in whether it has fractions."""
        import polars as pl

        return pl.Float64() if name in self._footers.mixed else self.schema[name]

    def shown(self, name: str) -> str:
        """See Source."""
        return self.files.shown(name)

    def listing(self) -> Sequence[Listed]:
        """See Source."""
        return self.files.files

    def parts(self, rows: int) -> Sequence[Part]:
        """See Source: groups of one file that follow each other."""
        found: list[Part] = []
        for listed in self.files.files:
            counts = self._footers.group_rows[listed.name]
            start = first = 0
            for end, reached in enumerate(itertools.accumulate(counts), 1):
                if reached - first >= rows or (end == len(counts) and reached > first):
                    found.append(Part(len(found), listed.name, (start, end), reached - first, first))
                    start, first = end, reached
        return found

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source."""
        import polars as pl

        schema = self.schema
        types = {name: self.number_type(name) if name in numbers else schema[name] for name in columns}
        hive = self.files.hive.get(part.source, {})
        stored = [name for name in columns if name not in hive]
        with self._opened(part.source) as file:
            if missing := [name for name in stored if name not in file.schema.names]:
                raise InvalidData(
                    f"{self.shown(part.source)} lacks columns: {', '.join(missing)}",
                    remedy=f"It has: {', '.join(file.schema.names)}.",
                )
            for records in file.batches(range(*part.span), stored, rows):
                frame = _frame(records, self.shown(part.source)) if stored else pl.DataFrame(height=len(records))
                added = [pl.lit(hive[name], schema[name]).alias(name) for name in columns if name in hive]
                yield Batch(_as(frame.with_columns(added), types, numbers, self.shown(part.source)).select(columns))

    @contextmanager
    def _opened(self, name: str) -> Iterator[ColumnFile]:
        """A file, open. Raises InvalidData for what is none of its format, or is damaged."""
        import polars as pl
        import pyarrow

        with self.files.open(name, by_name=True) as file:
            if not file.seekable():
                raise InvalidData(f"{self.shown(name)} is compressed as a whole", remedy="Decompress it first.")
            try:
                yield open_columns(file, self.format)
            except (pyarrow.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # of the disk below
                    raise
                raise InvalidData(
                    f"{self.shown(name)} is no {_NAMES[self.format]} file, or is damaged: {error}",
                    remedy="Make it anew, or name another --input-format.",
                ) from None


@dataclass(frozen=True, slots=True)
class _Footers:
    """What the footers of all files say: the types of the first one's columns, as wide as any file has them; which of
    them are whole numbers in some and have fractions in others; and the rows of each file's row groups."""

    types: Mapping[str, pl.DataType]
    mixed: frozenset[str]
    group_rows: dict[str, Sequence[int]]

    def widened(self, others: Mapping[str, pl.DataType]) -> _Footers:
        """With a further file that has ``others``."""
        differing = {name: kind for name, kind in others.items() if self.types.get(name, kind) != kind}
        if not differing:
            return self
        types = {name: _wider(kind, differing.get(name, kind)) for name, kind in self.types.items()}
        mixed = {name for name, kind in differing.items() if _sort(kind) and _sort(kind) != _sort(types[name])}
        return _Footers(types, self.mixed | mixed, self.group_rows)


def _types(fields: Any) -> dict[str, pl.DataType]:
    """The types of columns; that of any objects, which no output takes, where frames have none for one."""
    import polars as pl
    import pyarrow

    try:
        return dict(_frame(fields.empty_table(), "").schema)
    except (InvalidData, pyarrow.ArrowException):
        if len(fields) == 1:
            return {fields.names[0]: pl.Object()}
    return {name: kind for field in fields for name, kind in _types(pyarrow.schema([field])).items()}


def _fields(schema: Any, names: Collection[str]) -> Any:
    """The fields of an Arrow schema that have these names: what else a further file has is not looked at."""
    import pyarrow

    return pyarrow.schema([field for field in schema if field.name in names])


def _sort(kind: pl.DataType) -> str:
    """Of which sort of numbers a type is; empty for what are none."""
    import polars as pl

    if kind.is_numeric():
        return "whole" if kind.is_integer() else "float" if kind.is_float() else "decimal"
    return "boolean" if kind == pl.Boolean else ""


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    """The type that takes the values of both where they are of a kind, else ``one``."""
    import polars as pl

    if one == pl.Null:
        return other
    if isinstance(one, pl.Decimal) and isinstance(other, pl.Decimal):
        scale = max(one.scale, other.scale)
        whole = max(one.precision - one.scale, other.precision - other.scale)
        return pl.Decimal(whole + scale, scale) if whole + scale <= _MOST_DIGITS else one
    if isinstance(one, pl.Datetime) and isinstance(other, pl.Datetime):
        return pl.Datetime("ns" if "ns" in (one.time_unit, other.time_unit) else "us", one.time_zone)
    if (one.is_integer() and other.is_integer()) or (one.is_float() and other.is_float()):
        found = pl.concat(
            [pl.Series([], dtype=one).to_frame("x"), pl.Series([], dtype=other).to_frame("x")], how="vertical_relaxed"
        ).schema["x"]
        return found if found.is_integer() == one.is_integer() else one
    return one


def _frame(records: Any, name: str) -> pl.DataFrame:
    """Arrow's records as a frame. Raises InvalidData for a column of a type that frames do not have."""
    import polars as pl

    try:
        frame = pl.from_arrow(_in_known_zones(records))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in records.schema)
        raise InvalidData(
            f"a column of {name} cannot be read: {error}",
            details=[f"its columns: {kinds}"],
            remedy="Leave it out: --keep with the names of the others, or --keep none.",
        ) from None
    assert isinstance(frame, pl.DataFrame)
    return frame


def _in_known_zones(records: Any) -> Any:
    """Instants of a zone like +05:30 in UTC: the same instants."""
    import pyarrow

    for place, field in enumerate(records.schema):
        if pyarrow.types.is_timestamp(field.type) and _OFFSET.fullmatch(field.type.tz or ""):
            utc = records.column(place).cast(pyarrow.timestamp(field.type.unit, "UTC"))
            records = records.set_column(place, field.name, utc)
    return records


def _as(frame: pl.DataFrame, types: Mapping[str, pl.DataType], numbers: Sequence[str], name: str) -> pl.DataFrame:
    """The frame in these types: every value as it is, but for ``numbers``, which become floats for the model."""
    import polars as pl

    others = {column: types[column] for column, dtype in frame.schema.items() if dtype != types[column]}
    try:
        cast = frame.cast(others)  # type: ignore[arg-type]
        changed = [
            column
            for column, kind in others.items()
            if not (column in numbers and kind.is_float()) and _is_changed(frame[column], cast[column])
        ]
    except pl.exceptions.PolarsError as error:
        raise _other_types(others, name, str(error)) from None
    if changed:
        raise _other_types(changed, name, f"as {types[changed[0]]} some values would be other ones")
    return cast


def _is_changed(values: pl.Series, cast: pl.Series) -> bool:
    """Whether a cast that Polars makes without a word cut off fractions, digits or parts of seconds."""
    if not all(_sort(kind) or kind.is_temporal() for kind in (values.dtype, cast.dtype)):
        return False
    return not bool(cast.cast(values.dtype).eq_missing(values).all())


def _other_types(columns: Iterable[str], name: str, why: str) -> InvalidData:
    return InvalidData(
        f"the columns {', '.join(columns)} of {name} have other types than those of the first file: {why}",
        remedy="Score files of different tables by jobs of their own, or leave the column out with --keep.",
    )

"""Rows out of Parquet files, by row groups."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData
from noria.serving.batch.files import InputFiles
from noria.serving.batch.parts import Batch, Listed, Part

if TYPE_CHECKING:
    import polars as pl

_MOST_DIGITS = 38


@dataclass(frozen=True)
class ParquetRows:
    """Rows of Parquet files. They share the columns that are asked for; the first file says their types, and others may
    have wider ones of the same kind."""

    files: InputFiles
    typed = True

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""
        return {**self._footers.types, **self.files.hive_types}

    @cached_property
    def _footers(self) -> _Footers:
        found: _Footers | None = None
        for listed in self.files.files:
            with _opened(self.files, listed.name) as file:
                fields = file.schema_arrow if found is None else _fields(file.schema_arrow, found.types)
                types = _frame(fields.empty_table(), self.shown(listed.name)).schema
                rows = [file.metadata.row_group(place).num_rows for place in range(file.metadata.num_row_groups)]
            found = _Footers(dict(types), frozenset(), {}) if found is None else found.widened(types)
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
        """See Source: row groups of one file that follow each other."""
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
        with _opened(self.files, part.source) as file:
            if missing := [name for name in stored if name not in file.schema_arrow.names]:
                raise InvalidData(
                    f"{self.shown(part.source)} lacks columns: {', '.join(missing)}",
                    remedy=f"It has: {', '.join(file.schema_arrow.names)}.",
                )
            for records in file.iter_batches(rows, row_groups=range(*part.span), columns=stored):
                frame = _frame(records, self.shown(part.source)) if stored else pl.DataFrame(height=len(records))
                added = [pl.lit(hive[name], schema[name]).alias(name) for name in columns if name in hive]
                yield Batch(_as(frame.with_columns(added), types, numbers, self.shown(part.source)).select(columns))


@dataclass(frozen=True, slots=True)
class _Footers:
    """What the footers of all files say: the types of the first one's columns, as wide as any file has them; which of
    them are whole numbers in some and have fractions in others; and the rows of each file's row groups."""

    types: Mapping[str, pl.DataType]
    mixed: frozenset[str]
    group_rows: dict[str, list[int]]

    def widened(self, others: Mapping[str, pl.DataType]) -> _Footers:
        """With a further file that has ``others``."""
        differing = {name: kind for name, kind in others.items() if self.types.get(name, kind) != kind}
        if not differing:
            return self
        types = {name: _wider(kind, differing.get(name, kind)) for name, kind in self.types.items()}
        mixed = {name for name, kind in differing.items() if _sort(kind) and _sort(kind) != _sort(types[name])}
        return _Footers(types, self.mixed | mixed, self.group_rows)


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


class _opened:
    """A Parquet file, open. Raises InvalidData for what is none."""

    def __init__(self, files: InputFiles, name: str) -> None:
        self._name, self._opening = files.shown(name), files.open(name)

    def __enter__(self) -> Any:
        import pyarrow
        import pyarrow.parquet

        file = self._opening.__enter__()
        try:
            return pyarrow.parquet.ParquetFile(file)
        except pyarrow.ArrowInvalid as error:
            self._opening.__exit__(None, None, None)
            raise InvalidData(
                f"{self._name} is no Parquet file: {error}", remedy="Name another --input-format."
            ) from None

    def __exit__(self, *error: Any) -> None:
        self._opening.__exit__(*error)


def _frame(records: Any, name: str) -> pl.DataFrame:
    """Arrow's records as a frame. Raises InvalidData for a column of a type that frames do not have."""
    import polars as pl

    try:
        frame = pl.from_arrow(records)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in records.schema)
        raise InvalidData(
            f"a column of {name} cannot be read: {error}",
            details=[f"its columns: {kinds}"],
            remedy="Leave it out: --keep with the names of the others, or --keep none.",
        ) from None
    assert isinstance(frame, pl.DataFrame)
    return frame


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

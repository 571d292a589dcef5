"""Rows out of Parquet files, by row groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidData
from noria.serving.batch.files import InputFiles
from noria.serving.batch.parts import Batch, Listed, Part

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ParquetRows:
    """Rows of Parquet files. They share the columns that are asked for; the first file says their types."""

    files: InputFiles
    typed = True

    @cached_property
    def schema(self) -> Mapping[str, pl.DataType]:
        """See Source."""

        name = self.files.files[0].name
        with _opened(self.files, name) as file:
            frame = _frame(file.schema_arrow.empty_table(), self.shown(name))
        return {**frame.schema, **self.files.hive_types}

    def number_type(self, kind: pl.DataType) -> pl.DataType:
        """See Source."""
        return kind

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
            with _opened(self.files, listed.name) as file:
                counts = [file.metadata.row_group(place).num_rows for place in range(file.metadata.num_row_groups)]
            start = first = 0
            for end, reached in enumerate(itertools.accumulate(counts), 1):
                if reached - first >= rows or (end == len(counts) and reached > first):
                    found.append(Part(len(found), listed.name, (start, end), reached - first, first))
                    start, first = end, reached
        return found

    def batches(self, part: Part, columns: Sequence[str], numbers: Sequence[str], rows: int) -> Iterator[Batch]:
        """See Source."""
        import polars as pl

        del numbers  # the schema says what they are
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
                added = [pl.lit(hive[name], self.schema[name]).alias(name) for name in columns if name in hive]
                yield Batch(_as(frame.with_columns(added), self.schema, self.shown(part.source)).select(columns))


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


def _as(frame: pl.DataFrame, schema: Mapping[str, pl.DataType], name: str) -> pl.DataFrame:
    """The frame in the types of the schema; files of one table may have whole numbers of several widths."""
    import polars as pl

    others = [column for column, dtype in frame.schema.items() if dtype != schema[column]]
    try:
        return frame.cast({column: schema[column] for column in others}) if others else frame
    except pl.exceptions.PolarsError as error:
        raise InvalidData(
            f"the columns {', '.join(others)} of {name} have other types than those of the first file: {error}",
            remedy="Score files of different tables by jobs of their own.",
        ) from None

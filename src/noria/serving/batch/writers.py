"""Output files: frames appended one by one, in the format asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from noria.errors import InvalidInput
from noria.serving.batch.files import Format

if TYPE_CHECKING:
    import polars as pl


_MOST_DIGITS = 38


class FrameWriter(Protocol):
    """Writes frames of one schema to one file."""

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


def check_types(format_: Format, schema: Mapping[str, pl.DataType]) -> None:
    """Raises InvalidInput that names the columns which a format cannot hold."""
    if bad := [f"{name} ({kind})" for name, kind in schema.items() if not _goes_into(format_, kind)]:
        leave = "eave them out: --keep with the names of the others, or --keep none."
        raise InvalidInput(
            f"columns of these types do not go into {format_}: {', '.join(bad)}",
            remedy=f"L{leave}" if format_ == "parquet" else f"Use --format parquet, or l{leave}",
        )


def open_writer(path: Path, format_: Format, schema: Mapping[str, pl.DataType]) -> FrameWriter:
    """A writer of a new file."""
    return _ParquetWriter(path, schema) if format_ == "parquet" else _TextWriter(path, format_, schema)


class _ParquetWriter:
    """A row group a frame, compressed by zstd."""

    def __init__(self, path: Path, schema: Mapping[str, pl.DataType]) -> None:
        import polars as pl
        import pyarrow.parquet

        self._schema = pl.DataFrame(schema=dict(schema)).to_arrow().schema
        texts = [name for name, kind in schema.items() if kind == pl.String]  # what repeats: numbers hardly do
        self._file: Any = pyarrow.parquet.ParquetWriter(
            path, self._schema, compression="zstd", compression_level=1, use_dictionary=texts
        )

    def write(self, frame: pl.DataFrame) -> None:
        if frame.height:
            self._file.write_table(frame.to_arrow().cast(self._schema))

    def close(self) -> None:
        self._file.close()


class _TextWriter:
    """CSV with a header, or JSON lines."""

    def __init__(self, path: Path, format_: Format, schema: Mapping[str, pl.DataType]) -> None:
        import polars as pl

        self._is_csv, self._file = format_ == "csv", path.open("wb")
        if self._is_csv:
            pl.DataFrame(schema=dict(schema)).write_csv(self._file)

    def write(self, frame: pl.DataFrame) -> None:
        if self._is_csv:
            frame.write_csv(self._file, include_header=False)
        else:
            frame.write_ndjson(self._file)

    def close(self) -> None:
        self._file.close()


def _goes_into(format_: Format, kind: Any) -> bool:
    import polars as pl

    if any(one == pl.Object or _is_too_wide(one) for one in _leaves(kind)):  # of objects, addresses would be written
        return False
    if format_ == "csv":
        return not kind.is_nested() and kind not in (pl.Binary, pl.Duration)
    return format_ == "parquet" or not any(one == pl.Binary for one in _leaves(kind))


def _is_too_wide(kind: Any) -> bool:
    """Whether it is of decimals with more digits than frames have."""
    import polars as pl

    return isinstance(kind, pl.Decimal) and (kind.precision or 0) > _MOST_DIGITS


def _leaves(kind: Any) -> Iterator[Any]:
    """The types that values of a type are made of."""
    import polars as pl

    if isinstance(kind, pl.List | pl.Array):
        yield from _leaves(kind.inner)
    elif isinstance(kind, pl.Struct):
        for one in kind.fields:
            yield from _leaves(one.dtype)
    else:
        yield kind

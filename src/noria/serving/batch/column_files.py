"""Files of columns that have types, each opened as groups of rows: Parquet, Arrow's own (Feather), ORC, Avro."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

from noria.serving.batch.files import Format

if TYPE_CHECKING:
    import polars as pl

_ARROW_FILE = b"ARROW1"
"""How Arrow's file format begins; its stream has no beginning of its own."""


class ColumnFile(Protocol):
    """An open file. ``schema`` is Arrow's, ``group_rows`` says how many rows each of its groups has."""

    schema: Any

    @property
    def group_rows(self) -> Sequence[int]:
        """Rows of each group; reading them may read the file."""

    def batches(self, groups: range, columns: Sequence[str], rows: int) -> Iterator[Any]:
        """Arrow's records of some groups, at most ``rows`` at a time; of no ``columns``, as many records."""


def open_columns(file: IO[bytes], kind: Format) -> ColumnFile:
    """The file as ``kind``. Raises what Arrow and Polars do where it is none: ArrowException, OSError, PolarsError."""
    return _KINDS[kind](file)


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
        self.schema = self._file.schema_arrow

    @property
    def group_rows(self) -> Sequence[int]:
        footer = self._file.metadata
        return [footer.row_group(place).num_rows for place in range(footer.num_row_groups)]

    def batches(self, groups: range, columns: Sequence[str], rows: int) -> Iterator[Any]:
        yield from self._file.iter_batches(rows, row_groups=groups, columns=columns)


class _Arrow:
    """Its record batches are the groups; a stream, which can only be read from its beginning, is one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._is_stream = file.read(len(_ARROW_FILE)) != _ARROW_FILE
        self.schema = self._opened([]).schema

    @property
    def group_rows(self) -> Sequence[int]:
        counts = [records.num_rows for records in self._records(None, [])]
        return [sum(counts)] if self._is_stream else counts

    def batches(self, groups: range, columns: Sequence[str], rows: int) -> Iterator[Any]:
        for records in self._records(groups, columns):
            yield from _slices(records, rows)

    def _opened(self, columns: Sequence[str]) -> Any:
        from pyarrow import ipc

        self._file.seek(0)
        fields = [self.schema.names.index(name) for name in columns] if columns else []
        options = ipc.IpcReadOptions(included_fields=fields or None)
        opening = ipc.open_stream if self._is_stream else ipc.open_file
        return opening(self._file, options=options)

    def _records(self, groups: range | None, columns: Sequence[str]) -> Iterator[Any]:
        reader = self._opened(columns or self.schema.names[:1])
        if self._is_stream:
            yield from reader
            return
        for place in range(reader.num_record_batches) if groups is None else groups:
            yield reader.get_batch(place)


class _Orc:
    """Its stripes are the groups."""

    def __init__(self, file: IO[bytes]) -> None:
        from pyarrow import orc

        self._file = orc.ORCFile(file)
        self.schema = self._file.schema

    @property
    def group_rows(self) -> Sequence[int]:
        return [self._stripe(place, []).num_rows for place in range(self._file.nstripes)]

    def batches(self, groups: range, columns: Sequence[str], rows: int) -> Iterator[Any]:
        for place in groups:
            yield from _slices(self._stripe(place, columns), rows)

    def _stripe(self, place: int, columns: Sequence[str]) -> Any:
        return self._file.read_stripe(place, list(columns) or self.schema.names[:1])


class _Avro:
    """One group: Polars reads it whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.schema = self._frame([], rows=0).to_arrow().schema

    @property
    def group_rows(self) -> Sequence[int]:
        return [self._frame(self.schema.names[:1]).height]

    def batches(self, groups: range, columns: Sequence[str], rows: int) -> Iterator[Any]:
        del groups
        for frame in self._frame(columns or self.schema.names[:1]).iter_slices(rows):
            yield frame.to_arrow()

    def _frame(self, columns: Sequence[str], rows: int | None = None) -> pl.DataFrame:
        import polars as pl

        self._file.seek(0)
        return pl.read_avro(self._file, columns=list(columns) or None, n_rows=rows)


_KINDS: Mapping[Format, Callable[[IO[bytes]], ColumnFile]] = {
    "parquet": _Parquet,
    "arrow": _Arrow,
    "orc": _Orc,
    "avro": _Avro,
}


def _slices(records: Any, rows: int) -> Iterator[Any]:
    for start in range(0, records.num_rows, rows):
        yield records.slice(start, rows)

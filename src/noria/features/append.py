"""Adding pushed rows to the files a view's history is read from."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import InvalidData
from noria.features.times import instant
from noria.ids import new_id

if TYPE_CHECKING:
    import polars as pl


def append_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Add the rows to a Parquet file, or as one file more to a folder of them; readers see all of them or none.

    A column the file has and the frame has not becomes null. Raises InvalidData for one the file does not have.
    """
    import polars as pl

    if path.is_dir():
        _write(path / f"pushed-{new_id()}.parquet", _shaped(frame, pl.scan_parquet(path).collect_schema(), path))
        return
    with _alone(path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, frame)
            return
        before = pl.read_parquet(path)
        _write(path, pl.concat([before, _shaped(frame, before.schema, path)]))


def _shaped(frame: pl.DataFrame, schema: pl.Schema, path: Path) -> pl.DataFrame:
    import polars as pl

    if unknown := [name for name in frame.columns if name not in schema]:
        raise InvalidData(
            f"{path.name} has no column {', '.join(unknown)}", remedy=f"Push rows of: {', '.join(schema.names())}."
        )
    empty = [pl.lit(None).alias(name) for name in schema if name not in frame.columns]
    try:
        return frame.with_columns(empty).select(_cast(frame, name, dtype) for name, dtype in schema.items())
    except pl.exceptions.PolarsError as error:
        raise InvalidData(
            f"the rows do not fit {path.name}: {str(error).splitlines()[0]}", remedy="Push values of the file's types."
        ) from error


def _cast(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Expr:
    """The column as the file has it; an instant without a zone is UTC."""
    import polars as pl

    if not isinstance(dtype, pl.Datetime) or name not in frame.columns:
        return pl.col(name).cast(dtype)
    value = instant(name, frame.schema[name], "the rows")
    value = value.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else value.dt.replace_time_zone(None)
    return value.cast(dtype)


def _write(path: Path, frame: pl.DataFrame) -> None:
    """Write under another name first: a reader never sees half a file."""
    unfinished = path.with_name(f".{path.name}.{new_id()}")
    try:
        frame.write_parquet(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One writer at a time, in all processes of this machine: each writes all that was there and its own rows."""
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

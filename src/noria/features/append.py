"""Adding pushed rows to the files a view's history is read from."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from noria.errors import InvalidData, Unavailable
from noria.features.exact import Inexact, exact
from noria.features.parquet_files import scan_local
from noria.features.times import instant
from noria.ids import new_id

if TYPE_CHECKING:
    import polars as pl


@contextmanager
def appending_parquet(path: Path, frame: pl.DataFrame) -> Iterator[Callable[[], None]]:
    """Rows on their way into a Parquet file, or as one file more into a folder: what is given makes them visible.

    Until then, and for good when it is not called, readers see nothing of them. A column the file has and the frame
    has not becomes null. Raises InvalidData for one the file does not have.
    """
    import polars as pl

    if path.is_dir():
        new = path / f"pushed-{new_id()}.parquet"
        with _unfinished(new, shaped(frame, scan_local(path).collect_schema(), path.name)) as finish:
            yield finish
        return
    with _alone(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        before = pl.read_parquet(path, glob=False) if path.exists() else frame.clear()
        with _unfinished(path, pl.concat([before, shaped(frame, before.schema, path.name)])) as finish:
            yield finish


def shaped(frame: pl.DataFrame, schema: pl.Schema, table: str) -> pl.DataFrame:
    """The rows in the columns and types of a table. Raises InvalidData for what does not fit them."""
    import polars as pl

    if unknown := [name for name in frame.columns if name not in schema]:
        raise InvalidData(
            f"{table} has no column {', '.join(unknown)}", remedy=f"Push rows of: {', '.join(schema.names())}."
        )
    filled = frame.with_columns(pl.lit(None).alias(name) for name in schema if name not in frame.columns)
    try:
        return pl.DataFrame([_fitting(filled[name], dtype, table) for name, dtype in schema.items()])
    except Inexact as error:
        column, row, value, kind = error.parts
        raise InvalidData(
            f"column {column!r} of the rows holds {value} in row {row} (counted from 0), which is no {kind}",
            remedy=f"Push values of the types of {table}.",
        ) from None
    except pl.exceptions.PolarsError as error:
        raise InvalidData(
            f"the rows do not fit {table}: {str(error).splitlines()[0]}", remedy="Push values of its types."
        ) from error


def _fitting(values: pl.Series, dtype: pl.DataType, table: str) -> pl.Series:
    """The column as the table has it; an instant without a zone is UTC."""
    import polars as pl

    if not isinstance(dtype, pl.Datetime) or values.dtype == pl.Null:
        return exact(values, dtype)
    at = values.to_frame().select(instant(values.name, values.dtype, table)).to_series()
    at = at.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else at.dt.replace_time_zone(None)
    return at.cast(dtype)


@contextmanager
def _unfinished(path: Path, frame: pl.DataFrame) -> Iterator[Callable[[], None]]:
    """A file under a name that no reader looks at; what is given puts it in its place, else it is gone."""
    unfinished = path.with_name(f".{path.name}.{new_id()}")

    def finish() -> None:
        unfinished.replace(path)

    try:
        try:
            frame.write_parquet(unfinished)
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be written: {error}", remedy="Check the disk's space and the folder's permissions."
            ) from error
        yield finish
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

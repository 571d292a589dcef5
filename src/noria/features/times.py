"""Instants in frames: every way to write one becomes UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from noria.errors import InvalidData

if TYPE_CHECKING:
    import polars as pl


def instant(column: str, dtype: pl.DataType, source: str) -> pl.Expr:
    """A time column in UTC, in nanoseconds when it has them, else microseconds; without a zone it is UTC already.

    Texts are read as ISO 8601, those that are none become null. Raises InvalidData for a column of another type.
    """
    import polars as pl

    value = pl.col(column)
    if dtype == pl.String:
        return value.str.to_datetime(time_unit="us", time_zone="UTC")
    if dtype in (pl.Date, pl.Null):
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(dtype, pl.Datetime):
        raise InvalidData(
            f"column {column!r} of {source!r} is {dtype}, not a time",
            remedy="Store it as a timestamp, or as a text in ISO 8601.",
        )
    # A plain cast: filters and the statistics of Parquet files see through it, not through a conversion of zones.
    return value.cast(pl.Datetime("us" if dtype.time_unit == "ms" else dtype.time_unit, "UTC"))


def earlier(moment: datetime, span: timedelta | None) -> datetime | None:
    """``span`` before ``moment``; None for no span, or one that reaches further back than a datetime."""
    if span is None or moment - datetime.min.replace(tzinfo=UTC) < span:
        return None
    return moment - span

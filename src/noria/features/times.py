"""Instants in frames: every way to write one becomes UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from noria.errors import InvalidData
from noria.features.exact import Inexact

if TYPE_CHECKING:
    import polars as pl

_ISO = re.compile(r"\d{4}-?\d\d")


def instant(column: str, dtype: pl.DataType, source: str) -> pl.Expr:
    """A time column in UTC, in nanoseconds when it has them, else microseconds; without a zone it is UTC already.

    Texts are read as ISO 8601. Raises InvalidData for a column of another type; the expression raises Inexact for a
    text that is no time.
    """
    import polars as pl

    value = pl.col(column)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return value.map_batches(instants_of_texts, return_dtype=pl.Datetime("us", "UTC"), is_elementwise=True)
    if dtype in (pl.Date, pl.Null):
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if not isinstance(dtype, pl.Datetime):
        raise InvalidData(
            f"column {column!r} of {source!r} is {dtype}, not a time",
            remedy="Store it as a timestamp, or as a text in ISO 8601.",
        )
    # A plain cast: filters and the statistics of Parquet files see through it, not through a conversion of zones.
    return value.cast(pl.Datetime("us" if dtype.time_unit == "ms" else dtype.time_unit, "UTC"))


def instants_of_texts(values: pl.Series) -> pl.Series:
    """Texts in ISO 8601 as instants in UTC, which they are in without a zone. Raises Inexact."""
    import polars as pl

    texts, dtype = values.cast(pl.String), pl.Datetime("us", "UTC")
    first = texts.drop_nulls().head(1).to_list()
    try:
        if first and _ISO.match(first[0]):  # else Polars would guess which of its numbers is the month
            return texts.str.to_datetime(time_unit="us", time_zone="UTC")
    except pl.exceptions.PolarsError:
        pass  # several ways of writing in one column, or no times at all
    parsed = [None if text is None else parsed_instant(text) for text in texts]
    for row, (text, instant) in enumerate(zip(texts, parsed, strict=True)):
        if text is not None and instant is None:
            raise Inexact.of(values.name, row, repr(text), "time")
    return pl.Series(values.name, parsed, dtype)


def parsed_instant(text: str) -> datetime | None:
    """The instant that a text in ISO 8601 names, in UTC; None when it names none."""
    try:
        instant = datetime.fromisoformat(text.strip())
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def earlier(moment: datetime, span: timedelta | None) -> datetime | None:
    """``span`` before ``moment``; None for no span, or one that reaches further back than a datetime."""
    if span is None or moment - datetime.min.replace(tzinfo=UTC) < span:
        return None
    return moment - span

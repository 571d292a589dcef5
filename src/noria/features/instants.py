"""Event times of an entity frame, in whatever form they come, as ticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from noria.errors import InvalidData
from noria.features.search import Ints
from noria.features.times import parsed_instant

if TYPE_CHECKING:
    import polars as pl

Unit = Literal["us", "ns"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_ROWS_NAMED = 5


@dataclass(frozen=True, slots=True)
class Instants:
    """When each row of a frame happened: Datetime in UTC, no nulls."""

    values: pl.Series

    def take(self, places: NDArray[np.intp]) -> Instants:
        """Those of some rows."""
        return Instants(self.values[places])

    def ticks(self, unit: Unit) -> Ints:
        """Since 1970, in ``unit``."""
        import polars as pl

        return pl.select(ticks(pl.lit(self.values), self.values.dtype, unit)).to_series().to_numpy()

    def span(self, ttl: timedelta | None) -> tuple[datetime | None, datetime | None]:
        """Between which times rows can matter; None where there is no limit, or none that a datetime can say."""
        times = self.ticks("us")
        if not len(times):
            return None, None
        until = _moment(int(times.max()) + 1)
        return (None if ttl is None else _moment(int(times.min()) - 1 - ttl // _MICROSECOND)), until


def instants_of(frame: pl.DataFrame, column: str) -> Instants:
    """The instants of a column: timestamps, dates, or texts in ISO 8601; without a zone they are UTC.

    Raises InvalidData for values that are none, naming their rows.
    """
    import polars as pl

    values = frame[column]
    if missing := values.is_null().arg_true().to_list():
        raise InvalidData(
            f"event time {column!r} is null in {_named(missing)}", remedy="Every row needs one: drop or fill those."
        )
    if values.dtype == pl.Null:
        return Instants(values.cast(pl.Datetime("us", "UTC")))
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        return Instants(_parsed(values))
    if values.dtype == pl.Date:
        return Instants(values.cast(pl.Datetime("us", "UTC")))
    if not isinstance(values.dtype, pl.Datetime):
        raise InvalidData(
            f"event time {column!r} is {values.dtype}, not a time",
            remedy="Make it a timestamp; seconds since 1970 are read by pl.from_epoch(column, time_unit='s').",
        )
    return Instants(values.cast(pl.Datetime(values.dtype.time_unit, "UTC")))


def ticks(values: pl.Expr, dtype: pl.DataType, unit: Unit) -> pl.Expr:
    """A Datetime as integers since 1970 in ``unit``; what does not fit becomes the earliest or latest that does."""
    import polars as pl

    factor = _PER_SECOND[unit] / _PER_SECOND[dtype.time_unit] if isinstance(dtype, pl.Datetime) else 1
    if factor <= 1:
        return values.to_physical() // round(1 / factor) if factor < 1 else values.to_physical()
    limit = int(np.iinfo(np.int64).max) // round(factor)
    return values.to_physical().clip(-limit, limit) * round(factor)


def _moment(microseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def _parsed(values: pl.Series) -> pl.Series:
    import polars as pl

    texts = values.cast(pl.String).to_list()
    parsed = [parsed_instant(text) for text in texts]
    if wrong := [row for row, instant in enumerate(parsed) if instant is None]:
        raise InvalidData(
            f"event time {values.name!r} is no time in {_named(wrong)}: {texts[wrong[0]]!r}",
            remedy="Write ISO 8601, such as 2026-01-31T12:00:00Z.",
        )
    return pl.Series(values.name, parsed, pl.Datetime("us", "UTC"))


def _named(rows: Sequence[int]) -> str:
    listed = ", ".join(str(row) for row in rows[:_ROWS_NAMED])
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more} (counted from 0)"

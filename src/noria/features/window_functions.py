"""What each aggregation function gives for many windows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from noria.features.aggregations import Aggregation, float_sum, too_large
from noria.features.ranges import Array, Positions, carried, counts, distincts, expanded, fold, holds, integer_sums

if TYPE_CHECKING:
    import polars as pl

_CANCELLED = 1e-3
"""A float sum this small beside the sum of its absolute values is taken again, exactly."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Some events (their places in the log) and the range of them that each window holds."""

    places: Positions
    starts: Positions
    ends: Positions


@dataclass(frozen=True, slots=True)
class Window:
    """What the window of each row asked for holds: ranges of events in order, and late ones besides."""

    segments: tuple[Segment, Segment]

    @property
    def counts(self) -> Positions:
        """How many events each window holds."""
        straight, late = (one.ends - one.starts for one in self.segments)
        return straight + late


def aggregated(view: str, aggregation: Aggregation, values: pl.Series, window: Window) -> pl.Series:
    """One value for each window; null where it holds none, but 0 when values are counted."""
    if aggregation.function == "count":
        return _series(window.counts)
    if aggregation.function == "count_distinct":
        return _series(_distincts(_codes(values), window))
    if aggregation.last:
        return _last(values, window, aggregation.last)
    try:
        return _with_nulls(_FUNCTIONS[aggregation.function](values, window), window)
    except OverflowError:
        raise too_large(view, aggregation.name, aggregation.column) from None


def _series(values: Array) -> pl.Series:
    import polars as pl

    return pl.Series(values)


def _with_nulls(series: pl.Series, window: Window) -> pl.Series:
    import polars as pl

    return pl.select(pl.when(_series(window.counts > 0)).then(series)).to_series()


def _sum(values: pl.Series, window: Window) -> pl.Series:
    if values.dtype.is_float():
        return _series(_float_sums(values, window))
    high, low = _integer_sums(values, window)
    if ((high < -(2**31)) | (high >= 2**31)).any():
        raise OverflowError
    return _series((high << 32) + low)


def _mean(values: pl.Series, window: Window) -> pl.Series:
    many = np.maximum(window.counts, 1)
    if values.dtype.is_float():
        return _series(_float_sums(values, window) / many)
    high, low = _integer_sums(values, window)
    return _series((high * 2.0**32 + low) / many)


def _integer_sums(values: pl.Series, window: Window) -> tuple[Positions, Positions]:
    numbers = values.to_numpy().astype(np.int64)
    parts = [integer_sums(numbers[one.places], one.starts, one.ends) for one in window.segments]
    return carried(parts[0][0] + parts[1][0], parts[0][1] + parts[1][1])


def _float_sums(values: pl.Series, window: Window) -> Array:
    """Sums by pairs, good to some 1e-15 of the sum of absolute values; where they cancel out, taken exactly."""
    numbers = values.to_numpy().astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _folded(numbers, window, np.add, 0.0)
        sizes = _folded(np.abs(numbers), window, np.add, 0.0)
        doubtful = (np.abs(sums) < _CANCELLED * sizes) | ~np.isfinite(sums) & ~_holds_infinite(numbers, window)
    for row in np.flatnonzero(doubtful):
        held = [numbers[one.places[one.starts[row] : one.ends[row]]] for one in window.segments]
        sums[row] = float_sum(np.concatenate(held).tolist())
    return sums


def _holds_infinite(numbers: Array, window: Window) -> Array:
    odd = ~np.isfinite(numbers)
    straight, late = (counts(odd[one.places], one.starts, one.ends) > 0 for one in window.segments)
    return straight | late


def _folded(numbers: Array, window: Window, combine: np.ufunc, identity: float) -> Array:
    straight, late = (fold(numbers[one.places], one.starts, one.ends, combine, identity) for one in window.segments)
    return np.asarray(combine(straight, late))


def _extreme(combine: np.ufunc, identity: float) -> Callable[[pl.Series, Window], pl.Series]:
    def extreme(values: pl.Series, window: Window) -> pl.Series:
        if values.dtype.is_float():
            return _series(_folded(values.to_numpy(), window, combine, identity))
        place = int(np.clip(identity, -1, len(values)))
        ranks = _folded(_codes(values), window, combine, place)
        return values.unique().sort().gather(_with_nulls(_series(ranks), window))

    return extreme


def _codes(values: pl.Series) -> Positions:
    """A number for each value, in order of size; equal ones, NaN with NaN and 0.0 with -0.0, have the same."""
    import polars as pl

    return values.rank("dense").cast(pl.Int64).to_numpy() - 1


def _distincts(codes: Positions, window: Window) -> Positions:
    straight, late = window.segments
    listed = codes[straight.places]
    found, owners = expanded(late.starts, late.ends)
    wanted = codes[late.places[found]]
    new = ~holds(listed, straight.starts[owners], straight.ends[owners], wanted)
    pairs = np.sort(owners[new] * max(len(codes), 1) + wanted[new])
    once = pairs[np.append(np.ones(1, bool), np.diff(pairs) > 0)[: len(pairs)]] // max(len(codes), 1)
    return distincts(listed, straight.starts, straight.ends) + np.bincount(once, minlength=len(late.starts))


def _last(values: pl.Series, window: Window, many: int) -> pl.Series:
    """Lists of the last values, the newest at the end; events are in their order already, but for the late ones."""
    import polars as pl

    straight, late = window.segments
    found, owners = expanded(np.maximum(straight.starts, straight.ends - many), straight.ends)
    late_found, late_owners = expanded(late.starts, late.ends)
    places = np.concatenate([straight.places[found], late.places[late_found]])
    owners = np.concatenate([owners, late_owners])
    listed = pl.DataFrame({"owner": owners, "place": places}).sort("owner", "place")
    lists = listed.select("owner", values.gather(listed["place"]).alias("value"))
    last = lists.group_by("owner").agg(pl.col("value").tail(many))
    every = pl.DataFrame({"owner": np.arange(len(straight.starts))})
    return every.join(last, on="owner", how="left", maintain_order="left")["value"]


_FUNCTIONS: Mapping[str, Callable[[pl.Series, Window], pl.Series]] = {
    "sum": _sum,
    "mean": _mean,
    "min": _extreme(np.minimum, np.inf),
    "max": _extreme(np.maximum, -np.inf),
}

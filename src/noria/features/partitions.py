"""An entity frame cut into parts by ranges of its first join key, so that each fits into the memory that is planned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Places = NDArray[np.intp]
_PREFETCH = "POLARS_ROW_GROUP_PREFETCH_SIZE"
_LITTLE_BYTES = 2**29
LEAST_ROWS = 10_000
"""A part has at least so many rows where its keys allow: every part reads its sources once."""


def by_key(keys: pl.Series, weights: Sequence[int] | NDArray[np.int64] | None, most: int) -> list[Places]:
    """The places of the rows of each part, in ascending ranges of ``keys``: equal keys are in one.

    ``weights`` says what each row costs (1 by default), ``most`` what a part may cost; a single key may cost more.
    """
    cost = np.ones(len(keys), np.int64) if weights is None else np.asarray(weights, np.int64)
    total = int(cost.sum())
    if total <= most:
        return [np.arange(len(keys))]
    order = keys.arg_sort().to_numpy().astype(np.intp)
    ordered = keys.gather(order)
    begins = np.append(True, (ordered[1:].ne_missing(ordered[:-1])).to_numpy())
    starts = np.flatnonzero(begins)
    of_key = np.add.reduceat(cost[order], starts)
    parts = -(-total // most)
    even = min(most, -(-total // parts) + int(of_key.max()))  # or the last one would be small
    return [order[low:high] for low, high in _cuts(starts, of_key, len(order), even)]


def _cuts(starts: NDArray[np.intp], costs: NDArray[np.int64], end: int, most: int) -> Iterator[tuple[int, int]]:
    """Where parts begin and end, each of as many whole keys as cost at most ``most``."""
    begin, total = 0, 0
    for start, cost in zip(starts.tolist(), costs.tolist(), strict=True):
        if total and total + cost > most:
            yield begin, start
            begin, total = start, 0
        total += cost
    yield begin, end


def put_together(parts: Sequence[Places], frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of all parts where they were before they were cut."""
    import polars as pl

    if len(parts) == 1:
        return frames[0]
    places = np.concatenate(parts)
    back = np.empty(len(places), np.int64)
    back[places] = np.arange(len(places))
    return pl.concat(frames).select(pl.all().gather(back))


def within(keys: pl.Series) -> Callable[[pl.Expr], pl.Expr] | None:
    """The condition for rows between the least and the greatest of ``keys``, which statistics of files see through.

    None for keys whose bounds Python would round or that have no order: only whole numbers and texts have a condition.
    """
    import polars as pl

    if not (keys.dtype.is_integer() or keys.dtype == pl.String) or keys.min() is None:
        return None
    low, high = pl.lit(keys.min(), keys.dtype), pl.lit(keys.max(), keys.dtype)
    return lambda column: column.is_between(low, high)


@contextmanager
def reading_little(memory_limit_bytes: int) -> Iterator[None]:
    """While it is open, Polars reads fewer groups of rows ahead, when the memory planned is little."""
    if memory_limit_bytes >= _LITTLE_BYTES or _PREFETCH in os.environ:
        yield
        return
    os.environ[_PREFETCH] = "1"
    try:
        yield
    finally:
        os.environ.pop(_PREFETCH, None)

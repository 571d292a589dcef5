"""Questions about many ranges of one array at once, each answered without a loop over its values."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Positions: TypeAlias = NDArray[np.int64]


def fold(values: Array, starts: Positions, ends: Positions, combine: np.ufunc, identity: Any) -> Array:
    """``combine`` over each ``values[start:end]``; ``identity`` for an empty one. ``combine`` must not mind the order.

    Goes up the levels of a tree of pairs, of which only one is held: O((n + ranges) log of the longest range), and no
    value outside a range ever touches its result, as it does when sums from the beginning are subtracted.
    """
    result = np.full(len(starts), identity, values.dtype)
    level = values
    rest = np.flatnonzero(starts < ends)
    left, right = starts[rest], ends[rest]
    while len(rest):
        odd = (left & 1).astype(bool)
        result[rest[odd]] = combine(result[rest[odd]], level[left[odd]])
        odd = (right & 1).astype(bool)
        result[rest[odd]] = combine(result[rest[odd]], level[right[odd] - 1])
        left, right = (left + 1) >> 1, right >> 1
        open_ = left < right
        rest, left, right = rest[open_], left[open_], right[open_]
        padded = level if len(level) % 2 == 0 else np.append(level, np.asarray(identity, values.dtype))
        level = combine(padded[::2], padded[1::2])
    return result


def counts(flags: Array, starts: Positions, ends: Positions) -> Positions:
    """How many of each ``flags[start:end]`` are true."""
    before = _running(flags.astype(np.int64))
    return before[ends] - before[starts]


def integer_sums(values: Positions, starts: Positions, ends: Positions) -> tuple[Positions, Positions]:
    """The exact sum of each range, as (high, low) with sum = high * 2**32 + low and 0 <= low < 2**32."""
    high, low = _running(values >> 32), _running(values & 0xFFFFFFFF)
    return carried(high[ends] - high[starts], low[ends] - low[starts])


def carried(high: Positions, low: Positions) -> tuple[Positions, Positions]:
    """The same number with 0 <= low < 2**32."""
    return high + (low >> 32), low & 0xFFFFFFFF


def distincts(codes: Positions, starts: Positions, ends: Positions) -> Positions:
    """How many different codes each range holds: those whose previous place of the same code lies before it."""
    order = np.argsort(codes, kind="stable")
    previous = np.zeros(len(codes), np.int64)  # one past the previous place, 0 for none
    same = codes[order[1:]] == codes[order[:-1]]
    previous[order[1:][same]] = order[:-1][same] + 1
    # all that stand before the range have their previous place before it, too
    return np.where(starts < ends, _count_below(previous, ends, starts + 1) - starts, 0)


def holds(codes: Positions, starts: Positions, ends: Positions, wanted: Positions) -> NDArray[np.bool_]:
    """Whether each range holds its ``wanted`` code."""
    places = len(codes) + 1
    order = np.argsort(codes, kind="stable")
    listed = np.append(codes[order] * places + order, np.iinfo(np.int64).max)
    found = listed[np.searchsorted(listed, wanted * places + starts)]
    return found < wanted * places + ends


def expanded(starts: Positions, ends: Positions) -> tuple[Positions, Positions]:
    """All positions of all ranges, one range after the other, with the number of the range of each."""
    sizes = np.maximum(ends - starts, 0)
    owners = np.repeat(np.arange(len(starts)), sizes)
    return np.arange(len(owners)) - np.repeat(_running(sizes)[:-1] - starts, sizes), owners


def _running(values: Positions) -> Positions:
    """Sums of all values before each place, and of all."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])


def _count_below(values: Positions, ends: Positions, bounds: Positions) -> Positions:
    """How many of ``values[:end]`` are less than its bound: a wavelet matrix, walked bit by bit from the highest."""
    result = np.zeros(len(ends), np.int64)
    left, right = np.zeros(len(ends), np.int64), ends
    highest = max(int(values.max(initial=0)), int(bounds.max(initial=0)))
    for bit in reversed(range(highest.bit_length())):
        ones = (values >> bit & 1).astype(bool)
        zeros = _running((~ones).astype(np.int64))
        up = (bounds >> bit & 1).astype(bool)
        result += np.where(up, zeros[right] - zeros[left], 0)
        left = np.where(up, zeros[-1] + left - zeros[left], zeros[left])
        right = np.where(up, zeros[-1] + right - zeros[right], zeros[right])
        values = np.concatenate([values[~ones], values[ones]])
    return result

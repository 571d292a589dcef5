"""Windowed aggregations of the past: for every row of an entity frame, over the events as they were known then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from noria.errors import InvalidData, InvalidInput
from noria.features.aggregations import nanoseconds
from noria.features.definitions import FeatureView
from noria.features.ranges import Array, Positions, expanded
from noria.features.sources import CREATED, EVENT
from noria.features.times import instant
from noria.features.window_functions import Segment, Window, aggregated

if TYPE_CHECKING:
    import polars as pl

_CODE, _AT, _ROW = "__code", "__at", "__row"
_PAIRS = 4_000_000
"""How many late events of how many windows are looked at together: bounds memory, not results."""


def aggregate_as_of(
    entities: pl.DataFrame,
    view: FeatureView,
    events: pl.DataFrame,
    *,
    event_time: str = EVENT,
    as_of: Literal["known", "event"] = "known",
) -> pl.DataFrame:
    """The features of ``view`` for each row of ``entities``, in its order, as columns named like the features.

    ``events`` are what ``view.load`` gives. The window of a row at time t, exact to the nanosecond, is
    (t - time_window, t] over events of the same join keys that happened and, unless ``as_of`` is "event", were known
    (created) by t. Null keys match nothing. Float sums are good to 1e-11 of the exact sum, whatever is in the events
    around; integers are exact. Raises InvalidInput for a missing column or time, InvalidData for keys of different
    kinds and for an integer sum beyond 64 bits.
    """
    import polars as pl

    log = _Log.of(events, view, known=as_of == "known")
    asked = log.asked(entities, view, event_time)
    order = np.argsort(asked.codes, kind="stable")
    asked = _Asked(asked.codes[order], asked.times[order])
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    types = {one.name: one.dtype.polars() for one in view.features}
    done: dict[str, pl.Series] = {}
    shared: dict[timedelta, list[Window]] = {}  # windows over all events are those of every column without nulls
    for column, span in dict.fromkeys((one.column, one.time_window) for one in view.aggregations):
        rows = log.having(column)
        is_all = rows.codes is log.codes
        windows = shared.get(span) if is_all else None
        if windows is None:
            windows = list(rows.windows(asked, span))
        if is_all:
            shared[span] = windows
        for one in view.aggregations:
            if (one.column, one.time_window) == (column, span):
                parts = [aggregated(view.name, one, rows.values, window) for window in windows]
                done[one.name] = pl.concat([part.cast(types[one.name]) for part in parts]).gather(back)
    return pl.DataFrame([done[name].alias(name) for name in view.fields])


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whose features are wanted when: numbers of keys, -1 for unknown ones, and nanoseconds."""

    codes: Positions
    times: Positions


@dataclass(frozen=True, slots=True)
class _Axis:
    """A key and a time as one number, in the order of both: ticks since the first time where that fits, else ranks."""

    first: int
    step: int
    length: int
    ranked: Positions | None

    @classmethod
    def of(cls, keys: int, times: Sequence[Positions]) -> _Axis:
        """For so many keys; ``times`` are all that rows have."""
        some = [one for one in times if len(one)]
        first = min((int(one.min()) for one in some), default=0)
        last = max((int(one.max()) for one in some), default=0)
        step = 1000 if all(not (one % 1000).any() for one in some) else 1
        length = (last - first) // step + 2
        if length * (keys + 2) < 2**63 and last - first < 2**62:
            return cls(first, step, length, None)
        ranked = np.unique(np.concatenate(some)) if some else np.empty(0, np.int64)
        return cls(first, step, len(ranked) + 1, ranked)

    def place(self, codes: Positions, times: Positions) -> Positions:
        """A time between two that rows have counts as the earlier."""
        if self.ranked is not None:
            return codes * self.length + np.searchsorted(self.ranked, times, side="right")
        last = self.first + (self.length - 2) * self.step
        since = np.clip(times, max(self.first - self.step, -(2**63)), last) - self.first
        return codes * self.length + since // self.step + 1


@dataclass(frozen=True, slots=True)
class _Index:
    """Finds the place of a time among the times of one key, in rows sorted by both."""

    axis: _Axis
    listed: Positions

    def after(self, asked: Positions, times: Positions) -> Positions:
        """The place after the last row of each key at or before each time."""
        return np.searchsorted(self.listed, self.axis.place(asked, times), side="right").astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events with a value, in the order of key, event and created time, and when each was known.

    ``straight`` are those known no later than any event after them. Among them a window is one range, whatever was
    known by then. The others, ``late``, are looked at one by one.
    """

    codes: Positions
    events: Positions
    known: Positions
    values: pl.Series
    axis: _Axis

    def windows(self, asked: _Asked, span: timedelta) -> Iterator[Window]:
        """The events in the window of each row asked for, in some parts of the rows."""
        length = min(nanoseconds(span), 2**63 - 1)
        since = np.maximum(asked.times, length - 2**63) - length
        late = self._late()
        straight, behind = np.flatnonzero(~late), np.flatnonzero(late)
        starts = self._index(self.events, straight).after(asked.codes, since)
        ends = np.maximum(starts, self._index(self.known, straight).after(asked.codes, asked.times))
        index = self._index(self.events, behind)
        late_starts, late_ends = index.after(asked.codes, since), index.after(asked.codes, asked.times)
        for part in _parts(late_ends - late_starts):
            low, high = int(starts[part].min(initial=0)), int(ends[part].max(initial=0))
            plain = Segment(straight[low:high], starts[part] - low, ends[part] - low)
            found, owners = expanded(late_starts[part], late_ends[part])
            seen = self.known[behind[found]] <= asked.times[part][owners]
            yield Window((plain, _segment(behind[found[seen]], owners[seen], len(plain.starts))))

    def _index(self, times: Positions, rows: Positions) -> _Index:
        return _Index(self.axis, self.axis.place(self.codes[rows], times[rows]))

    def _late(self) -> Array:
        listed = self.axis.place(self.codes, self.known)
        soonest = np.minimum.accumulate(listed[::-1])[::-1]  # of each place and all after it; keys only grow
        return listed > soonest


def _segment(positions: Positions, owners: Positions, count: int) -> Segment:
    sizes = np.bincount(owners, minlength=count)
    ends = np.cumsum(sizes)
    return Segment(positions, ends - sizes, ends)


def _parts(sizes: Positions) -> list[slice]:
    """Cuts the rows asked for so that each part has at most so many late events, or is one row."""
    if not len(sizes):
        return [slice(0, 0)]
    number = np.cumsum(sizes) // _PAIRS
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]
    return [slice(low, high) for low, high in pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class _Log:
    """All events, sorted, with numbers for their keys."""

    frame: pl.DataFrame
    keys: pl.DataFrame
    codes: Positions
    events: Positions
    known: Positions
    axis: _Axis

    @classmethod
    def of(cls, events: pl.DataFrame, view: FeatureView, *, known: bool) -> _Log:
        import polars as pl

        frame = events.drop_nulls([*view.join_keys, EVENT]).with_columns(pl.col(CREATED).fill_null(pl.col(EVENT)))
        keys = frame.select(view.join_keys).unique().with_row_index(_CODE)
        frame = _numbered(frame, keys, view).sort(_CODE, EVENT, CREATED, maintain_order=True)
        happened, created = epoch_nanoseconds(frame[EVENT]), epoch_nanoseconds(frame[CREATED])
        codes = frame[_CODE].cast(pl.Int64).to_numpy()
        seen = np.maximum(happened, created) if known else happened
        return cls(frame, keys, codes, happened, seen, _Axis.of(keys.height, [happened, seen]))

    def having(self, column: str) -> _Rows:
        """The events with a value in ``column``; all events for no column."""
        values = self.frame[column or _CODE]
        if not values.null_count():
            return _Rows(self.codes, self.events, self.known, values, self.axis)
        there = values.is_not_null().to_numpy()
        return _Rows(self.codes[there], self.events[there], self.known[there], values.drop_nulls(), self.axis)

    def asked(self, entities: pl.DataFrame, view: FeatureView, event_time: str) -> _Asked:
        import polars as pl

        if missing := [name for name in (*view.join_keys, event_time) if name not in entities.columns]:
            raise InvalidInput(
                f"the rows to compute feature view {view.name!r} for lack {', '.join(missing)}",
                remedy=f"They have: {', '.join(entities.columns)}.",
            )
        times = entities.select(instant(event_time, entities.schema[event_time], "the entity frame")).to_series()
        if times.null_count():
            raise InvalidInput(
                f"row {times.is_null().arg_true()[0]} has no {event_time!r}", remedy="Features are of some time."
            )
        needed = list(dict.fromkeys((*view.join_keys, event_time)))
        codes = _numbered(entities.select(needed), self.keys, view)[_CODE]
        return _Asked(codes.cast(pl.Int64).fill_null(-1).to_numpy(), epoch_nanoseconds(times))


def _numbered(frame: pl.DataFrame, keys: pl.DataFrame, view: FeatureView) -> pl.DataFrame:
    """``frame`` with the number of each row's join keys, null for unknown ones."""
    import polars as pl

    if not view.join_keys:
        return frame.with_columns(pl.lit(0).alias(_CODE))
    matched = [_alike(frame.schema[name], keys[name], view) for name in view.join_keys]
    on = [pl.col(name).cast(column.dtype) for name, column in zip(view.join_keys, matched, strict=True)]
    return frame.join(
        keys.with_columns(matched), left_on=on, right_on=view.join_keys, how="left", maintain_order="left"
    )


def _alike(given: pl.DataType, key: pl.Series, view: FeatureView) -> pl.Series:
    """The keys in a type that both sides can take."""
    import polars as pl

    texts = (pl.String, pl.Categorical, pl.Enum)
    if given == key.dtype or pl.Null in (given, key.dtype):
        return key
    if given.is_integer() and key.dtype.is_integer():
        return key.cast(pl.Int128)
    if given in texts and key.dtype in texts:
        return key.cast(pl.String)
    raise InvalidData(
        f"join key {key.name!r} of feature view {view.name!r} is {key.dtype} in its events, {given} in the rows given",
        remedy="Cast one of them.",
    )


def epoch_nanoseconds(times: pl.Series) -> Positions:
    """Instants as numbers; those nobody meant, such as the year 9999, end at 2262 (and at 1677)."""
    import polars as pl

    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_unit == "ns":
        return times.dt.epoch("ns").to_numpy()
    furthest = (2**63 - 1) // 1000
    return (times.dt.epoch("us").clip(-furthest, furthest) * 1000).to_numpy()

"""Windowed aggregations online: each entity's recent events in a few bytes, and the features read from them.

A window that ends at any moment moves its start past every event in turn, so an exact answer needs all events of the
longest window; a tail is those and no more. It grows with how often an entity has events, not with its age.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress
from operator import add, attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from noria.errors import InvalidInput
from noria.features.aggregations import Aggregation, float_sum, nanoseconds, too_large
from noria.features.definitions import FeatureView
from noria.features.packing import DEFINITION_DIGITS
from noria.features.sources import CREATED, EVENT
from noria.features.windows import epoch_nanoseconds

if TYPE_CHECKING:
    import polars as pl

KEPT_LONGER = timedelta(minutes=5)
"""How far behind the clock of the last update a reader's clock may be."""

_NEVER = -(2**63)
_happened = attrgetter("happened")


class Event(NamedTuple):
    """One event of an entity: when it happened and was known, in nanoseconds, and its values in a view's order."""

    happened: int
    created: int
    values: Sequence[object]


class TailAggregation(msgspec.Struct, frozen=True):
    """One aggregation, ready to be read."""

    name: str
    column: str
    function: str
    last: int
    window_nanoseconds: int


class TailSpec(msgspec.Struct, frozen=True):
    """What keeping and reading a view's tails takes: no source, no frames. ``definition`` is the view's, shortened."""

    view: str
    columns: tuple[str, ...]
    aggregations: tuple[TailAggregation, ...]
    definition: str = ""

    @classmethod
    def of(cls, view: FeatureView) -> TailSpec:
        """The spec of a view with aggregations."""
        columns, windows = tuple(one.name for one in view.columns), tuple(map(_aggregation, view.aggregations))
        return cls(view.name, columns, windows, view.definition[:DEFINITION_DIGITS])

    @property
    def longest_nanoseconds(self) -> int:
        """The length of the longest window."""
        return max(one.window_nanoseconds for one in self.aggregations)


def _aggregation(one: Aggregation) -> TailAggregation:
    return TailAggregation(one.name, one.column, one.function, one.last, nanoseconds(one.time_window))


class Tail(msgspec.Struct, array_like=True):
    """Events in order, by columns. ``lags`` are created - happened; ``dropped`` is the newest event left out.

    ``arrived`` says when each was pushed, in seconds since 1970; 0 for those that were read from the source.
    ``definition`` is that of the view it was last written for, shortened.
    """

    names: tuple[str, ...]
    dropped: int
    happened: list[int]
    lags: list[int]
    columns: list[list[Any]]
    arrived: list[int] = []
    definition: str = ""

    def __post_init__(self) -> None:
        self.arrived = self.arrived or [0] * len(self.happened)  # a tail written before arrivals were kept

    def add(self, event: Event, arrived: int) -> None:
        """Put an event in its place: by when it happened, was created, and came."""
        lag = event.created - event.happened
        place = bisect_right(self.happened, event.happened)
        while place and self.happened[place - 1] == event.happened and self.lags[place - 1] > lag:
            place -= 1
        self.happened.insert(place, event.happened)
        self.lags.insert(place, lag)
        self.arrived.insert(place, arrived)
        for column, value in zip(self.columns, event.values, strict=True):
            column.insert(place, value)

    def drop(self, horizon: int) -> None:
        """Forget the events until ``horizon``."""
        if gone := bisect_right(self.happened, horizon):
            self.dropped = max(self.dropped, self.happened[gone - 1])
            for column in (self.happened, self.lags, self.arrived, *self.columns):
                del column[:gone]

    def arrivals(self, since: float, until: int) -> Iterator[tuple[Event, int]]:
        """The events until that time that were pushed since then, and when."""
        for place in range(bisect_right(self.happened, until)):
            if self.arrived[place] >= since:
                happened = self.happened[place]
                values = [column[place] for column in self.columns]
                yield Event(happened, happened + self.lags[place], values), self.arrived[place]

    def values(self, column: str, since: int, until: int) -> list[Any]:
        """What ``column`` held in (since, until] as known at ``until``, without nulls; events without a column."""
        start, end = bisect_right(self.happened, since), bisect_right(self.happened, until)
        found: list[Any] = self.columns[self.names.index(column)][start:end] if column else self.happened[start:end]
        if max(self.lags[start:end], default=0) > 0:
            known = map(add, self.happened[start:end], self.lags[start:end])
            found = list(compress(found, map(until.__ge__, known)))
        return [value for value in found if value is not None]


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Tail).decode


def by_entity(view: FeatureView, rows: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], list[Event]]]:
    """The events of each entity by its join keys, from ``rows`` as ``view.load`` gives them; null keys are left out."""
    import polars as pl

    rows = rows.drop_nulls([*view.join_keys, EVENT]).with_columns(pl.col(CREATED).fill_null(pl.col(EVENT)))
    keys = [rows[name].to_list() for name in view.join_keys]
    values = [rows[one.name].cast(one.dtype.polars()).to_list() for one in view.columns]
    times = [epoch_nanoseconds(rows[name]).tolist() for name in (EVENT, CREATED)]
    entities: dict[tuple[object, ...], list[Event]] = {}
    for place in range(rows.height):
        event = Event(times[0][place], times[1][place], [column[place] for column in values])
        entities.setdefault(tuple(column[place] for column in keys), []).append(event)
    yield from entities.items()


def update(state: bytes | None, events: Sequence[Event], spec: TailSpec, *, now: datetime, arrived: int = 0) -> bytes:
    """The tail of one entity with ``events`` added and those gone that no window reaches at ``now`` or later.

    Events may come late and in any order. One that comes twice counts twice. Between reading ``state`` and storing
    the result nobody else may store one: that is the store's part.
    """
    return _with_events(open_tail(state, spec), events, spec, now, arrived)


def rebuilt(
    state: bytes | None, events: Sequence[Event], spec: TailSpec, *, until: datetime, now: datetime, read_at: float
) -> bytes:
    """The tail of one entity with ``events`` in place of all it held up to ``until``; what happened later stays.

    So does what was pushed since ``events`` began to be read, at ``read_at``, unless it is among them: to be read it
    had to be in the source by then. Clocks may differ by ``KEPT_LONGER``.
    """
    tail = open_tail(state, spec)
    dropped, until_nanoseconds = tail.dropped, _nanoseconds(until)
    missed = _without(tail.arrivals(read_at - KEPT_LONGER.total_seconds(), until_nanoseconds), events)
    tail.drop(until_nanoseconds)
    tail.dropped = dropped  # what is replaced is not missing
    for event, arrived in missed:
        tail.add(event, arrived)
    return _with_events(tail, events, spec, now, 0)


def _with_events(tail: Tail, events: Sequence[Event], spec: TailSpec, now: datetime, arrived: int) -> bytes:
    for event in sorted(events, key=_happened):
        tail.add(event, arrived)
    tail.drop(_nanoseconds(now) - nanoseconds(KEPT_LONGER) - spec.longest_nanoseconds)
    tail.definition = spec.definition
    return _encode(tail)


def _without(pushed: Iterator[tuple[Event, int]], read: Sequence[Event]) -> list[tuple[Event, int]]:
    """The pushed events that are not among those read; of equal ones as many as there are more of."""
    pushed_ones = list(pushed)
    if not pushed_ones:
        return []
    there = Counter(map(_encode, read))
    missed = []
    for event, arrived in pushed_ones:
        content = _encode(event)
        if there[content]:
            there[content] -= 1
        else:
            missed.append((event, arrived))
    return missed


def read(state: bytes | None, spec: TailSpec, at: datetime) -> dict[str, object]:
    """The features at ``at`` of a stored tail, see ``features_of``."""
    return features_of(open_tail(state, spec), spec, at)


def features_of(tail: Tail, spec: TailSpec, at: datetime) -> dict[str, object]:
    """The features at ``at``, as known then: what ``aggregate_as_of`` gives for the same events.

    Raises InvalidInput for a time so long ago that events of its windows are gone (before the last update's ``now``
    by more than ``KEPT_LONGER``), InvalidData for an integer sum beyond 64 bits.
    """
    moment = _nanoseconds(at)
    if tail.dropped > moment - spec.longest_nanoseconds:
        raise InvalidInput(
            f"feature view {spec.view!r} cannot be read as of {at.isoformat()}: events of its windows are gone",
            remedy="Ask for a time that is not past, or compute it from the source: get_historical_features.",
        )
    found: dict[tuple[str, int], list[Any]] = {}
    for one in spec.aggregations:
        which = one.column, one.window_nanoseconds
        if which not in found:
            found[which] = tail.values(one.column, moment - one.window_nanoseconds, moment)
    return {one.name: _value(spec, one, found[one.column, one.window_nanoseconds]) for one in spec.aggregations}


def open_tail(state: bytes | None, spec: TailSpec) -> Tail:
    """A stored tail, in the columns of ``spec``; an empty one where there is none."""
    if state is None:
        return Tail(spec.columns, _NEVER, [], [], [[] for _ in spec.columns])
    tail = _decode(state)
    if tail.names != spec.columns:  # the view changed: what old events did not hold is null
        held = dict(zip(tail.names, tail.columns, strict=True))
        tail.columns = [held.get(name) or [None] * len(tail.happened) for name in spec.columns]
        tail.names = spec.columns
    return tail


def _value(spec: TailSpec, one: TailAggregation, values: list[Any]) -> object:
    if one.function == "count":
        return len(values)
    if one.function == "count_distinct":
        return len({None if value != value else value for value in values})
    if not values:
        return None
    if one.last:
        return values[-one.last :]
    if one.function in ("min", "max"):
        return math.nan if _holds_nan(values) else _EXTREMES[one.function](values)
    total = float_sum(values) if isinstance(values[0], float) else sum(values)
    if one.function == "mean":
        return total / len(values)
    if isinstance(total, int) and not -(2**63) <= total < 2**63:
        raise too_large(spec.view, one.name, one.column)
    return total


def _holds_nan(values: list[Any]) -> bool:
    return isinstance(values[0], float) and math.isnan(sum(values)) and any(map(math.isnan, values))


_EXTREMES: Mapping[str, Callable[[list[Any]], object]] = {"min": min, "max": max}


def _nanoseconds(moment: datetime) -> int:
    known = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return nanoseconds(known - datetime(1970, 1, 1, tzinfo=UTC))

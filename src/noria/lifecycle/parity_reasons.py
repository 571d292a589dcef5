"""Why a value that was served is not the one the offline join gives: looked for in all rows of its entity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from noria.features import FeatureView, ViewSpec
from noria.features.tails import Event, TailSpec, by_entity, read, update
from noria.monitoring.log import PredictionRecord

_RELATIVE = 1e-6  # the log keeps what a float32 graph was given
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_EVENTS = 2_000
"""Of an entity with more events in its windows it is not found out which of them were missed."""

Key = tuple[str, ...]


class Explanation(Protocol):
    """Says why one value differs."""

    def __call__(self, record: PredictionRecord, column: int, online: Any) -> str: ...


def explanation(spec: ViewSpec, view: FeatureView, records: Sequence[PredictionRecord], folder: Path) -> Explanation:
    """What explains values of a view that were served for ``records``."""
    kind = _OfWindows if view.aggregations else _OfRows
    return kind(spec, view, {key_of(spec, record) for record in records}, folder)


def key_of(spec: ViewSpec, record: PredictionRecord) -> Key:
    """The entity a record asks a view for; online a key may be a number where the source has a text."""
    return tuple(str(record.entities.get(key)) for key in spec.join_keys)


def same(online: Any, offline: Any) -> bool:
    """Whether both are one value, as far as the log keeps it."""
    if online is None or offline is None:
        return online is offline or _is_nan(online) or _is_nan(offline)
    if isinstance(online, int | float) and isinstance(offline, int | float):
        return math.isclose(online, offline, rel_tol=_RELATIVE) or (_is_nan(online) and _is_nan(offline))
    if isinstance(online, list) and isinstance(offline, list):
        return len(online) == len(offline) and all(map(same, online, offline))
    return bool(online == offline)


class _OfRows:
    """For a view whose newest row counts."""

    def __init__(self, spec: ViewSpec, view: FeatureView, wanted: set[Key], folder: Path) -> None:
        import polars as pl

        self._spec, self._ttl = spec, spec.ttl_millis
        self._rows: dict[Key, list[tuple[int, int, Sequence[Any]]]] = {}
        keys, frame = list(view.join_keys), view.load(folder) if wanted else None
        if frame is None:
            return
        times = pl.col("event_timestamp", "created_timestamp").dt.epoch("us")
        event, created = pl.col("event_timestamp"), pl.col("created_timestamp")
        frame = frame.with_columns(created_timestamp=created.fill_null(event)).with_columns(times)
        for row in frame.select(*keys, "event_timestamp", "created_timestamp", *spec.fields).iter_rows():
            key = tuple(map(str, row[: len(keys)]))
            if key in wanted:
                happened, known, *values = row[len(keys) :]
                self._rows.setdefault(key, []).append((happened, known, values))

    def __call__(self, record: PredictionRecord, column: int, online: Any) -> str:
        at = record.event_time * 1000
        rows = self._rows.get(key_of(self._spec, record), [])
        known = [row for row in rows if max(row[:2]) <= at]
        matching = [row for row in rows if same(online, row[2][column])]
        if matching and all(max(row[:2]) > at for row in matching):
            return "late_row"
        best = max(known, key=lambda row: row[:2], default=None)
        if online is not None and best is not None and self._ttl is not None and at - best[0] > self._ttl * 1000:
            return "ttl"
        if best is not None and any(row[0] == best[0] for row in matching):
            return "tie"
        return "stale_materialize" if matching or online is None else "unknown"


class _OfWindows:
    """For a view with aggregations: it is tried with the events that were known by each earlier moment."""

    def __init__(self, spec: ViewSpec, view: FeatureView, wanted: set[Key], folder: Path) -> None:
        self._spec, self._tail = spec, TailSpec.of(view)
        events = by_entity(view, view.load(folder)) if wanted else ()
        self._events = {key: found for parts, found in events if (key := tuple(map(str, parts))) in wanted}

    def __call__(self, record: PredictionRecord, column: int, online: Any) -> str:
        at = _EPOCH + timedelta(milliseconds=record.event_time)
        nanoseconds = record.event_time * 1_000_000
        begin, name = nanoseconds - self._tail.longest_nanoseconds, self._spec.fields[column]
        held = [one for one in self._events.get(key_of(self._spec, record), []) if begin < one.happened <= nanoseconds]
        late = [one._replace(created=one.happened) for one in held]
        if any(one.created > nanoseconds for one in held) and same(online, self._value(late, at, name)):
            return "late_row"
        known = sorted((one for one in held if one.created <= nanoseconds), key=lambda one: max(one[:2]))
        if online is None:
            return "stale_materialize" if known else "unknown"
        if len(known) > _MOST_EVENTS:
            return "unknown"
        earlier = (self._value(known[:count], at, name) for count in range(len(known)))
        return "stale_materialize" if any(same(online, value) for value in earlier) else "unknown"

    def _value(self, events: Sequence[Event], at: datetime, name: str) -> Any:
        return read(update(None, events, self._tail, now=at), self._tail, at)[name]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)

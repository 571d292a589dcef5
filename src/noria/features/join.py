"""The point-in-time join: for every event, the feature values as they were known then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from noria.errors import InvalidData, InvalidInput
from noria.features.definitions import FeatureView, Projection
from noria.features.history import AsOf, History
from noria.features.instants import Instants, instants_of
from noria.features.keys import matched
from noria.features.parquet_files import pinned
from noria.features.partitions import LEAST_ROWS, Places, by_key, put_together, reading_little
from noria.features.question import Question
from noria.features.sources import Field
from noria.features.windows import aggregate_as_of

if TYPE_CHECKING:
    import polars as pl

_AT, _EVENTS, _PLACE = "__at", "__events", "__place"
_ASKED_ROW_BYTES = 256
"""What is kept of a row that is asked for while its sources are read, besides its features."""
_EVENT_BYTES, _EVENT_COLUMN_BYTES = 150, 50
"""What an event takes while windows are computed, and what each of its columns adds: measured, with reading it."""


def join_as_of(
    events: pl.DataFrame,
    wanted: Sequence[FeatureView | Projection],
    *,
    event_time: str,
    as_of: AsOf = "known",
    full_feature_names: bool = True,
    folder: Path = Path(),
    memory_limit_bytes: int = 2**30,
    engine: Engine | None = None,
) -> pl.DataFrame:
    """``events``, all rows and columns in their order, with the wanted features as of each row's ``event_time``.

    At time t an entity has the row with the latest event timestamp <= t; ties go to the latest created timestamp, then
    to the row that comes last in the source. A row older than the view's ttl counts as none (exactly as old still
    counts), and an event without a row gets nulls. ``as_of="known"`` leaves out what was created after t, so that
    nothing is learned that could not be known then; ``"event"`` takes it. A null created timestamp is the event's.

    Features are called ``view__field``, or ``field`` without ``full_feature_names``. Times are instants, dates, or
    texts in ISO 8601; without a zone they are UTC. Null keys match nothing.

    ``memory_limit_bytes`` is what the join may take besides ``events`` and the result; reading a file takes 200 MB
    however little that is. Sources are read in batches. What is asked for, and events that are aggregated, are cut into
    ranges of the first join key where they would take more, and each range reads the sources anew; one key's rows stay
    together. ``engine`` is what finds the values; nothing given, this process.

    Raises InvalidInput for names that collide, InvalidData for missing columns, for times that are none, and for keys
    or sources that cannot be read.
    """
    _check_call(events, as_of, memory_limit_bytes)
    lookups = [Lookup.of(one, full_feature_names) for one in wanted]
    _check_columns(events, event_time, lookups)
    _check_names(events, lookups)
    at = instants_of(events, event_time)
    with pinned(), reading_little(memory_limit_bytes):
        found = (engine or here)(_asked(lookups, events, at, folder), as_of, folder, memory_limit_bytes)
    return events.with_columns(column for frame in found for column in frame.iter_columns())


def _asked(lookups: Sequence[Lookup], events: pl.DataFrame, at: Instants, folder: Path) -> Iterator[Asked]:
    """One by one, since each holds keys; those that are alike share what they ask."""
    before = None
    for lookup in lookups:
        before = Asked.of(lookup, events, at, folder, before)
        yield before


def here(asked: Iterable[Asked], as_of: AsOf, folder: Path, limit: int) -> list[pl.DataFrame]:
    """The engine that is this process."""
    return [one.find(as_of, folder, limit) for one in asked]


@dataclass(frozen=True, slots=True)
class Lookup:
    """One projection to join: its fields, what they are called in the result, and join key → column of the frame."""

    view: FeatureView
    fields: Sequence[Field]
    names: Sequence[str]
    keys: Mapping[str, str]

    @classmethod
    def of(cls, one: FeatureView | Projection, full_names: bool) -> Lookup:
        """Raises InvalidInput for what is no view, lists no features, or lacks the keys of its ``join_key_map``."""
        if not isinstance(one, FeatureView | Projection):
            raise InvalidInput(f"{one!r} cannot be joined", remedy='Give feature views, or some features: view[["a"]].')
        used = Projection(one, one.fields) if isinstance(one, FeatureView) else one
        if not used.features:
            raise InvalidInput(f"feature view {used.view.name!r} lists no features", remedy="Give it a schema=[...].")
        if unknown := [key for key in used.join_key_map if key not in used.view.join_keys]:
            raise InvalidInput(
                f"feature view {used.view.name!r} has no join key {unknown[0]!r}",
                remedy=f"join_key_map is join key → column of the frame; it has: {', '.join(used.view.join_keys)}.",
            )
        declared = {field.name: field for field in used.view.features}
        names = [f"{used.used_name}__{name}" if full_names else name for name in used.features]
        keys = {key: used.join_key_map.get(key, key) for key in used.view.join_keys}
        return cls(used.view, [declared[name] for name in used.features], names, keys)

    def find(self, asked: Asked, as_of: AsOf, folder: Path, limit: int) -> pl.DataFrame:
        """Its features, by their names in the view, for rows that fit into the memory that is planned."""
        if self.view.aggregations:
            return self._aggregated(asked, as_of, folder, limit)
        features = [field.name for field in self.fields]
        return History(self.view, asked.rows(folder), features, as_of, folder, limit).newest(asked.question)

    def _aggregated(self, asked: Asked, as_of: AsOf, folder: Path, limit: int) -> pl.DataFrame:
        """The aggregations over what happened in the windows before each event, of so many entities at a time."""
        parts = asked.parts_by_events(folder, limit)
        found = [self._aggregated_part(asked.take(part, parts), as_of, folder) for part in parts]
        return put_together(parts, found)

    def _aggregated_part(self, asked: Asked, as_of: AsOf, folder: Path) -> pl.DataFrame:
        import polars as pl

        question = asked.question
        with self.view.source.telling(folder, self.view.name):
            rows = question.entities.only(asked.rows(folder)).collect(engine="streaming")
        frame = pl.DataFrame([*question.keys.iter_columns(), question.at.values.alias(_AT)])
        found = aggregate_as_of(frame, self.view, rows, event_time=_AT, as_of=as_of)
        return found.select(field.name for field in self.fields)


@dataclass(frozen=True, slots=True)
class Asked:
    """Some rows of an entity frame for one projection, and how the keys of its source are to be cast for them."""

    lookup: Lookup
    question: Question
    casts: Mapping[str, pl.DataType]

    @classmethod
    def of(cls, lookup: Lookup, events: pl.DataFrame, at: Instants, folder: Path, before: Asked | None = None) -> Asked:
        """Shares what was asked ``before`` if it is the same. Raises InvalidData for keys that are none in a source."""
        schema = lookup.view.source.columns(folder)
        keys, casts = matched(events, schema, lookup.keys, lookup.view.name, lookup.view.source.name)
        same = before is not None and before.question.asks(keys)
        return cls(lookup, before.question if before is not None and same else Question(keys, at), casts)

    def find(self, as_of: AsOf, folder: Path, limit: int) -> pl.DataFrame:
        """The columns that the lookup adds to them."""
        parts = self.parts(limit)
        found = put_together(parts, [self.lookup.find(self.take(part, parts), as_of, folder, limit) for part in parts])
        return found.rename(dict(zip([one.name for one in self.lookup.fields], self.lookup.names, strict=True)))

    def take(self, places: Places, parts: Sequence[Places]) -> Asked:
        """Those of one of the parts."""
        return self if len(parts) == 1 else replace(self, question=self.question.take(places))

    def rows(self, folder: Path) -> pl.LazyFrame:
        """The rows of the source that can matter to them."""
        import polars as pl

        view = self.lookup.view
        longest = max((one.time_window for one in view.aggregations), default=view.ttl)
        since, until = self.question.at.span(longest)
        fields = view.columns if view.aggregations else self.lookup.fields
        keys, wanted = tuple(self.lookup.keys), self.question.entities.wanted()
        found = view.source.rows(folder, keys=keys, fields=fields, since=since, until=until, wanted=wanted)
        return found.with_columns(pl.col(name).cast(dtype) for name, dtype in self.casts.items())

    def parts(self, limit: int) -> list[Places]:
        """Cuts them so that what is kept of each row fits into the limit."""
        keys = self.question.keys
        if not keys.width:
            return [np.arange(len(self.question))]
        row_bytes = _ASKED_ROW_BYTES + sum(8 if one.dtype.is_numeric else 64 for one in self.lookup.fields)
        return by_key(keys.to_series(), None, max(limit // (2 * row_bytes), LEAST_ROWS))

    def parts_by_events(self, folder: Path, limit: int) -> list[Places]:
        """Cuts them so that the events of the entities of each part fit into the limit; counted by one scan of keys."""
        import polars as pl

        question, view = self.question, self.lookup.view
        if not question.keys.width:
            return [np.arange(len(question))]
        first = question.keys.columns[0]
        rows = question.entities.among(self.rows(folder))
        with view.source.telling(folder, view.name):
            counts = rows.group_by(first).agg(pl.len().alias(_EVENTS)).collect(engine="streaming")
        row_bytes = _EVENT_BYTES + _EVENT_COLUMN_BYTES * len(view.columns)
        most = max(limit // row_bytes, LEAST_ROWS)
        if counts.is_empty() or int(counts[_EVENTS].sum()) <= most:
            return [np.arange(len(question))]
        keys = (
            question.keys.select(first).with_row_index(_PLACE).join(counts, on=first, how="left", maintain_order="left")
        )
        shared = pl.col(_EVENTS).fill_null(0) / pl.len().over(first)  # a key's events are read once for all its rows
        weights = keys.select((shared.ceil() + 1).cast(pl.Int64)).to_series().to_numpy()
        return by_key(question.keys.to_series(), weights, most)


Engine = Callable[[Iterable[Asked], AsOf, Path, int], "list[pl.DataFrame]"]
"""What finds the columns of each lookup for all its rows, by ``as_of``, with sources in a folder and so many bytes."""


def _check_call(events: pl.DataFrame, as_of: str, memory_limit_bytes: int) -> None:
    import polars as pl

    if not isinstance(events, pl.DataFrame):
        raise InvalidInput(
            f"the entity frame is a {type(events).__module__}.{type(events).__name__}, not a Polars frame",
            remedy="Give pl.from_pandas(frame), or collect() a lazy frame first.",
        )
    if as_of not in get_args(AsOf):
        raise InvalidInput(f"as_of={as_of!r} is unknown", remedy=f"Use one of: {', '.join(get_args(AsOf))}.")
    if memory_limit_bytes <= 0:
        raise InvalidInput(f"memory_limit_bytes is {memory_limit_bytes}", remedy="Give a positive number of bytes.")


def _check_columns(events: pl.DataFrame, event_time: str, lookups: Sequence[Lookup]) -> None:
    needed = {event_time: "event_time"}
    for one in lookups:
        needed |= {column: f"join key {key!r} of feature view {one.view.name!r}" for key, column in one.keys.items()}
    if missing := [f"{column!r} ({use})" for column, use in needed.items() if column not in events.columns]:
        raise InvalidData(
            f"the entity frame lacks {', '.join(missing)}", remedy=f"It has: {', '.join(events.columns)}."
        )


def _check_names(events: pl.DataFrame, lookups: Sequence[Lookup]) -> None:
    taken = dict.fromkeys(events.columns, "a column of the entity frame")
    for one in lookups:
        for name, field in zip(one.names, one.fields, strict=True):
            if name in taken:
                raise InvalidInput(
                    f"feature {field.name!r} of view {one.view.name!r} would be called {name!r} like {taken[name]}",
                    remedy="Use full_feature_names=True, or another name for the view: view.with_name(...).",
                )
            taken[name] = f"feature {field.name!r} of view {one.view.name!r}"

"""The point-in-time join: for every event, the feature values as they were known then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from noria.errors import InvalidData, InvalidInput
from noria.features.definitions import FeatureView, Projection
from noria.features.history import AsOf, History
from noria.features.instants import Instants, instants_of
from noria.features.keys import Entities, matched
from noria.features.parquet_files import pinned
from noria.features.sources import Field
from noria.features.windows import aggregate_as_of

if TYPE_CHECKING:
    import polars as pl

_AT = "__at"


def join_as_of(
    events: pl.DataFrame,
    wanted: Sequence[FeatureView | Projection],
    *,
    event_time: str,
    as_of: AsOf = "known",
    full_feature_names: bool = True,
    folder: Path = Path(),
    memory_limit_bytes: int = 2**30,
) -> pl.DataFrame:
    """``events``, all rows and columns in their order, with the wanted features as of each row's ``event_time``.

    At time t an entity has the row with the latest event timestamp <= t; ties go to the latest created timestamp, then
    to the row that comes last in the source. A row older than the view's ttl counts as none (exactly as old still
    counts), and an event without a row gets nulls. ``as_of="known"`` leaves out what was created after t, so that
    nothing is learned that could not be known then; ``"event"`` takes it. A null created timestamp is the event's.

    Features are called ``view__field``, or ``field`` without ``full_feature_names``. Times are instants, dates, or
    texts in ISO 8601; without a zone they are UTC. Null keys match nothing. Sources are read in batches, planned for
    ``memory_limit_bytes``; ``events`` and the result come on top.

    Raises InvalidInput for names that collide, InvalidData for missing columns, for times that are none, and for keys
    or sources that cannot be read.
    """
    _check_call(events, as_of, memory_limit_bytes)
    lookups = [_Lookup.of(one, full_feature_names) for one in wanted]
    _check_columns(events, event_time, lookups)
    _check_names(events, lookups)
    at = instants_of(events, event_time)
    with pinned():
        found = [lookup.find(events, at, as_of, folder, memory_limit_bytes) for lookup in lookups]
    return events.with_columns(column for frame in found for column in frame.iter_columns())


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One projection to join: its fields, what they are called in the result, and join key → column of the frame."""

    view: FeatureView
    fields: Sequence[Field]
    names: Sequence[str]
    keys: Mapping[str, str]

    @classmethod
    def of(cls, one: FeatureView | Projection, full_names: bool) -> _Lookup:
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

    def find(self, events: pl.DataFrame, at: Instants, as_of: AsOf, folder: Path, limit: int) -> pl.DataFrame:
        """The columns it adds to ``events``."""
        if self.view.aggregations:
            return self._aggregated(events, at, as_of, folder)
        since, until = at.span(self.view.ttl)
        rows = self.view.source.rows(folder, keys=tuple(self.keys), fields=self.fields, since=since, until=until)
        keys, rows = matched(events, rows, self.keys, self.view.name)
        features = [field.name for field in self.fields]
        found = History(self.view, rows, features, as_of, folder, limit).newest(Entities.of(keys, events.height), at)
        return found.rename(dict(zip(features, self.names, strict=True)))

    def _aggregated(self, events: pl.DataFrame, at: Instants, as_of: AsOf, folder: Path) -> pl.DataFrame:
        """The aggregations over what happened in the windows before each event; all of that is in memory at once."""
        since, until = at.span(max(one.time_window for one in self.view.aggregations))
        source = self.view.source
        plan = source.rows(folder, keys=tuple(self.keys), fields=self.view.columns, since=since, until=until)
        with source.telling(folder, self.view.name):
            rows = plan.collect()
        asked = events.select(**{key: events[column] for key, column in self.keys.items()})
        asked = asked.with_columns(at.values.alias(_AT))
        found = aggregate_as_of(asked, self.view, rows, event_time=_AT, as_of=as_of)
        features = [field.name for field in self.fields]
        return found.select(features).rename(dict(zip(features, self.names, strict=True)))


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


def _check_columns(events: pl.DataFrame, event_time: str, lookups: Sequence[_Lookup]) -> None:
    needed = {event_time: "event_time"}
    for one in lookups:
        needed |= {column: f"join key {key!r} of feature view {one.view.name!r}" for key, column in one.keys.items()}
    if missing := [f"{column!r} ({use})" for column, use in needed.items() if column not in events.columns]:
        raise InvalidData(
            f"the entity frame lacks {', '.join(missing)}", remedy=f"It has: {', '.join(events.columns)}."
        )


def _check_names(events: pl.DataFrame, lookups: Sequence[_Lookup]) -> None:
    taken = dict.fromkeys(events.columns, "a column of the entity frame")
    for one in lookups:
        for name, field in zip(one.names, one.fields, strict=True):
            if name in taken:
                raise InvalidInput(
                    f"feature {field.name!r} of view {one.view.name!r} would be called {name!r} like {taken[name]}",
                    remedy="Use full_feature_names=True, or another name for the view: view.with_name(...).",
                )
            taken[name] = f"feature {field.name!r} of view {one.view.name!r}"

"""The online half of a feature store: what is looked up now, brought online, and pushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from noria.clock import to_millis
from noria.errors import InvalidConfig, InvalidData, InvalidInput, NotFound
from noria.features.definitions import FeatureView
from noria.features.materialize import Materialized, materialize
from noria.features.online import OnlineFeatures, put_all, with_typed_keys
from noria.features.readers import Found
from noria.features.retrieval import OnlineResponse, as_polars
from noria.features.selection import Plan
from noria.features.sources import EVENT, FrameSource, PushSource, Source
from noria.features.types import Json
from noria.store.keyvalue import KeyValueStore

if TYPE_CHECKING:
    import polars as pl

EntityRows = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]
Progress = Callable[[Materialized], None]


class PushMode(Enum):
    """Where pushed rows go; the numbers are Feast's."""

    ONLINE = 1
    OFFLINE = 2
    ONLINE_AND_OFFLINE = 3

    @classmethod
    def of(cls, given: object) -> PushMode:
        """The mode itself, or of that name, in capitals or not. Raises InvalidInput."""
        if isinstance(given, cls):
            return given
        if isinstance(given, str) and given.upper() in cls.__members__:
            return cls[given.upper()]
        names = ", ".join(f"PushMode.{name}" for name in cls.__members__)
        raise InvalidInput(f"{given!r} is no place to push to", remedy=f"Use one of {names}, or its name.")


class OnlineSide:
    """Lookups and writes over one key-value store. Safe to share between threads."""

    def __init__(self, store: KeyValueStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._features = OnlineFeatures(store)

    def lookup(self, plan: Plan, entity_rows: EntityRows, at: datetime) -> OnlineResponse:
        """The features of every entity as they stand; a value that is not there is None, and its status says why."""
        entities = entity_columns(entity_rows)
        found = self._features.lookup(plan.specs, entities, to_millis(at))
        return OnlineResponse(plan, entities, found, _computed(plan, entities, found) if plan.computed else ())

    def materialize(
        self, view: FeatureView, since: datetime | None, until: datetime, progress: Progress | None
    ) -> Materialized:
        """Bring online what became known of the view in [since, until]."""
        return materialize(view, self._folder, self._store, since, until, progress=progress)

    def shaped(self, view: FeatureView, frame: Any) -> pl.DataFrame:
        """The rows of a frame that is shaped like the view's source, as they are kept. Raises InvalidData."""
        source = view.source
        times: Source = source.batch_source or source if isinstance(source, PushSource) else source
        given = as_polars(frame)
        event, created = _times_in(times, given.columns)
        rows = FrameSource(
            name=f"rows for {view.name}",
            function=lambda: given,
            timestamp_field=event,
            created_timestamp_column=created,
            field_mapping=times.field_mapping,
        )
        plan = rows.rows(self._folder, keys=view.join_keys, fields=view.columns)
        named = given.rename(dict(times.field_mapping), strict=False)
        event, _ = rows.times(named.schema)
        for name in (event, *view.join_keys):
            _check_given(named[name], view.name)
        with rows.telling(self._folder, view.name):
            shaped = with_typed_keys(view, plan.collect())
        for one in view.columns:
            if one.dtype == Json or one.dtype.is_document:
                _check_json(shaped[one.name], view.name)
        return shaped

    def write(self, rows: Sequence[tuple[FeatureView, pl.DataFrame]]) -> int:
        """Bring rows of views online; after a failure they are simply written again. Returns how many were newer."""
        return put_all(self._store, rows)

    def appending(self, view: FeatureView, frame: Any) -> AbstractContextManager[Callable[[], None]]:
        """Rows for what the view's history is read from, see ``Source.appending``."""
        source = view.source
        if not isinstance(source, PushSource) or source.batch_source is None:
            raise InvalidConfig(
                f"feature view {view.name!r} has no batch_source to add rows to",
                remedy="Give its PushSource a batch_source, or push online only.",
            )
        return source.batch_source.appending(self._folder, as_polars(frame))

    def drop(self, view: str) -> None:
        """Delete all that is online of a view."""
        self._features.drop(view)


def pushed_views(views: Sequence[FeatureView], push_source: str) -> list[FeatureView]:
    """The views that take rows of that push source. Raises NotFound."""
    found = [view for view in views if isinstance(view.source, PushSource) and view.source.name == push_source]
    if not found:
        known = sorted({view.source.name for view in views if isinstance(view.source, PushSource)})
        raise NotFound(
            f"no feature view takes rows of a push source {push_source!r}",
            remedy=f"Push sources in use: {', '.join(known) or 'none'}.",
        )
    return found


def entity_columns(rows: EntityRows) -> dict[str, Sequence[Any]]:
    """Entity rows as columns. Raises InvalidInput when they differ in their keys or lengths, or are none."""
    if not isinstance(rows, list) and isinstance(rows, Mapping):  # the second takes its time to say no
        columns: dict[str, Sequence[Any]] = {name: list(values) for name, values in rows.items()}
        if len({len(values) for values in columns.values()}) > 1:
            raise InvalidInput("the columns of entities differ in length", remedy="Send one value an entity in each.")
        return columns
    try:
        names = [row.keys() for row in rows]
        first = names[0]
    except (AttributeError, IndexError):
        raise InvalidInput("entity_rows holds no entities", remedy='Write entity_rows=[{"user_id": 1}, ...].') from None
    if names.count(first) < len(names):
        number = next(number for number, found in enumerate(names) if found != first)
        raise InvalidInput(
            f"entity row {number} has {', '.join(map(str, names[number]))}, the first has {', '.join(map(str, first))}",
            remedy="Give every entity the same keys.",
        )
    return {name: [row[name] for row in rows] for name in first}


def _times_in(source: Source, columns: Sequence[str]) -> tuple[str, str]:
    """What a frame calls the two times: what the source does, or what Feast's clients do."""
    event, created = source.timestamp_field, source.created_timestamp_column
    if event and not {event, source.field_mapping.get(event, event)} & set(columns) and EVENT in columns:
        event = EVENT
    if created and not {created, source.field_mapping.get(created, created)} & set(columns):
        created = "created" if "created" in columns else ""
    return event, created


def _check_given(values: pl.Series, view: str) -> None:
    if values.null_count():
        raise InvalidData(
            f"row {values.is_null().arg_max()} (counted from 0) for feature view {view!r} has no {values.name!r}",
            remedy="Every row that is pushed says whose it is and when it was true.",
        )


def _check_json(values: pl.Series, view: str) -> None:
    """One text that is no JSON would spoil every answer it is part of."""
    for row, text in enumerate(values):
        try:
            _ = None if text is None else msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise InvalidData(
                f"feature {values.name!r} of view {view!r} holds {text[:80]!r} in row {row} (counted from 0), "
                f"which is no JSON: {error}",
                remedy="Write it as json.dumps(...) does.",
            ) from None


def _computed(plan: Plan, entities: Mapping[str, Sequence[Any]], found: Sequence[Found]) -> list[Sequence[Any]]:
    """What the on-demand views make of entities and features, a list of values a field."""
    looked_up = [values for one in found for values in one.columns()]
    given = dict(entities) | dict(zip(plan.found, looked_up, strict=False))  # the rest of the names is computed
    computed: list[Sequence[Any]] = []
    for one in plan.computed:
        outputs = one.view.transform_rows(given)
        computed += [outputs[field] for field in one.view.fields]
    return computed

"""Materialization: from a view's source, batch by batch, the newest known row of every entity goes online."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from noria.features.definitions import FeatureView
from noria.features.online import put_rows, replace_events
from noria.features.parquet_files import pinned
from noria.features.sources import CREATED, EVENT
from noria.features.times import earlier
from noria.store.keyvalue import KeyValueStore

if TYPE_CHECKING:
    import polars as pl

SOURCE_ROWS = 500_000
"""How many rows are read at once, and how many entities are kept before some are written."""

_ENTITIES_AT_ONCE = 5_000
BATCH_ROWS = 10_000
"""How many rows a store takes as one unit."""


@dataclass(frozen=True, slots=True)
class Materialized:
    """What one materialization did: rows read, and those of them that were newer than what was online."""

    view: str
    read: int
    written: int


def materialize(
    view: FeatureView,
    folder: Path,
    store: KeyValueStore,
    since: datetime | None,
    until: datetime,
    *,
    progress: Callable[[Materialized], None] | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Materialized:
    """Bring online what became known of ``view`` in [``since``, ``until``]: event and created time are at most
    ``until``, and one of them at least ``since``, so a row that was recorded late is not lost.

    Nothing older ever replaces something newer, so a run that was killed is simply run again, and several may run at
    once. ``progress`` is called after every batch with the sums so far. Raises InvalidData for rows that cannot be
    read, Unavailable when the store fails.
    """
    with pinned():
        if view.aggregations:
            return _materialize_events(view, folder, store, until, progress)
        return _materialize_rows(view, folder, store, since, until, progress, batch_rows)


def _materialize_rows(
    view: FeatureView,
    folder: Path,
    store: KeyValueStore,
    since: datetime | None,
    until: datetime,
    progress: Callable[[Materialized], None] | None,
    batch_rows: int,
) -> Materialized:
    read = written = 0
    for rows, newest in _newest(view, _batches(_known(view, folder, since, until), view, folder)):
        read += rows
        for start in range(0, newest.height, batch_rows):
            written += put_rows(store, view, newest[start : start + batch_rows])
            if progress is not None:
                progress(Materialized(view.name, read, written))
    return Materialized(view.name, read, written)


def _materialize_events(
    view: FeatureView,
    folder: Path,
    store: KeyValueStore,
    until: datetime,
    progress: Callable[[Materialized], None] | None,
) -> Materialized:
    """Rebuild what is kept of each entity from the events that its windows still reach."""
    import polars as pl

    read_at = time()
    begin = earlier(until, max(one.time_window for one in view.aggregations))
    rows = _known(view, folder, None, until)
    rows = rows if begin is None else rows.filter(pl.col(EVENT) > begin)
    with view.source.telling(folder, view.name):
        events = rows.collect()
    keys, done = list(view.join_keys), 0
    groups = events.partition_by(keys, maintain_order=True) if keys else [events]
    for start in range(0, len(groups), _ENTITIES_AT_ONCE):
        some = pl.concat(groups[start : start + _ENTITIES_AT_ONCE])
        done += replace_events(store, view, some, until=until, read_at=read_at)
        if progress is not None:
            progress(Materialized(view.name, events.height, done))
    return Materialized(view.name, events.height, done)


def _known(view: FeatureView, folder: Path, since: datetime | None, until: datetime) -> pl.LazyFrame:
    import polars as pl

    rows = view.source.rows(folder, keys=view.join_keys, fields=view.columns, until=until)
    rows = rows.with_columns(pl.col(CREATED).fill_null(pl.col(EVENT))).filter(pl.col(CREATED) <= until)
    return rows if since is None else rows.filter((pl.col(EVENT) >= since) | (pl.col(CREATED) >= since))


def _batches(rows: pl.LazyFrame, view: FeatureView, folder: Path) -> Iterator[pl.DataFrame]:
    """The rows in the order of the source, some at a time."""
    with view.source.telling(folder, view.name):
        yield from rows.collect_batches(chunk_size=SOURCE_ROWS, maintain_order=True)


def _newest(view: FeatureView, batches: Iterator[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
    """How many rows were read, and the newest of each entity among them; often for a source of many entities."""
    import polars as pl

    keys, read, kept = list(view.join_keys), 0, None
    for batch in batches:
        read += batch.height
        fresh = newest_rows(batch, keys)
        kept = fresh if kept is None else newest_rows(pl.concat([kept, fresh]), keys)
        if kept.height >= SOURCE_ROWS:
            yield read, kept
            read, kept = 0, None
    if kept is not None:
        yield read, kept


def newest_rows(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Of each entity the row with the latest event, then created time, then place; in the order of the keys."""
    import polars as pl

    if not keys:
        return rows.sort(EVENT, CREATED, maintain_order=True).tail(1)
    latest = rows.lazy().group_by(keys).agg(pl.col(EVENT).max())
    candidates = rows.lazy().join(latest, on=[*keys, EVENT], how="semi", maintain_order="left")
    return candidates.sort(CREATED, maintain_order=True).unique(keys, keep="last").sort(keys).collect()
